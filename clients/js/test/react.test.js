// React itself, in a DOM of happy-dom, at the fastws server at FASTWS_URL; pytest starts that (tests/clients/test_package.py).
import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { Window } from "happy-dom";
import { StrictMode, createElement as h, useState } from "react";
import Socket from "ws";

const window = new Window();
for (const [name, value] of Object.entries({ window, document: window.document, navigator: window.navigator })) {
  Object.defineProperty(globalThis, name, { value, configurable: true });
}
const { createRoot } = await import("react-dom/client");
const { connect } = await import("fastws-client");
const { FastWS, useChannel, useConnection, usePresence } = await import("fastws-client/react");

const URL_OF = (user, path = "") => `${process.env.FASTWS_URL}${path}?user=${user}`;
const TIMEOUT = 20_000;

const roots = new Set(), peers = new Set();
let sockets = [], names = 0;

/** A WebSocket that says what was sent through it. */
class Recorder extends Socket {
  sent = [];
  constructor(...values) {
    super(...values);
    sockets.push(this);
  }
  send(text) {
    this.sent.push(JSON.parse(text));
    super.send(text);
  }
}

async function until(reached, what = reached) {
  const end = Date.now() + TIMEOUT;
  for (let value; ; await new Promise((resolve) => setTimeout(resolve, 5))) {
    if ((value = reached())) return value;
    assert(Date.now() < end, `not within ${TIMEOUT} ms: ${what}, with ${document.body.innerHTML}`);
  }
}

function mount(element, strict = true) {
  const place = document.createElement("div");
  document.body.append(place);
  const root = createRoot(place);
  const render = (element) => root.render(strict ? h(StrictMode, null, element) : element);
  const gone = () => {
    roots.delete(gone);
    root.unmount();
    place.remove();
  };
  roots.add(gone);
  render(element);
  return { place, render, unmount: gone, text: (selector) => place.querySelector(selector)?.textContent };
}

/** Another client, in this channel. */
async function peer(user, channel) {
  const ws = connect(URL_OF(user), { WebSocket: Socket });
  peers.add(ws);
  const use = ws.channel(channel);
  use.heard = [];
  use.on("message", (message) => use.heard.push(message));
  await until(() => use.state === "joined");
  return use;
}

const fresh = () => `react-${++names}`;
const Wired = (props) => h(FastWS, { url: URL_OF("ann"), WebSocket: Recorder, ...props });
const types = (socket) => socket.sent.map(({ type }) => type);

afterEach(async () => {
  for (const gone of [...roots]) gone();
  for (const ws of peers) ws.close();
  peers.clear();
  await until(() => sockets.every(({ readyState }) => readyState === 3));
  sockets = [];
});

function Chat({ name }) {
  const [heard, setHeard] = useState([]);
  const { state, code, publish } = useChannel(name, (message, { user }) => setHeard((all) => [...all, `${user}: ${message}`]));
  return h("div", null, h("i", null, [state, code].filter(Boolean).join(" ")), h("p", null, heard.join(", ")),
    h("button", { onClick: () => publish("hi") }));
}

function Members({ name }) {
  return h("b", null, usePresence(name).map(({ user }) => user).sort().join(" "));
}

function Status() {
  const { state, user } = useConnection();
  return h("u", null, `${state} ${user}`);
}

test("messages, members and the connection are shown as they are", async () => {
  const name = fresh();
  const page = mount(h(Wired, null, h(Status), h(Chat, { name }), h(Members, { name })));
  assert.equal(page.text("u"), undefined);    // nothing is rendered yet
  await until(() => page.text("i") === "joined");
  assert.equal(page.text("u"), "open ann");
  const bob = await peer("bob", name);
  await until(() => page.text("b") === "ann bob");
  await bob.publish("hello");
  await until(() => page.text("p") === "bob: hello");
  page.place.querySelector("button").click();
  await until(() => page.text("p") === "bob: hello, ann: hi");
  assert.deepEqual(bob.heard, ["hello", "hi"]);
  await bob.leave();
  await until(() => page.text("b") === "ann");
});

test("StrictMode opens one socket and subscribes once", async () => {
  const name = fresh();
  const page = mount(h(Wired, null, h(Chat, { name }), h(Members, { name }), h(Chat, { name })));
  await until(() => page.text("i") === "joined");
  const bob = await peer("bob", name);
  await bob.publish("hello");
  await until(() => page.text("p") === "bob: hello");
  assert.equal(sockets.length, 1);
  const asked = sockets[0].sent.flatMap((frame) => frame.type === "hello" ? Object.keys(frame.channels) : [frame.channel]);
  assert.deepEqual(asked, [name]);
});

