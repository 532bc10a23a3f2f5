"""fastws.js, in Node and in Chromium, at a server that says what each test has it say."""

import asyncio
import time

import pytest

from .fake import FROM
from .js import Refusal, node

pytestmark = pytest.mark.asyncio(loop_scope="module")

RETRY = {"retry": [0.01, 0.05]}
SOON, AGAIN = [1000, 1001, 1012], [1011, 1013, 4000, 4408, 4429, 4500, 4503, 4599]
FINAL = [1002, 1003, 1007, 1008, 1009, 4400, 4401, 4403, 4404, 4409, 4499]


async def test_the_hello_comes_first_with_all_channels(js, fake):
    await js.ask("all", [["connect", "ws", fake.url], ["channel", "a", "ws", "a"], ["channel", "b", "ws", "b"]])
    there = await fake.connection()
    hello = await there.next()
    assert (hello["type"], hello["version"], hello["channels"]) == ("hello", 1, {"a": None, "b": None})
    assert there.offered == ["fastws.v1"]
    await js.state("open")
    await js.until("a", "subscribed", recovered=False, reason="new", subscribers=1)
    assert await js.ask("get", "ws", "user") == "ann"
    await js.channel("c")
    assert await there.next() == {"type": "subscribe", "channel": "c"}
    await js.until("c", "subscribed")
    assert await js.ask("get", "c", "state") == "joined"


async def test_what_is_of_a_channel_reaches_those_that_use_it_and_the_connection(js, fake):
    await js.connect(fake.url)
    await js.channel("a")
    await js.channel("b")
    there = await fake.connection()
    await js.until("b", "subscribed")
    for channel, text in [("elsewhere", 1), ("a", 2), ("b", 3)]:
        await there.send({"type": "message", "channel": channel, "message": text, "from": None, "time": 1})
    await there.send({"type": "of tomorrow", "channel": "a"}, {"type": "direct", "message": "the last", "time": 2})
    while not js.of("ws", "direct"):
        await asyncio.sleep(0.01)
    heard = {name: [message for message, _ in js.of(name, "message")] for name in ("a", "b", "ws")}
    assert heard == {"a": [2], "b": [3], "ws": [1, 2, 3]}


async def test_what_listeners_get(js, fake):
    await js.connect(fake.url)
    await js.channel("a")
    there = await fake.connection()
    await js.until("a", "subscribed")
    await there.send(
        {"type": "message", "channel": "a", "message": {"n": 1}, "from": FROM, "time": 7},
        {"type": "message", "channel": "a", "base64": "AP8=", "from": None, "time": 8, "position": "3-1"},
        {"type": "whisper", "channel": "a", "message": "psst", "from": FROM, "to": ["ann"], "time": 9},
        {"type": "typing", "channel": "a", "user": "bob"},
        {"type": "direct", "message": [1], "time": 10},
    )
    await js.until("ws", "direct", [1], {"time": 10})
    await there.send({"type": "message", "channel": "a", "message": 2, "from": FROM, "time": 7})
    plain = {"channel": "a", "position": None, "key": None, "deleted": False}
    first = {"user": "bob", "id": "fake-b", "time": 7, **plain}
    assert await js.until("a", "message") == [2, first]
    assert await js.ask("get", "a", "position") == "3-1"
    await there.send({"type": "message", "channel": "a", "base64": "AP8=", "from": None, "time": 8, "position": "4-1"})
    nobody = {**plain, "user": None, "id": None, "time": 8, "position": "4-1"}
    assert await js.until("a", "message") == [{"bytes": [0, 255]}, nobody]
    assert await js.until("ws", "message") == [{"bytes": [0, 255]}, nobody]


async def test_members_follow_presence(js, fake):
    await js.connect(fake.url)
    await js.channel("a")
    there = await fake.connection()
    await js.until("a", "subscribed")
    bob, cid = {"user": "bob", "since": 1, "devices": 2}, {"user": "cid", "since": 5, "devices": 1}
    await there.send({"type": "presence", "channel": "a", "event": "list", "users": [bob]})
    await there.send({"type": "presence", "channel": "a", "event": "join", "user": "cid", "since": 5})
    await js.until("a", "join", {"channel": "a", "user": "cid", "since": 5})
    assert await js.ask("get", "a", "members") == [bob, cid]
    await there.send({"type": "presence", "channel": "a", "event": "leave", "user": "bob"})
    await js.until("a", "leave", {"channel": "a", "user": "bob"})
    assert await js.ask("get", "a", "members") == [cid]
    asked = js.begin("do", "a", "presence")
    request = await there.next("presence")
    answer = {"type": "presence", "id": request["id"], "channel": "a", "event": "list", "users": [bob]}
    await there.send(answer)
    assert await asked == [bob]


