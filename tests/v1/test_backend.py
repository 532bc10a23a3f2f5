"""A backend that decides: what it is asked, and what becomes of its answers."""

import asyncio
import logging
import time

import pytest

from fastws import ConfigurationError, Reject
from fastws.v1.decisions import Connect, Refused
from fastws.v1.listener import ChannelListener

from ..lib.support import eventually
from ..lib.v1 import OPEN, NamedRaw, rules

HOOKS = {"subscribe": "subscribe", "publish": "publish", "whisper": "publish"}


class Backend:
    """Answers from what a test sets; an answer that is an exception is raised, one that is a function called."""

    def __init__(self, **answers):
        self.answers = answers
        self.asked = []
        self.told = []

    def asks(self, event):
        return event in self.answers

    async def _answer(self, event, *about):
        self.asked.append((event, *about))
        await asyncio.sleep(0)
        answer = self.answers[event]
        if callable(answer):
            answer = answer(*about)
            if asyncio.iscoroutine(answer):
                answer = await answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def connect(self, request, *, ws=None):
        return await self._answer("connect", request, ws)

    async def subscribe(self, ws, channel):
        return await self._answer("subscribe", ws.user, channel)

    async def publish(self, ws, channel, message, to):
        return await self._answer("publish", channel, message, to)

    async def call(self, ws, method, params):
        return await self._answer("call", method, params)

    def tell(self, event):
        self.told.append(event)

    def types(self):
        return [(event["type"], event.get("channel") or event.get("user")) for event in self.told]


def by_query(request, ws):
    return Connect(user=request.query.get("user"))


def listener(*of, backend, **options):
    """By default the backend decides on all that it is asked."""
    hook = {action: "hook" for action, event in HOOKS.items() if backend.asks(event)}
    return ChannelListener(rules(*of or ({"pattern": "*", **OPEN, **hook},)), backend=backend, **options)


# -- connect


async def test_connect_says_who_it_is_and_what_it_gets(serve):
    said = Connect(user="ann", data={"cart": 7}, channels=["news", "cars"], welcome={"hi": 1}, expires=4e9)
    backend = Backend(connect=said)
    site = await serve(listener({"pattern": "cars", "subscribe": "anyone"}, backend=backend))
    client = await site.dial("/ws/news")  # no rule covers it, but the backend said so
    await client.hello()
    assert client.welcome["user"] == "ann"
    assert (client.welcome["data"], client.welcome["expires"]) == ({"hi": 1}, 4e9)
    assert [(await client.receive())["channel"] for _ in range(2)] == ["news", "cars"]
    assert await client.so_far() == []
    [ws] = site.manager.connections.values()
    assert ws.data["connect"] is said


@pytest.mark.parametrize("status", [401, 403, 429, 503])
async def test_connect_refuses_with_its_status(serve, status):
    site = await serve(listener(backend=Backend(connect=Reject(status, "not you"))))
    code, reason = await (await site.dial()).closed()
    assert code == 4000 + status
    assert reason.startswith("not you (")


async def test_a_backend_that_names_nobody_lets_in_only_where_anonymous_is_allowed(serve):
    site = await serve(listener(backend=Backend(connect=Connect()), anonymous=False))
    assert (await (await site.dial()).closed())[0] == 4401
    site = await serve(listener(backend=Backend(connect=Connect())))
    await (await site.dial()).hello()


async def test_what_the_backend_allows_counts_as_a_token_does(serve):
    allow = {"subscribe": ["room.*"], "publish": ["room.1"]}
    backend = Backend(connect=Connect(user="ann", allow=allow))
    site = await serve(listener({"pattern": "*", "subscribe": "token", "publish": "token"}, backend=backend))
    client = await site.join(None, "room.1", "room.2")
    assert (await client.ask({"type": "subscribe", "channel": "hall"}))["code"] == "forbidden"
    publish = {"type": "publish", "message": 1, "id": 1}
    assert (await client.ask(publish | {"channel": "room.2"}))["code"] == "forbidden"
    assert (await client.ask(publish | {"channel": "room.1"}))["type"] == "message"


