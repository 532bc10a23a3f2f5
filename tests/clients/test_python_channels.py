"""fastws.client in channels: who is in which, and what was read, at a server that says what each test has it say."""

import asyncio

import pytest

from fastws.client import ChannelError, connect

from .fake import TIMEOUT, faking, heard, said


@pytest.fixture
async def fake():
    async with faking() as fake:
        yield fake


async def test_a_refused_channel_says_why(fake):
    fake.refused["a"] = {"code": "forbidden", "message": "not for you"}
    async with connect(fake.url) as ws:
        with pytest.raises(ChannelError, match="forbidden: not for you") as error:
            await ws.channel("a").join()
        assert (error.value.code, error.value.retry, error.value.channel) == ("forbidden", False, "a")


async def test_channels_that_are_too_many_for_a_hello_are_refused(fake):
    fake.silent = {"hello", "subscribe"}
    entering = asyncio.ensure_future(enter(fake.url, "a"))
    there = await fake.connection()
    await there.next("hello")
    error = {"type": "error", "code": "too_many", "message": "full", "retry": False, "channels": ["a", "unknown"]}
    await there.send({"type": "welcome", "version": 1, "id": "fake", **fake.welcome})
    await there.next("subscribe")
    await there.send(error)
    with pytest.raises(ChannelError, match="full"):
        await asyncio.wait_for(entering, 5)


async def enter(url, channel):
    async with connect(url) as ws, ws.channel(channel):
        pass


async def test_a_refusal_that_may_pass_is_tried_again(fake):
    fake.refused["a"] = {"code": "unavailable", "retry": True}
    async with connect(fake.url) as ws:
        errors = heard(ws, "error")
        joining = asyncio.ensure_future(ws.channel("a").join())
        for _ in range(3):
            assert (await errors()).code == "unavailable"
        fake.refused.clear()
        await asyncio.wait_for(joining, TIMEOUT)


async def test_a_channel_is_left_when_all_that_use_it_have_left(fake):
    async with connect(fake.url) as ws:
        one, two = ws.channel("a"), ws.channel("a")
        await one.join()
        await two.join()
        there = await fake.connection()
        one.leave()
        one.leave()
        await there.send(said("a", 1))
        assert (await anext(two)).message == 1
        with pytest.raises(StopAsyncIteration):
            await anext(one)
        two.leave()
        await ws.channel("a").join()
        types = [(await there.next())["type"] for _ in range(4)]
        assert types == ["hello", "subscribe", "unsubscribe", "subscribe"]


async def test_the_kicked_are_told(fake):
    async with connect(fake.url) as ws:
        a = ws.channel("a")
        await a.join()
        there = await fake.connection()
        await there.send(said("a", 1), {"type": "unsubscribed", "channel": "a", "reason": "kicked"})
        assert (await anext(a)).message == 1
        with pytest.raises(ChannelError, match="kicked") as error:
            await anext(a)
        assert error.value.code == "left"
        await a.join()
        await there.send(said("a", 2))
        assert (await anext(a)).message == 2


async def test_what_is_not_read_yet_is_not_behind_the_position_and_does_not_come_again(fake):
    async with connect(fake.url) as ws, ws.channel("a", position="5-5") as a:
        there = await fake.connection()
        assert (await there.next("subscribe"))["position"] == "5-5"
        await there.send(said("a", 6, position="6-1"), said("a", 7, position="7-1"))
        assert (await anext(a)).message == 6
        assert a.position == "5-5"
        assert (await anext(a)).message == 7
        assert a.position == "6-1"
        there.drop()
        there = await fake.connection()
        assert (await there.next("hello"))["channels"] == {"a": "7-1"}
        await there.send(said("a", 8, position="8-1"))
        assert (await anext(a)).message == 8
        assert a.position == "7-1"


async def test_events_have_each_subscribed_in_its_place(fake):
    fake.silent = {"subscribe"}
    async with connect(fake.url) as ws:
        there, a = await fake.connection(), ws.channel("a")
        joining = asyncio.ensure_future(a.join())
        await there.next("subscribe")
        new = fake.subscribed("a") | {"log": "history", "position": "0-1"}
        gap = {"type": "subscribed", "channel": "a", "subscribers": 1, "log": "history", "position": "9-1"}
        gap |= {"recovered": False, "reason": "gap", "count": 0}
        await there.send(new, said("a", 1, position="1-1"), gap, said("a", 10, position="10-1"))
        await joining
        events = a.events()
        first, one, again, ten = [await asyncio.wait_for(anext(events), TIMEOUT) for _ in range(4)]
        assert (first.reason, one.message, again.reason, again.snapshot, ten.message) == ("new", 1, "gap", False, 10)
        assert a.position == "9-1"
        a.leave()
        assert [event async for event in events] == []
        assert a.position == "10-1"


async def test_one_who_comes_again_resumes_where_it_left(fake):
    fake.silent = {"subscribe"}
    async with connect(fake.url) as ws:
        there, a, other = await fake.connection(), ws.channel("a", position="1-1"), ws.channel("a", position="1-1")
        joining = asyncio.gather(a.join(), other.join())
        await there.next("subscribe", position="1-1")
        await there.send(fake.subscribed("a") | {"log": "history", "position": "1-1", "recovered": True})
        await joining
        messages, subscribed = heard(other, "message"), heard(a, "subscribed")
        await there.send(said("a", 2, position="2-1"))
        await messages()
        a.leave()
        await there.send(said("a", 3, position="3-1"))
        await messages()
        assert (a.position, other.position) == ("2-1", "3-1")
        await a.join()
        again = await subscribed()
        assert (again.recovered, again.reason, again.position) == (False, "new", "3-1")
        a.leave()
        other.leave()
        joining = asyncio.ensure_future(other.join())
        await there.next("subscribe", position="3-1")
        joining.cancel()


async def test_what_nobody_reads_is_dropped_from_its_beginning(fake, monkeypatch, caplog):
    monkeypatch.setattr("fastws.client.channel.MOST_UNREAD", 3)
    async with connect(fake.url) as ws, ws.channel("a") as a:
        last = heard(ws, "direct")
        await (await fake.connection()).send(
            *[said("a", n) for n in range(5)], {"type": "direct", "message": 1, "time": 1}
        )
        await last()
        assert [(await anext(a)).message for _ in range(3)] == [2, 3, 4]
        assert a.dropped == 2
        assert len([record for record in caplog.records if "unread" in record.message]) == 1
