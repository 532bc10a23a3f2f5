"""Who may in, and what a Redis must be: passwords, ACLs, TLS, versions, policies."""

import asyncio
import logging
import re
from pathlib import Path

import pytest

from fastws import ConfigurationError
from fastws.backplane.base import NodeKey, Subject, UserName
from fastws.backplane.redis import Redis

from ..lib.redis import RedisServer, free_port
from ..lib.support import CERTIFICATE, eventually
from .peers import CARS, PRICES, ROOM, Backplanes, Peer

PAGE = Path(__file__).parent.parent.parent / "docs" / "redis.md"
TLS = ("--tls-auth-clients", "no", "--tls-cert-file", str(CERTIFICATE), "--tls-key-file", str(CERTIFICATE))


@pytest.fixture
def serve_redis(tmp_path):
    """`serve_redis(*options)` starts a Redis server."""
    servers = []

    def start(*options, **settings):
        folder = tmp_path / str(len(servers))
        folder.mkdir()
        servers.append(RedisServer(folder, *options, **settings).start())
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


async def use(redis, prefix="fastws"):
    """Do everything once that a node does."""
    backplanes = Backplanes(lambda: redis)
    backplanes.prefix = prefix
    a = await backplanes.node("a")
    received, followed = await a.listen(CARS, Subject("node", "", "a"), Subject("all", "", "")), await a.follow(ROOM)
    try:
        a.backplane.send(CARS, b"hi")
        (position,) = await a.append(ROOM, b"1", id="x")
        await a.put(PRICES, "AAPL", b"1")
        await a.put(PRICES, "AAPL", None)
        await a.backplane.read(PRICES, await a.top(PRICES), 10)
        await a.backplane.snapshot(PRICES)
        await a.backplane.tops([ROOM, PRICES])
        await a.backplane.claim([UserName("/ws", "ann")])
        a.backplane.route([UserName("/ws", "ann")], b"hi")
        assert await a.backplane.holdings(a.key) == [UserName("/ws", "ann")]
        await a.backplane.release([UserName("/ws", "ann")])
        await a.backplane.beat(b"")
        await a.backplane.bury(NodeKey("b", 1), 1)
        await a.backplane.buried(NodeKey("b", 1))
        await a.backplane.broken(ROOM, position)
        await a.backplane.clear(ROOM)
        await a.backplane.leave()
        a.backplane.ignore([CARS])
        await eventually(lambda: received == [b"hi"] and followed.payloads == [b"1"] and followed.begun)
        assert a.backplane.lost == 0
        assert a.reasons == []
    finally:
        await backplanes.stop()


async def refused(redis):
    """What is said at a start that cannot be."""
    with pytest.raises(ConfigurationError) as raised:
        await redis.start(NodeKey("a", 1), Peer(NodeKey("a", 1), redis), prefix="fastws", timeout=10, buffer=1)
    return str(raised.value)


async def test_a_password(serve_redis):
    port = serve_redis("--requirepass", "s:cret/").port
    await use(Redis(f"redis://:s%3Acret%2F@127.0.0.1:{port}"))
    assert "WRONGPASS" in await refused(Redis(f"redis://:other@127.0.0.1:{port}"))
    assert "NOAUTH" in await refused(Redis(f"redis://127.0.0.1:{port}"))


async def test_the_documented_acl_suffices(serve_redis, caplog):
    caplog.set_level(logging.INFO, "fastws.backplane")
    redis = serve_redis()
    (command,) = re.findall(r"^ACL SETUSER .*$", PAGE.read_text(), re.M)
    assert redis.say(*command.split()) == b"+OK\r\n"
    for database in (0, 3):
        await use(Redis(f"redis://fastws:secret@127.0.0.1:{redis.port}/{database}"))
    notes = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "fastws.backplane"]
    assert [level for level, _ in notes] == ["INFO", "INFO"]
    assert "does not say its maxmemory-policy" in notes[0][1]
    caplog.clear()
    with pytest.raises(ConfigurationError, match="does not let its user do what is needed: NOPERM"):
        await use(Redis(f"redis://fastws:secret@127.0.0.1:{redis.port}"), "other")


