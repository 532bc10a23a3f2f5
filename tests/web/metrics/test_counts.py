"""The counts are true after a known conversation."""

import asyncio
import time
from contextlib import suppress

import aiohttp
import pytest
from msgspec.structs import replace
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from fastws import Listener, Server
from fastws.access.tokens import AuthSettings
from fastws.hooks import HookSettings
from fastws.testing import running
from fastws.v1.raw import RawSettings
from fastws.web.metrics import Metrics
from tests.hooks.conftest import answers, reply
from tests.lib.deflate import compressing, deflated_frame
from tests.lib.raw import BINARY, TEXT, Raw, frame
from tests.lib.raw import request as handshake
from tests.lib.support import Echo, eventually
from tests.web.metrics.conftest import API, READER, WRITER, by_labels


def of(metrics, name):
    """The samples of one name, by their labels."""
    return {labels: value for (found, *rest), value in metrics.items() if found == name for labels in [tuple(rest)]}


def collected(server):
    """The same as a scrape, without HTTP."""
    return by_labels(Metrics(server).collect())


@pytest.fixture(params=["epoll", "transport"])
async def echo(request, monkeypatch):
    """A server, and a connection to it over one kind of wire."""
    if request.param == "transport":
        monkeypatch.setattr("fastws.server.has_epoll", False)
    server = Server(port=0)
    server.endpoint("/echo", Echo())
    async with running(server) as url:
        raw = await Raw.open(url)
        await raw.send(handshake("/echo"))
        assert (await raw.response()).status == 101
        yield server, raw
        raw.close()


async def test_handshakes_are_counted_by_their_answer(serve):
    site = await serve(
        anonymous=False, auth=AuthSettings(secret="k" * 32), options={"port": 0, "origins": {"https://a"}}
    )
    for path, options, status in (
        ("/ws", {"origin": "https://a"}, 401),
        ("/ws/room", {"origin": "https://a"}, 401),
        ("/ws", {"origin": "https://b"}, 403),
        ("/nowhere", {}, 404),
    ):
        with pytest.raises(InvalidStatus) as refused:
            await connect(site.url + path, **options)
        assert refused.value.response.status_code == status
    stranger = await Raw.open(site.url)
    await stranger.send(b"nonsense\r\n\r\n")
    assert (await stranger.response()).status == 400
    found = of(await site.scrape(), "fastws_handshakes_total")
    # An endpoint that a page of another origin, or of none, may not know of is not told.
    assert found == {("/ws", "401"): 2, ("", "403"): 1, ("", "404"): 1, ("", "400"): 1}
    assert (await site.get("/nothing")).status == 404
    assert of(await site.scrape(), "fastws_handshakes_total") == found  # a page is not a handshake
    stranger.close()


async def test_compression_is_counted():
    server = Server(port=0, compression="shared")
    server.endpoint("/echo", Echo())
    async with running(server) as url:
        raw = await compressing(url, "/echo")
        await raw.send(deflated_frame(b"tick " * 1_000) + deflated_frame(b"tick"))
        long, short = await raw.frame(), await raw.frame()
        assert (long.rsv, short.rsv) == (4, 0)
        found = collected(server)
        raw.close()
    counts = {"compressed": 1, "compressed_before_bytes": 5_000, "compressed_after_bytes": len(long.payload)}
    counts |= {"expanded": 2, "expanded_bytes": 5_004}
    for name, count in counts.items():
        assert found[f"fastws_{name}_total", "/echo"] == count


async def test_what_comes_and_goes_is_counted(serve):
    site = await serve(api=API)
    ann, bob = await site.join(None, "cars", "bikes"), await site.join(None, "cars")
    before = await site.scrape()
    assert before["fastws_handshakes_total", "/ws", "101"] == 2
    gauges = ("connections", "channels", "users", "subscriptions")
    assert [before[f"fastws_{name}", "/ws"] for name in gauges] == [2, 2, 0, 3]
    await ann.send({"type": "publish", "channel": "cars", "message": "x" * 1000})
    assert (await bob.receive())["message"] == "x" * 1000
    await ann.receive()
    after = await site.scrape()

    def more(*name):
        return after[name] - before[name]

    assert more("fastws_messages_received_total", "/ws", "text") == 1
    assert more("fastws_messages_received_total", "/ws", "binary") == 0
    assert more("fastws_broadcasts_total", "/ws") == 1
    assert 1000 < more("fastws_received_bytes_total") < 1400  # the scrape's own head with it
    assert 2000 < more("fastws_sent_bytes_total") < 2400
    assert more("fastws_flush_seconds_count") >= 1
    assert more("fastws_flush_seconds_sum") > 0
    assert after["fastws_backlog_bytes",] == 0


