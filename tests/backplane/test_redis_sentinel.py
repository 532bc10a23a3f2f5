"""A master with a replica, and three sentinels that agree on a failover."""

import asyncio

import pytest

from fastws import ConfigurationError
from fastws.backplane.base import UserName
from fastws.backplane.redis import Redis

from ..lib.redis import RedisServer
from ..lib.support import eventually
from .peers import CARS, ROOM, Backplanes

ANN = UserName("/ws", "ann")


class Watched:
    """Redis servers and the sentinels that watch the first of them."""

    def __init__(self, folder):
        self.servers = [self._server(folder, "master")]
        master = self.servers[0]
        self.servers.append(self._server(folder, "replica", "--replicaof", "127.0.0.1", str(master.port)))
        self.sentinels = [self._sentinel(folder, f"sentinel{number}", master.port) for number in range(3)]
        self.url = "sentinel://" + ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels) + "/main"

    def _server(self, folder, name, *options):
        folder.joinpath(name).mkdir()
        return RedisServer(folder / name, "--repl-diskless-sync-delay", "0", *options).start()

    def _sentinel(self, folder, name, port):
        folder.joinpath(name).mkdir()
        config = folder / name / "sentinel.conf"
        config.write_text(
            f"sentinel monitor main 127.0.0.1 {port} 2\n"
            "sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 5000\n"
        )
        return RedisServer(folder / name, "--sentinel", config=config).start()

    async def until_all_is_known(self):
        """Each sentinel knows the other two, and the replica; the replica has what the master has."""
        async with asyncio.timeout(60):
            while not all(
                b"num-other-sentinels\r\n$1\r\n2" in said and b"num-slaves\r\n$1\r\n1" in said
                for said in (sentinel.say("SENTINEL", "MASTER", "main") for sentinel in self.sentinels)
            ) or b"master_link_status:up" not in self.servers[1].say("INFO", "replication"):
                await asyncio.sleep(0.1)

    def stop(self):
        for server in (*self.sentinels, *self.servers):
            server.kill()


@pytest.fixture
def watched(tmp_path):
    watched = Watched(tmp_path)
    yield watched
    watched.stop()


async def until_replicated(watched):
    async with asyncio.timeout(20):
        while watched.servers[0].say("DBSIZE") != watched.servers[1].say("DBSIZE"):
            await asyncio.sleep(0.02)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("how", ["asked for", "killed", "frozen"])
async def test_a_failover(watched, how):
    await watched.until_all_is_known()
    backplanes = Backplanes(lambda: Redis(watched.url))
    a, b = await backplanes.node("a", timeout=3.0), await backplanes.node("b", timeout=3.0)
    received, followed = await b.listen(CARS), await b.follow(ROOM)
    (first,) = await a.append(ROOM, b"1")
    await a.backplane.claim([ANN])
    await eventually(lambda: followed.payloads == [b"1"])
    await until_replicated(watched)
    if how == "asked for":
        assert watched.sentinels[0].say("SENTINEL", "FAILOVER", "main") == b"+OK\r\n"
    elif how == "killed":
        watched.servers[0].kill()
    else:
        watched.servers[0].freeze()
    async with asyncio.timeout(60):
        while b"role:master" not in watched.servers[1].say("INFO", "replication"):
            await asyncio.sleep(0.05)
        while not (a.connected > 1 and b.connected > 1 and a.backplane.is_connected and b.backplane.is_connected):
            await asyncio.sleep(0.05)
    await asyncio.sleep(0)
    (second,) = await a.append(ROOM, b"2")
    assert second.offset > first.offset
    a.backplane.send(CARS, b"hi")
    await eventually(lambda: received == [b"hi"] and followed.payloads[-1] == b"2")
    read = await b.backplane.read(ROOM, first, 10)
    assert (read.status, [record.payload for record in read.records]) == ("ok", [b"2"])
    assert await b.backplane.find([ANN]) == [[a.key]]
    await backplanes.stop()


async def test_a_master_that_no_sentinel_knows(watched, caplog):
    backplanes = Backplanes(lambda: Redis(watched.url.replace("/main", "/other")))
    a = await backplanes.node("a", is_awaited=False)
    assert not a.backplane.is_connected
    assert "no sentinel knows a master other" in caplog.text
    await backplanes.stop()


async def test_sentinels_with_the_password_of_the_master(tmp_path):
    folder = tmp_path / "master"
    folder.mkdir()
    master = RedisServer(folder, "--requirepass", "secret").start()
    config = tmp_path / "sentinel.conf"
    config.write_text(f"sentinel monitor main 127.0.0.1 {master.port} 1\nrequirepass secret\n")
    sentinel = RedisServer(tmp_path, "--sentinel", config=config).start()
    backplanes = Backplanes(lambda: Redis(f"sentinel://:secret@127.0.0.1:{sentinel.port}/main"))
    a = await backplanes.node("a")
    assert (await a.append(ROOM, b"1"))[0].offset == 1
    wrong = Backplanes(lambda: Redis(f"sentinel://:wrong@127.0.0.1:{sentinel.port}/main"))
    with pytest.raises(ConfigurationError, match="WRONGPASS"):
        await wrong.node("b")
    await backplanes.stop()
    sentinel.kill()
    master.kill()
