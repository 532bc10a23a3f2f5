"""A server whose backend decides: who gets in, and what becomes of frames."""

import asyncio
import sys
import time

import orjson
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from fastws import ConfigurationError, JWTAuth, Server
from fastws.hooks import HookListener, Hooks, HookSettings

from ..lib.support import eventually
from ..lib.v1 import rules, serving
from .conftest import ALL, SECRET, answers, reply


async def test_the_backend_says_who_it_is_and_what_comes_with_that(backend, site):
    said = {"user": "ann", "welcome": {"theme": "dark"}, "channels": ["lobby"], "expires": 2_000_000_000}
    answers(backend, connect=said)
    async with site() as there:
        ann = await there.dial()
        await ann.hello()
        assert (ann.welcome["user"], ann.welcome["data"], ann.welcome["expires"]) == ("ann", {"theme": "dark"}, 2e9)
        joined = await ann.receive()
        assert (joined["type"], joined["channel"]) == ("subscribed", "lobby")
        assert [post.json["event"] for post in backend.posts] == ["connect"]  # nobody is asked about "lobby"


@pytest.mark.parametrize("offered", [["fastws.v1"], None])
@pytest.mark.parametrize(
    ("answer", "status", "sentence"),
    [
        (reply(403, {"error": {"message": "you are banned"}}), 403, "you are banned"),
        (reply(402, {}), 402, "Payment Required"),
        (reply(500, {"user": "ann"}), 503, "the backend does not answer"),
        (reply(200, {"user": 5}), 503, "the backend does not answer"),
        (None, 503, "the backend does not answer"),
    ],
)
async def test_no_reaches_the_client(backend, site, offered, answer, status, sentence):
    backend.says(answer)
    async with site() as there:
        if offered:
            client = await there.dial()
            with pytest.raises(ConnectionClosed) as closed:
                await client.text()
            assert closed.value.rcvd.code == 4000 + status
            assert closed.value.rcvd.reason.startswith(sentence)
        else:
            with pytest.raises(InvalidStatus) as refused:
                await there.dial(subprotocols=None)
            response = refused.value.response
            assert response.status_code == status
            assert orjson.loads(response.body)["error"]["message"] == sentence
            assert response.headers.get("Retry-After") == ("5" if status == 503 else None)
        assert there.manager.connection_count == 0


async def test_handshake_timeout_holds_whatever_the_backend_does(backend, site):
    answers(backend, connect=lambda post: asyncio.Event().wait())
    async with site(timeout=60, options={"server": Server(port=0, handshake_timeout=1)}) as there:
        with pytest.raises(InvalidStatus) as refused:
            await there.dial(subprotocols=None)
        assert refused.value.response.status_code == 503
        await eventually(lambda: not backend._writers)  # nobody waits for that answer any more


async def test_a_client_that_leaves_ends_its_question(backend, site):
    answers(backend, connect=lambda post: asyncio.Event().wait())
    async with site(timeout=60) as there:
        _, writer = await asyncio.open_connection("127.0.0.1", there.server.port)
        writer.write(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        await backend.until(lambda: backend.posts)
        writer.close()
        await eventually(lambda: there.manager.listener.hooks.figures.pending == 0)


async def test_frames_of_one_connection_keep_their_order_and_hold_up_no_other(backend, site):
    released = asyncio.Event()

    async def publish(post):
        if post.json["message"] == "slow":
            await released.wait()
        return {"message": [post.json["message"]]}

    answers(backend, connect=lambda post: {"user": post.json["connection"]["query"]["user"]}, publish=publish)
    async with site(timeout=60) as there:
        ann, bob = await there.join("ann", "cars"), await there.join("bob", "cars")
        for number, message in enumerate(["slow", "a", "b", "c"]):
            await ann.send({"type": "publish", "id": number, "channel": "cars", "message": message, "exclude": "self"})
        await backend.until(lambda: any(post.json.get("message") == "slow" for post in backend.posts))
        for number in range(20):
            await bob.send({"type": "publish", "id": number, "channel": "cars", "message": number, "exclude": "self"})
            assert (await bob.receive())["id"] == number
        carl = await there.join("carl", "cars")
        assert not [post for post in backend.posts if post.json.get("message") == "a"]
        released.set()
        heard = [(await carl.receive())["message"] for _ in range(4)]
        assert heard == [["slow"], ["a"], ["b"], ["c"]]
        answered = [frame for _ in range(24) if (frame := await ann.receive())["type"] == "ack"]
        assert [ack["id"] for ack in answered] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (reply(403), "forbidden"),
        (reply(429), "too_fast"),
        (reply(500), "unavailable"),
        (reply(200, "x"), "unavailable"),
    ],
)
async def test_no_answers_the_frame_and_nothing_is_done(backend, site, answer, code):
    async with site() as there:
        answers(backend, connect={"user": "ann", "channels": ["cars"]})
        ann = await there.dial()
        await ann.hello()
        await ann.receive()
        answers(backend, subscribe=answer, publish=answer, call=answer)
        for number, frame in enumerate(
            [
                {"type": "subscribe", "channel": "bikes"},
                {"type": "publish", "channel": "cars", "message": 1},
                {"type": "whisper", "channel": "cars", "to": ["ann"], "message": 1},
                {"type": "call", "method": "x"},
            ]
        ):
            error = await ann.ask({**frame, "id": number})
            assert (error["type"], error["id"], error["code"]) == ("error", number, code)
            assert error["retry"] == (code in ("too_fast", "unavailable"))
        assert there.manager.channels == {"cars": 1}


