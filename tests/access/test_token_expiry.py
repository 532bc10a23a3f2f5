"""JSON Web Tokens that expire while their connection is open, and the fresh ones that keep it open."""

import asyncio
import json
import time

import pytest

from fastws import JWTAuth, Listener

from ..lib.raw import TEXT, frame, request
from ..lib.support import Echo, Recorder, eventually, nothing_left
from ..lib.tokens import HOUR, OTHER_SECRET, SECRET, Who, bearer, token, unsigned, user

# -- the end of a token


async def test_a_connection_closes_with_4001_when_its_token_expires(site, join):
    exp = time.time() + 1
    client = await join(f"{site.url}/ws/cars", headers=bearer(token(exp=exp)))
    await client.receive()
    assert await client.closed() == (4001, "token expired")
    assert 0 <= time.time() - exp < 3


async def test_the_leeway_counts_at_the_end_too(serve, join):
    site = await serve(Who(), auth=JWTAuth(SECRET, leeway=1))
    exp = time.time()
    client = await join(f"{site.url}/ws/cars", headers=bearer(token(exp=exp)))
    await client.receive()
    assert await client.closed() == (4001, "token expired")
    assert time.time() - exp >= 1


@pytest.mark.parametrize("exp", [2**33, 2**63, 2**64, 10**300, 1e300])
async def test_an_expiry_far_away_sets_a_timer_for_a_day_at_most(serve, join, exp):
    auth = JWTAuth(SECRET)
    site = await serve(Who(), auth=auth)
    client = await join(f"{site.url}/ws/cars", headers=bearer(token(exp=exp, channels=["*"])))
    await client.send("hi")
    await client.received()
    (timer,) = auth._timers.values()
    assert 0 < timer.when() - asyncio.get_running_loop().time() <= 24 * HOUR + 0.001
    await client.send({"type": "authenticate", "token": token(exp=exp)})
    assert (await client.receive_json())["expires"] >= 2**33


async def test_a_timer_that_went_off_early_is_set_again(serve, join, monkeypatch):
    monkeypatch.setattr("fastws.auth.DAY_SECONDS", 0.05)
    auth = JWTAuth(SECRET)
    site = await serve(Who(), auth=auth)
    client = await join(f"{site.url}/ws/cars", headers=bearer(token(exp=time.time() + 1)))
    await client.receive()
    (before,) = auth._timers.values()
    await asyncio.sleep(0.15)
    assert await client.received() == []
    assert list(auth._timers.values()) != [before]
    assert await client.closed() == (4001, "token expired")


async def test_nothing_is_left_of_a_connection_that_went_before_its_token(serve, join):
    auth = JWTAuth(SECRET)
    site = await serve(Who(), auth=auth)
    clients = [await join(f"{site.url}/ws/cars", headers=bearer(token())) for _ in range(3)]
    await eventually(lambda: len(auth._timers) == 3)
    await clients[0].close()
    clients[1].abort()
    site.manager.close_user("ann")
    await eventually(lambda: not auth._timers and nothing_left(site))


async def test_a_connection_that_on_open_refuses_leaves_no_timer(serve, join):
    class No(Listener):
        def on_open(self, ws):
            return False

    auth = JWTAuth(SECRET)
    site = await serve(No(), auth=auth)
    client = await join(f"{site.url}/ws/cars", headers=bearer(token()))
    assert (await client.closed())[0] == 1008
    await eventually(lambda: not auth._timers)


# -- a fresh token


async def enter(join, site, path="/ws/cars", **claims):
    client = await join(site.url + path, headers=bearer(token(**claims)))
    await client.receive()
    return client


async def test_a_fresh_token_in_time_keeps_the_connection_open(serve, join):
    listener = Recorder()
    site = await serve(listener, auth=JWTAuth(SECRET))
    client = await join(f"{site.url}/ws/cars", headers=bearer(token(exp=time.time() + 1, role="guest")))
    expires = int(time.time()) + HOUR
    await client.send({"type": "authenticate", "token": token(exp=expires, role="admin")})
    assert await client.receive_json() == {"type": "authenticated", "expires": expires}
    await asyncio.sleep(1.1)
    assert await client.received() == []
    (ws,) = listener.sockets
    assert (ws.request.claims["role"], ws.request.claims["exp"]) == ("admin", expires)
    assert listener.of("on_message") == []


