"""The HTTP API, by Pusher's own library, and by requests that it would not make."""

import asyncio
import hashlib
import http.client
import json
import subprocess
import time
from urllib.parse import quote

import pusher.errors
import pytest

from fastws.pusher.signing import Application, Unauthorized

from .conftest import ID, KEY, NODE, SECRET, library, needs_node


def signed(method, path, body=b"", secret=SECRET, **query):
    """The target of a request as a backend signs it; fields that are None are left out."""
    fields = {
        "auth_key": KEY,
        "auth_version": "1.0",
        "auth_timestamp": str(int(time.time())),
        **({"body_md5": hashlib.md5(body).hexdigest()} if body else {}),
        **query,
    }
    given = sorted((name, value) for name, value in fields.items() if value is not None)
    text = f"{method}\n{path}\n" + "&".join(f"{name}={value}" for name, value in given)
    signature = Application(KEY, secret.encode()).sign(text.encode())
    pairs = [*given, ("auth_signature", signature)]
    return path + "?" + "&".join(f"{name}={quote(value)}" for name, value in pairs)


async def ask(app, method, target, body=b""):
    """(status, content) of an answer."""

    def call():
        connection = http.client.HTTPConnection("127.0.0.1", app.port, timeout=20)
        try:
            connection.request(method, target, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    return await asyncio.to_thread(call)


async def post(app, route, content, **query):
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    path = f"/apps/{ID}/{route}"
    return await ask(app, "POST", signed("POST", path, body, **query), body)


async def get(app, route, **query):
    return await ask(app, "GET", signed("GET", f"/apps/{ID}/{route}", **query))


def event(**fields):
    return {"name": "hi", "channel": "cars", "data": "{}", **fields}


async def test_the_library_says_and_asks_everything(serve_pusher, dial_pusher):
    app = await serve_pusher()
    ann, phone, bob = [await dial_pusher(app) for _ in range(3)]
    for wire, user in ((ann, "ann"), (phone, "ann"), (bob, "bob")):
        await wire.subscribe("cars")
        await wire.join("presence-room", user)
    await bob.subscribe("cache-news")
    for wire in (ann, phone, bob):
        await wire.so_far()

    assert await app.call("trigger", "cars", "hi", {"ä": 1}) == {}
    for wire in (ann, phone, bob):
        assert await wire.receive() == ("hi", "cars", {"ä": 1})
    batch = [{"channel": c, "name": "hi", "data": c, "socket_id": ann.socket_id} for c in ("cars", "cache-news")]
    assert await app.call("trigger_batch", batch) == {}
    assert await ann.so_far() == []
    assert await bob.so_far() == [("hi", "cars", "cars"), ("hi", "cache-news", "cache-news")]

    everything = {"cars": {}, "presence-room": {}, "cache-news": {}}
    assert (await app.call("channels_info"))["channels"] == everything
    presence = await app.call("channels_info", "presence-", ["user_count"])
    assert presence["channels"] == {"presence-room": {"user_count": 2}}
    info = await app.call("channel_info", "presence-room", ["user_count", "subscription_count"])
    assert info == {"occupied": True, "user_count": 2, "subscription_count": 3}
    assert await app.call("channel_info", "elsewhere") == {"occupied": False}
    assert (await app.call("users_info", "presence-room"))["users"] == [{"id": "ann"}, {"id": "bob"}]
    assert (await app.call("users_info", "presence-empty"))["users"] == []
    cached = (await app.call("channel_info", "cache-news", ["cache"]))["cache"]
    assert cached["data"] == "cache-news"
    assert 1790 <= cached["ttl"] <= 1800


async def test_what_the_answers_of_reverb_are(serve_pusher, dial_pusher):
    """Its tests have these requests, and these answers."""
    app = await serve_pusher()
    wire = await dial_pusher(app)
    await wire.subscribe("test-channel-two")
    await wire.join("presence-test-channel-one", 1, name="Taylor")
    both = ["presence-test-channel-one", "test-channel-two"]
    assert await post(app, "events", event(channels=both, channel=None)) == (200, {})
    told = await post(app, "events", event(channels=both, channel=None, info="user_count"))
    assert told == (200, {"channels": {both[0]: {"user_count": 1}, both[1]: {}}})
    told = await post(app, "events", event(channels=[both[1]], channel=None, info="subscription_count"))
    assert told == (200, {"channels": {both[1]: {"subscription_count": 1}}})
    batch = [event(channel=both[0], info="user_count"), event(channel=both[1])]
    assert await post(app, "batch_events", {"batch": batch}) == (200, {"batch": [{"user_count": 1}, {}]})
    assert await get(app, "channels/nowhere", info="occupied") == (200, {"occupied": False})
    assert await get(app, "connections") == (200, {"connections": 1})
    assert await post(app, "events", event(socket_id="invalid-socket-id")) == (200, {})
    assert (await post(app, "events", event(data=json.dumps(["a" * 10_300]))))[0] == 413
    assert (await get(app, "channels/test-channel-two/users"))[0] == 400
    assert await ask(app, "GET", "/up") == (200, {"health": "OK"})
    terminate = f"/apps/{ID}/users/1/terminate_connections"
    assert await ask(app, "POST", signed("POST", terminate)) == (200, {})
    assert (await wire.closed())[0] == 4009
    got = [(await wire.receive())[1] for _ in range(7)]
    assert got == [*both, *both, both[1], *both]


FAULTY = [
    {"name": "hi", "channel": "cars"},
    {"channel": "cars", "data": ""},
    {"name": "hi", "data": ""},
    event(name=""),
    event(name="x" * 201),
    event(name=1),
    event(name="pusher:error"),
    event(name="pusher_internal:member_added"),
    event(data={"no": "string"}),
    event(data=None),
    event(channel=1),
    event(channel="a b"),
    event(channels=["cars"]),
    event(channel=None, channels=[]),
    event(channel=None, channels=["a", "a:b"]),
    event(channel=None, channels=[f"c{number}" for number in range(101)]),
    event(socket_id=1234),
    event(info=1234),
    [],
    "text",
    None,
]


async def test_what_makes_no_sense_is_422_and_sends_nothing(serve_pusher, dial_pusher):
    app = await serve_pusher()
    wire = await dial_pusher(app)
    await wire.subscribe("cars")
    await wire.subscribe("a")
    for content in FAULTY:
        status, answer = await post(app, "events", content)
        assert (status, answer["error"]["code"]) == (422, 422), content
        if content != event(channels=["cars"]):  # a field that a batch does not know
            assert (await post(app, "batch_events", {"batch": [event(), content]}))[0] == 422, content
    assert (await post(app, "batch_events", {"batch": [event()] * 11}))[0] == 422
    for body in (b"", b"{", b"\xff", b'{"name": "\\ud800"}'):
        assert (await post(app, "events", body))[0] == 400
    assert (await post(app, "batch_events", {"batch": [event(), event(data="x" * 10_241)]}))[0] == 413
    assert (await post(app, "events", b" " * 1_000_000))[0] == 413
    assert await wire.so_far() == []


async def test_only_what_the_backend_has_signed_just_now_is_done(serve_pusher, dial_pusher):
    app = await serve_pusher()
    wire = await dial_pusher(app)
    await wire.subscribe("cars")
    body, path = json.dumps(event()).encode(), f"/apps/{ID}/events"
    now = int(time.time())
    wrong = [
        path,
        signed("POST", path, body, secret="x" * 20),
        signed("POST", path, body, auth_key="other"),
        signed("POST", path, body, auth_key=None),
        signed("POST", path, body, auth_version="2.0"),
        signed("POST", path, body, body_md5=None),
        signed("POST", path, body, body_md5="x"),
        signed("POST", path, body + b" "),
        signed("GET", path, body),
        signed("POST", f"/apps/{ID}/batch_events", body).replace("batch_events", "events"),
        signed("POST", path, body) + "&more=1",
        signed("POST", path, body) + "0",
        signed("POST", path, body).replace("auth_signature", "auth_other"),
        *[signed("POST", path, body, auth_timestamp=str(t)) for t in (now - 700, now + 700, "", "x", "1e9", "9" * 99)],
    ]
    for target in wrong:
        status, answer = await ask(app, "POST", target, body)
        assert (status, answer["error"]["code"]) == (401, 401), target
        assert SECRET not in str(answer)
    with pytest.raises(pusher.errors.PusherBadAuth):
        await asyncio.to_thread(library(app.port, secret="y" * 20).trigger, "cars", "hi", {})
    large = b" " * 1_000_000  # which is not read
    assert (await ask(app, "POST", signed("POST", path, large, secret="x" * 20), large))[0] == 401
    elsewhere = f"/apps/{ID}0/events"
    assert (await ask(app, "POST", signed("POST", elsewhere, body), body))[0] == 404
    assert (await ask(app, "GET", signed("GET", path)))[0] == 405
    assert await wire.so_far() == []
    for seconds in (-590, 0, 590):
        assert (await post(app, "events", event(), auth_timestamp=str(now + seconds)))[0] == 200


def test_a_signature_is_that_of_pushers_own_documentation():
    """The example of "HTTP API reference, worked authentication example"."""
    application = Application("278d425bdf160c739803", b"7ad3773142a6692b25b8")
    body = b'{"name":"foo","channels":["project-3"],"data":"{\\"some\\":\\"data\\"}"}'
    query = {
        "auth_key": "278d425bdf160c739803",
        "auth_timestamp": "1353088179",
        "auth_version": "1.0",
        "body_md5": "ec365a775a4cd0599faeb73354201b6f",
    }
    text = "POST\n/apps/3/events\n" + "&".join(f"{name}={value}" for name, value in query.items())
    signature = "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c"
    assert application.sign(text.encode()) == signature
    application.check_body(query, body)
    with pytest.raises(Unauthorized, match="auth_timestamp is not within 600 s"):
        application.check_request("POST", ("/apps/3/events",), {**query, "auth_signature": signature})


async def test_the_library_for_node_says_and_asks_the_same(serve_pusher, dial_pusher):
    needs_node()
    app = await serve_pusher()
    ann, bob = await dial_pusher(app), await dial_pusher(app)
    for wire in (ann, bob):
        await wire.subscribe("cars")
    await ann.join("presence-room", "ann")
    settings = {"appId": ID, "key": KEY, "secret": SECRET, "host": "127.0.0.1", "port": app.port}
    command = ("node", "backend.mjs", json.dumps({**settings, "socket": bob.socket_id}))
    process = await asyncio.create_subprocess_exec(*command, cwd=NODE, stdout=subprocess.PIPE)
    answers = json.loads((await process.communicate())[0])
    assert answers["trigger"] == {"channels": {"cars": {"subscription_count": 2}, "bikes": {"subscription_count": 0}}}
    assert answers["batch"] == {}
    assert answers["channels"] == {"channels": {"presence-room": {"user_count": 1}}}
    assert answers["users"] == {"users": [{"id": "ann"}]}
    assert answers["terminated"] == 200
    assert await bob.receive() == ("stopped", "cars", {"at": "last"})
    assert (await ann.closed())[0] == 4009
    await bob.send("pusher:subscribe", {"channel": "presence-room", **answers["authorized"]})
    assert (await bob.receive())[:2] == ("pusher_internal:subscription_succeeded", "presence-room")
