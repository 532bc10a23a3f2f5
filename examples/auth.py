"""Authentication and authorization: a bearer token identifies the user, a table lists their channels."""

from fastws import Listener, Reject, Server

USERS = {"ann-token": "ann", "bob-token": "bob"}
CHANNELS = {"ann": {"staff", "board"}, "bob": {"staff"}}


class Members(Listener):
    def on_handshake(self, request):
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token not in USERS:
            raise Reject(401, "a bearer token is required")
        request.user = USERS[token]

    def authorize(self, request, channel):
        return channel in CHANNELS[request.user]

    def on_open(self, ws):
        ws.send({"hello": ws.user})


server = Server()
server.endpoint("/ws/members/{channel}", Members())

if __name__ == "__main__":
    server.run()
