/** fastws.js in React. Connections and channels are shared by all who use them, and survive StrictMode. */

import type { ReactElement, ReactNode } from "react";
import type { Channel, ChannelEvents, ChannelState, FastWS as Connection, Member, Message, MessageOrigin, Options, State, User } from "./fastws.js";

export interface Props extends Options {
  url: string | URL;
  children?: ReactNode;
}

/**
 * Opens a connection for all below it, and closes it when it goes. A new one is opened when `url` changes, or a `token` that
 * is a string; a function may be another at each render.
 */
export function FastWS(props: Props): ReactElement;

export interface UsedConnection {
  state: State;
  /** The close code of the last connection, and what its server said. */
  code: number | null;
  reason: string;
  user: User | null;
  id: string | null;
  /** What the backend said as it let us in. */
  data: any;
  /** Null until it is made. */
  ws: Connection | null;
  call: Connection["call"];
  retry: () => void;
  close: () => void;
}

/** How the connection is; renders again when that changes. */
export function useConnection(): UsedConnection;

export interface UsedChannel {
  name: string;
  state: ChannelState;
  /** The error's code, where the channel is refused. */
  code: string | null;
  reason: string;
  publish: Channel["publish"];
  whisper: Channel["whisper"];
  presence: Channel["presence"];
  typing: Channel["typing"];
  /** Where to resume, as it is now; null while there is none. */
  position: () => string | null;
}

/**
 * Is in a channel for as long as the component is there; `heard` gets its messages, or is an object of listeners by event,
 * and may be another at each render. A `name` of null is no channel. `position`: where to resume, of an earlier page.
 */
export function useChannel(
  name: string | null,
  heard?: ((message: Message, origin: MessageOrigin) => void) | Partial<ChannelEvents>,
  options?: { position?: string | null },
): UsedChannel;

/** Who is in a channel, where its rule has `presence = true`; being in it is part of it. */
export function usePresence(name: string | null): Member[];