async def test_databases_of_one_redis_hear_nothing_of_each_other(serve_redis):
    redis = serve_redis()
    there, here = (Backplanes(lambda database=database: Redis(f"{redis.url}/{database}")) for database in (0, 1))
    here.prefix = there.prefix
    a, b, c = await there.node("a"), await here.node("b"), await here.node("c")
    at_a, at_b = await a.listen(CARS), await b.listen(CARS)
    c.backplane.send(CARS, b"hi")
    await eventually(lambda: at_b == [b"hi"])
    await b.append(ROOM, b"1")
    assert (await a.top(ROOM)).offset == 0
    assert at_a == []
    await here.stop()
    await there.stop()


async def test_tls(serve_redis, client_side):
    port = free_port()
    serve_redis("--tls-port", str(port), *TLS)
    await use(Redis(f"rediss://127.0.0.1:{port}", ssl=client_side))


async def test_a_certificate_of_an_unknown_authority_is_not_trusted(serve_redis, caplog):
    port = free_port()
    serve_redis("--tls-port", str(port), *TLS)
    backplanes = Backplanes(lambda: Redis(f"rediss://127.0.0.1:{port}"))
    a = await backplanes.node("a", is_awaited=False)
    assert not a.backplane.is_connected
    assert "certificate" in caplog.text
    await backplanes.stop()


async def test_a_unix_socket(serve_redis, tmp_path):
    path = tmp_path / "redis.sock"
    serve_redis("--unixsocket", str(path))
    await use(Redis(f"unix://{path}"))


async def test_several_servers(serve_redis):
    one, two = serve_redis(), serve_redis()
    backplanes = Backplanes(lambda: Redis(one.url, two.url))
    a, b = await backplanes.node("a"), await backplanes.node("b")
    inbox = await b.listen(Subject("node", "", "b"))
    users = [UserName("/ws", f"user{number}") for number in range(50)]
    await b.backplane.claim(users)
    a.backplane.route(users, b"once")
    a.backplane.route(users[:1], b"and again")
    await eventually(lambda: sorted(inbox) == [b"and again", b"once"])
    subjects = [Subject("channel", "/ws", f"room{number}") for number in range(50)]
    received = await b.listen(*subjects)
    for subject in subjects:
        a.backplane.send(subject, b"hi")
    await eventually(lambda: len(received) == 50)
    for redis in (one, two):
        assert redis.say("DBSIZE") != b":0\r\n"
    two.kill()
    await eventually(lambda: not a.backplane.is_connected)
    two.start()
    await eventually(lambda: a.backplane.is_connected and b.backplane.is_connected)
    assert set(await a.backplane.holdings(b.key)) == set(users)
    await backplanes.stop()


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_policy_that_evicts_is_warned_of(serve_redis, caplog, policy):
    await use(Redis(serve_redis("--maxmemory-policy", policy).url))
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "fastws.backplane"]
    assert warning == (f"Redis has maxmemory-policy {policy}, and may throw away users and logs: set it to noeviction")


HELLO = (
    b"*14\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n6.2.14\r\n$5\r\nproto\r\n:2\r\n$2\r\nid\r\n:3\r\n"
)
HELLO += b"$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n"
NO_HELLO = b"-ERR unknown command `HELLO`, with args beginning with: `2`, `SETNAME`, \r\n"


@pytest.mark.parametrize(
    ("answer", "said"),
    [(HELLO, "Redis 6.2.14 is too old: 7.0 or later"), (NO_HELLO, "Redis is too old: 7.0 or later")],
)
async def test_an_old_redis_is_refused(answer, said):
    async def serve(reader, writer):
        await reader.readuntil(b"HELLO")
        writer.write(answer)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert said in await refused(Redis(f"redis://127.0.0.1:{port}"))
    server.close()


async def test_whatever_is_no_redis_is_tried_again(caplog):
    async def serve(reader, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    backplanes = Backplanes(lambda: Redis(f"redis://127.0.0.1:{port}"))
    await backplanes.node("a", is_awaited=False)
    assert "is away, and is tried again" in caplog.text
    await backplanes.stop()
    server.close()


async def test_a_cluster_must_be_asked_as_one_and_nothing_else(serve_redis):
    assert "redis+cluster://" in await refused(
        Redis(serve_redis("--cluster-enabled", "yes", "--cluster-port", str(free_port())).url)
    )
    url = serve_redis().url.replace("redis://", "redis+cluster://")
    assert "redis://" in await refused(Redis(url))


@pytest.mark.parametrize("prefix", ["a{b}", "}"])
async def test_a_prefix_with_braces_is_refused(prefix):
    with pytest.raises(ConfigurationError, match="must not contain braces"):
        await use(Redis("redis://127.0.0.1:1"), prefix)
