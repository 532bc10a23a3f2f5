"""Whisper: a message that only some members of a channel get.

Connect to /ws/table/blue?name=ann and send {"to": ["bob"], "message": "psst"}; without "to" it goes to all members.
"""

import json

from fastws import Listener, Reject, Server


class Table(Listener):
    def on_handshake(self, request):
        request.user = request.query.get("name")
        if not request.user:
            raise Reject(400, "add ?name= to the URL")

    def on_message(self, ws, message):
        request = json.loads(message)
        channel = ws.request.path_parameters["channel"]
        users = [*request["to"], ws.user] if "to" in request else None
        table.broadcast(channel, {"from": ws.user, "message": request["message"]}, users=users)


server = Server()
table = server.endpoint("/ws/table/{channel}", Table())

if __name__ == "__main__":
    server.run()
