"""Channels that keep what was sent, on one server: history, latest messages, and clients that come back."""

import asyncio
import json

import pytest

from fastws import ConfigurationError, History, Latest, Listener, Position, Server
from fastws.testing import connect, running
from tests.lib.support import eventually


def state(frame):
    """What a `subscribed` says of the log."""
    return {name: frame.get(name) for name in ("log", "recovered", "reason", "count", "snapshot")}


def messages(frames):
    return [frame["message"] for frame in frames if frame["type"] == "message"]


async def test_a_position_is_there_from_message_zero(serve_logs):
    site = await serve_logs()
    client = await site.dial()
    [subscribed] = await client.hello(channels={"room-1": None})
    assert state(subscribed) == {"log": "history", "recovered": False, "reason": "new", "count": 0, "snapshot": None}
    await client.ws.close()
    await site.manager.publish("room-1", "first")
    back = await site.dial()
    [subscribed] = await back.hello(channels={"room-1": subscribed["position"]})
    assert state(subscribed) == {"log": "history", "recovered": True, "reason": None, "count": 1, "snapshot": None}
    assert messages([await back.receive()]) == ["first"]


async def test_who_comes_back_gets_all_that_was_missed_in_order_and_once(serve_logs):
    site = await serve_logs()
    first, other = await site.dial(), await site.dial()
    await first.hello(channels={"room-1": None})
    await other.hello(channels={"room-1": None})
    ack = await other.ask({"type": "publish", "channel": "room-1", "message": 0, "id": 1})
    while ack["type"] != "ack":
        ack = await other.receive()
    assert ack["connections"] == 2
    seen = await first.receive()
    assert (seen["message"], seen["position"]) == (0, ack["position"])
    await first.ws.close()
    for number in range(1, 4):
        site.manager.broadcast("room-1", number)
    back = await site.dial()
    [subscribed] = await back.hello(channels={"room-1": seen["position"]})
    site.manager.broadcast("room-1", 4)
    assert subscribed["count"] == 3
    frames = [await back.receive() for _ in range(4)]
    assert messages(frames) == [1, 2, 3, 4]
    assert [frame["position"] for frame in frames[:3]][-1] == subscribed["position"]
    offsets = [Position.parse(frame["position"]).offset for frame in frames]
    assert offsets == list(range(offsets[0], offsets[0] + 4))


@pytest.mark.parametrize(
    ("position", "reason"),
    [("0-1", "trimmed"), ("99-1", "unknown"), ("nonsense", "unknown"), ("9" * 60, "unknown"), ("3-77", "unknown")],
)
async def test_what_cannot_be_recovered_is_said(serve_logs, position, reason):
    site = await serve_logs()
    for number in range(10):
        await site.manager.publish("room-1", number)
    client = await site.dial()
    [subscribed] = await client.hello(channels={"room-1": position})
    expected = "trimmed" if position == "3-77" else reason  # it is too old to be compared
    assert state(subscribed) == {
        "log": "history", "recovered": False, "reason": expected, "count": 0, "snapshot": None
    }  # fmt: skip
    site.manager.broadcast("room-1", "next")
    assert (await client.receive())["message"] == "next"


async def test_a_position_of_another_life_is_unknown(serve_logs):
    site = await serve_logs()
    for number in range(3):
        position = await site.manager.publish("room-1", number)
    client = await site.dial()
    [subscribed] = await client.hello(channels={"room-1": f"{position.offset - 1}-77"})
    assert subscribed["reason"] == "unknown"


async def test_more_than_resume_limit_is_not_sent(serve_logs):
    site = await serve_logs(resume_limit=2)
    position = await site.manager.publish("room-1", 0)
    for number in range(3):
        await site.manager.publish("room-1", number)
    client = await site.dial()
    [subscribed] = await client.hello(channels={"room-1": str(position)})
    assert state(subscribed)["reason"] == "too_many"


async def test_what_is_not_for_everybody_is_not_kept(serve_logs):
    site = await serve_logs()
    ann, bob = await site.dial("/ws?user=ann"), await site.dial("/ws?user=bob")
    await ann.hello(channels={"room-1": None})
    await bob.hello(channels={"room-1": None})
    site.manager.broadcast("room-1", {"type": "message", "channel": "room-1", "message": "psst"}, users="bob")
    frame = await bob.receive()
    assert (frame["message"], "position" in frame) == ("psst", False)
    assert (await site.manager.history("room-1")).entries == []
    assert await ann.so_far() == []


