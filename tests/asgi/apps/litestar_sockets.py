"""The three kinds of WebSocket handlers of Litestar's documentation, its channels, and its exceptions."""

import asyncio
from collections.abc import AsyncGenerator

from litestar import Litestar, WebSocket, websocket, websocket_listener
from litestar.channels import ChannelsPlugin
from litestar.channels.backends.memory import MemoryChannelsBackend
from litestar.exceptions import PermissionDeniedException, WebSocketDisconnect
from litestar.handlers import WebsocketListener, websocket_stream


@websocket("/low-level/{name:str}")
async def low_level(socket: WebSocket, name: str) -> None:
    await socket.accept()
    try:
        while True:
            await socket.send_json({name: await socket.receive_json()})
    except WebSocketDisconnect:
        pass


@websocket_listener("/listener")
async def listener(data: str, socket: WebSocket) -> str:
    if data == "goodbye":
        await socket.close(4000, "bye")
    return f"heard {data}"


@websocket_listener("/json", send_mode="binary")
def typed(data: dict[str, int]) -> dict[str, int]:
    return {name: value + 1 for name, value in data.items()}


class Greeter(WebsocketListener):
    path = "/greeter"

    async def on_accept(self, socket: WebSocket) -> None:
        await socket.send_text("welcome")

    async def on_receive(self, data: str) -> str:
        return data.upper()


@websocket_stream("/stream")
async def stream() -> AsyncGenerator[str, None]:
    for number in range(3):
        yield str(number)
        await asyncio.sleep(0)


@websocket("/background")
async def background(socket: WebSocket, channels: ChannelsPlugin) -> None:
    await socket.accept()
    async with (
        channels.start_subscription(["some_channel"]) as subscriber,
        subscriber.run_in_background(socket.send_text),
    ):
        await socket.send_text("subscribed")
        try:
            while True:
                channels.publish(await socket.receive_text(), ["some_channel"])
        except WebSocketDisconnect:
            pass


@websocket("/forbidden")
async def forbidden(socket: WebSocket) -> None:
    raise PermissionDeniedException("not you")


app = Litestar(
    [low_level, listener, typed, Greeter, stream, background, forbidden],
    plugins=[ChannelsPlugin(backend=MemoryChannelsBackend(), channels=["some_channel"])],
)
