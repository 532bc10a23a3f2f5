// `ws` on Node, with bufferutil: a loop of `send`, as its manual does a broadcast.
import fs from "node:fs";
import http from "node:http";
import https from "node:https";
import { WebSocketServer } from "ws";

const GROUP = 10;
const BACKLOG = 4096;
const given = process.argv.indexOf.bind(process.argv);
const argument = (name, place = 1) => process.argv[given(name) + place];
const port = Number(argument("--port"));
const channels = new Map();

function enter(name, ws) {
  if (!channels.has(name)) channels.set(name, new Set());
  const members = channels.get(name);
  members.add(ws);
  ws.on("close", () => members.delete(ws));
  return members;
}

const numbered = (message) => channels.get(String(message.readUInt32LE(0)));

// Enters the channels that the path names; returns what finds a message's receivers.
function join(path, ws) {
  const [, kind, name] = path.split("/");
  if (kind === "echo") return () => [ws];
  if (kind === "collect") return () => (gc(), [ws]);
  if (kind === "whisper") {
    enter(String(Math.floor(Number(name) / GROUP)), ws);
    return numbered;
  }
  if (kind === "rooms") {
    for (const room of name.split(",")) enter(room, ws);
    return numbered;
  }
  const members = enter(name, ws);
  if (kind === "others") return () => [...members].filter((member) => member !== ws);
  return () => members;
}

const file = (place) => fs.readFileSync(argument("--tls", place));
const server = given("--tls") < 0 ? http.createServer() : https.createServer({ cert: file(1), key: file(2) });
// Without a window from message to message it is faster, in particular with many messages in flight.
const compression = { threshold: 0, serverNoContextTakeover: true, zlibDeflateOptions: { level: 1 } };
const perMessageDeflate = given("--compress") >= 0 && compression;
const wss = new WebSocketServer({ server, maxPayload: 4 * 1024 * 1024, clientTracking: false, perMessageDeflate });
wss.on("connection", (ws, request) => {
  const receivers = join(request.url, ws);
  ws.on("error", () => {});
  ws.on("message", (message) => {
    for (const member of receivers(message)) member.send(message, { binary: true });
  });
});
server.listen(port, "127.0.0.1", BACKLOG, () => console.log(`ready ${port}`));
