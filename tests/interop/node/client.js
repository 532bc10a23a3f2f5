// node client.js URL OFFER: connects, with the compression that OFFER asks for (false: none), does what each line
// of its input asks, and prints what it got.
// A line is a JSON array: ["text", s], ["binary", hex], ["size", n], ["fragments", [s, ...]],
// ["ping", s], ["close", code, reason], ["closed"]. Each answer is a line of JSON.
"use strict";

const readline = require("node:readline");
const WebSocket = require("ws");

const socket = new WebSocket(process.argv[2], {
  perMessageDeflate: JSON.parse(process.argv[3]),
});
const arrived = [];
const waiting = [];

function arrive(event) {
  const next = waiting.shift();
  if (next) next(event);
  else arrived.push(event);
}

function next() {
  if (arrived.length) return Promise.resolve(arrived.shift());
  return new Promise((resolve) => waiting.push(resolve));
}

socket.on("message", (data, binary) => {
  if (data.length > 1000) arrive(["size", data.length, binary]);
  else if (binary) arrive(["binary", data.toString("hex")]);
  else arrive(["text", data.toString()]);
});
socket.on("pong", (data) => arrive(["pong", data.toString()]));
socket.on("close", (code, reason) => arrive(["closed", code, reason.toString()]));
socket.on("error", (error) => arrive(["error", error.message]));

const actions = {
  text: (text) => socket.send(text),
  binary: (hex) => socket.send(Buffer.from(hex, "hex")),
  size: (size) => socket.send(Buffer.alloc(size)),
  fragments: (parts) =>
    parts.forEach((part, i) => socket.send(part, { fin: i === parts.length - 1 })),
  ping: (payload) => socket.ping(payload),
  close: (code, reason) => (code === null ? socket.close() : socket.close(code, reason)),
  closed: () => {},
};

socket.on("open", async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [action, ...rest] = JSON.parse(line);
    actions[action](...rest);
    console.log(JSON.stringify(await next()));
  }
});
