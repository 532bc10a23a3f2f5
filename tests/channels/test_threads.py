"""docs/architecture.md#threads: everything runs on the loop's thread, and there are twins for other threads."""

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from ..lib.support import TIMEOUT, Named, Recorder

CALLS = {
    "broadcast": (lambda ws: ws.manager.broadcast("cars", "x"), "broadcast_threadsafe"),
    "manager.send": (lambda ws: ws.manager.send("id", "x"), "send_threadsafe"),
    "send": (lambda ws: ws.send("x"), "send_threadsafe"),
    "send_to_user": (lambda ws: ws.manager.send_to_user("ann", "x"), "threadsafe"),
    "subscribe": (lambda ws: ws.subscribe("bikes"), "threadsafe"),
    "unsubscribe": (lambda ws: ws.unsubscribe("cars"), "threadsafe"),
    "unsubscribe_all": (lambda ws: ws.unsubscribe_all(), "threadsafe"),
    "manager.subscribe": (lambda ws: ws.manager.subscribe("bikes", ws), "threadsafe"),
    "manager.unsubscribe": (lambda ws: ws.manager.unsubscribe("cars", ws), "threadsafe"),
    "manager.unsubscribe_all": (lambda ws: ws.manager.unsubscribe_all(ws), "threadsafe"),
    "subscribe_user": (lambda ws: ws.manager.subscribe_user("ann", "bikes"), "threadsafe"),
    "unsubscribe_user": (lambda ws: ws.manager.unsubscribe_user("ann", "cars"), "threadsafe"),
    "close_user": (lambda ws: ws.manager.close_user("ann"), "threadsafe"),
    "close_session": (lambda ws: ws.manager.close_session("a session"), "threadsafe"),
    "presence": (lambda ws: ws.manager.presence("cars"), "threadsafe"),
    "watch_presence": (lambda ws: ws.manager.watch_presence("cars"), "threadsafe"),
    "unwatch_presence": (lambda ws: ws.manager.unwatch_presence("cars"), "threadsafe"),
    "notify": (lambda ws: ws.manager.notify("cars", "ann", "x"), "threadsafe"),
    "visibility_changed": (lambda ws: ws.manager.visibility_changed("ann"), "threadsafe"),
    "close": (lambda ws: ws.close(), "threadsafe"),
    "ping": (lambda ws: ws.ping(), "threadsafe"),
}


@pytest.mark.parametrize("name", CALLS)
async def test_another_thread_gets_a_runtime_error_that_names_the_twin(serve, join, name):
    site = await serve(recorder := Recorder())
    client = await join(f"{site.url}/ws/cars")
    await recorder.until("on_subscribe")
    (ws,) = recorder.sockets
    call, twin = CALLS[name]
    with pytest.raises(RuntimeError, match=twin):
        await asyncio.to_thread(call, ws)
    assert await client.received() == []
    assert ws.is_open
    assert ws.channels == frozenset({"cars"})


async def test_broadcast_threadsafe_gives_a_future_of_the_count(serve, join):
    site = await serve(Named())
    clients = [await join(f"{site.url}/ws/cars") for _ in range(3)]
    await clients[-1].ping()

    def work():
        future = site.manager.broadcast_threadsafe("cars", {"n": 1})
        assert isinstance(future, Future)
        return future.result(timeout=TIMEOUT)

    assert await asyncio.to_thread(work) == 3
    assert [await client.receive_json() for client in clients] == [{"n": 1}] * 3


async def test_broadcast_threadsafe_targets_like_broadcast(serve, join):
    site = await serve(Named())
    ann = await join(f"{site.url}/ws/cars?user=ann")
    bob = await join(f"{site.url}/ws/cars?user=bob")
    await bob.ping()
    ids = {ws.user: ws.id for ws in site.manager.connections.values()}
    broadcast = site.manager.broadcast_threadsafe

    def work():
        futures = [
            broadcast("cars", "1", to=ids["ann"]),
            broadcast("cars", "2", users=["bob"]),
            broadcast("cars", "3", exclude=ids["bob"]),
        ]
        return [future.result(timeout=TIMEOUT) for future in futures]

    assert await asyncio.to_thread(work) == [1, 1, 1]
    assert await ann.received() == ["1", "3"]
    assert await bob.received() == ["2"]


async def test_send_threadsafe_gives_a_future_of_the_count(serve, join):
    site = await serve()
    client = await join(f"{site.url}/ws/cars")
    await client.ping()
    (identity,) = site.manager.connections
    future = await asyncio.to_thread(site.manager.send_threadsafe, [identity, "gone"], b"x")
    assert await asyncio.wrap_future(future) == 1
    assert await client.receive() == b"x"


async def test_an_error_travels_through_the_future(serve, join):
    site = await serve()
    client = await join(f"{site.url}/ws/cars")
    await client.ping()

    def work():
        site.manager.broadcast_threadsafe("cars", object()).result(timeout=TIMEOUT)

    with pytest.raises(TypeError):
        await asyncio.to_thread(work)
    assert await client.received() == []


async def test_the_twins_work_on_the_loops_own_thread_too(serve, join):
    site = await serve()
    client = await join(f"{site.url}/ws/cars")
    await client.ping()
    future = site.manager.broadcast_threadsafe("cars", "x")
    assert await asyncio.wrap_future(future) == 1
    assert await client.receive() == "x"


async def test_each_threads_messages_arrive_in_its_order(serve, join):
    site = await serve()
    client = await join(f"{site.url}/ws/cars")
    await client.ping()
    threads, each = 4, 250

    def work(thread):
        for number in range(each):
            future = site.manager.broadcast_threadsafe("cars", [thread, number])
        return future.result(timeout=TIMEOUT)

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(threads) as pool:
        await asyncio.gather(*(loop.run_in_executor(pool, work, n) for n in range(threads)))
    got = [await client.receive_json() for _ in range(threads * each)]
    for thread in range(threads):
        assert [number for who, number in got if who == thread] == list(range(each))
