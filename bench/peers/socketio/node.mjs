// Socket.IO on Node: alone, or with others by its Redis adapter or, with --streams, its Redis Streams adapter.
import http from "node:http";
import readline from "node:readline";
import { createAdapter } from "@socket.io/redis-adapter";
import { createAdapter as createStreamsAdapter } from "@socket.io/redis-streams-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";

const BACKLOG = 4096;
const CHANNELS = 4;
const TICK = 1; // ms
const MOST_A_TICK = 1000;
const PADDING = "x".repeat(44);
const option = (name) => process.argv[process.argv.indexOf(name) + 1];
const has = (name) => process.argv.includes(name);
const seconds = () => Number(process.hrtime.bigint()) / 1e9;

async function adapter() {
  const client = createClient({ url: option("--store") });
  await client.connect();
  if (has("--streams")) return createStreamsAdapter(client);
  const subscriber = client.duplicate();
  await subscriber.connect();
  return createAdapter(client, subscriber);
}

const server = http.createServer();
const io = new Server(server, {
  transports: ["websocket"],
  perMessageDeflate: false,
  pingInterval: 600_000,
  adapter: has("--store") ? await adapter() : undefined,
});
io.on("connection", (socket) => socket.join(socket.handshake.query.channel));

async function sayAtRate(rate, duration) {
  const began = seconds();
  let said = 0;
  for (let past; (past = seconds() - began) < duration; ) {
    const due = Math.min(Math.round(past * rate) - said, MOST_A_TICK);
    for (let i = 0; i < due; i++, said++) {
      const time = process.hrtime.bigint().toString().padStart(20, "0");
      io.to(String(said % CHANNELS)).emit("message", time + PADDING);
    }
    await new Promise((resolve) => setTimeout(resolve, TICK));
  }
  return said;
}

readline.createInterface({ input: process.stdin }).on("line", async (line) => {
  console.log(`said ${await sayAtRate(...line.split(" ").map(Number))}`);
});
const port = Number(option("--port"));
server.listen(port, "127.0.0.1", BACKLOG, () => console.log(`ready ${port}`));