async def test_a_message_may_be_replaced_narrowed_or_dropped(backend, site):
    answers(backend, connect=lambda post: {"user": post.json["connection"]["query"]["user"]})
    async with site() as there:
        ann, bob, carl = [await there.join(user, "cars") for user in ("ann", "bob", "carl")]
        publish = {"type": "publish", "id": 1, "channel": "cars", "message": {"text": "damn"}, "exclude": "self"}
        answers(backend, publish={"message": {"text": "d***"}})
        assert (await ann.ask(publish))["connections"] == 2
        assert (await bob.receive())["message"] == (await carl.receive())["message"] == {"text": "d***"}
        answers(backend, publish={"to": ["carl"], "message": None})
        assert (await ann.ask(publish))["connections"] == 1
        assert (await carl.receive())["message"] is None
        answers(backend, publish={"drop": True})
        assert (await ann.ask(publish))["connections"] == 0
        answers(backend, publish={"to": ["carl", "bob"]})
        whisper = {"type": "whisper", "id": 2, "channel": "cars", "to": ["bob"], "message": "psst"}
        assert (await ann.ask(whisper))["connections"] == 1  # narrowed it may be, not widened
        assert backend.posts[-1].json["to"] == ["bob"]
        assert (await bob.receive())["type"] == "whisper"
        assert await carl.so_far() == []


@pytest.mark.parametrize("event", ["subscribe", "publish", "call"])
async def test_an_answer_may_close_the_connection(backend, site, event):
    answers(backend, connect={"user": "ann", "channels": ["cars"]})
    async with site() as there:
        ann = await there.dial()
        await ann.hello()
        answers(backend, **{event: {"close": {"code": 4123, "reason": "enough"}}})
        channel = "bikes" if event == "subscribe" else "cars"
        await ann.send({"type": event, "id": 1, "channel": channel, "message": 1, "method": "x"})
        assert await ann.closed() == (4123, "enough")


async def test_what_connect_allowed_counts_where_nobody_is_asked(backend, site):
    answers(backend, connect={"user": "ann", "allow": {"subscribe": ["cars.*", "bikes"], "publish": ["cars.red"]}})
    async with site(ask=["connect"]) as there:
        ann = await there.dial()
        await ann.hello()
        for channel, allowed in {
            "cars.red": True,
            "cars.blue": True,
            "bikes": True,
            "carsx": False,
            "x": False,
        }.items():
            answer = await ann.ask({"type": "subscribe", "id": 1, "channel": channel})
            assert (answer["type"] == "subscribed") is allowed
        for channel, allowed in {"cars.red": True, "cars.blue": False}.items():
            await ann.send({"type": "publish", "id": 2, "channel": channel, "message": 1, "exclude": "self"})
            assert ((await ann.receive())["type"] == "ack") is allowed
        assert [post.json["event"] for post in backend.posts] == ["connect"]


async def test_without_a_word_nothing_is_allowed_where_nobody_is_asked(backend, site):
    answers(backend, connect={"user": "ann"})
    async with site(ask=["connect"]) as there:
        ann = await there.dial()
        await ann.hello()
        assert (await ann.ask({"type": "subscribe", "id": 1, "channel": "cars"}))["code"] == "forbidden"


async def test_a_connection_ends_when_the_backend_said(backend, site):
    answers(backend, connect=lambda post: {"user": "ann", "expires": time.time() + 1})
    async with site() as there:
        ann = await there.dial()
        await ann.hello()
        code, _ = await ann.closed()
        assert code == 4001
        assert len(backend.posts) == 1


