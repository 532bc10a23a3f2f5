// FASTWS_SECRET=whsec_... node backend.mjs
import { createHmac, timingSafeEqual } from "node:crypto"
import { createServer } from "node:http"

const gone = [] // a table of your database, say
const answers = { // undefined: no
  connect: (hook, user) => user && { user, data: { name: user.toUpperCase() }, welcome: `hello ${user}` },
  subscribe: ({ channel }) => channel === "secret" ? undefined : { message: `all about ${channel}` },
  publish: ({ message, connection }) => ({ message: { from: connection.data.name, text: message } }),
  call: ({ method, params }) => ({ result: method === "add" ? params.reduce((sum, number) => sum + number, 0) : gone }),
  events: ({ events }) => {
    gone.push(...events.filter(({ type }) => type === "disconnected").map(({ connection }) => connection.user))
    return {}
  },
}

createServer(async (request, response) => {
  const body = Buffer.concat(await request.toArray())
  const { "webhook-id": id, "webhook-timestamp": sent, "webhook-signature": signature, cookie = "" } = request.headers
  const key = Buffer.from(process.env.FASTWS_SECRET.slice(6), "base64")
  const expected = Buffer.from("v1," + createHmac("sha256", key).update(`${id}.${sent}.`).update(body).digest("base64"))
  const isSame = signature?.length === expected.length && timingSafeEqual(Buffer.from(signature), expected)
  const hook = isSame && Math.abs(Date.now() / 1000 - sent) < 300 ? JSON.parse(body) : undefined
  const user = /(?:^|; )user=(\w+)/.exec(cookie)?.[1]
  const answer = hook && answers[hook.event](hook, user)
  response.writeHead(answer ? 200 : 403, { "Content-Type": "application/json" }).end(JSON.stringify(answer ?? {}))
}).listen(process.env.PORT ?? 8500, "127.0.0.1")
