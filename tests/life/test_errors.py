"""docs/architecture.md#errors: if a handler raises, only its connection is closed, and it is logged once."""

import asyncio
import logging

import pytest

from fastws import Listener, Server
from fastws.testing import Refused, running

from ..lib.raw import TEXT, frame
from ..lib.support import Echo, Recorder, eventually


class Boom(Exception):
    pass


class Fragile(Recorder):
    """Raises in a given handler, otherwise echoes."""

    def __init__(self, name=None):
        super().__init__()
        self.raising = name

    def _fail(self, name):
        if name == self.raising:
            raise Boom(name)

    def on_message(self, ws, message):
        if message == "boom":
            raise Boom("on_message")
        return message

    def on_close(self, ws, code, reason):
        super().on_close(ws, code, reason)
        self._fail("on_close")

    def on_subscribe(self, ws, channel, subscribers):
        super().on_subscribe(ws, channel, subscribers)
        self._fail("on_subscribe")

    def on_unsubscribe(self, ws, channel, subscribers):
        super().on_unsubscribe(ws, channel, subscribers)
        self._fail("on_unsubscribe")

    def on_channel_close(self, channel):
        super().on_channel_close(channel)
        self._fail("on_channel_close")


class AsyncFragile(Recorder):
    async def on_message(self, ws, message):
        await asyncio.sleep(0)
        if message == "boom":
            raise Boom("on_message")
        return message


def tracebacks(caplog):
    """Log records of fastws with a Boom."""
    return [
        record
        for record in caplog.records
        if record.name.startswith("fastws") and record.exc_info and record.exc_info[0] is Boom
    ]


@pytest.mark.parametrize("listener", [Fragile, AsyncFragile])
async def test_a_handler_that_raises_closes_its_connection_with_1011(serve, join, caplog, listener):
    site = await serve(fragile := listener())
    client, other = await join(f"{site.url}/ws/cars"), await join(f"{site.url}/ws/cars")
    await client.send("boom")
    await client.send("never handled")
    code, reason = await client.closed()
    assert code == 1011
    assert "Boom" not in reason
    assert "on_message" not in reason
    (error,) = await fragile.until("on_error")
    assert isinstance(error, Boom)
    await fragile.until("on_unsubscribe")
    assert fragile.names.index("on_error") < fragile.names.index("on_close")
    (record,) = tracebacks(caplog)
    assert record.levelno == logging.ERROR
    await other.send("fine")
    assert await other.receive() == "fine"
    assert len(site.manager.connections) == 1


@pytest.mark.parametrize("name", ["on_close", "on_subscribe", "on_unsubscribe", "on_channel_close"])
async def test_an_error_in_another_handler_keeps_the_server_whole(serve, join, caplog, name):
    site = await serve(fragile := Fragile(name))
    client = await join(f"{site.url}/ws/cars")
    await fragile.until("on_subscribe")
    if name != "on_subscribe":
        await client.close()
    await client.closed()
    await fragile.until("on_channel_close")
    await eventually(lambda: len(fragile.of("on_error")) == 1)
    assert len(tracebacks(caplog)) == 1
    assert len(site.manager.channels) == 0
    assert len(site.manager.connections) == 0
    fragile.raising = None
    other = await join(f"{site.url}/ws/cars")
    await other.send("fine")
    assert await other.receive() == "fine"


async def test_an_error_in_on_error_itself_is_logged_and_swallowed(serve, join, caplog):
    class Worse(Fragile):
        def on_error(self, ws, error):
            raise Boom("on_error")

    site = await serve(worse := Worse())
    client = await join(f"{site.url}/ws/cars")
    await client.send("boom")
    assert (await client.closed())[0] == 1011
    await worse.until("on_close")
    assert [str(record.exc_info[1]) for record in tracebacks(caplog)] == ["on_message", "on_error"]


async def test_without_on_error_the_log_line_is_all(serve, join, caplog):
    class Bare(Listener):
        def on_message(self, ws, message):
            raise Boom("bare")

    site = await serve(Bare())
    client = await join(f"{site.url}/ws/cars")
    await client.send("x")
    assert (await client.closed())[0] == 1011
    assert len(tracebacks(caplog)) == 1


