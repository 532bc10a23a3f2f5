// One command a line on stdin, one thing heard a line on stdout.

import { createInterface } from "node:readline"
import Echo from "laravel-echo"
import Pusher from "pusher-js"
import nacl from "tweetnacl"
import { driver } from "./driver.mjs"

const act = driver(Pusher, Echo, (...what) => console.log(JSON.stringify(what)), nacl)
createInterface({ input: process.stdin }).on("line", (line) => act(...JSON.parse(line)))
