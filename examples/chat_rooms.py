"""Chat rooms: `{channel}` in the path is the room, and each message goes to everybody in it."""

from fastws import Listener, Server


class Chat(Listener):
    def on_message(self, ws, message):
        for channel in ws.channels:
            ws.manager.broadcast(channel, message)


server = Server()
server.endpoint("/ws/chat/{channel}", Chat())

if __name__ == "__main__":
    server.run()
