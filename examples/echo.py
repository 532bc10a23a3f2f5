"""Echo: the return value of a handler is sent back to the sender."""

from fastws import Listener, Server


class Echo(Listener):
    def on_message(self, ws, message):
        return message


server = Server()
server.endpoint("/ws/echo", Echo())

if __name__ == "__main__":
    server.run()
