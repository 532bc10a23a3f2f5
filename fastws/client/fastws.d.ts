/** The client of fastws.v1, for browsers and Node. docs/protocol.md says what goes over the wire. */

/** Any JSON value; a message may also arrive as bytes, where a plain socket published them. */
export type Message = any;

export type User = string | number;

export interface Options {
  /**
   * Who we are: a token, or what returns one. It is asked before each attempt to connect, and again before the token
   * is over; `refused` says that the last one was. Where it throws, the attempt has failed. Cookies work without.
   */
  token?: string | ((why: { refused: boolean }) => string | null | undefined | Promise<string | null | undefined>);
  /** Whether publishes, whispers and calls wait for the next connection where there is none; false. */
  queue?: boolean;
  /** The least and the most waiting time in seconds, until the server says its own; [0.5, 20]. */
  retry?: [least: number, most: number];
  /** Seconds within which the server has to welcome us; 20. */
  timeout?: number;
  /** What to open sockets with, where there is no global WebSocket (Node before 22: that of the package ws). */
  WebSocket?: new (url: string, protocols: string[]) => any;
}

/** connecting: under way. open: welcomed. waiting: for the next attempt. closed: for good, but for `retry()`. */
export type State = "connecting" | "open" | "waiting" | "closed";

export interface StateEvent {
  state: State;
  /** The close code of the last connection, and what its server said; null and "" while there is none. */
  code: number | null;
  reason: string;
  /** Milliseconds until the next attempt, in `waiting`. */
  in?: number;
}

/** joining: asked for, or to be asked for again. refused: the server said no. left: by us, or taken out. */
export type ChannelState = "joining" | "joined" | "refused" | "left";

export interface ChannelStateEvent {
  state: ChannelState;
  /** The error's code, where it is refused. */
  code: string | null;
  /** Why it is refused, or was left: `asked`, `kicked`. */
  reason: string;
}

export interface Origin {
  channel: string;
  /** Null for what comes from the HTTP API, or from nobody in particular. */
  user: User | null;
  /** Of the connection that sent it. */
  id: string | null;
  /** Milliseconds since 1970; 0 for a key that was deleted. */
  time: number;
}

export interface MessageOrigin extends Origin {
  /** Its place in what the channel keeps; null for what it does not keep. */
  position: string | null;
  /** Of which this is the newest message, in a channel that keeps the latest. */
  key: string | null;
  /** Whether the key is gone instead; then the message is null. */
  deleted: boolean;
}

export interface WhisperOrigin extends Origin {
  /** The users to whom it went. */
  to: User[];
}

export interface Member {
  user: User;
  since: number;
  devices: number;
}

/** We are in the channel, from now on or again. */
export interface Subscribed {
  channel: string;
  subscribers: number;
  /** What the channel keeps: every message for some time, the latest of each key, or nothing. */
  log: "history" | "latest" | null;
  position: string | null;
  /** True: the `count` messages that follow are all that were missed. False: load anew what is shown, since `reason`. */
  recovered: boolean;
  /** Only where it is not recovered. */
  reason?: "new" | "trimmed" | "unknown" | "too_many" | "gap" | "cleared";
  count: number;
  /** The `count` messages that follow are all keys that there are: any others are gone. */
  snapshot?: boolean;
  /** What the backend has to say of the channel. */
  message?: Message;
}

/** What a channel tells; a connection tells the same of all of its channels. */
export interface ChannelEvents {
  message: (message: Message, origin: MessageOrigin) => void;
  whisper: (message: Message, origin: WhisperOrigin) => void;
  typing: (who: { channel: string; user: User }) => void;
  join: (who: { channel: string; user: User; since: number }) => void;
  leave: (who: { channel: string; user: User }) => void;
  /** All members: the server's list, which `join` and `leave` then change. */
  presence: (members: Member[], of: { channel: string }) => void;
  subscribed: (subscribed: Subscribed) => void;
  unsubscribed: (left: { channel: string; reason: string }) => void;
  /** Without anybody who listens it goes to the console. */
  error: (error: FastWSError) => void;
}

export interface Events extends ChannelEvents {
  state: (event: StateEvent) => void;
  /** The backend sent to us, rather than to a channel. */
  direct: (message: Message, origin: { time: number }) => void;
}

/** What was refused, or cannot be done. */
export class FastWSError extends Error {
  constructor(code: string, message?: string, retry?: boolean, channel?: string | null);
  /**
   * One of the protocol's, or one of ours: `unavailable` (there is no connection, nothing was sent), `closed` (nor will
   * there be), `lost` (it was sent, and the connection ended before the answer), `bad_frame`.
   */
  code: string;
  /** Whether trying again may help. */
  retry: boolean;
  channel: string | null;
}

interface Sending {
  /** Wait for the next connection, if there is none; at most 100 do. */
  queue?: boolean;
}

interface Emitter<Names> {
  /** Calls `listener` from now on; returns a function that ends it. */
  on<Name extends keyof Names>(type: Name, listener: Names[Name]): () => void;
  off<Name extends keyof Names>(type: Name, listener: Names[Name]): void;
}

/** One use of a channel. A connection is in the channel until all that use it have left. */
export interface Channel extends Emitter<ChannelEvents & { state: (event: ChannelStateEvent) => void }> {
  readonly name: string;
  readonly state: ChannelState;
  /** By user; filled where the channel's rule has `presence = true`. */
  readonly members: ReadonlyMap<User, Member>;
  /**
   * Where to resume, in a channel that keeps what was sent: the position of the last message that all listeners have
   * returned from. What one throws at comes once more, after the next connection is made, with all that followed it.
   */
  readonly position: string | null;
  /** Resolves with how many connections it was addressed to. `exclude`: "self" leaves this connection out. */
  publish(message: Message, options?: Sending & { exclude?: "self" }): Promise<{ connections: number }>;
  /** To these users alone, and to our own other connections. */
  whisper(to: User | User[], message: Message, options?: Sending): Promise<{ connections: number }>;
  /** May be called at each key: it says so at most once in two seconds. */
  typing(): void;
  /** Asks who is in the channel. */
  presence(): Promise<Member[]>;
  /** Ends this use; its listeners hear nothing more. */
  leave(): Promise<void>;
  /** The same as `leave`. */
  close(): Promise<void>;
}

/** A connection that comes back by itself, to all of its channels, until it is closed. */
export class FastWS implements Emitter<Events> {
  constructor(url: string | URL, options?: Options);
  on<Name extends keyof Events>(type: Name, listener: Events[Name]): () => void;
  off<Name extends keyof Events>(type: Name, listener: Events[Name]): void;
  readonly url: URL;
  readonly state: State;
  readonly code: number | null;
  readonly reason: string;
  /** Of the connection, of whom it is, and what the backend said; as the last welcome had them. */
  readonly id: string | null;
  readonly user: User | null;
  readonly data: any;
  /** Messages of logs that came a second time and were dropped; there should be none. */
  readonly duplicates: number;
  /** Is in a channel; `position`: where to resume, of an earlier page. */
  channel(name: string, options?: { position?: string | null }): Channel;
  /** Asks the backend. */
  call(method: string, params?: any, options?: Sending): Promise<any>;
  /** Tries at once, when it is waiting or closed. */
  retry(): void;
  close(code?: number, reason?: string): void;
}

/** Opens a connection. A page's `url` may be relative: `connect("/ws")`. */
export function connect(url: string | URL, options?: Options): FastWS;
