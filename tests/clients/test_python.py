"""fastws.client at a server that says what each test has it say."""

import asyncio
import logging
import time

import picows
import pytest

import fastws
from fastws.client import ChannelError, ConnectionClosed, ConnectionRefused, Member, connect
from fastws.client.connection import CLIENT

from .fake import FROM, TIMEOUT, faking, heard, said

RETRY = (0.01, 0.05)
SOON, AGAIN = [1000, 1001, 1012], [1011, 1013, 4000, 4408, 4429, 4500, 4503, 4599]
FINAL = [1002, 1003, 1007, 1008, 1009]
REFUSED = [4400, 4401, 4403, 4404, 4409, 4499]


@pytest.fixture
async def fake():
    async with faking() as fake:
        yield fake


class States:
    """What a connection went through."""

    def __init__(self, ws):
        self.seen = []
        self._changed = asyncio.Event()
        ws.on("state", self._add)

    def _add(self, state):
        self.seen.append(state)
        self._changed.set()

    async def until(self, name, **fields):
        async with asyncio.timeout(TIMEOUT):
            while True:
                for index, state in enumerate(self.seen):
                    if state.state == name and all(getattr(state, key) == value for key, value in fields.items()):
                        del self.seen[: index + 1]
                        return state
                self._changed.clear()
                await self._changed.wait()


def test_it_says_its_version():
    assert f"fastws-python/{fastws.__version__}" == CLIENT


async def test_a_conversation(fake):
    async with connect(fake.url, token="t0k.en") as ws, ws.channel("cars") as cars:
        there = await fake.connection()
        hello = await there.next()
        assert (hello["type"], hello["version"], hello["channels"]) == ("hello", 1, {})
        assert (there.offered, there.authorization) == (["fastws.v1"], "Bearer t0k.en")
        assert (ws.user, ws.state, cars.state) == ("ann", "open", "joined")
        assert await cars.publish({"text": "hi"}, exclude="self") == 1
        sent = await there.next("publish")
        expected = {"type": "publish", "channel": "cars", "message": {"text": "hi"}, "exclude": "self"}
        assert sent == {**expected, "id": sent["id"]}
        assert await cars.whisper("bob", "psst") == 1
        assert (await there.next("whisper"))["to"] == ["bob"]
        assert await cars.whisper(["bob", "cid"], "psst") == 1
        assert await ws.call("add", [1, 2]) == [1, 2]
        await there.send(
            said("boats", "not ours"),
            said("cars", {"n": 1}),
            {"type": "message", "channel": "cars", "base64": "AP8=", "from": None, "time": 8, "position": "3-1"},
            {"type": "whisper", "channel": "cars", "message": "psst", "from": FROM, "to": ["ann"], "time": 9},
        )
        first, second, third = [await anext(cars) for _ in range(3)]
        assert (first.message, first.user, first.id, first.time, first.to) == ({"n": 1}, "bob", "fake-b", 7, None)
        assert (second.message, second.user, second.position) == (b"\x00\xff", None, "3-1")
        assert (third.message, third.to, cars.position) == ("psst", ("ann",), "3-1")
    assert await there.ended() == 1000
    assert (await there.next("unsubscribe"))["channel"] == "cars"


async def test_listeners_hear_who_comes_goes_and_types(fake, caplog):
    async with connect(fake.url) as ws, ws.channel("a") as a:
        there = await fake.connection()
        typing, joins, leaves, lists = [heard(a, event) for event in ("typing", "join", "leave", "presence")]
        direct = heard(ws, "direct")
        a.on("typing", lambda user: 1 / 0)
        await there.send(
            {"type": "typing", "channel": "a", "user": "bob"},
            {"type": "presence", "channel": "a", "event": "list", "users": [{"user": "bob", "since": 1, "devices": 2}]},
            {"type": "presence", "channel": "a", "event": "join", "user": "cid", "since": 5},
            {"type": "presence", "channel": "a", "event": "leave", "user": "bob"},
            {"type": "direct", "message": [1], "time": 10},
            {"type": "of tomorrow"},
        )
        assert await typing() == "bob"
        assert await lists() == [Member("bob", 1, 2)]
        assert await joins() == Member("cid", 5, 1)
        assert await leaves() == "bob"
        assert ((await direct()).message, a.members) == ([1], [Member("cid", 5, 1)])
        assert "a listener to 'typing' failed" in caplog.text
        asked = asyncio.ensure_future(a.presence())
        request = await there.next("presence")
        users = [{"user": "bob", "since": 1, "devices": 2}]
        await there.send({"type": "presence", "id": request["id"], "channel": "a", "event": "list", "users": users})
        assert await asked == [Member("bob", 1, 2)]
        a.typing()
        a.typing()
        await a.publish(1)
        assert [(await there.next())["type"] for _ in range(2)] == ["typing", "publish"]


