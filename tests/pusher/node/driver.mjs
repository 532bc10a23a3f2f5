// Pusher's clients, as commands say, and everything that they hear: for Node, and for pages.

export function driver(Pusher, Echo, tell, nacl) {
  const clients = {}
  const channels = {}

  // What is told of members, which are an object with methods.
  function plain(data) {
    return data && data.members ? { members: data.members, count: data.count, me: data.myID } : data
  }

  function hear(name, channel, target) {
    target.bind_global((event, data) => tell(channel, event, plain(data), name))
  }

  function watch(name, pusher) {
    clients[name] = pusher
    pusher.connection.bind("state_change", ({ current }) => tell("", "state", current, name))
    pusher.connection.bind("error", (error) => tell("", "error", error.data ?? error.error?.data ?? null, name))
    pusher.user.bind_global((event, data) => tell("#user", event, data, name))
  }

  const commands = {
    connect(name, key, options) {
      watch(name, new Pusher(key, { cluster: "mt1", forceTLS: false, enabledTransports: ["ws"], nacl, ...options }))
    },
    socket(name) {
      return clients[name].connection.socket_id
    },
    subscribe(name, channel) {
      hear(name, channel, (channels[name + channel] = clients[name].subscribe(channel)))
    },
    unsubscribe(name, channel) {
      clients[name].unsubscribe(channel)
    },
    trigger(name, channel, event, data) {
      return channels[name + channel].trigger(event, data)
    },
    members(name, channel) {
      return plain(channels[name + channel].members)
    },
    signin(name) {
      clients[name].signin()
    },
    disconnect(name) {
      clients[name].disconnect()
    },
    echo(name, options) {
      const echo = new Echo({ broadcaster: "reverb", Pusher, forceTLS: false, enabledTransports: ["ws"], ...options })
      channels[name] = echo
      watch(name, echo.connector.pusher)
    },
    private(name, channel, event, whisper) {
      channels[name + channel] = channels[name]
        .private(channel)
        .listen(event, (data) => tell(channel, event, data, name))
        .listenForWhisper(whisper, (data) => tell(channel, `whisper ${whisper}`, data, name))
        .subscribed(() => tell(channel, "subscribed", null, name))
        .error((error) => tell(channel, "error", error, name))
    },
    whisper(name, channel, event, data) {
      channels[name + channel].whisper(event, data)
    },
    join(name, channel) {
      channels[name + channel] = channels[name]
        .join(channel)
        .here((users) => tell(channel, "here", users, name))
        .joining((user) => tell(channel, "joining", user, name))
        .leaving((user) => tell(channel, "leaving", user, name))
    },
    leave(name, channel) {
      channels[name].leave(channel)
    },
  }

  return (number, command, ...values) => tell("", "answer", commands[command](...values) ?? null, number)
}