async def test_or_is_asked_about_again(backend, site):
    def again(post):
        renewals.append(post.json.get("renew", False))
        if len(renewals) == 4:
            return reply(401, {"error": {"message": "logged out"}})
        return {"user": "ann", "expires": time.time() + 0.4, "renew": True, "data": len(renewals)}

    renewals = []
    answers(backend, connect=again)
    async with site() as there:
        ann = await there.dial(additional_headers={"Cookie": "session=1"})
        await ann.hello()
        assert await ann.closed() == (4001, "logged out")
    assert renewals == [False, True, True, True]
    last = backend.posts[-1]
    assert last.headers["cookie"] == "session=1"
    assert (last.json["connection"]["user"], last.json["connection"]["data"]) == ("ann", 3)
    assert last.json["connection"]["id"]


@pytest.mark.parametrize(("answer", "code"), [({"user": "bob"}, 4001), (reply(500), 4503), ({}, 4001)])
async def test_nobody_stays_whose_renewal_is_no_yes(backend, site, answer, code):
    answers(
        backend,
        connect=lambda post: (
            answer if "renew" in post.json else {"user": "ann", "expires": time.time() + 1, "renew": True}
        ),
    )
    async with site() as there:
        ann = await there.dial()
        await ann.hello()
        assert (await ann.closed())[0] == code


async def test_what_was_allowed_ends_with_its_time(backend, site):
    answers(
        backend,
        connect=lambda post: (
            {"user": "ann"}
            if "renew" in post.json
            else {"user": "ann", "expires": time.time() + 1, "renew": True, "allow": {"subscribe": ["cars"]}}
        ),
    )
    async with site(ask=["connect"]) as there:
        ann = await there.dial()
        await ann.hello()
        assert (await ann.ask({"type": "subscribe", "id": 1, "channel": "cars"}))["type"] == "subscribed"
        left = await ann.receive()
        assert (left["type"], left["channel"], left["reason"]) == ("unsubscribed", "cars", "kicked")


async def test_a_token_needs_no_connect(backend, site):
    key = "k" * 32
    claims = {"sub": "ann", "exp": int(time.time()) + 60}
    token = jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(key))
    async with site(options={"auth": JWTAuth(key)}) as there:
        ann = await there.dial(additional_headers={"Authorization": f"Bearer {token}"})
        await ann.hello()
        assert ann.welcome["user"] == "ann"
        assert backend.posts == []
        assert (await ann.ask({"type": "subscribe", "id": 1, "channel": "cars"}))["type"] == "subscribed"
        assert backend.posts[0].json["connection"]["user"] == "ann"


async def test_plain_sockets_are_decided_on_as_well(backend, site):
    answers(
        backend,
        connect=lambda post: {"user": post.json["connection"]["query"].get("user")},
        subscribe=lambda post: reply(403) if post.json["channel"] == "secret" else {"message": "welcome"},
        publish=lambda post: (
            reply(403) if post.json["message"] == "spam" else {"message": post.json["message"].upper()}
        ),
    )
    async with site(raw=True) as there:
        ann = await there.join("ann", "cars")
        async with connect(f"{there.url}/raw/cars?user=bob") as bob:
            assert await bob.recv() == "welcome"
            await bob.send("hi")
            assert await bob.recv() == "HI"
            heard = await ann.receive()
            while heard["type"] != "message":
                heard = await ann.receive()
            assert (heard["message"], heard["from"]["user"]) == ("HI", "bob")
            await bob.send("spam")
            with pytest.raises(ConnectionClosed):
                await bob.recv()
            assert bob.close_code == 1008
        async with connect(f"{there.url}/raw/secret?user=bob") as bob:
            with pytest.raises(ConnectionClosed):
                await bob.recv()
            assert bob.close_code == 4403
        answers(backend, connect=reply(500))
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{there.url}/raw/cars")
        assert refused.value.response.status_code == 503


async def test_a_url_is_enough(backend):
    answers(backend, connect={"user": "ann"}, call={"result": 1})
    listener = HookListener(backend.url, secret=SECRET)
    assert listener.hooks.settings.ask == ALL
    async with serving(listener, subprotocols=["fastws.v1"]) as there:
        ann = await there.dial()
        await ann.hello()
        assert (await ann.ask({"type": "call", "id": 1, "method": "x"}))["result"] == 1


def test_what_cannot_work_is_said_at_once():
    settings = HookSettings(url="http://127.0.0.1/")
    with pytest.raises(ConfigurationError, match="set it there"):
        HookListener(settings, secret=SECRET)
    with pytest.raises(ConfigurationError, match="needs a secret"):
        HookListener("https://example.com/hook")
    with pytest.raises(ConfigurationError, match=r'needs .hooks. with "subscribe" in ask'):
        HookListener(settings, rules=rules({"pattern": "*", "subscribe": "hook"}))


def test_a_missing_aiohttp_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(ConfigurationError, match=r"hooks need aiohttp: pip install 'fastws-server\[hooks\]'"):
        Hooks(HookSettings(url="http://127.0.0.1/"))
