"""The HTTP API and channels that keep what was sent."""

import asyncio
from contextlib import AsyncExitStack

import aiohttp
import pytest

from fastws import BackplaneError
from tests.lib.v1 import LOGS
from tests.web.api.site import BEARER, NARROW, READER, Site


@pytest.fixture
async def site():
    async with AsyncExitStack() as stack:
        yield await Site(stack, logs=LOGS).start()


@pytest.fixture
async def call(site):
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session:

        async def ask(method, path, body=None, headers=BEARER):
            async with session.request(method, site.url + path, headers=headers, json=body) as answer:
                return answer.status, await answer.json()

        yield ask


async def test_a_broadcast_says_where_it_stands(site, call):
    status, first = await call("POST", "/broadcast", {"channel": "room-1", "message": 1})
    assert (status, first["connections"]) == (200, 0)
    status, second = await call("POST", "/channels/room-1", 2)
    assert status == 200
    status, log = await call("GET", f"/channels/room-1/log?since={first['position']}")
    assert (status, log["name"], log["recovered"], log["position"]) == (200, "room-1", True, second["position"])
    assert [(entry["message"], entry["position"]) for entry in log["entries"]] == [("2", second["position"])]


async def test_the_same_request_again_is_the_same_message(site, call):
    body = {"channel": "room-1", "message": 1, "key": "once"}
    assert await call("POST", "/broadcast", body) == await call("POST", "/broadcast", body)
    _, log = await call("GET", "/channels/room-1/log")
    assert len(log["entries"]) == 1


async def test_several_channels_and_a_batch(site, call):
    body = {"channels": ["room-1", "plain"], "message": 1}
    status, answer = await call("POST", "/broadcast", body)
    assert (status, answer["connections"], list(answer["positions"])) == (200, {"room-1": 0, "plain": 0}, ["room-1"])
    commands = [{"broadcast": {"channel": name, "message": 1}} for name in ("room-1", "plain")]
    status, answer = await call("POST", "/batch", {"commands": commands})
    assert [sorted(result) for result in answer["results"]] == [["connections", "position"], ["connections"]]


async def test_latest_messages(site, call):
    for key, message in (("A", 1), ("B", 2), ("A", 3)):
        assert (await call("POST", "/broadcast", {"channel": "price-1", "message": message, "latest_key": key}))[
            0
        ] == 200
    _, log = await call("GET", "/channels/price-1/log")
    assert [(entry["key"], entry["message"]) for entry in log["entries"]] == [("B", "2"), ("A", "3")]
    status, done = await call("DELETE", "/channels/price-1/log/B")
    assert (status, list(done)) == (200, ["position"])
    _, log = await call("GET", f"/channels/price-1/log?since={log['position']}")
    assert [(entry["key"], entry.get("deleted"), "message" in entry) for entry in log["entries"]] == [
        ("B", True, False)
    ]


async def test_a_channel_forgets(site, call):
    await call("POST", "/broadcast", {"channel": "room-1", "base64": "AP8="})
    _, log = await call("GET", "/channels/room-1/log")
    before = log["position"]
    assert (await call("DELETE", "/channels/room-1/log"))[0] == 200
    _, log = await call("GET", "/channels/room-1/log")
    assert log["entries"] == []
    _, log = await call("GET", f"/channels/room-1/log?since={before}")
    assert (log["recovered"], log["reason"]) == (False, "unknown")


async def test_what_is_for_some_is_not_kept(site, call):
    body = {"channel": "room-1", "message": 1, "users": ["ann"], "compress": False}
    status, answer = await call("POST", "/broadcast", body)
    assert (status, answer) == (200, {"connections": 0})
    assert (await call("GET", "/channels/room-1/log"))[1]["entries"] == []


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        ("POST", "/broadcast", {"channel": "price-1", "message": 1}, 409, "latest_key is needed"),
        ("POST", "/broadcast", {"channel": "room-1", "message": 1, "latest_key": "A"}, 409, "latest_key is for"),
        ("POST", "/channels/price-1", 1, 409, "latest_key is needed"),
        ("POST", "/broadcast", {"channel": "room-1", "message": 1, "compress": True}, 409, "leave compress out"),
        ("POST", "/channels/room-1?compress=false", 1, 409, "leave compress out"),
        ("GET", "/channels/plain/log", None, 404, "keeps nothing"),
        ("GET", "/channels/room-1/log?since=x", None, 400, "is not a position"),
        ("GET", "/channels/room-1/log?limit=0", None, 400, "limit"),
        ("GET", "/channels/room-1/log?endpoint=/nowhere", None, 400, "is not an endpoint"),
        ("DELETE", "/channels/plain/log", None, 404, "keeps nothing"),
        ("DELETE", "/channels/room-1/log/A", None, 404, "without keys"),
    ],
)
async def test_what_cannot_be_is_said(call, method, path, body, status, says):
    answered, answer = await call(method, path, body)
    assert answered == status, answer
    assert says in answer["error"]["message"]


async def test_keys_decide_here_too(call):
    assert (await call("GET", "/channels/room-1/log", headers=NARROW))[0] == 403
    reader = {"Authorization": f"Bearer {READER}"}
    assert (await call("DELETE", "/channels/shop.1/log", headers=reader))[0] == 403


async def test_a_store_that_is_away_is_503(site, call, monkeypatch):
    async def away(*_, **__):
        raise BackplaneError("away")

    store = site.server._node.store
    for name in ("snapshot", "clear"):
        monkeypatch.setattr(store, name, away)

    def fail(*_, **__):
        future = asyncio.get_running_loop().create_future()
        future.set_exception(BackplaneError("away"))
        return future

    monkeypatch.setattr(store, "append", fail)
    for method, path, body in (
        ("GET", "/channels/room-1/log", None),
        ("DELETE", "/channels/room-1/log", None),
        ("POST", "/broadcast", {"channel": "room-1", "message": 1}),
    ):
        status, answer = await call(method, path, body)
        assert (status, "the store did not answer" in answer["error"]["message"]) == (503, True)
    status, answer = await call("POST", "/batch", {"commands": [{"broadcast": {"channel": "room-1", "message": 1}}]})
    assert answer["results"][0]["error"]["code"] == 503
    assert site.server._node.counts["failed"] == 4  # at both endpoints
