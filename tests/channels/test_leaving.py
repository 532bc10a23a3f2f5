"""Leaving takes time proportional to the number of groups, lets the loop run, and keeps no group."""

import asyncio
import time

import pytest

from fastws.presence import People
from fastws.testing import connect, running

from ..lib.support import Named, Recorder, eventually, nothing_left

CHANNELS = 50_000
DEVICES = 40


class Recorded(Recorder, Named):
    """Reports what happened; the user is in the query string."""

    on_handshake = Named.on_handshake


def count_calls(monkeypatch, owner, name):
    """The first argument of each call of a method, in order."""
    method, calls = getattr(owner, name), []

    def counted(self, *arguments, **options):
        calls.append(arguments[0])
        return method(self, *arguments, **options)

    monkeypatch.setattr(owner, name, counted)
    return calls


class Everywhere(Named):
    """Joins very many channels; counts how many leaves it was told of."""

    def __init__(self, channels=CHANNELS):
        self.channels = channels
        self.left = self.gone = 0

    def on_open(self, ws):
        for number in range(self.channels):
            ws.subscribe(f"channel {number}")

    def on_unsubscribe(self, ws, channel, subscribers):
        self.left += 1

    def on_channel_close(self, channel):
        self.gone += 1


@pytest.mark.parametrize("devices", [0, 1, 3], ids=["nobody", "a user", "a user with three devices"])
async def test_a_connection_in_many_channels_leaves_while_others_are_served(serve, join, devices):
    took = []  # CPU seconds, which a busy machine does not change
    for channels in (CHANNELS // 5, CHANNELS):
        site = await serve(listener := Everywhere(channels), "/ws")
        began = time.process_time()
        url = f"{site.url}/ws" + ("?user=ann" if devices else "")
        clients = [await join(url) for _ in range(devices or 1)]
        await eventually(lambda site=site, clients=clients: site.manager.connection_count == len(clients))
        turns = 0
        await clients[0].close()
        while listener.left < channels:
            turns += 1
            await asyncio.sleep(0)
        took.append(time.process_time() - began)
        assert turns > channels / 1000
        assert listener.gone == (channels if len(clients) == 1 else 0)
    assert took[1] < 15 * took[0]  # a quadratic algorithm would take 25 times as long


async def test_unsubscribe_all_lets_others_have_their_turns(serve, join):
    site = await serve(listener := Everywhere(), "/ws")
    client = await join(f"{site.url}/ws?user=ann")
    await eventually(lambda: len(site.manager.connections) == 1)
    (ws,) = site.manager.connections.values()
    ws.unsubscribe_all()
    assert ws.channels == frozenset()
    assert site.manager.channels == {}
    assert listener.left < CHANNELS / 10
    await eventually(lambda: listener.left == CHANNELS)
    assert await client.ping() >= 0


async def test_devices_that_join_together_cost_one_list(serve, join, monkeypatch):
    """Every list is the same, and built once: otherwise 5,000 devices would need 25 million entries."""
    site = await serve(recorder := Recorded(), "/ws")
    site.manager.watch_presence("cars")
    clients = [await join(f"{site.url}/ws?user=ann") for _ in range(DEVICES)]
    await eventually(lambda: site.manager.connection_count == DEVICES)
    made = count_calls(monkeypatch, People, "of")
    assert site.manager.subscribe_user("ann", "cars") == DEVICES
    for client in clients:
        notice = await client.receive_json()
        assert (notice["event"], notice["users"][0]["devices"]) == ("list", DEVICES)
    assert made == ["cars"]
    await recorder.until("on_subscribe", times=DEVICES)
    assert [count for _, _, count in recorder.of("on_subscribe")] == list(range(1, DEVICES + 1))
    assert recorder.names.count("on_channel_open") == 1


async def test_devices_that_are_taken_out_together_are_told_of_once(serve, join):
    site = await serve(recorder := Recorded(), "/ws")
    clients = [await join(f"{site.url}/ws?user=ann") for _ in range(DEVICES)]
    other = await join(f"{site.url}/ws?user=bob")
    await eventually(lambda: site.manager.connection_count == DEVICES + 1)
    site.manager.subscribe_user("ann", "cars")
    site.manager.subscribe_user("bob", "cars")
    site.manager.watch_presence("cars")
    assert (await other.receive_json())["event"] == "list"
    assert site.manager.unsubscribe_user("ann", "cars") == 1
    assert await other.receive_json() == {"type": "presence", "channel": "cars", "event": "leave", "user": "ann"}
    site.manager.broadcast("cars", "the next")
    assert await other.receive() == "the next"
    await recorder.until("on_unsubscribe", times=DEVICES)
    assert recorder.names.count("on_channel_close") == 0
    assert len(clients) == DEVICES


class HungAtTheEnd(Recorded):
    """Waits in one handler forever."""

    def __init__(self, name):
        super().__init__()
        self.name = name
        self.asked = asyncio.Event()

    def on_handshake(self, request):
        request.user = "ann"

    async def wait(self, name):
        if name == self.name:
            self.asked.set()
            await asyncio.Event().wait()

    async def on_open(self, ws):
        ws.subscribe("another")
        await self.wait("on_open")

    async def on_close(self, ws, code, reason):
        await self.wait("on_close")

    async def on_unsubscribe(self, ws, channel, subscribers):
        await self.wait("on_unsubscribe")

    async def on_channel_close(self, channel):
        await self.wait("on_channel_close")

    async def on_user_offline(self, user):
        await self.wait("on_user_offline")


@pytest.mark.parametrize("name", ["on_open", "on_close", "on_unsubscribe", "on_channel_close", "on_user_offline"])
async def test_a_handler_that_was_cut_off_at_the_stop_keeps_no_group(serve, name):
    """The same server may be started again."""
    site = await serve(listener := HungAtTheEnd(name), close_timeout=0.2)
    async with connect(f"{site.url}/ws/cars") as client:
        if name == "on_open":
            await listener.asked.wait()
            client.abort()
    await listener.asked.wait()
    await site.server.stop()
    stats = site.manager.stats
    assert (stats["connections"], stats["channels"], stats["users"]) == (0, 0, 0)
    listener.name, listener.calls = None, []
    async with running(site.server) as url, connect(f"{url}/ws/cars"):
        await listener.until("on_subscribe", times=2)
        assert sorted(listener.of("on_channel_open")) == [("another",), ("cars",)]
        assert listener.of("on_user_online") == [("ann",)]


async def test_a_channel_whose_last_member_left_is_not_counted_while_the_listener_is_told(serve):
    site = await serve(listener := HungAtTheEnd("on_close"), close_timeout=0.2)
    async with connect(f"{site.url}/ws/cars"):
        assert site.manager.stats["channels"] == 2
    await listener.asked.wait()
    assert site.manager.stats["channels"] == len(site.manager.channels) == 0
    await eventually(lambda: nothing_left(site))