test("a channel is left with the last that used it", async () => {
  const name = fresh();
  const page = mount(h(Wired, null, h(Chat, { name, key: 1 }), h(Chat, { name, key: 2 })));
  await until(() => page.text("i") === "joined");
  const bob = await peer("bob", name);
  page.render(h(Wired, null, h(Chat, { name, key: 2 })));
  await bob.publish("hello");
  await until(() => page.text("p") === "bob: hello");
  assert(!types(sockets[0]).includes("unsubscribe"));
  page.render(h(Wired, null, h(Status)));
  await until(() => types(sockets[0]).includes("unsubscribe"));
  assert.equal(page.text("u"), "open ann");
});

test("another name is another channel, and a page that follows stays in the one it shares", async () => {
  const [one, two] = [fresh(), fresh()];
  const page = mount(h(Wired, null, h(Chat, { name: one })));
  await until(() => page.text("i") === "joined");
  page.render(h(Wired, null, h(Chat, { name: two })));
  await until(() => types(sockets[0]).includes("unsubscribe"));
  await until(() => page.text("i") === "joined");
  const before = sockets[0].sent.length;
  page.render(h(Wired, null, h("div", null, h(Members, { name: two }))));
  await until(() => page.text("b") === "ann");
  assert.deepEqual(types(sockets[0]).slice(before), []);
  page.render(h(Wired, null, h(Chat, { name: null })));
  await until(() => types(sockets[0]).slice(before).includes("unsubscribe"));
});

test("after a connection is lost each message is heard once", async () => {
  const name = fresh();
  const page = mount(h(Wired, null, h(Status), h(Chat, { name })));
  await until(() => page.text("i") === "joined");
  sockets[0].terminate();
  await until(() => page.text("u").startsWith("waiting"));
  await until(() => page.text("u") === "open ann" && page.text("i") === "joined");
  const bob = await peer("bob", name);
  await bob.publish("hello");
  await until(() => page.text("p") === "bob: hello");
  assert.equal(sockets.length, 2);
});

function Log({ name, position }) {
  const [heard, setHeard] = useState([]);
  const add = (what) => setHeard((all) => [...all, what]);
  const channel = useChannel(name, {
    message: (message) => add(message),
    subscribed: ({ recovered, reason, count }) => add(recovered ? `recovered ${count}` : reason),
  }, { position });
  return h("p", { onClick: () => places.set(name, channel.position()) }, heard.join(", "));
}

const places = new Map();

test("what was said while the connection was away, or the page, comes when it is back", async () => {
  const name = `kept-${fresh()}`;
  const page = mount(h(Wired, null, h(Status), h(Log, { name })), false);
  await until(() => page.text("p") === "new");
  const bob = await peer("bob", name);
  await bob.publish("one");
  await until(() => page.text("p") === "new, one");
  sockets[0].terminate();
  await until(() => page.text("u").startsWith("waiting"));
  await bob.publish("two");
  await until(() => page.text("p").endsWith("two"));
  assert.match(page.text("p"), /^new, one, (recovered 1, two|recovered 0, two)$/);
  page.place.querySelector("p").click();
  page.unmount();
  await bob.publish("three");
  const later = mount(h(Wired, null, h(Log, { name, position: places.get(name) })), false);
  await until(() => later.text("p")?.endsWith("three"));
  assert.equal(later.text("p"), "recovered 1, three");
});

test("a refused channel says so", async () => {
  const page = mount(h(Wired, null, h(Chat, { name: "secrets" })));
  const warned = [], { warn } = console;
  console.warn = (text) => warned.push(text);
  await until(() => page.text("i") === "refused forbidden");
  console.warn = warn;
  assert(warned.some((text) => text.startsWith("fastws: forbidden: ")));
});

test("a token that changes opens another connection, a function that does not", async () => {
  const asked = [];
  const page = mount(h(Wired, { token: () => asked.push("one") && null }, h(Status)));
  await until(() => page.text("u") === "open ann");
  page.render(h(Wired, { token: () => asked.push("two") && null }, h(Status)));
  sockets[0].terminate();
  await until(() => sockets.length === 2 && page.text("u") === "open ann");
  assert.equal(asked.at(-1), "two");
  page.render(h(Wired, { url: URL_OF("ann") + "&x", token: undefined }, h(Status)));
  await until(() => sockets.length === 3);
  assert.equal(sockets[1].sent.at(-1)?.type, "hello");
  await until(() => sockets[1].readyState === 3);
});

test("it closes when it goes, and hooks without a connection do no harm", async () => {
  const page = mount(h(Wired, null, h(Status)));
  await until(() => page.text("u") === "open ann");
  page.unmount();
  await until(() => sockets[0].readyState === 3);
  let failed;
  function Alone() {
    const { publish, typing, state } = useChannel("cars");
    return h("button", { onClick: () => (typing(), publish(1).catch((error) => { failed = error; })) }, state);
  }
  const alone = mount(h("div", null, h(Alone), h(Status), h(Members, { name: "cars" })));
  await until(() => alone.text("u") === "connecting null");
  alone.place.querySelector("button").click();
  await until(() => failed);
  assert.deepEqual([failed.name, failed.code, failed.retry], ["FastWSError", "unavailable", true]);
});
