"""The WebSockets of Starlette's documentation, and the cases of its own tests for denials and closing."""

import asyncio

from starlette.applications import Starlette
from starlette.endpoints import WebSocketEndpoint
from starlette.exceptions import HTTPException, WebSocketException
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket


class Echo(WebSocketEndpoint):
    encoding = "text"

    async def on_receive(self, websocket, data):
        await websocket.send_text(f"Message text was: {data}")


class JSON(WebSocketEndpoint):
    encoding = "json"

    async def on_connect(self, websocket):
        await websocket.accept(subprotocol="soap", headers=[(b"x-hello", b"world")])

    async def on_receive(self, websocket, data):
        await websocket.send_json({"got": data}, mode="binary")


async def hello(websocket: WebSocket):
    await websocket.accept()
    await websocket.send_text("Hello, world!")
    await websocket.close()


async def about(websocket: WebSocket):
    await websocket.accept()
    await websocket.send_json(
        {
            "url": str(websocket.url),
            "name": websocket.path_params["name"],
            "query": dict(websocket.query_params),
            "header": websocket.headers["x-mine"],
            "cookies": websocket.cookies,
        }
    )
    await websocket.close(code=1001, reason="Going Away")


async def iterated(websocket: WebSocket):
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text("Message was: " + text)


async def concurrent(websocket: WebSocket):
    """A reader and a writer."""
    queue: asyncio.Queue[str] = asyncio.Queue()

    async def read():
        async for text in websocket.iter_text():
            await queue.put(text)
        await queue.put(None)

    async def write():
        while (text := await queue.get()) is not None:
            await websocket.send_text(text)

    await websocket.accept()
    await asyncio.gather(read(), write())


async def rejected(websocket: WebSocket):
    await websocket.receive()
    await websocket.close(1001)


async def denied(websocket: WebSocket):
    await websocket.receive()
    await websocket.send_denial_response(PlainTextResponse("foo", 404, headers={"x-why": "denied"}))


async def denied_in_parts(websocket: WebSocket):
    await websocket.receive()

    async def parts():
        yield b"hard"
        yield b"body"

    await websocket.send_denial_response(StreamingResponse(parts(), 418))


async def redirected(websocket: WebSocket):
    await websocket.receive()
    await websocket.send_denial_response(RedirectResponse("/elsewhere"))


async def http_exception(websocket: WebSocket):
    raise HTTPException(402, "pay first")


async def policy(websocket: WebSocket):
    await websocket.accept()
    raise WebSocketException(1008, "out of policy")


async def own_exception(websocket: WebSocket):
    raise KeyError("own")


async def answered(websocket: WebSocket, error):
    await websocket.send_denial_response(JSONResponse({"said": str(error)}, 409))


async def sent_twice(websocket: WebSocket):
    """What Starlette itself forbids."""
    await websocket.accept()
    await websocket.close()
    try:
        await websocket.send({"type": "websocket.send", "text": "late"})
    except RuntimeError as error:
        said.append(str(error))


async def gone(websocket: WebSocket):
    """Sends until the client is gone."""
    await websocket.accept()
    try:
        while True:
            await websocket.send_text("tick")
            await asyncio.sleep(0.01)
    except Exception as error:
        said.append(f"{type(error).__name__} {error.code}")


said: list[str] = []


async def what_was_said(request):
    return JSONResponse(said)


app = Starlette(
    routes=[
        Route("/said", what_was_said),
        WebSocketRoute("/echo", Echo),
        WebSocketRoute("/json", JSON),
        WebSocketRoute("/hello", hello),
        Mount("/mounted", routes=[WebSocketRoute("/about/{name}", about)]),
        WebSocketRoute("/iterated", iterated),
        WebSocketRoute("/concurrent", concurrent),
        WebSocketRoute("/rejected", rejected),
        WebSocketRoute("/denied", denied),
        WebSocketRoute("/denied-in-parts", denied_in_parts),
        WebSocketRoute("/redirected", redirected),
        WebSocketRoute("/http-exception", http_exception),
        WebSocketRoute("/policy", policy),
        WebSocketRoute("/own-exception", own_exception),
        WebSocketRoute("/sent-twice", sent_twice),
        WebSocketRoute("/gone", gone),
    ],
    exception_handlers={KeyError: answered},
)