async def test_what_is_asked_is_answered_under_its_number(js, fake):
    await js.connect(fake.url)
    await js.channel("a")
    there = await fake.connection()
    await js.state("open")
    assert await js.do("a", "publish", {"text": "hi"}, {"exclude": "self"}) == {"connections": 1}
    sent = await there.next("publish")
    assert {**sent, "id": 0} == {
        "type": "publish",
        "channel": "a",
        "message": {"text": "hi"},
        "exclude": "self",
        "id": 0,
    }
    await js.do("a", "whisper", "bob", "psst")
    assert (await there.next("whisper"))["to"] == ["bob"]
    assert await js.do("ws", "call", "add", [1, 2]) == [1, 2]
    fake.silent = {"publish"}
    first, second = js.begin("do", "a", "publish", 1), js.begin("do", "a", "publish", 2)
    ids = [(await there.next("publish"))["id"] for _ in range(2)]
    await there.send({"type": "ack", "id": ids[1], "connections": 2})
    no = {"type": "error", "id": ids[0], "code": "too_fast", "message": "slow down", "channel": "a", "retry": True}
    await there.send(no)
    assert await second == {"connections": 2}
    with pytest.raises(Refusal) as refusal:
        await first
    error = {"name": "FastWSError", "code": "too_fast", "message": "slow down", "retry": True, "channel": "a"}
    assert vars(refusal.value) == error


async def test_one_types_at_most_once_in_two_seconds_and_where_one_is(js, fake):
    fake.refused["b"] = {"code": "forbidden"}
    await js.connect(fake.url)
    await js.channel("a")
    await js.channel("b")
    there = await fake.connection()
    await js.until("b", "error", code="forbidden")
    for channel in "aaba":
        await js.do(channel, "typing")
    await js.do("a", "publish", 1)
    assert await there.next("typing") == {"type": "typing", "channel": "a"}
    assert (await there.next())["type"] == "publish"


# What does not go well


@pytest.mark.parametrize("code", [*SOON, *AGAIN])
async def test_it_comes_back_after(js, fake, code):
    await js.connect(fake.url)
    await js.channel("a")
    await js.until("a", "subscribed")
    await (await fake.connection()).close(code, "because")
    await js.state("waiting", code=code, reason="because")
    await js.until("a", "subscribed")
    await fake.connection()
    assert len(fake.connections) == 2


async def test_it_comes_back_after_a_connection_is_lost(js, fake):
    await js.connect(fake.url)
    await js.state("open")
    (await fake.connection()).drop()
    assert 0 <= (await js.state("waiting", code=1006))["in"] <= 50
    await js.state("open")


@pytest.mark.parametrize("code", FINAL)
async def test_it_stays_away_after(js, fake, code):
    await js.connect(fake.url)
    await js.state("open")
    there = await fake.connection()
    await there.close(code, "because (3f9a)")
    await js.state("closed", code=code, reason="because (3f9a)")
    with pytest.raises(Refusal, match="no connection") as refusal:
        await js.do("ws", "call", "x", None, {"queue": True})
    assert (refusal.value.code, refusal.value.retry) == ("closed", False)
    assert len(fake.connections) == 1
    await js.do("ws", "retry")
    await js.state("open")


@pytest.mark.parametrize(("code", "state"), [(4403, "closed"), (4503, "waiting")])
async def test_a_refused_handshake_says_why(js, fake, code, state):
    fake.closes_at_once = (code, "this channel is not allowed (3f9a)")
    await js.connect(fake.url, **RETRY)
    await js.state(state, code=code, reason="this channel is not allowed (3f9a)")


async def test_without_a_listener_the_console_says_why(js, fake):
    fake.closes_at_once = (4403, "this channel is not allowed (3f9a)")
    await js.connect(fake.url, deaf=True)
    await js.until("console", "warn", "fastws: closed with 4403 this channel is not allowed (3f9a)")


async def test_it_stays_away_after_its_own_close(js, fake):
    await js.connect(fake.url)
    await js.state("open")
    there = await fake.connection()
    await js.do("ws", "close")
    await js.state("closed", code=1000)
    assert await there.ended() == 1000
    assert len(fake.connections) == 1


