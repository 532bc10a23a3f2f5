"""Who is there and since when, and that a reload is not an absence."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest

from fastws.testing import Closed

from ..lib.people import NEVER, People, gone
from ..lib.support import Named

# -- presence


async def test_presence_counts_devices_and_says_since_when(serve, enter):
    site = await serve(Named())
    before = datetime.now(UTC)
    await enter(site, "ann")
    between = datetime.now(UTC)
    await asyncio.sleep(0.05)
    await enter(site, "ann")
    await enter(site, "bob")
    await enter(site, None)
    found = site.manager.presence("cars")
    assert {user: there.devices for user, there in found.items()} == {"ann": 2, "bob": 1}
    tick = timedelta(milliseconds=20)  # of its clock
    assert before - tick <= found["ann"].since <= between + tick < found["bob"].since
    assert found["ann"].since.tzinfo is UTC
    assert site.manager.presence("cars") == found


@pytest.mark.parametrize("leave", ["close", "unsubscribe"])
async def test_since_is_the_first_devices_time_whichever_devices_leave(serve, enter, leave):
    site = await serve(Named())
    devices = []
    for _ in range(4):
        devices.append(await enter(site, "ann"))
        await asyncio.sleep(0.02)
    since = site.manager.presence("cars")["ann"].since
    for count, device in zip((3, 2, 1), (devices[0], devices[2], devices[1]), strict=True):
        if leave == "close":
            await gone(site, device)
        else:
            device.ws.unsubscribe("cars")
        assert site.manager.presence("cars") == {"ann": (since, count)}


async def test_a_device_in_another_channel_is_none_in_this(serve, enter):
    site = await serve(Named())
    await enter(site, "ann", "cars")
    bikes = await enter(site, "ann", "bikes")
    assert site.manager.presence("cars")["ann"].devices == 1
    bikes.ws.subscribe("cars")
    assert site.manager.presence("cars")["ann"].devices == 2
    assert site.manager.presence("bikes")["ann"].devices == 1


async def test_a_user_that_comes_back_after_leaving_is_there_since_then(serve, enter):
    site = await serve(Named())
    ann = await enter(site, "ann")
    first = site.manager.presence("cars")["ann"].since
    await gone(site, ann)
    assert site.manager.presence("cars") == {}
    await asyncio.sleep(0.05)
    await enter(site, "ann")
    assert site.manager.presence("cars")["ann"].since > first


# -- a reload is not offline and online


async def test_who_is_back_in_time_was_never_offline(serve, enter):
    site = await serve(people := People(), offline_after=NEVER)
    ann = await enter(site, "ann")
    since = site.manager.presence("cars")["ann"].since
    await asyncio.sleep(0.02)
    await gone(site, ann)
    await people.until("on_unsubscribe")
    assert site.manager.presence("cars") == {"ann": (since, 0)}
    await enter(site, "ann")
    assert site.manager.presence("cars") == {"ann": (since, 1)}
    assert people.of("on_user_online") == [("ann",)]
    assert people.of("on_user_offline") == []


async def test_who_is_not_back_in_time_is_offline(serve, enter):
    site = await serve(people := People(), offline_after=0.1)
    ann = await enter(site, "ann")
    bob = await enter(site, "bob")
    began = time.monotonic()
    await gone(site, ann)
    await gone(site, bob)
    assert await people.until("on_user_offline") == ("ann",)
    assert time.monotonic() - began >= 0.09  # the loop's clock has whole milliseconds
    assert await people.until("on_user_offline", 2) == ("bob",)
    assert site.manager.presence("cars") == {}
    await enter(site, "ann")
    assert people.of("on_user_online") == [("ann",), ("bob",), ("ann",)]


async def test_each_absence_has_its_own_time(serve, enter):
    site = await serve(people := People(), offline_after=1)
    for _ in range(3):
        await gone(site, await enter(site, "ann"))
        await asyncio.sleep(0.5)  # half the time: the last absence is half over when the first would have been
    assert people.of("on_user_offline") == []
    await people.until("on_user_offline")
    assert people.of("on_user_online") == [("ann",)]


async def test_a_stop_ends_every_absence(serve, enter):
    site = await serve(people := People(), offline_after=NEVER)
    bob = await enter(site, "bob")
    await gone(site, await enter(site, "ann"))
    await people.until("on_unsubscribe")
    stop = asyncio.create_task(site.server.stop())
    await bob.closed()
    await stop
    assert sorted(people.of("on_user_offline")) == [("ann",), ("bob",)]


async def test_while_the_server_stops_nobody_is_told_of_each_who_goes(serve, enter):
    site = await serve(Named(), drain_rate=10)
    site.manager.watch_presence("cars")
    clients = [await enter(site, user) for user in ("ann", "bob", "eve")]
    for client in clients:
        await client.received()
    stop = asyncio.create_task(site.server.stop())
    for client in clients:
        with pytest.raises(Closed):
            await client.receive()
    await stop


async def test_a_failing_on_user_offline_is_logged_and_told(serve, enter, caplog):
    class Fails(People):
        def on_user_offline(self, user):
            raise ValueError("nobody")

    site = await serve(fails := Fails(), offline_after=0.05)
    await gone(site, await enter(site, "ann"))
    error = await fails.until("on_error")
    assert str(error[0]) == "nobody"
