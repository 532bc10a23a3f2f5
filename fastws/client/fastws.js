// The client of fastws.v1 for browsers and Node. fastws.d.ts describes it, docs/clients.md shows it at work.

const SOON = [1000, 1001, 1012];                  // close codes after which the first wait is a short one
const FINAL = [1002, 1003, 1007, 1008, 1009];     // and those after which nobody comes back
const OVER = 4001;                                // the token or the session is
const PASSING = [4408, 4429];                     // refusals that may pass, as may 4500 and above
const LIMIT = 100;                                // what may wait for a connection
const TYPING_EVERY = 2000;                        // ms

const isFinal = (code) => FINAL.includes(code) || (code >= 4400 && code < 4500 && !PASSING.includes(code));

/** What was refused, or cannot be done. */
export class FastWSError extends Error {
  constructor(code, message, retry = false, channel = null) {
    super(message || code);
    Object.assign(this, { name: "FastWSError", code, retry, channel });
  }
}

class Emitter {
  #listeners = {};

  /** Returns a function that ends it. */
  on(type, listener) {
    (this.#listeners[type] ??= new Set()).add(listener);
    return () => this.off(type, listener);
  }

  off(type, listener) {
    this.#listeners[type]?.delete(listener);
  }

  _hears(type) {
    return this.#listeners[type]?.size > 0;
  }

  /** Returns whether none threw; one that does keeps nothing from the others. */
  _emit(type, ...values) {
    let well = true;
    for (const listener of [...this.#listeners[type] ?? []]) {
      try {
        listener(...values);
      } catch (error) {
        well = false;
        setTimeout(() => { throw error; });
      }
    }
    return well;
  }
}

/** One use of a channel. */
class Channel extends Emitter {
  #ws;
  #there;

  constructor(ws, there, from) {
    super();
    this.#ws = ws;
    this.#there = there;
    this._from = from;    // its own position until it is told that it is in the channel
  }

  get name() { return this.#there.name; }
  get state() { return this.#there.state; }
  get members() { return this.#there.members; }
  get position() { return this.#there.position; }

  publish(message, { exclude, queue } = {}) {
    return this.#ws._ask({ type: "publish", channel: this.name, message, exclude }, queue);
  }

  whisper(to, message, { queue } = {}) {
    return this.#ws._ask({ type: "whisper", channel: this.name, to: [to].flat(), message }, queue);
  }

  presence() {
    return this.#ws._ask({ type: "presence", channel: this.name });
  }

  typing() {
    const there = this.#there;
    if (there.state !== "joined" || Date.now() - there.typed < TYPING_EVERY) return;
    there.typed = Date.now();
    this.#ws._send({ type: "typing", channel: this.name });
  }

  leave() {
    return this.#ws._leave(this, this.#there);
  }

  close() {
    return this.leave();
  }
}

/** A connection that comes back by itself. */
export class FastWS extends Emitter {
  state = "connecting";
  code = null;
  reason = "";
  id = null;
  user = null;
  data = null;
  duplicates = 0;

  #options;
  #channels = new Map();     // name -> what #channel() makes
  #asked = new Map();        // id -> what waits for its answer, or to be sent
  #lastId = 0;
  #socket = null;            // of the attempt under way; an object of its own until there is one
  #greeted = false;          // our hello is sent
  #retry;                    // seconds: the least and the most of the waiting time
  #tries = 0;
  #renewed = false;          // a fresh token was tried, and has not proved its worth yet
  #openSince = 0;
  #heard = 0;
  #silence = 0;              // ms of it that are too many
  #timers = {};

  constructor(url, options = {}) {
    super();
    this.url = new URL(url, globalThis.location?.href);
    this.url.protocol = this.url.protocol.replace("http", "ws");
    this.#options = options;
    this.#retry = options.retry ?? [0.5, 20];
    this.#listen("addEventListener");
    this.#open();
  }

  channel(name, { position = null } = {}) {
    const there = this.#channel(name);
    there.position ??= position;
    const use = new Channel(this, there, position);
    there.uses.add(use);
    there.wanted = true;
    there.left = false;
    if (there.state === "joined") queueMicrotask(() => there.uses.has(use) && this.#admit(use, there));
    else if (!there.asked) this.#subscribe(there);
    return use;
  }

  call(method, params = null, { queue } = {}) {
    return this._ask({ type: "call", method, params }, queue);
  }

  retry() {
    if (this.state === "closed") {
      this.#tries = 0;
      this.#renewed = false;
      this.#listen("addEventListener");
    } else if (this.state !== "waiting") {
      return;
    }
    this.#open();
  }

  close(code = 1000, reason = "") {
    if (this.state !== "closed") this.#stop(code, reason);
  }

  #listen(how) {
    globalThis[how]?.("online", this.#woken);
    globalThis.document?.[how]("visibilitychange", this.#woken);
  }

  #woken = ({ type }) => {
    if (this.state === "waiting" && (type === "online" || !document.hidden)) this.#again(Math.random() * 500);
  };

  /* Coming and going */

  async #open() {
    const attempt = {};
    this.#drop();
    this.#socket = attempt;
    this.#become("connecting");
    const { token, timeout = 20, WebSocket = globalThis.WebSocket } = this.#options;
    let offered;
    try {
      const proof = typeof token === "function" ? await token({ refused: this.#renewed }) : await token;
      offered = ["fastws.v1", ...proof ? ["bearer", proof] : []];
    } catch (error) {
      if (this.#socket === attempt) this.#ended(this.#renewed ? OVER : 1006, `no token: ${error?.message ?? error}`);
      return;
    }
    if (this.#socket !== attempt) return;
    try {
      const socket = this.#socket = new WebSocket(this.url.href, offered);
      const ours = (handle) => (event) => socket === this.#socket && handle(event);
      socket.onopen = ours(() => this.#greet());
      socket.onmessage = ours((event) => this.#hear(event.data));
      socket.onclose = ours((event) => this.#ended(event.code, event.reason));
      socket.onerror = () => {};
    } catch (error) {
      return this.#stop(1006, error.message);    // no such URL, or no token that a header can hold
    }
    this.#heard = Date.now();
    this.#silence = timeout * 1000;
    this.#watch();
  }

  #greet() {
    const channels = {};
    for (const there of this.#channels.values()) {
      if (!there.wanted) continue;
      there.asked = true;
      channels[there.name] = there.position;
    }
    this._send({ type: "hello", version: 1, client: "fastws-js/0.1.0", channels });
    this.#greeted = true;
  }

  /** Leaves whatever socket there is to itself: one that is dead may take minutes to say so. */
  #drop(code, reason) {
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    this.#timers = {};
    const socket = this.#socket;
    this.#socket = null;
    this.#greeted = false;
    try {
      socket?.close?.(code, reason);
    } catch {
      socket.close();    // a code that is not for scripts
    }
  }

  #ended(code, reason) {
    const wasOpen = this.state === "open";
    if (wasOpen && Date.now() - this.#openSince >= this.#retry[1] * 1000) {
      this.#tries = 0;
      this.#renewed = false;
    }
    if (isFinal(code)) return this.#stop(code, reason);
    if (code === OVER) {
      if (this.#renewed || typeof this.#options.token !== "function") return this.#stop(code, reason);
      this.#renewed = true;
    }
    if (wasOpen && SOON.includes(code)) this.#tries = 0;
    const wait = this.#backOff(this.#tries++);
    this.#drop();
    this.#lose();
    this.#again(wait);
    this.#become("waiting", code, reason, wait);
  }

  #again(wait) {
    clearTimeout(this.#timers.again);
    this.#timers.again = setTimeout(() => this.#open(), wait);
  }

  #stop(code, reason) {
    this.#listen("removeEventListener");
    this.#drop(code, reason);
    this.#lose(true);
    this.#become("closed", code, reason);
  }

  /** What is lost with a connection, for good or until the next. */
  #lose(closed = false) {
    for (const there of this.#channels.values()) {
      there.asked = false;
      there.members.clear();
      if (there.state === "joined") this.#enter(there, "joining");
      there.left = false;
      there.leaving = 0;
      if (!there.wanted) this.#channels.delete(there.name);
    }
    for (const [id, { sent, queue, reject }] of this.#asked) {
      if (!sent && queue && !closed) continue;
      this.#asked.delete(id);
      reject(
        sent
          ? new FastWSError("lost", "the connection was lost before the answer: it may have been done")
          : unavailable(closed),
      );
    }
  }

  #become(state, code = null, reason = "", wait) {
    Object.assign(this, { state, code, reason });
    this._emit("state", { state, code, reason, in: wait });
    if (state === "closed" && code !== 1000 && !this._hears("state")) console.warn(`fastws: closed with ${code} ${reason}`);
  }

  #backOff(tries) {
    const [least, most] = this.#retry;
    return Math.random() * Math.min(most, least * 2 ** tries) * 1000;
  }

  #watch() {
    const left = this.#heard + this.#silence - Date.now();
    if (left <= 0) this.#ended(1006, `nothing was heard for ${this.#silence / 1000} s`);
    else this.#timers.watch = setTimeout(() => this.#watch(), left);
  }

  /** A fresh token comes before the old one is over, at a time that spreads the clients. */
  #renewBy(expires, tries = 0) {
    if (!expires || typeof this.#options.token !== "function") return;
    const left = expires * 1000 - Date.now();
    // Nothing is left where the clocks of the two disagree.
    const wait = tries ? this.#backOff(tries) : left > 0 ? left * (0.8 + Math.random() * 0.1) : 30_000;
    const socket = this.#socket;
    this.#timers.renew = setTimeout(async () => {
      try {
        const token = await this.#options.token({ refused: false });
        if (socket === this.#socket) this.#renewBy((await this._ask({ type: "authenticate", token })).expires);
      } catch (error) {
        // What is refused now would be refused again.
        if (socket === this.#socket && error?.retry !== false) this.#renewBy(expires, tries + 1);
      }
    }, Math.min(wait, 2 ** 31 - 1));
  }

  /* Channels */

  #channel(name) {
    let there = this.#channels.get(name);
    if (!there) {
      there = {
        name, uses: new Set(), members: new Map(), state: "joining", info: null, typed: 0, tries: 0,
        position: null,    // of the last message that listeners are done with
        offset: NaN,       // of the last message
        held: false,       // the position, until the next connection
        failed: null,      // the position that a listener threw at
        wanted: false,     // in each hello
        asked: false,      // on this connection
        leaving: 0,        // requests that are not answered
        left: false,       // before the welcome: to be undone
      };
      this.#channels.set(name, there);
    }
    return there;
  }

  #subscribe(there) {
    this.#enter(there, "joining");
    if (!this.#greeted) return;    // the hello brings it
    there.asked = true;
    this._send({ type: "subscribe", channel: there.name, position: there.position ?? undefined });
  }

  /** The last one who leaves takes the connection out; whoever comes in the same moment keeps it in. */
  async _leave(use, there) {
    if (!there.uses.delete(use)) return;
    await null;
    if (there.uses.size || !there.wanted) return;
    there.wanted = false;
    if (!there.asked) this.#channels.delete(there.name);
    else if (this.state !== "open") there.left = true;
    else await this.#unsubscribe(there);
  }

  async #unsubscribe(there) {
    there.asked = there.left = false;
    there.leaving++;
    this.#enter(there, "left", "asked");
    // Where the connection ends there is nothing left to leave.
    await this._ask({ type: "unsubscribe", channel: there.name }, false, there).catch(() => {});
  }

  /** Tells a use that it is in the channel. One that comes later than others has nothing of a log. */
  #admit(use, there) {
    let { info, position } = there;
    if (info.log && use._hears("message") && ![undefined, position].includes(use._from)) {
      if (info.log === "latest") {
        there.position = null;    // so there will be a snapshot
        if (there.state === "joined") this.#subscribe(there);
        return true;
      }
      info = { ...info, position, recovered: false, reason: "new", count: 0 };
    }
    use._from = undefined;
    return use._emit("subscribed", info);
  }

  /** What a listener threw at comes once more, after the next connection is made. */
  #move(there, well, position) {
    if (!well && !there.held && there.failed !== position) Object.assign(there, { held: true, failed: position });
    if (position && !there.held) there.position = position;
  }

  #enter(there, state, reason = "", code = null) {
    if (there.state === state) return;
    there.state = state;
    for (const use of there.uses) use._emit("state", { state, code, reason });
  }

  /** To those that use the channel, and to those that listen to all. */
  #tell(there, ...event) {
    let well = true;
    for (const use of [...there.uses, this]) well = use._emit(...event) && well;
    return well;
  }

