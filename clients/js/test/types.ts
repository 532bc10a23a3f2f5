// Only compiled: what uses the types as they are meant, and, expected to fail, as they are not.
import { FastWSError, connect } from "fastws-client";
import { FastWS, useChannel, useConnection, usePresence } from "fastws-client/react";
import { createElement } from "react";

const ws = connect("/ws", { token: async ({ refused }) => (refused ? "fresh" : "kept"), queue: true });
const cars = ws.channel("cars", { position: null });
const off: () => void = cars.on("message", (message, { user, time, position }) => console.log(message, user, time.toFixed(), position));
cars.on("whisper", (message, { to }) => console.log(message, to.length));
cars.on("join", ({ user, since }) => console.log(user, since + 1));
cars.on("state", ({ state, reason }) => console.log(state === "refused", reason.length));
cars.on("message", (message, { key, deleted }) => console.log(deleted ? null : message, key?.length));
cars.on("subscribed", ({ recovered, reason, count, snapshot }) => console.log(recovered, reason === "gap", count + 1, snapshot === true));
ws.on("state", ({ state, code, in: wait }) => console.log(state === "waiting", code, (wait ?? 0) + 1));
ws.on("direct", (message, { time }) => console.log(message, time + 1));
off();

async function use(): Promise<void> {
  const { connections }: { connections: number } = await cars.publish({ text: "hi" }, { exclude: "self", queue: true });
  await cars.whisper(["bob"], connections);
  for (const { user, devices } of await cars.presence()) console.log(user, devices + 1);
  try {
    await ws.call("add", [1, 2]);
  } catch (error) {
    if (error instanceof FastWSError && error.retry) console.log(error.code.length, error.channel);
  }
  await cars.leave();
  ws.close();
}

function Chat() {
  const { state, user, retry } = useConnection();
  const { publish, typing } = useChannel("cars", { message: (message, { time }) => console.log(message, time + 1) });
  const { position } = useChannel("prices", undefined, { position: cars.position });
  console.log(position()?.length, ws.duplicates + 1);
  const members = usePresence("cars");
  return createElement("p", { onClick: () => void publish(1), onKeyDown: typing, title: state }, user, members.length, createElement("a", { onClick: retry }));
}

createElement(FastWS, { url: "/ws", token: "t", queue: true }, createElement(Chat));
void use;

// @ts-expect-error: there is no such event
cars.on("mesage", () => {});
// @ts-expect-error: nor such an option
connect("/ws", { tokn: "t" });
// @ts-expect-error: nor such a value
cars.publish(1, { exclude: "others" });
// @ts-expect-error: a url is needed
createElement(FastWS, {});
