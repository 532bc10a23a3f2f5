"""Devices: a message to a user reaches each of their connections, including the sender's other ones.

Connect to /ws/direct?name=ann, as often as you like, and send {"to": "bob", "message": "hi"}.
"""

import json

from fastws import Listener, Reject, Server


class Direct(Listener):
    def on_handshake(self, request):
        request.user = request.query.get("name")
        if not request.user:
            raise Reject(400, "add ?name= to the URL")

    def on_message(self, ws, message):
        request = json.loads(message)
        sent = {"from": ws.user, "to": request["to"], "message": request["message"]}
        return {"devices": direct.send_to_user([request["to"], ws.user], sent, exclude=ws)}


server = Server()
direct = server.endpoint("/ws/direct", Direct())

if __name__ == "__main__":
    server.run()
