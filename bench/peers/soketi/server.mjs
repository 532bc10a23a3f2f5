// soketi with one application, on the port that `--port` names.

import { createRequire } from "node:module"

const { Server } = createRequire(import.meta.url)("@soketi/soketi")
const port = Number(process.argv[process.argv.indexOf("--port") + 1])
const app = {
  id: "bench",
  key: "bench",
  secret: "a secret of the benchmark",
  maxConnections: -1,
  enableClientMessages: true,
  enabled: true,
  maxBackendEventsPerSecond: -1,
  maxClientEventsPerSecond: -1,
  maxReadRequestsPerSecond: -1,
  webhooks: [],
}

console.log = () => {}
await Server.start({ host: "127.0.0.1", port, metrics: { enabled: false }, "appManager.array.apps": [app] }, () => {
  process.stdout.write(`ready ${port}\n`)
})