async def test_both_kinds_of_messages_and_every_delivery_are_counted():
    server = Server(port=0)
    server.endpoint("/echo", Echo())
    async with running(server) as url, connect(f"{url}/echo") as client:
        for message in ("a", "b", b"c"):
            await client.send(message)
            assert await client.recv() == message
        found = collected(server)
        assert found["fastws_messages_received_total", "/echo", "text"] == 2
        assert found["fastws_messages_received_total", "/echo", "binary"] == 1
        assert found["fastws_deliveries_total", "/echo"] == 3
        assert found["fastws_broadcasts_total", "/echo"] == 0


async def test_bytes_are_counted_exactly(echo):
    server, raw = echo
    before = server.stats
    await raw.send(frame(TEXT, b"x" * 100) + frame(BINARY, b"y" * 1000))
    assert await raw.text() == "x" * 100
    assert (await raw.frame()).payload == b"y" * 1000
    after = server.stats
    assert after["received_bytes"] - before["received_bytes"] == 6 + 100 + 8 + 1000
    assert after["sent_bytes"] - before["sent_bytes"] == 2 + 100 + 4 + 1000


async def test_ends_are_counted_by_code_and_by_whom(serve):
    site = await serve()
    by_peer, unknown, lost, by_server, at_fault = [await site.join() for _ in range(5)]
    await by_peer.ws.close(1000)
    await unknown.ws.close(4567)
    lost.ws.transport.abort()
    await eventually(lambda: site.manager.connection_count == 2)
    site.manager.connections[by_server.welcome["id"]].close(4001, "logged out")
    assert await by_server.closed() == (4001, "logged out")
    at_fault.ws.transport.write(b"\xff\xff\xff")
    assert (await at_fault.closed())[0] == 1002
    await eventually(lambda: sum(site.manager.life.closes.values()) == 5)
    assert of(await site.scrape(), "fastws_connections_closed_total") == {
        ("peer", "1000", "/ws"): 1,
        ("peer", "other", "/ws"): 1,
        ("lost", "1006", "/ws"): 1,
        ("server", "4001", "/ws"): 1,
        ("server", "1002", "/ws"): 1,
    }


async def test_a_peer_that_never_answers_our_close_was_closed_by_us():
    server = Server(port=0, close_timeout=0.05)
    manager = server.endpoint("/echo", Echo())
    async with running(server) as url:
        raw = await Raw.open(url)
        await raw.send(handshake("/echo"))
        await raw.response()
        await eventually(lambda: manager.connection_count == 1)
        next(iter(manager.connections.values())).close(1013)
        await eventually(lambda: manager.life.closes)
        assert manager.life.closes == {(1013, "server"): 1}
        raw.close()


async def test_a_refusal_by_a_close_frame_is_a_handshake_and_no_end(serve):
    site = await serve(anonymous=False)
    client = await site.dial()
    assert (await client.closed())[0] == 4401
    found = await site.scrape()
    assert of(found, "fastws_handshakes_total") == {("/ws", "401"): 1}
    assert of(found, "fastws_connections_closed_total") == {}


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
async def test_what_slow_readers_miss_is_counted(overflow):
    server = Server(port=0, max_backlog=1000, overflow=overflow)
    manager = server.endpoint("/{channel}", Listener())
    async with running(server) as url:
        raw = await Raw.open(url, receive_buffer=4096)
        await raw.send(handshake("/cars"))
        await raw.response()
        await eventually(lambda: manager.channels)
        client = next(iter(manager.connections.values()))
        while client.pending < 1 << 20:  # the first is larger than max_backlog, and fills the socket
            manager.broadcast("cars", b"x" * (8 << 20))
            await asyncio.sleep(0)
        already = collected(server)["fastws_messages_dropped_total", "/{channel}", overflow]
        for _ in range(20):
            manager.broadcast("cars", b"y" * 900)
        found = collected(server)
        assert found["fastws_backlog_bytes",] == client.pending > 1 << 20
        assert found["fastws_arena_bytes",] >= client.pending
        dropped = found["fastws_messages_dropped_total", "/{channel}", overflow] - already
        assert dropped == manager.stats[f"dropped_{overflow.removeprefix('drop_')}"] - already
        assert dropped >= 18
        assert found["fastws_broadcasts_total", "/{channel}"] >= 21
        raw.close()