@pytest.mark.parametrize("code", [*SOON, *AGAIN])
async def test_it_comes_back_after(fake, code):
    async with connect(fake.url) as ws, ws.channel("a") as a:
        states = States(ws)
        await (await fake.connection()).close(code, "because")
        await states.until("waiting", code=code, reason="because")
        await states.until("open")
        there = await fake.connection()
        assert (await there.next("hello"))["channels"] == {"a": None}
        await there.send(said("a", "again"))
        assert (await anext(a)).message == "again"


@pytest.mark.parametrize("code", [*FINAL, *REFUSED])
async def test_it_stays_away_after(fake, code):
    async with connect(fake.url) as ws, ws.channel("a") as a:
        waiting = asyncio.ensure_future(anext(a))
        fake.silent = {"publish"}
        publish = asyncio.ensure_future(a.publish(1))
        there = await fake.connection()
        await there.next("publish")
        await there.close(code, "because (3f9a)")
        with pytest.raises(ConnectionClosed if code in FINAL else ConnectionRefused) as end:
            await asyncio.wait_for(waiting, TIMEOUT)
        assert getattr(end.value, "code", None) == (code if code in FINAL else None)
        assert getattr(end.value, "status", 0) == (0 if code in FINAL else code - 4000)
        with pytest.raises(ChannelError) as error:
            await publish
        assert (error.value.code, error.value.retry) == ("lost", False)
        with pytest.raises(ChannelError) as error:
            await a.publish(2, queue=True)
        assert error.value.code == "closed"
        with pytest.raises(type(end.value)):
            await ws.channel("b").join()
    assert len(fake.connections) == 1


async def test_a_refusal_says_why(fake):
    fake.closes_at_once = (4403, "this channel is not allowed (3f9a)")
    with pytest.raises(ConnectionRefused) as refused:
        await connect(fake.url).__aenter__()
    assert (refused.value.status, refused.value.message) == (403, "this channel is not allowed (3f9a)")


async def test_a_refusal_by_http_says_why(serve):
    class Closed(fastws.Listener):
        def on_handshake(self, request):
            return fastws.Reject(403, "not here")

    site = await serve(Closed(), "/ws")
    with pytest.raises(ConnectionRefused, match="not here") as refused:
        await connect(f"{site.url}/ws").__aenter__()
    assert refused.value.status == 403


async def test_what_cannot_be_reached_is_tried_for_a_time(unused_tcp_port):
    with pytest.raises(TimeoutError, match=r"no connection to .* within 0.3 s: .*refused"):
        await connect(f"ws://127.0.0.1:{unused_tcp_port}/ws", timeout=0.3, retry=RETRY).__aenter__()


async def test_a_server_that_comes_late_is_waited_for(unused_tcp_port):
    ws = connect(f"ws://127.0.0.1:{unused_tcp_port}/ws", retry=RETRY)
    states = States(ws)
    entering = asyncio.ensure_future(ws.__aenter__())
    await states.until("waiting", code=1006)
    async with faking(unused_tcp_port):
        assert (await asyncio.wait_for(entering, TIMEOUT)).state == "open"
        await ws.close()


@pytest.mark.parametrize("bytes_read", [0, 100])
async def test_a_line_that_breaks_in_the_handshake_is_tried_again(bytes_read):
    async def break_it(reader, writer):
        if bytes_read:
            await reader.readexactly(bytes_read)
        writer.transport.abort()

    async with await asyncio.start_server(break_it, "127.0.0.1", 0) as server:
        ws = connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/", retry=RETRY)
        states = States(ws)
        entering = asyncio.ensure_future(ws.__aenter__())
        for _ in range(3):
            await states.until("waiting", code=1006)
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering


@pytest.mark.parametrize("url", ["ws//nowhere", "ftp://127.0.0.1/"])
async def test_what_is_no_address_is_said_at_once(url):
    with pytest.raises(picows.WSInvalidURL):
        await asyncio.wait_for(connect(url).__aenter__(), TIMEOUT / 2)


async def test_the_waiting_time_grows_and_is_drawn_anew(unused_tcp_port):
    ws = connect(f"ws://127.0.0.1:{unused_tcp_port}/", retry=(0.01, 0.16))
    states = States(ws)
    entering = asyncio.ensure_future(ws.__aenter__())
    waits = [(await states.until("waiting")).wait for _ in range(12)]
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert all(0 <= wait <= min(0.16, 0.01 * 2**tried) for tried, wait in enumerate(waits))
    assert max(waits[4:]) > 0.02


async def test_silence_is_noticed(fake):
    fake.welcome["heartbeat"] = 0.5
    async with connect(fake.url) as ws:
        states = States(ws)
        there = await fake.connection()
        for _ in range(6):
            await there.send({})
            await asyncio.sleep(0.25)
        assert states.seen == []
        await states.until("waiting", code=1006, reason="nothing was heard for 1 s")
        await states.until("open")


