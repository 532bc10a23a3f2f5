"""What is said to a server of `fastws serve` over HTTP and fastws.v1, by others' clients."""

import json
from contextlib import contextmanager
from urllib.request import Request, urlopen

from websockets.sync.client import connect

from .command import TIMEOUT


def publish(port, key, channel, text):
    """Publish a text over HTTP; what is answered."""
    request = Request(
        f"http://127.0.0.1:{port}/api/channels/{channel}",
        text.encode(),
        {"Authorization": f"Bearer {key}", "Content-Type": "text/plain"},
    )
    with urlopen(request, timeout=TIMEOUT) as response:
        return json.load(response)


@contextmanager
def subscribed(port, channel, *, token=None, **options):
    """A client of fastws.v1 that has asked for a channel; `answer` is what it was told."""
    headers = None if token is None else {"Authorization": f"Bearer {token}"}
    with connect(f"ws://127.0.0.1:{port}/ws", subprotocols=["fastws.v1"], additional_headers=headers, **options) as ws:
        say(ws, {"type": "hello", "version": 1, "channels": {channel: None}})
        assert hear(ws)["type"] == "welcome"
        ws.answer = hear(ws)
        yield ws


def say(ws, frame):
    ws.send(json.dumps(frame))


def hear(ws):
    """The next frame that is not a sign of life."""
    while not (frame := json.loads(ws.recv(TIMEOUT))):
        pass
    return frame
