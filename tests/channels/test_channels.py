"""docs/architecture.md#order: how channels open and close, and the exact order of the listener's calls."""

import asyncio

import pytest

from ..lib.support import Recorder, eventually


class Login(Recorder):
    """A Recorder whose users come from the query string."""

    def on_handshake(self, request):
        super().on_handshake(request)
        request.user = request.query.get("user")


COMING = [
    "on_handshake",
    "authorize",
    "on_open",
    "on_user_online",
    "on_channel_open",
    "on_subscribe",
]


async def test_coming_is_told_in_order(serve, join):
    site = await serve(login := Login())
    await join(f"{site.url}/ws/cars?user=ann")
    await login.until("on_subscribe")
    assert login.names == COMING
    (ws,) = login.sockets
    assert login.calls[1:] == [
        ("authorize", "cars"),
        ("on_open", ws),
        ("on_user_online", "ann"),
        ("on_channel_open", "cars"),
        ("on_subscribe", ws, "cars", 1),
    ]


async def test_going_is_told_in_order_channel_by_channel(serve, join):
    site = await serve(login := Login())
    client = await join(f"{site.url}/ws/cars?user=ann")
    await login.until("on_subscribe")
    (ws,) = login.sockets
    ws.subscribe("bikes")
    login.calls.clear()
    await client.close(4000, "bye")
    await login.until("on_user_offline")
    first = login.calls[1][2]
    second = {"cars": "bikes", "bikes": "cars"}[first]
    assert login.calls == [
        ("on_close", 4000, "bye"),
        ("on_unsubscribe", ws, first, 0),
        ("on_channel_close", first),
        ("on_unsubscribe", ws, second, 0),
        ("on_channel_close", second),
        ("on_user_offline", "ann"),
    ]


async def test_the_second_to_come_opens_nothing_and_the_first_to_go_closes_nothing(serve, join):
    site = await serve(login := Login())
    ann = await join(f"{site.url}/ws/cars?user=ann")
    await login.until("on_subscribe")
    login.calls.clear()
    await join(f"{site.url}/ws/cars?user=bob")
    await login.until("on_subscribe")
    first, second = login.sockets
    assert login.calls[3:] == [("on_user_online", "bob"), ("on_subscribe", second, "cars", 2)]
    login.calls.clear()
    await ann.close()
    await login.until("on_user_offline")
    assert login.calls == [
        ("on_close", 1000, ""),
        ("on_unsubscribe", first, "cars", 1),
        ("on_user_offline", "ann"),
    ]


async def test_channels_is_still_readable_in_on_close_though_the_connection_has_left(serve, join):
    seen = {}

    class Look(Recorder):
        def on_close(self, ws, code, reason):
            seen["own"] = ws.channels
            seen["managers"] = dict(ws.manager.channels)
            seen["connections"] = len(ws.manager.connections)
            seen["counts"] = [ws.manager.broadcast(channel, "x") for channel in ws.channels]
            seen["sent"] = ws.send("x")
            super().on_close(ws, code, reason)

    site = await serve(look := Look())
    client = await join(f"{site.url}/ws/cars")
    await look.until("on_subscribe")
    await client.close()
    await look.until("on_close")
    assert seen == {
        "own": frozenset({"cars"}),
        "managers": {},
        "connections": 0,
        "counts": [0],
        "sent": False,
    }


async def test_after_the_going_a_websocket_is_in_no_channel(serve, join):
    site = await serve(recorder := Recorder())
    client = await join(f"{site.url}/ws/cars")
    await recorder.until("on_subscribe")
    await client.close()
    await recorder.until("on_channel_close")
    (ws,) = recorder.sockets
    assert ws.channels == frozenset()


async def test_subscribe_and_unsubscribe_tell_how_many_are_in_the_channel(serve, join):
    site = await serve(recorder := Recorder(), "/ws")
    for _ in range(3):
        await join(f"{site.url}/ws")
    await recorder.until("on_open", 3)
    first, second, third = recorder.sockets
    assert [first.subscribe("cars"), second.subscribe("cars")] == [1, 2]
    assert site.manager.subscribe("cars", third) == 3
    assert site.manager.unsubscribe("cars", first) == 2
    assert [second.unsubscribe("cars"), third.unsubscribe("cars")] == [1, 0]
    assert "cars" not in site.manager.channels


