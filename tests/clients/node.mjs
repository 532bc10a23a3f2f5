// node node.mjs FASTWS_JS: a line of its input is a command for driver.mjs, a line of its output what that tells.
import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { driver } from "./driver.mjs";

const fastws = await import(process.argv[2]);
const WebSocket = globalThis.WebSocket ?? createRequire(new URL("../interop/node/", import.meta.url))("ws");
const tell = (what) => process.stdout.write(JSON.stringify(what) + "\n");
console.warn = (text) => tell({ event: "console", type: "warn", values: [text] });
process.on("uncaughtException", (error) => tell({ event: "process", type: "uncaught", values: [error.message] }));

const act = driver(fastws, tell, WebSocket);
for await (const line of createInterface({ input: process.stdin })) act(JSON.parse(line));
process.exit();