async def test_a_close_before_the_socket_is_made_makes_none(js, fake):
    await js.ask("all", [["connect", "ws", fake.url], ["do", "ws", "close"], ["connect", "other", fake.url]])
    await js.state("open", source="other")
    assert len(fake.connections) == 1


async def test_the_waiting_time_grows_and_is_drawn_anew(js, unused_tcp_port):
    await js.connect(f"ws://127.0.0.1:{unused_tcp_port}/", retry=[0.01, 0.16])
    waits = [(await js.state("waiting", code=1006))["in"] for _ in range(12)]
    assert all(0 <= wait <= min(160, 10 * 2**tried) for tried, wait in enumerate(waits))
    assert max(waits[4:]) > 20
    assert len(set(waits)) == len(waits)


async def test_a_server_that_restarts_is_soon_tried_however_often_connections_were_lost(js, fake):
    fake.welcome["retry"] = [0.01, 60]  # whoever stays for less than a minute has not stayed for long
    await js.connect(fake.url)
    for _ in range(6):
        await js.state("open")
        (await fake.connection()).drop()
    await js.state("open")
    await (await fake.connection()).close(1012)
    assert (await js.state("waiting", code=1012))["in"] <= 10


async def test_silence_is_noticed(js, fake):
    fake.welcome["heartbeat"] = 0.5
    await js.connect(fake.url)
    await js.state("open")
    there = await fake.connection()
    for _ in range(6):
        await there.send({})
        await asyncio.sleep(0.25)
    assert js.of("ws", "state") == []
    fake.welcome["heartbeat"] = 20
    began = time.monotonic()
    await js.state("waiting", code=1006, reason="nothing was heard for 1 s")
    assert time.monotonic() - began > 0.5
    await js.state("open")
    # The end of the one that was given up is nobody's any more.
    await there.ended()
    await asyncio.sleep(0.2)  # the client hears of it at about the same time
    await js.do("ws", "call", "x")
    assert js.of("ws", "state") == []


async def test_a_server_that_never_welcomes_is_given_up(js, fake):
    fake.silent = {"hello"}
    await js.connect(fake.url, timeout=1, **RETRY)
    await js.state("waiting", code=1006, reason="nothing was heard for 1 s")
    fake.silent = set()
    await js.state("open")


async def test_wrong_frames_are_told_and_survived(js, fake):
    await js.connect(fake.url)
    await js.channel("a")
    await js.until("a", "subscribed")
    there = await fake.connection()
    wrong = ["no JSON", b"\x00", "[]", "null", '"x"', {"type": "presence", "event": "list", "channel": "a"}]
    wrong += [{"type": "subscribed"}, {"type": ["message"]}, {"type": "constructor"}, {"type": "typing"}]
    await there.send(*wrong, {"type": "message", "channel": "a", "message": "fine", "from": None, "time": 1})
    await js.until("a", "message", "fine")
    await js.connect(fake.url, name="second")
    await js.state("open", source="second")
    await (await fake.connection()).send("no JSON")
    await js.until("second", "error", code="bad_frame")


async def test_a_listener_that_throws_keeps_nothing_from_the_others(js, fake):
    await js.connect(fake.url)
    await js.channel("a")
    await js.channel("a", name="again")
    await js.until("a", "subscribed")
    await js.ask("throws", "a", "message")
    await (await fake.connection()).send({"type": "message", "channel": "a", "message": 1, "from": None, "time": 1})
    await js.until("again", "message", 1)
    await js.until("process", "uncaught")


async def test_what_was_sent_without_an_answer_is_lost_and_says_so(js, fake):
    fake.silent = {"publish"}
    await js.connect(fake.url)
    await js.channel("a")
    await js.until("a", "subscribed")
    there = await fake.connection()
    publish = js.begin("do", "a", "publish", 1, {"queue": True})
    await there.next("publish")
    there.drop()
    with pytest.raises(Refusal) as refusal:
        await publish
    assert (refusal.value.code, refusal.value.retry) == ("lost", False)


async def test_nodes_own_websocket_does_as_well(fake):
    async with node("--experimental-websocket") as client:
        await client.connect(fake.url, tokens=["t0k.en"])
        await client.channel("a")
        await client.until("a", "subscribed")
        there = await fake.connection()
        assert there.offered == ["fastws.v1", "bearer", "t0k.en"]
        assert await client.do("a", "publish", 1) == {"connections": 1}
        await there.close(1012)
        await client.state("waiting", code=1012)
        await client.until("a", "subscribed")