async def test_handlers_that_raise_are_counted_by_their_name(caplog):
    class Broken(Listener):
        def on_open(self, ws):
            if "open" in ws.query:
                raise RuntimeError

        def on_message(self, ws, message):
            raise RuntimeError

    server = Server(port=0)
    manager = server.endpoint("/", Broken())
    async with running(server) as url:
        for query in ("?open=1", ""):
            async with connect(url + "/" + query) as client:
                with suppress(ConnectionClosed):
                    await client.send("x")
                await client.wait_closed()
                assert client.close_code == 1011
        await eventually(lambda: sum(manager.life.closes.values()) == 2)
        found = collected(server)
        assert of(found, "fastws_handler_errors_total") == {("/", "on_open"): 1, ("/", "on_message"): 1}
        assert of(found, "fastws_connections_closed_total") == {("server", "1011", "/"): 2}


async def test_requests_of_the_api_are_counted_by_route(serve):
    site = await serve(api=API)
    for path, key, status in (
        ("/api/info", READER, 200),
        ("/api/channels/cars", READER, 404),
        ("/api/channels/bikes", READER, 404),
        ("/api/info", WRITER, 403),
        ("/nothing/at/all", READER, 404),
    ):
        assert (await site.get(path, Authorization=f"Bearer {key}")).status == status, path
    found = await site.scrape()
    requests = of(found, "fastws_api_requests_total")
    assert requests == {
        ("/api/info", "200"): 1,
        ("/api/info", "403"): 1,
        ("/api/channels/{name}", "404"): 2,
        ("", "404"): 1,
    }
    assert found["fastws_api_request_seconds_count",] == 5
    assert found["fastws_api_request_seconds_bucket", "+Inf"] == 5


async def test_an_api_on_its_own_port_is_counted_with_the_others(serve, unused_tcp_port):
    site = await serve(api=replace(API, listen=f"127.0.0.1:{unused_tcp_port}"))
    url = f"http://127.0.0.1:{unused_tcp_port}/api/info"
    async with aiohttp.request("GET", url, headers={"X-API-Key": READER}) as answer:
        assert answer.status == 200
    assert of(await site.scrape(), "fastws_api_requests_total") == {("/api/info", "200"): 1}


async def test_hooks_are_counted(serve, backend):
    answers(backend, connect=lambda post: {"user": "ann"} if "yes" in str(post.json) else reply(403))
    hooks = HookSettings(url=backend.url, ask=("connect",), tell=("online",), heartbeat=0)
    site = await serve(hooks=hooks, raw=RawSettings())
    await site.join("yes")
    for _ in range(2):
        with pytest.raises(InvalidStatus):
            await connect(f"{site.url}/ws")
    await backend.until(lambda: [event for event in backend.events if event["type"] == "online"])
    await eventually(lambda: site.manager.listener.backend.figures.requests["events", "ok"])
    found = await site.scrape()
    requests = of(found, "fastws_hook_requests_total")
    told = requests.pop(("events", "ok"))
    assert requests == {("connect", "ok"): 1, ("connect", "refused"): 2}
    assert found["fastws_hook_seconds_count", "connect"] == 3
    assert found["fastws_hook_seconds_count", "events"] == told
    assert 0 < found["fastws_hook_seconds_sum", "connect"] < 10
    assert (found["fastws_hook_pending",], found["fastws_hook_reachable",]) == (0, 1)
    await backend.stop()
    with pytest.raises(InvalidStatus):
        await connect(f"{site.url}/ws")
    found = await site.scrape()
    assert found["fastws_hook_requests_total", "connect", "error"] == 1
    assert found["fastws_hook_reachable",] == 0
    assert of(found, "fastws_handshakes_total") == {("/ws", "101"): 1, ("/ws", "403"): 2, ("/ws", "503"): 1}


async def test_a_loop_that_hangs_is_seen(serve):
    site = await serve()
    await eventually(lambda: site.server.loop.time())

    async def seen():
        found = await site.scrape()
        return found["fastws_loop_lag_seconds_count",], found["fastws_loop_lag_seconds_bucket", "0.1"]

    async with asyncio.timeout(10):
        while (await seen())[0] == 0:
            await asyncio.sleep(0.02)
    before = await seen()
    time.sleep(0.3)  # noqa: ASYNC251
    async with asyncio.timeout(10):
        while (await seen())[0] == before[0]:
            await asyncio.sleep(0.02)
    count, in_time = await seen()
    assert count - in_time >= before[0] - before[1] + 1
