"""Three masters on this machine; slots that move under traffic, a master that dies."""

import asyncio

import pytest

from fastws.backplane.base import LogName, Subject, UserName
from fastws.backplane.redis import Redis
from fastws.backplane.redis.names import PARTITIONS, SLOTS, Names, slot_of
from fastws.logs import History

from ..lib.redis import RedisServer, free_port
from ..lib.support import eventually
from .peers import ROOM, Backplanes


def cluster_options():
    """Its own bus, whose port would be that of the server + 10,000, and so maybe none."""
    return ("--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--cluster-node-timeout", "1500")


class RedisCluster:
    """Masters, each with its third of the slots; and a replica of the first, if it is asked for."""

    def __init__(self, folder, *, replicas=0):
        self.servers = [self._server(folder, number) for number in range(3 + replicas)]
        self.masters = self.servers[:3]
        for number, server in enumerate(self.masters):
            first, last = number * SLOTS // 3, (number + 1) * SLOTS // 3 - 1
            assert server.say("CLUSTER", "ADDSLOTSRANGE", str(first), str(last)) == b"+OK\r\n"
            assert server.say("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1)) == b"+OK\r\n"
        for server in self.servers[1:]:
            meet = ("CLUSTER", "MEET", "127.0.0.1", str(server.port), server.options[3])
            assert self.servers[0].say(*meet) == b"+OK\r\n"
        self.url = f"redis+cluster://127.0.0.1:{self.masters[1].port},127.0.0.1:{self.masters[2].port}"

    def _server(self, folder, number):
        folder = folder / str(number)
        folder.mkdir()
        return RedisServer(folder, *cluster_options(), "--repl-diskless-sync-delay", "0").start()

    async def until_ready(self):
        async with asyncio.timeout(60):
            while not all(b"cluster_state:ok" in server.say("CLUSTER", "INFO") for server in self.masters) or not all(
                f"cluster_known_nodes:{len(self.servers)}".encode() in server.say("CLUSTER", "INFO")
                for server in self.servers
            ):
                await asyncio.sleep(0.05)
        return self

    def id(self, server):
        return server.say("CLUSTER", "MYID").split(b"\r\n")[1].decode()

    def owner(self, slot):
        return self.masters[min(slot * 3 // SLOTS, 2)]

    async def move(self, slot, source, target):
        """As an operator's tool does it: announce, move the keys, tell everybody."""
        assert target.say("CLUSTER", "SETSLOT", str(slot), "IMPORTING", self.id(source)) == b"+OK\r\n"
        assert source.say("CLUSTER", "SETSLOT", str(slot), "MIGRATING", self.id(target)) == b"+OK\r\n"
        while keys := source.say("CLUSTER", "GETKEYSINSLOT", str(slot), "10").split(b"\r\n")[2:-1:2]:
            names = [key.decode() for key in keys]
            source.say("MIGRATE", "127.0.0.1", str(target.port), "", "0", "5000", "KEYS", *names)
            await asyncio.sleep(0.01)
        for server in (target, source, *self.masters):
            assert server.say("CLUSTER", "SETSLOT", str(slot), "NODE", self.id(target)) == b"+OK\r\n"

    def stop(self):
        for server in self.servers:
            server.kill()


@pytest.fixture
def cluster(tmp_path):
    cluster = RedisCluster(tmp_path)
    yield cluster
    cluster.stop()


def test_partitions_are_spread_evenly_over_the_slots():
    assert [slot_of(partition) * PARTITIONS // SLOTS for partition in range(PARTITIONS)] == list(range(PARTITIONS))


@pytest.mark.timeout(180)
async def test_a_slot_moves_under_traffic(cluster):
    await cluster.until_ready()
    backplanes = Backplanes(lambda: Redis(cluster.url))
    a, b = await backplanes.node("a"), await backplanes.node("b")
    log = LogName("/ws", "busy", History(size=10_000))
    zero, followed = await a.top(log), await b.follow(log)
    partition = Names(backplanes.prefix, 0).log(log).partition
    slot = slot_of(partition)
    source = cluster.owner(slot)
    target = next(server for server in cluster.masters if server is not source)
    said, is_over = [], asyncio.Event()

    async def speak():
        while not is_over.is_set():
            said.append((await a.append(log, b"%d" % len(said)))[0])
            await asyncio.sleep(0.001)

    speaking = asyncio.create_task(speak())
    await eventually(lambda: len(said) > 50)
    connected = b.connected
    await cluster.move(slot, source, target)
    before = len(said)
    await eventually(lambda: len(said) > before + 50 or speaking.done())
    await eventually(lambda: b.connected > connected)
    is_over.set()
    await speaking
    read = await b.backplane.read(log, zero, 10_000)
    assert [record.position for record in read.records] == said
    assert [record.payload for record in read.records] == [b"%d" % number for number in range(len(said))]
    (last,) = await a.append(log, b"after")
    await eventually(lambda: followed.records[-1].position == last)
    assert a.backplane.is_connected
    await backplanes.stop()


@pytest.mark.timeout(180)
async def test_everything_is_spread_and_still_arrives(cluster):
    await cluster.until_ready()
    backplanes = Backplanes(lambda: Redis(cluster.url))
    a, b = await backplanes.node("a"), await backplanes.node("b")
    subjects = [Subject("channel", "/ws", f"room{number}") for number in range(500)]
    received = await b.listen(*subjects)
    inbox = await b.listen(Subject("node", "", "b"))
    users = [UserName("/ws", f"user{number}") for number in range(500)]
    await b.backplane.claim(users)
    for subject in subjects:
        a.backplane.send(subject, b"hi")
    for user in users:
        a.backplane.route([user], user.name.encode())
    a.backplane.route(users, b"all")
    await eventually(lambda: len(received) == 500 and len(inbox) == 501)
    assert sorted(inbox) == sorted([b"all", *(user.name.encode() for user in users)])
    assert set(await a.backplane.holdings(b.key)) == set(users)
    for server in cluster.masters:
        assert int(server.say("DBSIZE")[1:]) > 100
    await backplanes.stop()


@pytest.mark.timeout(180)
async def test_a_master_dies_and_its_replica_takes_over(tmp_path):
    cluster = await RedisCluster(tmp_path, replicas=1).until_ready()
    replica = cluster.servers[3]
    async with asyncio.timeout(30):
        while replica.say("CLUSTER", "REPLICATE", cluster.id(cluster.masters[0])) != b"+OK\r\n":
            await asyncio.sleep(0.1)
        while b"master_link_status:up" not in replica.say("INFO", "replication"):
            await asyncio.sleep(0.1)
    backplanes = Backplanes(lambda: Redis(cluster.url))
    a, b = await backplanes.node("a"), await backplanes.node("b")
    log = next(
        log
        for log in (LogName("/ws", f"room{number}", History()) for number in range(1000))
        if cluster.owner(slot_of(Names(backplanes.prefix, 0).log(log).partition)) is cluster.masters[0]
    )
    followed = await b.follow(log)
    (first,) = await a.append(log, b"1")
    users = [UserName("/ws", f"user{number}") for number in range(300)]
    await a.backplane.claim(users)
    async with asyncio.timeout(20):
        while replica.say("DBSIZE") != cluster.masters[0].say("DBSIZE"):
            await asyncio.sleep(0.05)
    cluster.masters[0].kill()
    await eventually(lambda: not (a.backplane.is_connected or b.backplane.is_connected))
    async with asyncio.timeout(60):
        while not (a.backplane.is_connected and b.backplane.is_connected):
            await asyncio.sleep(0.05)
    (second,) = await a.append(log, b"2")
    assert second.offset > first.offset
    await eventually(lambda: followed.payloads == [b"1", b"2"])
    assert await b.backplane.find(users) == [[a.key]] * 300
    (third,) = await a.append(ROOM, b"elsewhere")
    assert third.offset == 1
    await backplanes.stop()
    cluster.stop()


async def test_a_cluster_that_is_not_there_at_the_start(tmp_path):
    (tmp_path / "one").mkdir()
    single = RedisServer(tmp_path / "one", *cluster_options())
    backplanes = Backplanes(lambda: Redis(f"redis+cluster://127.0.0.1:{single.port}"))
    a = await backplanes.node("a", is_awaited=False)
    assert not a.backplane.is_connected
    single.start()
    assert single.say("CLUSTER", "ADDSLOTSRANGE", "0", str(SLOTS - 1)) == b"+OK\r\n"
    await eventually(lambda: a.connected)
    assert (await a.append(ROOM, b"1"))[0].offset == 1
    await backplanes.stop()
    single.kill()