async def test_wrong_frames_are_told_and_survived(fake, caplog):
    async with connect(fake.url) as ws, ws.channel("a") as a:
        there = await fake.connection()
        wrong = ["no JSON", b"\x00", "[]", "null", '"x"', {"type": "presence", "event": "list", "channel": "a"}]
        wrong += [{"type": "subscribed"}, {"type": ["message"]}, {"type": "typing"}, {"type": "ack", "id": [1]}]
        await there.send(*wrong, said("a", "fine"))
        assert (await anext(a)).message == "fine"
        assert [record.levelno for record in caplog.records if "bad_frame" in record.message] == [logging.WARNING] * 9
        errors = heard(ws, "error")
        await there.send("no JSON")
        assert (await errors()).code == "bad_frame"


# Tokens


async def test_after_4001_a_fresh_token_is_tried_once(fake):
    fake.welcome["retry"] = [0.01, 60]
    tokens = iter(["old", "new", "newest"])
    async with connect(fake.url, token=lambda: next(tokens)) as ws, ws.channel("a") as a:
        states = States(ws)
        await (await fake.connection()).close(4001, "over")
        await states.until("open")
        second = await fake.connection()
        assert second.authorization == "Bearer new"
        await second.close(4001, "this one too")
        with pytest.raises(ConnectionClosed, match="this one too"):
            await anext(a)
    assert next(tokens) == "newest"


@pytest.mark.parametrize("token", [None, "fixed"])
async def test_after_4001_without_a_fresh_token_it_stays_away(fake, token):
    async with connect(fake.url, token=token) as ws, ws.channel("a") as a:
        await (await fake.connection()).close(4001, "over")
        with pytest.raises(ConnectionClosed) as closed:
            await anext(a)
        assert (closed.value.code, closed.value.reason) == (4001, "over")


async def test_a_token_is_renewed_before_it_is_over(fake):
    answers = iter(["one", OSError("the shop is shut"), "two", "three"])

    async def token():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    fake.welcome["expires"] = time.time() + 3
    async with connect(fake.url, token=token):
        there = await fake.connection()
        assert there.authorization == "Bearer one"
        fake.welcome["expires"] = time.time() + 3600
        assert (await there.next("authenticate"))["token"] == "two"
    assert len(fake.connections) == 1


async def test_a_renewal_that_is_refused_is_not_tried_again(fake):
    fake.welcome["expires"] = time.time() + 3
    fake.silent = {"authenticate"}
    async with connect(fake.url, token=lambda: "one") as ws:
        there = await fake.connection()
        renewal = await there.next("authenticate")
        await there.send({"type": "error", "id": renewal["id"], "code": "refused", "message": "no", "retry": False})
        await ws.call("x")
        await asyncio.sleep(0.2)  # four times what is waited before something is tried again
        await there.next("call")
        assert there.frames.empty()


async def test_a_token_that_cannot_be_had_is_asked_for_again(fake):
    answers = iter([None, "one"])

    def token():
        return next(answers) or 1 / 0

    async with connect(fake.url, token=token, retry=RETRY):
        assert (await fake.connection()).authorization == "Bearer one"


# What waits


async def test_a_publish_without_a_connection_is_refused_or_waits(fake):
    async with connect(fake.url) as ws, ws.channel("a") as a:
        states = States(ws)
        fake.closes_at_once = (4503, "full")
        (await fake.connection()).drop()
        await states.until("waiting", code=4503)
        while ws.state != "waiting":
            await states.until("waiting")
        with pytest.raises(ChannelError) as error:
            await a.publish("not this")
        assert (error.value.code, error.value.retry) == ("unavailable", True)
        waiting = [asyncio.ensure_future(a.publish(number, queue=True)) for number in range(100)]
        await asyncio.sleep(0)
        fake.closes_at_once = None
        await states.until("open")
        assert await asyncio.gather(*waiting) == [1] * 100
        there = fake.connections[-1]
        assert [(await there.next("publish"))["message"] for _ in range(100)] == list(range(100))


async def test_at_most_a_hundred_wait(fake):
    async with connect(fake.url, queue=True) as ws, ws.channel("a") as a:
        states = States(ws)
        fake.silent = {"hello"}
        (await fake.connection()).drop()
        await states.until("connecting")
        waiting = [asyncio.ensure_future(a.publish(number)) for number in range(100)]
        await asyncio.sleep(0)
        with pytest.raises(ChannelError, match="100 are waiting"):
            await a.publish("one more")
    for each in waiting:
        with pytest.raises(ChannelError) as error:
            await each
        assert error.value.code == "closed"