async def test_of_latest_messages_a_newcomer_gets_them_all(serve_logs):
    site = await serve_logs()
    await site.manager.publish("price-1", 1.0, key="A")
    await site.manager.publish("price-1", 2.0, key="B")
    await site.manager.publish("price-1", 1.5, key="A")
    await site.manager.publish("price-1", 9.0, key="C")
    await site.manager.delete("price-1", "C")
    client = await site.dial()
    [subscribed] = await client.hello(channels={"price-1": None})
    assert state(subscribed) == {"log": "latest", "recovered": True, "reason": None, "count": 2, "snapshot": True}
    frames = [await client.receive() for _ in range(2)]
    assert [(frame["key"], frame["message"]) for frame in frames] == [("B", 2.0), ("A", 1.5)]
    await client.ws.close()
    await site.manager.publish("price-1", 3.0, key="B")
    await site.manager.publish("price-1", 3.5, key="B")
    await site.manager.delete("price-1", "A")
    back = await site.dial()
    [subscribed] = await back.hello(channels={"price-1": subscribed["position"]})
    assert state(subscribed) == {"log": "latest", "recovered": True, "reason": None, "count": 2, "snapshot": None}
    frames = [await back.receive() for _ in range(2)]
    assert [(frame["key"], frame.get("message"), frame.get("deleted")) for frame in frames] == [
        ("B", 3.5, None),
        ("A", None, True),
    ]
    assert list(await site.manager.latest("price-1")) == ["B"]


async def test_clients_publish_latest_messages_with_their_keys(serve_logs):
    site = await serve_logs()
    client = await site.dial()
    await client.hello(channels={"price-1": None, "room-1": None})
    await client.send({"type": "publish", "channel": "price-1", "message": 7, "key": "A", "id": 1})
    frames = [await client.receive() for _ in range(2)]
    assert {frame["type"]: frame.get("key") for frame in frames} == {"message": "A", "ack": None}
    for channel, key, says in (("price-1", {}, "is missing"), ("room-1", {"key": "A"}, "is not for this channel")):
        error = await client.ask({"type": "publish", "channel": channel, "message": 7, "id": 2, **key})
        assert (error["code"], error["message"]) == (
            "bad_field",
            f'"key" {says}' + ": this channel keeps the latest message of each" * (not key),
        )
    error = await client.ask({"type": "publish", "channel": "plain", "message": 7, "key": "A"})
    assert error["type"] == "error"


async def test_members_are_told_of_a_clear_and_of_what_comes_back(serve_logs):
    site = await serve_logs()
    client = await site.dial()
    [first] = await client.hello(channels={"room-1": None})
    await site.manager.publish("room-1", 1)
    await site.manager.clear("room-1")
    frame = await client.receive()
    assert frame["message"] == 1
    told = await client.receive()
    assert (told["type"], *state(told).values()) == ("subscribed", "history", False, "cleared", 0, None)
    site.manager.broadcast("room-1", 2)
    assert (await client.receive())["message"] == 2
    back = await site.dial()
    [subscribed] = await back.hello(channels={"room-1": first["position"]})
    assert subscribed["recovered"] is False


async def test_a_server_side_subscription_has_its_position_too(serve_logs):
    site = await serve_logs()
    client = await site.dial("/ws?user=ann")
    await client.hello()
    await site.manager.publish("price-1", 1, key="A")
    site.manager.subscribe_user("ann", "price-1")
    frame = await client.receive()
    assert (frame["type"], frame["snapshot"], frame["count"]) == ("subscribed", True, 1)
    assert (await client.receive())["key"] == "A"


async def test_history_and_its_pages(serve_logs):
    site = await serve_logs()
    positions = [await site.manager.publish("room-1", number) for number in range(8)]
    page = await site.manager.history("room-1")
    assert [entry.message for entry in page.entries] == [3, 4, 5, 6, 7]
    assert (page.position, page.recovered, page.reason) == (positions[-1], True, None)
    assert [entry.message for entry in (await site.manager.history("room-1", limit=2)).entries] == [6, 7]
    assert [entry.message for entry in (await site.manager.history("room-1", positions[5])).entries] == [6, 7]
    page = await site.manager.history("room-1", positions[0])
    assert (page.entries, page.recovered, page.reason) == ([], False, "trimmed")


async def test_the_same_id_is_stored_once(serve_logs):
    site = await serve_logs()
    first = await site.manager.publish("room-1", "x", id="one")
    assert await site.manager.publish("room-1", "x", id="one") == first
    assert len((await site.manager.history("room-1")).entries) == 1


async def test_what_makes_no_sense_is_refused(serve_logs):
    site = await serve_logs()
    manager = site.manager
    with pytest.raises(ValueError, match="keeps nothing: give its endpoint logs="):
        await manager.publish("plain", 1)
    with pytest.raises(ValueError, match="publish with a key"):
        await manager.publish("price-1", 1)
    with pytest.raises(ValueError, match="publish with a key"):
        manager.broadcast("price-1", 1)
    with pytest.raises(ValueError, match="publish without one"):
        await manager.publish("room-1", 1, key="A")
    with pytest.raises(ValueError, match="see history"):
        await manager.latest("room-1")
    with pytest.raises(TypeError):
        await manager.publish("room-1", object())
    for options in ({"size": 0}, {"ttl": 0}, {"size": 2.5}, {"size": True}):
        with pytest.raises(ConfigurationError, match=next(iter(options))):
            History(**options)
    with pytest.raises(ConfigurationError, match="changes"):
        Latest(changes=0)
    with pytest.raises(ConfigurationError, match="logs="):
        Server(logs={"room": 5})


