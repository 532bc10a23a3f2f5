"""The real server: fastws.v1 with tokens and a backend, /fastws.js, and a page for whoever drives it.

python -m tests.clients.real PORT runs it on its own, to be killed.
"""

import asyncio
import sys
from contextlib import asynccontextmanager

from fastws import Server
from fastws.access.rules import ChannelRule, Rules
from fastws.access.tokens import AuthSettings, Tokens, make_token
from fastws.answers import Answer
from fastws.v1.decisions import Refused
from fastws.v1.listener import PROTOCOL, ChannelListener
from fastws.web import script
from fastws.web.app import Web

from .js import HERE, PAGE

AUTH = AuthSettings(secret="a secret of the tests, of 32 bytes or more")
RULES = [
    ChannelRule(pattern="secret*"),
    ChannelRule(pattern="*", subscribe="anyone", publish="member", whisper="member", presence=True),
]


def token_of(user, seconds=3600):
    return make_token(AUTH, user, ttl=seconds)


class Backend:
    """Answers calls, and is asked nothing else."""

    def asks(self, event):
        return event == "call"

    async def call(self, ws, method, params):
        if method != "add":
            raise Refused("refused", f"there is no {method}")
        return {"result": sum(params)}

    def tell(self, event):
        pass


class Named(ChannelListener):
    """Users by their token; else by the query string, which no server should believe: /ws?user=ann."""

    def on_handshake(self, request):
        request.user = request.user or request.query.get("user")
        return super().on_handshake(request)


def create(port=0, heartbeat=20.0, **options):
    web = Web()
    script.add_to(web)
    server = Server(port=port, http=web, max_connections_per_ip=10_000)
    driver = (HERE / "driver.mjs").read_bytes()
    web.add("GET", "/", lambda request: Answer(200, PAGE, {"Content-Type": "text/html"}))
    web.add("GET", "/driver.mjs", lambda request: Answer(200, driver, {"Content-Type": "text/javascript"}))
    listener = Named(Rules(RULES), backend=Backend(), heartbeat=heartbeat)
    auth = Tokens(AUTH).auth(refresh=False)
    server.endpoint(["/ws", "/ws/{room}"], listener, subprotocols=[PROTOCOL], auth=auth, **options)
    return server


class Process:
    """The server in a process of its own."""

    def __init__(self, process):
        self._process = process

    def kill(self):
        """Kill it in the middle of whatever it does."""
        self._process.kill()
        return self._process.wait()


@asynccontextmanager
async def process(port):
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, str(port), cwd=HERE.parent.parent, stdout=asyncio.subprocess.PIPE
    )
    try:
        await running.stdout.readline()
        yield Process(running)
    finally:
        if running.returncode is None:
            running.kill()
        await running.communicate()


async def main(port):
    async with create(port):
        sys.stdout.write("listening\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
