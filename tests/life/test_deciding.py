"""While a handshake is being decided, the timeout runs and a leaving peer is noticed: a hung backend holds nothing."""

import asyncio
import json
import logging

import pytest

from fastws import Listener, StoreSessions
from fastws.testing import Refused, connect

from ..lib.raw import TEXT, Raw, frame, request
from ..lib.support import eventually, nothing_left

SOON = 1  # seconds; twenty sockets are opened and send their requests in less
LATE = 3600


class Hung(Listener):
    """Waits forever in a given handler, and records who was cancelled there."""

    def __init__(self, name):
        self.name = name
        self.waiting = self.cancelled = 0

    async def wait(self, name):
        if name == self.name:
            self.waiting += 1
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise

    async def on_handshake(self, request):
        await self.wait("on_handshake")

    async def authorize(self, request, channel):
        await self.wait("authorize")


class HungStore:
    """A session store whose backend does not answer."""

    def __init__(self, hung):
        self.hung = hung

    async def read(self, session_id, lifetime):
        await self.hung.wait("store")
        return b""

    async def write(self, session_id, data, lifetime, ttl):
        raise AssertionError

    async def remove(self, session_id):
        raise AssertionError


@pytest.fixture(params=["on_handshake", "authorize", "store"])
def hung(request):
    return Hung(request.param)


def options(hung):
    return {"sessions": StoreSessions(HungStore(hung))}


HEADERS = [("Cookie", "session=of-somebody")]


@pytest.mark.usefixtures("wire")
async def test_a_decision_that_takes_too_long_is_a_503(serve, dial, hung, caplog):
    site = await serve(hung, handshake_timeout=SOON, **options(hung))
    raws = [await dial(site.url) for _ in range(20)]
    for raw in raws:
        await raw.send(request("/ws/cars", extra=HEADERS))
    for raw in raws:
        response = await raw.response()
        assert response.status == 503
        assert response["Retry-After"]
        error = json.loads(response.body)["error"]
        assert error["message"] == "the handshake exceeded handshake_timeout"
        assert any(error["request_id"] in record.getMessage() for record in caplog.records)
    await eventually(lambda: hung.cancelled == 20)
    for raw in raws:
        raw.close()
    await eventually(lambda: nothing_left(site))
    assert site.manager.stats["connections"] == 0
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.usefixtures("wire")
@pytest.mark.parametrize("leave", [Raw.half_close, Raw.close, Raw.reset])
async def test_a_peer_that_leaves_is_dropped_and_its_handler_cancelled(serve, dial, hung, leave, caplog):
    site = await serve(hung, handshake_timeout=LATE, **options(hung))
    raws = [await dial(site.url) for _ in range(20)]
    for raw in raws:
        await raw.send(request("/ws/cars", extra=HEADERS))
    await eventually(lambda: hung.waiting == 20)
    for raw in raws:
        leave(raw)
    await eventually(lambda: hung.cancelled == 20 and nothing_left(site))
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.usefixtures("wire")
async def test_an_end_that_came_with_the_request_counts_as_well(serve, dial):
    hung = Hung("on_handshake")
    site = await serve(hung, handshake_timeout=LATE)
    raw = await dial(site.url)
    await raw.send(request("/ws/cars"))
    raw.half_close()
    assert await raw.eof() == b""
    await eventually(lambda: nothing_left(site))


async def test_over_tls_a_peer_that_leaves_is_met_as_well(serve, server_side, client_side):
    hung = Hung("on_handshake")
    site = await serve(hung, handshake_timeout=LATE, ssl=server_side)
    _, writer = await asyncio.open_connection(
        "localhost", site.server.port, ssl=client_side, server_hostname="localhost"
    )
    writer.write(request("/ws/cars"))
    await eventually(lambda: hung.waiting)
    writer.close()
    await eventually(lambda: hung.cancelled == 1 and nothing_left(site))


async def test_what_a_handler_catches_lets_nobody_in(serve, dial):
    """A handler that ignores its cancellation no longer decides anything."""

    class Stubborn(Listener):
        def __init__(self):
            self.went_on = 0

        async def on_handshake(self, request):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.went_on += 1

    site = await serve(stubborn := Stubborn(), handshake_timeout=SOON)
    raw = await dial(site.url)
    await raw.send(request("/ws/cars"))
    assert (await raw.response()).status == 503
    await raw.eof()
    await eventually(lambda: stubborn.went_on == 1)
    assert site.manager.stats["connections"] == 0
    raw.close()
    await eventually(lambda: nothing_left(site))


@pytest.mark.usefixtures("wire")
async def test_frames_that_came_meanwhile_are_kept(serve, dial):
    class Slow(Listener):
        def __init__(self):
            self.go = asyncio.Event()
            self.messages = []

        async def on_handshake(self, request):
            await self.go.wait()

        def on_message(self, ws, message):
            self.messages.append(len(message))

    site = await serve(slow := Slow(), max_header_size=1024)
    raw = await dial(site.url)
    await raw.send(request("/ws/cars"), pieces=[frame(TEXT, b"x" * 500)] * 100)
    slow.go.set()
    assert (await raw.response()).status == 101
    await eventually(lambda: slow.messages == [500] * 100)


async def test_a_handler_in_time_is_not_hurried(serve):
    """handshake_timeout covers the whole handshake, and nothing after it."""

    class Slow(Listener):
        async def on_handshake(self, request):
            await asyncio.sleep(SOON / 3)

        async def on_open(self, ws):
            await asyncio.sleep(SOON * 2)
            ws.send("open")

    site = await serve(Slow(), handshake_timeout=SOON)
    async with connect(f"{site.url}/ws/cars") as client:
        assert await client.receive() == "open"


async def test_a_cancelled_error_of_a_handlers_own_is_a_500(serve):
    class Cancelled(Listener):
        async def on_handshake(self, request):
            await asyncio.sleep(0)
            raise asyncio.CancelledError

    site = await serve(Cancelled())
    with pytest.raises(Refused) as refused:
        async with connect(f"{site.url}/ws/cars"):
            pass
    assert refused.value.status == 500
