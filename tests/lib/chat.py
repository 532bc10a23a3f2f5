"""Clients of the demo's chat, over real sockets, logged in by real HTTP."""

import asyncio
import json

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from .raw import TIMEOUT

SECRET = "of the tests"
CALLS = ("invite", "kick", "block", "unblock")
RELOAD = 1.0  # seconds; in place of the demo's, so that a leave is soon seen


class Client:
    """A tab of a user; every wait has a timeout."""

    def __init__(self, socket, cookie=None):
        self.socket = socket
        self.cookie = cookie

    async def send(self, kind, **fields):
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def hello(self, *channels):
        await self.send("hello", version=1, channels=dict.fromkeys(channels))

    async def call(self, method, **params):
        """Ask for what the protocol has no frame for."""
        await self.send("call", id=1, method=method, params=params)

    async def told(self, event):
        """The next notice of an event."""
        while (notice := await self.until("direct"))["message"]["event"] != event:
            pass
        return notice["message"]

    async def receive(self):
        return json.loads(await asyncio.wait_for(self.socket.recv(), TIMEOUT))

    async def until(self, kind, **fields):
        """The next message of that type with those fields; earlier ones are dropped."""
        wanted = {"type": kind, **fields}.items()
        while not wanted <= (message := await self.receive()).items():
            pass
        return message

    async def members(self, channel="cars"):
        """Who is there, from the list that this tab gets when it joins."""
        entered = await self.until("presence", event="list", channel=channel)
        return sorted(member["user"] for member in entered["users"])

    async def joined(self, user, channel="cars"):
        return await self.until("presence", event="join", channel=channel, user=user)

    async def departed(self, user, channel="cars"):
        return await self.until("presence", event="leave", channel=channel, user=user)

    async def drained(self):
        """All that was sent to this tab before now, but for results: an error answers a call that there is not."""
        await self.send("call", id="drained", method="nothing")
        messages = []
        while (message := await self.receive()).get("id") != "drained":
            if message["type"] != "result":
                messages.append(message)
        return messages

    async def refused(self, kind, **fields):
        """Send a frame, or a call, that is refused; the error's code and text."""
        if kind in CALLS:
            await self.send("call", id=1, method=kind, params=fields)
        else:
            await self.send(kind, **fields)
        error = await self.until("error")
        return error["code"], error["message"]

    async def close_code(self):
        await asyncio.wait_for(self.socket.wait_closed(), TIMEOUT)
        return self.socket.close_code, self.socket.close_reason


async def fetch(server, method, path, body=b"", **headers):
    """Status, headers and body of an answer; `content_type="..."` adds that header."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    fields = {"host": "localhost", "connection": "close", "content-length": len(body), **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    writer.write("\r\n".join([f"{method} {path} HTTP/1.1", *lines, "\r\n"]).encode() + body)
    head, _, answer = (await asyncio.wait_for(reader.read(), TIMEOUT)).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    status, *lines = head.decode().split("\r\n")
    return int(status.split()[1]), {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}, answer


async def post(server, path, asked, cookie=""):
    return await fetch(server, "POST", path, json.dumps(asked).encode(), content_type="application/json", cookie=cookie)


async def log_in(server, name, cookie=""):
    """The cookie that a browser has after logging in with `cookie`."""
    status, headers, body = await post(server, "/login", {"name": name}, cookie)
    assert (status, json.loads(body)) == (200, {"name": name})
    return headers["set-cookie"].partition(";")[0] if "set-cookie" in headers else cookie


async def who(server, cookie=""):
    """The name that a browser is logged in as."""
    _, _, body = await fetch(server, "GET", "/session", cookie=cookie)
    return json.loads(body)["name"]


async def refusal(server, path="/ws/chat/cars", cookie=None):
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws://127.0.0.1:{server.port}{path}", additional_headers={"Cookie": cookie} if cookie else {})
    return refused.value.response