async def test_subscribing_twice_changes_nothing_and_calls_nothing(serve, join):
    site = await serve(recorder := Recorder())
    client = await join(f"{site.url}/ws/cars")
    await recorder.until("on_subscribe")
    (ws,) = recorder.sockets
    recorder.calls.clear()
    assert ws.subscribe("cars") == 1
    assert site.manager.subscribe("cars", ws) == 1
    assert recorder.calls == []
    assert site.manager.broadcast("cars", "once") == 1
    assert await client.received() == ["once"]


async def test_unsubscribing_from_what_one_is_not_in_changes_nothing_and_calls_nothing(serve, join):
    site = await serve(recorder := Recorder())
    await join(f"{site.url}/ws/cars")
    await join(f"{site.url}/ws/bikes")
    await recorder.until("on_subscribe", 2)
    ws = recorder.of("on_subscribe")[0][0]
    recorder.calls.clear()
    assert ws.unsubscribe("bikes") == 1
    assert ws.unsubscribe("planes") == 0
    assert site.manager.unsubscribe("planes", ws) == 0
    assert recorder.calls == []
    assert set(site.manager.channels) == {"cars", "bikes"}


async def test_unsubscribe_all_leaves_every_channel_and_tells_each(serve, join):
    site = await serve(recorder := Recorder())
    client = await join(f"{site.url}/ws/cars")
    await recorder.until("on_subscribe")
    (ws,) = recorder.sockets
    ws.subscribe("bikes")
    assert ws.channels == frozenset({"cars", "bikes"})
    recorder.calls.clear()
    ws.unsubscribe_all()
    assert sorted(recorder.of("on_unsubscribe"), key=lambda call: call[1]) == [
        (ws, "bikes", 0),
        (ws, "cars", 0),
    ]
    assert sorted(recorder.of("on_channel_close")) == [("bikes",), ("cars",)]
    assert len(recorder.calls) == 4
    assert ws.channels == frozenset()
    assert ws.is_open
    assert site.manager.broadcast("cars", "x") == 0
    assert await client.received() == []


async def test_the_managers_unsubscribe_all_does_the_same(serve, join):
    site = await serve(recorder := Recorder())
    await join(f"{site.url}/ws/cars")
    await recorder.until("on_subscribe")
    (ws,) = recorder.sockets
    site.manager.unsubscribe_all(ws)
    assert ws.channels == frozenset()
    assert len(site.manager.channels) == 0


async def test_names_are_case_sensitive(serve, join):
    site = await serve(recorder := Recorder())
    lower, upper = await join(f"{site.url}/ws/cars"), await join(f"{site.url}/ws/Cars")
    await recorder.until("on_subscribe", 2)
    assert set(site.manager.channels) == {"cars", "Cars"}
    assert site.manager.broadcast("Cars", "up") == 1
    assert (await lower.received(), await upper.received()) == ([], ["up"])


@pytest.mark.parametrize("name", ["", "a b", "/", "🚗", "x" * 10_000, "\0"])
async def test_any_string_is_a_name(serve, join, name):
    site = await serve(recorder := Recorder(), "/ws")
    client = await join(f"{site.url}/ws")
    await recorder.until("on_open")
    recorder.sockets[0].subscribe(name)
    assert site.manager.broadcast(name, "x") == 1
    assert await client.received() == ["x"]


@pytest.mark.parametrize("how", ["False", "async False", "raise"])
async def test_a_connection_that_on_open_refuses_is_closed_and_never_subscribed(serve, join, how):
    class Closed(Login):
        def on_open(self, ws):
            super().on_open(ws)
            if how == "raise":
                raise RuntimeError("not today")
            return self.later() if how == "async False" else False

        async def later(self):
            await asyncio.sleep(0)
            return False

    site = await serve(closed := Closed())
    client = await join(f"{site.url}/ws/cars?user=ann")
    code, _ = await client.closed()
    assert code == (1011 if how == "raise" else 1008)
    await eventually(lambda: len(site.manager.connections) == 0)
    for name in ("on_subscribe", "on_unsubscribe", "on_channel_open", "on_user_online"):
        assert name not in closed.names
    for name in ("on_channel_close", "on_user_offline"):
        assert name not in closed.names
    assert len(site.manager.channels) == 0
    assert len(site.manager.users) == 0