class Plain(Listener):
    def on_message(self, ws, message):
        ws.manager.broadcast("room-1", message)


async def test_plain_clients_get_bare_messages_and_applications_the_history():
    server = Server(port=0)
    manager = server.endpoint("/ws/{channel}", Plain(), logs={"room-*": History(), "price-*": Latest()})
    async with running(server) as url, connect(url + "/ws/room-1") as client:
        await client.send("hello")
        assert await client.receive() == "hello"
        await client.send(b"\0\xff")
        assert await client.receive() == b"\0\xff"
        assert [entry.message for entry in (await manager.history("room-1")).entries] == ["hello", b"\0\xff"]
        async with connect(url + "/ws/price-1") as other:
            await eventually(lambda: manager.channels.get("price-1") == 1)
            await manager.publish("price-1", {"a": 1}, key="A")
            assert json.loads(await other.receive()) == {"a": 1}


async def test_a_server_can_be_started_again(serve_logs):
    server = Server(port=0)
    manager = server.endpoint("/ws/{channel}", Plain(), logs={"*": History()})
    for _ in range(2):
        async with running(server) as url, connect(url + "/ws/room-1") as client:
            await client.send("hello")
            assert await client.receive() == "hello"
            assert len((await manager.history("room-1")).entries) == 1
    with pytest.raises(RuntimeError):
        manager.broadcast("room-1", 1)


async def test_a_channel_that_nobody_is_in_is_let_go(serve_logs, monkeypatch):
    monkeypatch.setattr("fastws.cluster.manager.LINGER_LOG_SECONDS", 0.05)
    site = await serve_logs()
    client = await site.dial()
    await client.hello(channels={"room-1": None})
    node = site.server._node
    assert node.stats["followed"] == 1
    await client.ws.close()
    await eventually(lambda: node.stats["followed"] == 0 and node.stats["log_bytes"] == 0)
    await site.manager.publish("room-1", 1)  # and the log is still there
    back = await site.dial()
    await back.hello(channels={"room-1": None})
    site.manager.broadcast("room-1", 2)
    assert (await back.receive())["message"] == 2


async def test_many_resume_from_the_memory_of_the_node_at_once(serve_logs):
    site = await serve_logs()
    keeper = await site.dial()
    [subscribed] = await keeper.hello(channels={"x-all": None})
    for number in range(50):
        site.manager.broadcast("x-all", number)
    clients = [await site.dial() for _ in range(20)]
    for client in clients:
        await client.hello(channels={"x-all": subscribed["position"]})
    for client in clients:
        assert messages([await client.receive() for _ in range(50)]) == list(range(50))


async def test_readers_that_lag_get_the_newest_of_each_key_and_stay(serve_logs):
    """Some do not read for a while: they end with the newest of each key, and get none older after a newer."""
    site = await serve_logs()
    readers = [await site.dial() for _ in range(10)]
    for reader in readers:
        await reader.hello(channels={"price-1": None})
    lagging, filler = readers[:3], "x" * 2000
    for reader in lagging:
        reader.ws.transport.pause_reading()
    rounds, keys = 120, 20

    async def read(reader, values, counts):
        async for text in reader.ws:
            frame = json.loads(text)
            if frame["type"] == "message":
                number = frame["message"]["n"]
                assert number > values.get(frame["key"], -1)
                values[frame["key"]] = number
                counts[0] += 1

    values, counts = [{} for _ in readers], [[0] for _ in readers]
    tasks = [asyncio.ensure_future(read(*each)) for each in zip(readers, values, counts, strict=True)]
    for number in range(rounds):
        for key in range(keys):
            site.manager.store("price-1", json.dumps(
                {"type": "message", "channel": "price-1", "message": {"n": number, "x": filler}}
            ), key=f"k{key}")  # fmt: skip
        await asyncio.sleep(0.005)
    newest = {f"k{key}": rounds - 1 for key in range(keys)}
    await eventually(lambda: all(each == newest for each in values[3:]))
    assert site.manager.stats["closed_slow"] == 0
    for reader in lagging:
        reader.ws.transport.resume_reading()
    await eventually(lambda: all(each == newest for each in values))
    assert all(count[0] < rounds * keys for count in counts[:3])
    assert len(readers) == site.manager.connection_count
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