async def test_when_its_time_is_over_a_connection_is_closed(serve):
    backend = Backend(connect=lambda request, ws: Connect(user="ann", expires=time.time() + 1))
    site = await serve(listener(backend=backend))
    client = await site.join()
    assert await client.closed() == (4001, "the connection's time is over")
    assert site.manager.listener._ends == {}


async def test_or_the_backend_is_asked_again(serve):
    answers = [Connect(user="ann", expires=time.time() + 1, renew=True, data=1), Connect(user="ann", data=2)]
    backend = Backend(connect=lambda request, ws: answers.pop(0))
    site = await serve(listener(backend=backend))
    client = await site.join()
    await eventually(lambda: len(backend.asked) == 2 and not answers)
    assert await client.so_far() == []
    [ws] = site.manager.connections.values()
    assert (backend.asked[0][2], backend.asked[1][2]) == (None, ws)
    assert ws.data["connect"].data == 2


@pytest.mark.parametrize(
    ("again", "code"),
    [
        (Reject(403, "no more"), 4001),
        (Reject(401), 4001),
        (Reject(503, "down"), 4503),
        (Connect(user="bob"), 4001),
        (Connect(user="ann", expires=1.0, renew=True), 4001),
        (RuntimeError("broken"), 1011),
    ],
    ids=str,
)
async def test_what_the_backend_says_the_second_time_holds(serve, again, code):
    answers = [Connect(user="ann", expires=time.time() + 1, renew=True), again]
    site = await serve(listener(backend=Backend(connect=lambda request, ws: answers.pop(0))))
    assert (await (await site.join()).closed())[0] == code


async def test_a_renewal_that_allows_less_takes_it_out_of_channels(serve):
    first = Connect(user="ann", allow={"subscribe": ["*"]}, expires=time.time() + 1, renew=True)
    answers = [first, Connect(user="ann", allow={"subscribe": ["cars"]})]
    backend = Backend(connect=lambda request, ws: answers.pop(0))
    site = await serve(listener({"pattern": "*", "subscribe": "token"}, backend=backend))
    client = await site.join(None, "cars", "boats")
    assert await client.receive() == {"type": "unsubscribed", "channel": "boats", "reason": "kicked"}
    assert site.manager.channels == {"cars": 1}


# -- subscribe


async def test_subscribe_is_asked_and_may_bring_the_first_picture(serve):
    backend = Backend(connect=by_query, subscribe={"message": {"price": 7}, "presence": True})
    site = await serve(listener(backend=backend))
    client = await site.dial("/ws?user=ann")
    await client.hello()
    subscribed = await client.ask({"type": "subscribe", "id": 1, "channel": "cars"})
    assert (subscribed["message"], subscribed["id"]) == ({"price": 7}, 1)
    assert (await client.receive())["event"] == "list"
    assert ("subscribe", "ann", "cars") in backend.asked


async def test_channels_of_hello_are_asked_together(serve):
    arrived, go_on = [], asyncio.Event()

    async def answer(user, channel):
        arrived.append(channel)
        await go_on.wait()
        return Refused("forbidden", "no") if channel == "c" else {}

    site = await serve(listener(backend=Backend(subscribe=answer)))
    client = await site.dial()
    await client.send({"type": "hello", "version": 1, "channels": dict.fromkeys("abc")})
    assert (await client.receive())["type"] == "welcome"
    await eventually(lambda: len(arrived) == 3)
    go_on.set()
    answers = {frame["channel"]: frame["type"] for frame in [await client.receive() for _ in range(3)]}
    assert answers == {"a": "subscribed", "b": "subscribed", "c": "error"}


@pytest.mark.parametrize("event", ["subscribe", "publish", "call"])
@pytest.mark.parametrize(
    "refused",
    [Refused("forbidden", "no"), Refused("unavailable", "silence", True), Refused("conflict", "twice")],
    ids=lambda refused: refused.code,
)
async def test_a_refusal_goes_to_the_client_as_it_is(serve, event, refused):
    site = await serve(listener(backend=Backend(subscribe={}, **{event: refused} if event != "subscribe" else {})))
    if event == "subscribe":
        site.manager.listener.backend.answers["subscribe"] = refused
    client = await site.join()
    frame = {"subscribe": {"channel": "x"}, "publish": {"channel": "x", "message": 1}, "call": {"method": "m"}}[event]
    error = await client.ask({"type": event, "id": 1, **frame})
    wanted = {"type": "error", "id": 1, "code": refused.code, "message": refused.message, "retry": refused.retry}
    assert error == wanted | ({} if event == "call" else {"channel": "x"})


