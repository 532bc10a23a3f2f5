"""An HTTP application and a client for it."""

import asyncio
import contextlib

from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from .raw import TEXT, TIMEOUT, Streams, frame, request

MIB = 1 << 20
MAX = 4096  # bytes of a head
GET = b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"
WAIT = b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n"
BIG = b"GET /big HTTP/1.1\r\nHost: x\r\n%b\r\n"
CHUNKED = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
UPGRADE = request("/ws/cars")
HI, SAYS_HI = frame(TEXT, b"hi"), frame(TEXT, b"hi", mask=None)


class App:
    """An application that records what its handlers see."""

    def __init__(self):
        self.waiting, self.release, self.gone = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.headers = {}
        self.asgi = Starlette(
            routes=[
                Route("/hello", self.hello),
                Route("/echo", self.echo, methods=["POST"]),
                Route("/wait", self.wait, methods=["GET", "POST"]),
                Route("/listen", self.listen),
                Route("/big", self.big),
                Route("/headers", self.say_headers, methods=["POST"]),
            ]
        )

    async def hello(self, request):
        return PlainTextResponse(f"hello {request.client.host} by {request.url.scheme}")

    async def echo(self, request):
        return Response(await request.body())

    async def wait(self, request):
        self.waiting.set()
        await self.release.wait()
        return PlainTextResponse("done", headers=self.headers)

    async def listen(self, request):
        """Waits until the peer leaves, as event streams do."""
        self.waiting.set()
        await request.receive()  # the body
        while (await request.receive())["type"] != "http.disconnect":
            pass
        self.gone.set()
        return Response()

    async def big(self, request):
        return Response(bytes(32 * MIB))

    async def say_headers(self, request):
        await request.body()
        return JSONResponse(sorted(request.headers))


class Peer(Streams):
    """Reads HTTP responses."""

    async def answer(self):
        """Status and body of the next response."""
        head = await self.until(b"\r\n\r\n")
        fields = dict(line.lower().split(": ") for line in head.decode().split("\r\n")[1:-2])
        async with asyncio.timeout(TIMEOUT):
            body = await self.reader.readexactly(int(fields.get("content-length", 0)))
        return int(head.split()[1]), body.decode()

    async def end(self):
        """Everything up to the server's end."""
        with contextlib.suppress(ConnectionResetError):
            return await self.rest()


async def application_of_client(scope, receive, send):
    """An ASGI application that says who asks: "http 192.0.2.1:4711"."""
    if scope["type"] == "lifespan":
        for event in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{event}.complete"})
        return
    host, port = scope["client"] or ("", 0)
    await PlainTextResponse(f"{scope['scheme']} {host}:{port}")(scope, receive, send)