async def test_the_end_of_the_fresh_token_counts(site, join):
    client = await enter(join, site)
    await client.send({"type": "authenticate", "token": token(exp=time.time() + 1)})
    assert (await client.receive_json())["type"] == "authenticated"
    assert await client.closed() == (4001, "token expired")


@pytest.mark.parametrize(
    "bad",
    [
        lambda: token(sub="bob"),
        lambda: token(OTHER_SECRET),
        lambda: token(exp=1),
        lambda: token(exp=None),
        lambda: token(channels=["boats"]),
        lambda: unsigned({"alg": "none"}, {"sub": "ann", "exp": 2**40}),
        lambda: "",
        lambda: None,
        lambda: 7,
        lambda: ["x"],
        lambda: "\ud83d\ude00",
    ],
)
async def test_a_bad_token_or_another_users_closes_with_4001_and_no_handler_sees_it(serve, join, bad):
    site = await serve(recorder := Recorder(), auth=JWTAuth(SECRET))
    client = await join(f"{site.url}/ws/cars", headers=bearer(token(channels=["cars"])))
    await client.send(json.dumps({"type": "authenticate", "token": bad()}))
    await client.send("still here?")
    assert await client.closed() == (4001, "token refused")
    await recorder.until("on_close")
    assert recorder.of("on_message") == []


async def test_who_a_listener_made_of_the_user_stays_through_a_refresh(serve, join):
    class Map(Who):
        def on_handshake(self, request):
            request.user = f"user:{request.user}"

    site = await serve(Map(), auth=JWTAuth(SECRET))
    client = await join(f"{site.url}/ws/cars", headers=bearer(token()))
    assert await user(client) == "user:ann"
    await client.send({"type": "authenticate", "token": token()})
    assert (await client.receive_json())["type"] == "authenticated"
    assert site.manager.users.keys() == {"user:ann"}


@pytest.mark.parametrize(
    "spelling",
    [
        '{"token":"%s","type":"authenticate"}',
        ' {"type":"authenticate","token":"%s"}',
        '\r\n{\n "type" : "authenticate",\t"token": "%s"}\n',
    ],
)
async def test_a_fresh_token_is_known_in_every_spelling_of_its_json(site, join, spelling):
    client = await enter(join, site)
    await client.send(spelling % token())
    assert (await client.receive_json())["type"] == "authenticated"


@pytest.mark.parametrize(
    "message",
    [
        "authenticate",
        '"authenticate"',
        '["authenticate"]',
        '{"type": "authenticated"}',
        '{"text": "type authenticate"}',
        '{"text": "authenticate", "type": "say"}',
        '{"type": "authenticate"',
        "{}",
        b'{"type": "authenticate", "token": ""}',
    ],
)
async def test_other_messages_go_to_the_listener_as_they_are(serve, join, message):
    site = await serve(Echo(), auth=JWTAuth(SECRET))
    client = await join(f"{site.url}/ws/cars", headers=bearer(token()))
    await client.send(message)
    assert await client.receive() == message


async def test_without_refresh_such_a_message_is_like_any_other(serve, join):
    site = await serve(Echo(), auth=JWTAuth(SECRET, refresh=False))
    client = await join(f"{site.url}/ws/cars", headers=bearer(token(exp=time.time() + 1)))
    await client.send({"type": "authenticate", "token": "x"})
    assert await client.receive_json() == {"type": "authenticate", "token": "x"}
    assert await client.closed() == (4001, "token expired")


async def test_a_fresh_token_in_one_packet_with_the_handshake_is_taken(site, dial):
    raw = await dial(site.url)
    fresh = json.dumps({"type": "authenticate", "token": token()}).encode()
    await raw.send(request("/ws/cars", extra=list(bearer(token()).items())) + frame(TEXT, fresh))
    assert (await raw.response()).status == 101
    assert json.loads(await raw.text())["user"] == "ann"
    assert json.loads(await raw.text())["type"] == "authenticated"