async def test_a_backend_that_breaks_is_an_internal_error_in_the_log(serve, caplog):
    caplog.set_level(logging.ERROR, logger="fastws")
    site = await serve(listener(backend=Backend(call=RuntimeError("secret"))))
    client = await site.join()
    error = await client.ask({"type": "call", "id": 1, "method": "m"})
    assert (error["code"], error["retry"], "secret" in error["message"]) == ("internal", True, False)
    assert "secret" in caplog.text
    assert (await client.ask({"type": "call", "id": 2, "method": "m"}))["id"] == 2


async def test_rules_are_asked_first(serve):
    backend = Backend(subscribe={}, publish={})
    site = await serve(listener({"pattern": "cars", "subscribe": "user", "publish": "member"}, backend=backend))
    client = await site.join()
    assert (await client.ask({"type": "subscribe", "channel": "cars"}))["code"] == "unauthenticated"
    assert (await client.ask({"type": "publish", "channel": "cars", "message": 1}))["code"] == "not_a_member"
    assert (await client.ask({"type": "subscribe", "channel": "boats"}))["code"] == "unknown_channel"
    assert backend.asked == []


def test_a_rule_that_needs_a_backend_is_refused_without_one():
    for action in ("subscribe", "publish", "whisper"):
        for backend in (None, Backend(connect=None)):
            with pytest.raises(ConfigurationError, match=rf'{action} = "hook" needs \[hooks\]'):
                ChannelListener(rules({"pattern": "cars", action: "hook"}), backend=backend)


async def test_whoever_came_while_the_backend_thought_fills_the_channel(serve):
    go_on = asyncio.Event()

    async def answer(user, channel):
        await go_on.wait()
        return {}

    backend = Backend(subscribe=answer)
    site = await serve(listener({"pattern": "*", "subscribe": "hook", "max_subscribers": 1}, backend=backend))
    clients = [await site.join(), await site.join()]
    for client in clients:
        await client.send({"type": "subscribe", "channel": "cars"})
    await eventually(lambda: len(backend.asked) == 2)
    go_on.set()
    assert {(await client.receive()).get("code") for client in clients} == {None, "too_many"}
    assert site.manager.channels == {"cars": 1}


# -- publish


async def test_publish_may_replace_narrow_drop_and_close(serve):
    backend = Backend(connect=by_query, subscribe={}, publish={})
    site = await serve(listener(backend=backend))
    ann, bob = await site.join("ann", "cars"), await site.join("bob", "cars")
    publish = {"type": "publish", "id": 1, "channel": "cars", "message": {"n": 1}}

    async def outcome(**answer):
        backend.answers["publish"] = answer
        await ann.send(publish)
        frames = [*await ann.so_far(), *await bob.so_far()]
        return [(frame["type"], frame.get("message"), frame.get("connections")) for frame in frames]

    assert await outcome() == [("message", {"n": 1}, None), ("ack", None, 2), ("message", {"n": 1}, None)]
    assert await outcome(message="new") == [("message", "new", None), ("ack", None, 2), ("message", "new", None)]
    assert await outcome(to=["bob"]) == [("ack", None, 1), ("message", {"n": 1}, None)]
    assert await outcome(to=[]) == [("ack", None, 0)]
    assert await outcome(drop=True) == [("ack", None, 0)]
    assert backend.asked[-1] == ("publish", "cars", {"n": 1}, None)
    backend.answers["publish"] = {"close": {"code": 4009, "reason": "enough"}}
    await ann.send(publish)
    assert [(await ann.receive())["type"] for _ in range(2)] == ["message", "ack"]
    assert await ann.closed() == (4009, "enough")


