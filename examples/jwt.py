"""JSON Web Tokens: POST /token/ann returns one for ann, valid for two minutes and for the channels she may use.

A browser connects with `new WebSocket("ws://localhost:8765/ws/rooms/ann.inbox", ["bearer", token])`. Unless it sends
{"type": "authenticate", "token": "..."} with a fresh one in time, the connection is closed with 4001.
"""

import secrets
import time

from joserfc import jwt
from joserfc.jwk import OctKey
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from fastws import JWTAuth, Listener, Server

KEY = OctKey.import_key(secrets.token_bytes(32))  # with an identity provider, use its JWKS of public keys


async def issue(request):
    user = request.path_params["user"]  # a real application would ask for a password
    claims = {"sub": user, "aud": "rooms", "exp": int(time.time()) + 120, "channels": [f"{user}.*", "news"]}
    return JSONResponse({"token": jwt.encode({"alg": "HS256"}, claims, KEY)})


class Rooms(Listener):
    def on_open(self, ws):
        ws.send({"hello": ws.user, "until": ws.request.claims["exp"]})


server = Server(http=Starlette(routes=[Route("/token/{user}", issue, methods=["POST"])]))
server.endpoint("/ws/rooms/{channel}", Rooms(), auth=JWTAuth(KEY, audience="rooms"))

if __name__ == "__main__":
    server.run()
