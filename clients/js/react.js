// fastws.js in React; react.d.ts describes it.
import { createContext, createElement, useContext, useEffect, useMemo, useRef, useState } from "react";
import { FastWSError, connect } from "./fastws.js";

const HEARD = ["message", "whisper", "typing", "join", "leave", "presence", "subscribed", "unsubscribed"];
const NOWHERE = { state: "connecting", code: null, reason: "", user: null, id: null, data: null };
const JOINING = { state: "joining", code: null, reason: "" };
const NOBODY = [];

const Connection = createContext(null);

/** What was given last, for those that outlive a render. */
function useLatest(value) {
  const latest = useRef(value);
  useEffect(() => {
    latest.current = value;
  });
  return latest;
}

/** Opens a connection for all below it; a new one when `url`, or a token that is a string, changes. */
export function FastWS({ url, token, children, ...options }) {
  const [ws, setWs] = useState(null);
  const latest = useLatest(token);
  const isAsked = typeof token === "function";
  const given = isAsked ? null : token;
  useEffect(() => {
    // One that is closed at once, as StrictMode has it, opens no socket.
    const opened = connect(url, { ...options, token: isAsked ? (why) => latest.current(why) : given });
    setWs(opened);
    return () => opened.close();
  }, [String(url), isAsked, given]);
  return createElement(Connection.Provider, { value: ws }, children);
}

function lookAt(ws) {
  if (!ws) return NOWHERE;
  const { state, code, reason, user, id, data } = ws;
  return { state, code, reason, user, id, data };
}

/** How the connection is, and what can be done with it. */
export function useConnection() {
  const ws = useContext(Connection);
  const [how, setHow] = useState(() => lookAt(ws));
  useEffect(() => {
    const look = () => setHow(lookAt(ws));
    look();
    if (!ws) return;
    return ws.on("state", look);
  }, [ws]);
  return useMemo(
    () => ({
      ...how,
      ws,
      call: async (...values) => existing(ws).call(...values),
      retry: () => ws?.retry(),
      close: () => ws?.close(),
    }),
    [ws, how],
  );
}

/** Is in a channel for as long as the component is there. */
export function useChannel(name, heard, options) {
  const ws = useContext(Connection);
  const [how, setHow] = useState(JOINING);
  const latest = useLatest(typeof heard === "function" ? { message: heard } : heard ?? {});
  const use = useRef(null);
  useEffect(() => {
    if (!ws || name == null) return;
    const channel = use.current = ws.channel(name, options);
    for (const type of HEARD) channel.on(type, (...values) => latest.current[type]?.(...values));
    channel.on("error", (error) => {
      if (latest.current.error) latest.current.error(error);
      else console.warn(`fastws: ${error.code}: ${error.message}`);
    });
    channel.on("state", setHow);
    setHow({ ...JOINING, state: channel.state });
    return () => {
      use.current = null;
      channel.leave();
    };
  }, [ws, name]);
  return useMemo(
    () => ({
      ...how,
      name,
      publish: async (...values) => existing(use.current).publish(...values),
      whisper: async (...values) => existing(use.current).whisper(...values),
      presence: async () => existing(use.current).presence(),
      typing: () => use.current?.typing(),
      position: () => use.current?.position ?? null,
    }),
    [name, how],
  );
}

/** Who is in a channel, by the order in which the server has them. */
export function usePresence(name) {
  const ws = useContext(Connection);
  const [members, setMembers] = useState(NOBODY);
  useEffect(() => {
    if (!ws || name == null) return;
    const channel = ws.channel(name);
    const look = () => setMembers([...channel.members.values()]);
    look();
    for (const type of ["presence", "join", "leave"]) channel.on(type, look);
    // While the connection is away the last list stays; whoever is out of the channel sees nobody.
    channel.on("state", ({ state }) => {
      if (state === "left" || state === "refused") setMembers(NOBODY);
    });
    return () => {
      channel.leave();
      setMembers(NOBODY);
    };
  }, [ws, name]);
  return members;
}

function existing(what) {
  if (!what) throw new FastWSError("unavailable", "there is no connection yet: nothing was sent", true);
  return what;
}
