"""docs/protocol.md: what a client sends, and what it is answered."""

import json

from websockets.asyncio.client import connect


async def test_a_script_of_ten_lines_talks(serve):
    site = await serve()
    async with connect(f"{site.url}/ws?user=ann") as ws:
        await ws.send(json.dumps({"type": "hello", "version": 1, "channels": {"cars": None}}))
        welcome, subscribed = json.loads(await ws.recv()), json.loads(await ws.recv())
        await ws.send(json.dumps({"type": "publish", "id": 1, "channel": "cars", "message": {"text": "hi"}}))
        message, ack = json.loads(await ws.recv()), json.loads(await ws.recv())
    assert (welcome["type"], subscribed["type"]) == ("welcome", "subscribed")
    assert (message["type"], message["message"]) == ("message", {"text": "hi"})
    assert ack == {"type": "ack", "id": 1, "connections": 1}