  /* Frames */

  _send(frame) {
    if (this.#socket?.readyState === 1) this.#socket.send(JSON.stringify(frame));
  }

  /** Sends a frame that has an answer, now or, with `queue`, when there is a connection. */
  _ask(frame, queue = this.#options.queue, leaves = null) {
    return new Promise((resolve, reject) => {
      const waiting = this.state !== "open";
      // The first publish may come before the connection is there.
      if (this.state === "closed" || (this.state === "waiting" && !queue)) throw unavailable(this.state === "closed");
      if (waiting && [...this.#asked.values()].filter(({ sent }) => !sent).length >= LIMIT) {
        throw new FastWSError("unavailable", `${LIMIT} are waiting for the connection already`, true);
      }
      const id = ++this.#lastId;
      const asked = { frame: { ...frame, id }, queue, leaves, resolve, reject, sent: !waiting };
      if (!waiting) this._send(asked.frame);
      this.#asked.set(id, asked);
    });
  }

  #hear(data) {
    this.#heard = Date.now();
    try {
      const frame = JSON.parse(data);
      const { type, channel } = frame;
      const there = this.#channels.get(channel) ?? (type === "subscribed" ? this.#channel(channel) : nowhere());
      if (Object.hasOwn(this.#HEARD, type ?? "")) this.#HEARD[type](frame, there);
    } catch (error) {
      this.#trouble(new FastWSError("bad_frame", `the server sent what cannot be understood: ${error.message}`));
    }
  }

  #HEARD = {
    welcome: ({ id, user, expires, heartbeat, retry, data }) => {
      Object.assign(this, { id, user, data });
      this.#retry = retry ?? this.#retry;
      this.#silence = heartbeat ? heartbeat * 2000 : Infinity;
      clearTimeout(this.#timers.watch);
      if (heartbeat) this.#watch();
      this.#openSince = Date.now();
      this.#renewBy(expires);
      this.#become("open");
      for (const asked of this.#asked.values()) {
        if (asked.sent) continue;
        asked.sent = true;
        this._send(asked.frame);
      }
    },
    subscribed: ({ type, id, ...info }, there) => {
      if (there.leaving) return;
      const { position, recovered, count, snapshot } = info;
      Object.assign(there, { asked: true, tries: 0, info });
      this.#enter(there, "joined");
      if (there.left) return this.#unsubscribe(there);
      let well = true;
      for (const use of [...there.uses]) {
        if (snapshot) use._from = undefined;
        well = this.#admit(use, there) && well;
      }
      well = this._emit("subscribed", info) && well;
      if (snapshot) there.position = null;
      there.offset = parseInt(recovered ? there.position : position);
      there.held = false;
      // Of those missed, the position comes with each.
      this.#move(there, well, recovered && count ? null : position);
    },
    unsubscribed: ({ id, channel, reason }, there) => {
      const own = this.#answer(id, null);
      if (own && there.asked) return;    // since then it was asked for again
      there.asked = there.wanted = false;
      this.#enter(there, "left", reason);
      this.#tell(there, "unsubscribed", { channel, reason });
      if (!there.uses.size) this.#channels.delete(channel);
    },
    message: (frame, there) => {
      const { position = null, key = null, deleted = false } = frame, offset = parseInt(position);
      if (offset <= there.offset) return this.duplicates++;
      const well = this.#tell(there, "message", body(frame), { ...origin(frame), position, key, deleted });
      if (!position) return;
      there.offset = offset;
      this.#move(there, well, position);
    },
    whisper: (frame, there) => {
      this.#tell(there, "whisper", body(frame), { ...origin(frame), to: frame.to });
    },
    typing: ({ channel, user }, there) => this.#tell(there, "typing", { channel, user }),
    presence: ({ id, channel, event, users, user, since }, there) => {
      const { members } = there;
      if (event === "list") {
        members.clear();
        for (const each of users) members.set(each.user, each);
        this.#answer(id, users);
        this.#tell(there, "presence", users, { channel });
      } else if (event === "join") {
        members.set(user, { user, since, devices: 1 });
        this.#tell(there, "join", { channel, user, since });
      } else if (event === "leave") {
        members.delete(user);
        this.#tell(there, "leave", { channel, user });
      }
    },
    direct: (frame) => this._emit("direct", body(frame), { time: frame.time }),
    ack: ({ id, connections }) => this.#answer(id, { connections }),
    result: ({ id, result }) => this.#answer(id, result),
    authenticated: ({ id, expires }) => this.#answer(id, { expires }),
    error: ({ id, code, message, channel, channels = [], retry }, there) => {
      const error = new FastWSError(code, message, retry, channel ?? null), asked = this.#take(id);
      if (asked) return asked.reject(error);
      // One error tells of all channels of a hello that were too many.
      for (const each of [there, ...channels.map((name) => this.#channels.get(name))]) {
        if (each?.asked && each.state === "joining") this.#refused(each, error);
      }
      this.#trouble(error, there);
    },
  };

  #refused(there, { code, message, retry }) {
    there.asked = false;
    if (!retry) {
      there.wanted = false;
      return this.#enter(there, "refused", message, code);
    }
    this.#timers[`channel ${there.name}`] = setTimeout(() => {
      if (there.wanted && !there.asked) this.#subscribe(there);
    }, this.#backOff(++there.tries));
  }

  #trouble(error, there = nowhere()) {
    if (![...there.uses, this].some((each) => each._hears("error"))) console.warn(`fastws: ${error.code}: ${error.message}`);
    this.#tell(there, "error", error);
  }

  #answer(id, value) {
    const asked = this.#take(id);
    asked?.resolve(value);
    return asked !== undefined;
  }

  #take(id) {
    const asked = this.#asked.get(id);
    this.#asked.delete(id);
    if (asked?.leaves) asked.leaves.leaving--;
    return asked;
  }
}

const unavailable = (closed) =>
  new FastWSError(closed ? "closed" : "unavailable", "there is no connection: nothing was sent", !closed);

const nowhere = () => ({ uses: [], members: new Map() });

const origin = ({ channel, from, time = 0 }) => ({ channel, user: from?.user ?? null, id: from?.id ?? null, time });

const body = ({ message = null, base64 }) =>
  base64 === undefined ? message : Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));

export const connect = (url, options) => new FastWS(url, options);
