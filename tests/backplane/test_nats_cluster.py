"""Three NATS servers that keep each stream three times; one of them ends."""

import asyncio
from contextlib import ExitStack

import pytest

from fastws.backplane.base import BackplaneError, LogName, UserName
from fastws.backplane.nats import NATS
from fastws.logs import History, Latest

from ..lib.nats import NATSServer
from ..lib.support import unused_port
from .peers import CARS, Backplanes

LOG = LogName("/ws", "room", History(size=10_000))
KEYS = LogName("/ws", "keys", Latest(changes=10_000))
ANN = UserName("/ws", "ann")


@pytest.fixture
def servers(tmp_path):
    with ExitStack() as ports:
        own, routes = [[ports.enter_context(unused_port()) for _ in range(3)] for _ in range(2)]
        listed = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
        made = []
        for number, (port, route) in enumerate(zip(own, routes, strict=True)):
            folder = tmp_path / f"{number}"
            folder.mkdir()
            config = f"server_name: n{number}\ncluster {{ name: c, listen: 127.0.0.1:{route}, routes: [{listed}] }}"
            made.append(NATSServer(folder, port, config))
        for server in made:
            server.start()
        yield made
        for server in made:
            server.stop()


async def until(ask):
    """Ask until it is answered: servers take seconds to agree who leads."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await ask()
            except BackplaneError:
                await asyncio.sleep(0.2)


@pytest.mark.timeout(400)  # servers take seconds to find out that one of them is gone
async def test_the_end_of_any_server_loses_nothing(servers):
    url = "nats://" + ",".join(f"127.0.0.1:{server.port}" for server in servers) + "?replicas=3"
    nodes = Backplanes(lambda: NATS(url))
    a, b = await nodes.node("a", timeout=30.0), await nodes.node("b", timeout=30.0)
    assert b.backplane.url + "?replicas=3" == url
    zeros = [await until(lambda log=log: a.top(log)) for log in (LOG, KEYS)]
    followed = await b.follow(LOG)
    heard = await b.listen(CARS)
    await until(lambda: a.backplane.claim([ANN]))
    positions = {}

    async def say(first, last):
        for number in range(first, last):
            payload = b"%d" % number
            positions[number] = await until(lambda p=payload: a.backplane.append(LOG, p, id=p.decode()))
            await until(lambda p=payload: a.put(KEYS, "key", p))

    for number, server in enumerate(servers):
        saying = asyncio.ensure_future(say(100 * number, 100 * number + 100))
        await asyncio.sleep(0.1)
        server.kill()
        await saying
        server.start()
        await asyncio.sleep(1)
    read = await until(lambda: b.backplane.read(LOG, zeros[0], 10_000))
    assert (read.status, [record.position for record in read.records]) == ("ok", sorted(positions.values()))
    assert [record.payload for record in read.records] == [b"%d" % number for number in range(300)]
    latest = await until(lambda: b.backplane.snapshot(KEYS))
    assert [record[1:] for record in latest.records] == [("key", b"299")]
    assert await until(lambda: b.backplane.find([ANN])) == [[a.key]]
    told = {record.position for record in followed.records}
    assert told <= set(positions.values())
    async with asyncio.timeout(60):
        while not heard:
            a.backplane.send(CARS, b"hi")
            await asyncio.sleep(0.1)
    await nodes.stop()