async def test_a_whisper_is_asked_as_publish_and_reaches_no_more_than_those_named(serve):
    backend = Backend(connect=by_query, subscribe={}, publish={"to": ["bob", "eve"], "message": "softly"})
    site = await serve(listener(backend=backend))
    ann, bob, eve, dan = [await site.join(name, "cars") for name in ("ann", "bob", "eve", "dan")]
    whisper = {"type": "whisper", "id": 1, "channel": "cars", "to": ["bob", "dan"], "message": "psst"}
    assert (await ann.ask(whisper))["connections"] == 1
    assert backend.asked[-1] == ("publish", "cars", "psst", ["bob", "dan"])
    assert ((await bob.receive())["message"]) == "softly"
    assert await eve.so_far() == await dan.so_far() == []
    backend.answers["publish"] = {"drop": True}
    assert (await ann.ask(whisper)) == {"type": "ack", "id": 1, "connections": 0}


async def test_frames_of_one_connection_stay_in_order_and_others_do_not_wait(serve):
    go_on = asyncio.Event()

    async def answer(channel, message, to):
        if message == "slow":
            await go_on.wait()
        return {}

    site = await serve(listener(backend=Backend(subscribe={}, publish=answer)))
    slow, quick = await site.join(None, "cars"), await site.join(None, "cars")
    await slow.send({"type": "publish", "channel": "cars", "message": "slow"})
    await slow.send({"type": "publish", "channel": "cars", "message": "second"})
    assert (await quick.ask({"type": "publish", "channel": "cars", "message": "quick"}))["message"] == "quick"
    go_on.set()
    assert [(await quick.receive())["message"] for _ in range(2)] == ["slow", "second"]


# -- call


async def test_call_is_answered_by_a_result(serve):
    backend = Backend(call=lambda method, params: {"result": [method, params]})
    site = await serve(listener(backend=backend))
    client = await site.join()
    answer = await client.ask({"type": "call", "id": 1, "method": "add", "params": {"a": [1, 2]}})
    assert answer == {"type": "result", "id": 1, "result": ["add", {"a": [1, 2]}]}
    assert (await client.ask({"type": "call", "id": 2, "method": "x"}))["result"] == ["x", None]
    backend.answers["call"] = {"close": {"code": 4000}}
    assert (await client.ask({"type": "call", "id": 3, "method": "x"}))["result"] is None
    assert await client.closed() == (4000, "")


# -- what it is told


async def test_the_backend_is_told_once_for_all_endpoints(serve):
    backend = Backend(connect=by_query)
    rule = {"pattern": "*", "subscribe": "anyone", "publish": "member"}
    site = await serve(listener(rule, backend=backend), NamedRaw(rules(rule), backend=backend))
    client = await site.join("ann", "cars")
    plain = await site.dial("/raw/cars?user=ann")
    await eventually(lambda: ("subscribed", "cars") in backend.types()[3:])
    await client.ws.close(4321, "bye")
    await eventually(lambda: ("unsubscribed", "cars") in backend.types())
    assert ("vacated", "cars") not in backend.types()
    assert ("offline", "ann") not in backend.types()
    await plain.ws.close()
    await eventually(lambda: ("offline", "ann") in backend.types())
    expected = [
        ("connected", None),
        ("online", "ann"),
        ("occupied", "cars"),
        ("subscribed", "cars"),
        ("connected", None),
        ("subscribed", "cars"),
        ("disconnected", None),
        ("unsubscribed", "cars"),
        ("disconnected", None),
        ("unsubscribed", "cars"),
        ("vacated", "cars"),
        ("offline", "ann"),
    ]
    assert backend.types() == expected
    gone = backend.told[6]
    assert (gone["code"], gone["reason"]) == (4321, "bye")
    assert gone["seconds"] >= 0
    assert gone["connection"] == {
        "id": client.welcome["id"],
        "path": "/ws",
        "channel": None,
        "user": "ann",
        "data": None,
        "remote_address": "127.0.0.1",
        "query": {"user": "ann"},
        "subprotocols": ["fastws.v1"],
    }
    assert backend.told[4]["connection"]["channel"] == "cars"
    assert site.manager.listener._since == {}
