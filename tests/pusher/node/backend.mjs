// A backend on Pusher's own library for Node: everything that it can do, once. The settings are the first argument.

import Pusher from "pusher"

const { socket, ...settings } = JSON.parse(process.argv[2])
const pusher = new Pusher({ ...settings, useTLS: false })
const answers = {}
const say = async (name, response) => (answers[name] = await (await response).json())

await say("trigger", pusher.trigger(["cars", "bikes"], "moved", { to: "Ulm" }, { socket_id: socket, info: "subscription_count" }))
await say("batch", pusher.triggerBatch([{ channel: "cars", name: "stopped", data: { at: "last" } }]))
await say("channels", pusher.get({ path: "/channels", params: { filter_by_prefix: "presence-", info: "user_count" } }))
await say("users", pusher.get({ path: "/channels/presence-room/users" }))
answers.terminated = (await pusher.terminateUserConnections("ann")).status
answers.authorized = pusher.authorizeChannel(socket, "presence-room", { user_id: "bob", user_info: {} })
console.log(JSON.stringify(answers))