async def test_a_return_value_that_cannot_be_sent_is_the_handlers_error(serve, join):
    class Odd(Recorder):
        def on_message(self, ws, message):
            return object()

    site = await serve(odd := Odd())
    client = await join(f"{site.url}/ws/cars")
    await client.send("x")
    assert (await client.closed())[0] == 1011
    (error,) = await odd.until("on_error")
    assert isinstance(error, TypeError)


async def test_a_peer_that_breaks_the_protocol_is_on_error_too(serve, dial, join, caplog):
    caplog.set_level(logging.DEBUG, logger="fastws")
    site = await serve(fragile := Fragile())
    other = await join(f"{site.url}/ws/cars")
    raw = await dial(site.url, "/ws/cars")
    await raw.send(frame(TEXT, b"x", mask=None))
    assert await raw.close_code() == 1002
    (error,) = await fragile.until("on_error")
    assert error.code == 1002
    await fragile.until("on_close")
    lines = [record for record in caplog.records if "mask" in record.getMessage()]
    assert len(lines) == 1
    assert lines[0].levelno <= logging.WARNING
    await other.send("fine")
    assert await other.receive() == "fine"


class Cancelled(Listener):
    """Awaits a task in one handler, which somebody cancels."""

    def __init__(self, raising):
        self.raising = raising

    async def _fail(self, name):
        if name == self.raising:
            task = asyncio.create_task(asyncio.sleep(60))
            task.cancel()
            await task

    async def on_handshake(self, request):
        await self._fail("on_handshake")

    async def on_open(self, ws):
        await self._fail("on_open")

    async def on_message(self, ws, message):
        await self._fail("on_message")
        return message


@pytest.mark.parametrize("where", ["on_handshake", "on_open", "on_message"])
async def test_a_cancelled_handler_costs_its_connection_only(serve, join, where):
    site = await serve(Cancelled(where))
    site.server.endpoint("/fine", Echo())
    if where == "on_handshake":
        with pytest.raises(Refused) as refused:
            await join(f"{site.url}/ws/cars")
        assert refused.value.status == 500
    else:
        client = await join(f"{site.url}/ws/cars")
        await client.send("x")
        assert (await client.closed())[0] == 1011
    other = await join(f"{site.url}/fine")
    await other.send("x")
    assert await other.receive() == "x"


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("on_mesage", "on_message"),
        ("on_messages", "on_message"),
        ("onmessage", "on_message"),
        ("on_Message", "on_message"),
        ("on_channel_opened", "on_channel_open"),
        ("on_unsuscribe", "on_unsubscribe"),
        ("authorise", "authorize"),
    ],
)
async def test_a_misspelt_handler_is_a_warning_at_start(caplog, misspelt, meant):
    server = Server(port=0)
    server.endpoint("/", type("Typo", (Listener,), {misspelt: lambda *_: None})())
    async with running(server):
        pass
    (record,) = [record for record in caplog.records if misspelt in record.getMessage()]
    assert record.levelno == logging.WARNING
    assert record.name.split(".")[0] == "fastws"
    assert meant in record.getMessage()
    assert "Typo" in record.getMessage()


async def test_a_well_spelt_listener_with_helpers_of_its_own_starts_in_silence(caplog):
    class Fine(Recorder):
        def save(self): ...
        def on_tuesday(self): ...
        def _on_mesage(self): ...

    caplog.set_level(logging.WARNING)
    server = Server(port=0)
    server.endpoint("/", Fine())
    async with running(server):
        pass
    assert [record for record in caplog.records if record.name.startswith("fastws")] == []


async def test_logging_forces_no_handler_on_others():
    logger = logging.getLogger("fastws")
    assert logger.propagate
    assert logger.level == logging.NOTSET
    assert all(isinstance(handler, logging.NullHandler) for handler in logger.handlers)
    assert logger.isEnabledFor(logging.WARNING)
