// Does with fastws.js what a test asks, in Node and in a page. A command is [number, name, ...arguments]; `tell` gets
// {answer: number, value | error} for each, and {event: source, type, values} for whatever a listener hears.

const CHANNEL = ["message", "whisper", "typing", "join", "leave", "presence", "subscribed", "unsubscribed", "error", "state"];
const CONNECTION = [...CHANNEL, "direct"];

const plain = (value) =>
  value instanceof Error
    ? { name: value.name, code: value.code, message: value.message, retry: value.retry, channel: value.channel }
    : value instanceof Uint8Array ? { bytes: [...value] } : value;

export function driver({ connect }, tell, WebSocket) {
  const made = new Map();    // what commands go to, by the names that the test gives

  const listen = (name, target, types) => {
    made.set(name, target);
    for (const type of types) {
      target.on(type, (...values) => tell({ event: name, type, values: values.map(plain) }));
    }
  };

  /** Gives one token after another; null throws. */
  const teller = (name, tokens) => async (why) => {
    tell({ event: name, type: "token", values: [why] });
    const token = tokens.length > 1 ? tokens.shift() : tokens[0];
    if (token === null) throw new Error("the shop is shut");
    return token;
  };

  const commands = {
    connect(name, url, { tokens, deaf, ...options } = {}) {
      if (tokens) options.token = teller(name, tokens);
      listen(name, connect(url, { ...WebSocket && { WebSocket }, ...options }), deaf ? [] : CONNECTION);
    },
    channel(name, connection, channel, options, failure) {
      const use = made.get(connection).channel(channel, options);
      listen(name, use, CHANNEL);
      if (!failure) return;
      const fail = (what) => { if (what === failure) throw new Error("of a listener"); };
      use.on("message", fail);
      use.on("subscribed", ({ reason }) => fail(reason));
    },
    get: (name, field) => {
      const value = made.get(name)[field];
      return value instanceof Map ? [...value.values()] : value;
    },
    /** Calls a method of what has this name. */
    do: (name, method, ...values) => made.get(name)[method](...values),
    /** Several, in the same moment. */
    all: (list) => Promise.all(list.map(([command, ...rest]) => commands[command](...rest))).then(() => null),
    throws: (name, type) => void made.get(name).on(type, () => { throw new Error("of a listener"); }),
  };

  return async ([number, command, ...rest]) => {
    try {
      tell({ answer: number, value: (await commands[command](...rest)) ?? null });
    } catch (error) {
      tell({ answer: number, error: plain(error) });
    }
  };
}