@pytest.mark.parametrize("answer", [None, True, 0, "", []])
async def test_only_false_itself_refuses_in_on_open(serve, join, answer):
    class Answer(Recorder):
        def on_open(self, ws):
            return answer

    site = await serve(recorder := Answer())
    client = await join(f"{site.url}/ws/cars")
    await recorder.until("on_subscribe")
    assert await client.received() == []


async def test_a_connection_closed_in_on_open_is_never_subscribed(serve, join):
    class Kick(Recorder):
        def on_open(self, ws):
            super().on_open(ws)
            ws.close(4001, "full")

    site = await serve(kick := Kick())
    client = await join(f"{site.url}/ws/cars")
    assert await client.closed() == (4001, "full")
    await kick.until("on_close")
    assert "on_subscribe" not in kick.names
    assert len(site.manager.channels) == 0


async def test_a_handler_may_change_channels_while_it_is_told_of_one(serve, join):
    class Move(Recorder):
        def on_subscribe(self, ws, channel, subscribers):
            super().on_subscribe(ws, channel, subscribers)
            if channel == "lobby":
                ws.unsubscribe("lobby")
                ws.subscribe("room")

    site = await serve(move := Move())
    client = await join(f"{site.url}/ws/lobby")
    await move.until("on_subscribe", 2)
    assert set(site.manager.channels) == {"room"}
    assert site.manager.broadcast("room", "in") == 1
    assert await client.received() == ["in"]


async def test_a_broadcast_to_a_channel_nobody_is_in_addresses_nobody(serve):
    site = await serve()
    assert site.manager.broadcast("cars", "x") == 0
    assert len(site.manager.channels) == 0


async def test_a_broadcast_reaches_exactly_its_channel(serve, join):
    site = await serve(recorder := Recorder())
    cars = [await join(f"{site.url}/ws/cars") for _ in range(3)]
    bike = await join(f"{site.url}/ws/bikes")
    await recorder.until("on_subscribe", 4)
    assert site.manager.broadcast("cars", {"n": 1}) == 3
    assert [await client.receive_json() for client in cars] == [{"n": 1}] * 3
    assert await bike.received() == []


async def test_one_connection_may_be_in_a_thousand_channels(serve, join):
    site = await serve(recorder := Recorder(), "/ws")
    client = await join(f"{site.url}/ws")
    await recorder.until("on_open")
    (ws,) = recorder.sockets
    names = {f"channel {number}" for number in range(1000)}
    for name in names:
        ws.subscribe(name)
    assert ws.channels == names
    for name in list(names)[::2]:
        ws.unsubscribe(name)
        names.remove(name)
    assert ws.channels == set(site.manager.channels) == names
    assert sum(site.manager.broadcast(name, name) for name in names) == 500
    assert set(await client.received()) == names
    await client.close()
    await recorder.until("on_channel_close", 1000)
    assert len(site.manager.channels) == 0


async def test_async_listeners_are_told_in_the_same_order(serve, join):
    def later(name):
        async def handler(self, *arguments):
            await asyncio.sleep(0.001)
            self.note(name, *arguments)

        return handler

    names = [*COMING[3:], "on_close", "on_unsubscribe", "on_channel_close", "on_user_offline"]
    listener = type("Async", (Login,), {name: later(name) for name in names})()
    site = await serve(listener)
    client = await join(f"{site.url}/ws/cars?user=ann")
    await listener.until("on_subscribe")
    await client.close()
    await listener.until("on_user_offline")
    assert listener.names == COMING + names[3:]


async def test_a_client_that_comes_and_goes_leaves_nothing(serve, dial):
    site = await serve(login := Login())
    for turn in range(1, 51):
        raw = await dial(site.url, "/ws/cars?user=ann")
        raw.reset()
        await login.until("on_user_offline", turn)
    going = ["on_close", "on_unsubscribe", "on_channel_close", "on_user_offline"]
    assert login.names == (COMING + going) * 50
    assert (len(site.manager.connections), len(site.manager.channels)) == (0, 0)
    assert len(site.manager.users) == 0
