"""Sessions in a starsessions store: changes from both sides, merging, expiry and logging out."""

import asyncio
import json
import time
from types import SimpleNamespace

import pytest
from starsessions import InMemoryStore
from starsessions.stores.redis import RedisStore

from fastws import Listener, StoreSessions

from ..lib.raw import TIMEOUT
from ..lib.support import eventually
from ..lib.visitors import Session, ask, first, log_in, seen, storing, values


async def test_what_http_changes_the_next_message_handler_sees(serve, browse, store, listener):
    site = await serve(listener, sessions=StoreSessions(store), http=storing(store))
    ann, client = await log_in(browse, site, user="ann")
    for number in range(3):
        await ann.post(body={"number": number})
        assert await values(client) == {"user": "ann", "number": number}


async def test_what_a_handler_changes_the_next_request_sees(serve, browse, store, listener):
    site = await serve(listener, sessions=StoreSessions(store), http=storing(store))
    ann, client = await log_in(browse, site, user="ann", cart=[1], old=True)
    await ask(client, set={"number": 1})
    assert await ann.get() == {"user": "ann", "cart": [1], "old": True, "number": 1}
    await ask(client, append=["cart", 2], remove=["old"])
    assert await ann.get() == {"user": "ann", "cart": [1, 2], "number": 1}
    await ask(client, set={"number": True})  # == 1, but not the same
    assert (await ann.get())["number"] is True


async def test_every_tab_and_http_count_together(serve, browse, store, listener):
    class Count(type(listener)):
        def on_message(self, ws, message):
            ws.session["count"] += 1
            return super().on_message(ws, message)

    site = await serve(Count(), sessions=StoreSessions(store), http=storing(store))
    ann, one = await log_in(browse, site, count=0)
    two = await ann.connect()
    await two.receive_json()
    for turn in range(1, 4):
        assert (await values(one))["count"] == 2 * turn - 1
        assert (await values(two))["count"] == 2 * turn
        assert (await ann.get())["count"] == 2 * turn


async def test_changes_of_both_sides_at_one_time_are_merged_by_name(serve, browse, store):
    reached, may_go = asyncio.Event(), asyncio.Event()

    class Wait(Listener):
        def on_open(self, ws):
            ws.send("open")

        async def on_message(self, ws, message):
            ws.session["mine"] = "new"
            del ws.session["spare"]
            reached.set()
            await may_go.wait()
            return "done"

    site = await serve(Wait(), sessions=StoreSessions(store), http=storing(store))
    ann = await browse(site)
    await ann.post(body={"mine": "old", "yours": "old", "spare": 1})
    client = await ann.connect()
    await client.receive()
    await client.send("go")
    await reached.wait()
    await ann.post(body={"yours": "new"})
    may_go.set()
    assert await client.receive() == "done"
    await eventually_gets(ann, {"mine": "new", "yours": "new"})


async def eventually_gets(visitor, expected):
    async with asyncio.timeout(TIMEOUT):
        while await visitor.get() != expected:
            await asyncio.sleep(0.01)


async def test_a_change_in_on_open_is_kept_with_the_first_message(serve, browse, store):
    class Greet(Session):
        def on_open(self, ws):
            ws.session["greeted"] = True
            super().on_open(ws)

    site = await serve(Greet(), sessions=StoreSessions(store), http=storing(store))
    ann, client = await log_in(browse, site, user="ann")
    await ann.post(body={"number": 1})
    assert await values(client) == {"user": "ann", "greeted": True, "number": 1}
    assert await ann.get() == {"user": "ann", "greeted": True, "number": 1}


async def test_what_starsessions_keeps_for_itself_is_neither_seen_nor_lost(serve, browse):
    store = InMemoryStore()
    site = await serve(Session(), sessions=StoreSessions(store, touch=False), http=storing(store))
    _, client = await log_in(browse, site, user="ann")
    (before,) = map(json.loads, store.data.values())
    assert await values(client, set={"a": 1}) == {"user": "ann", "a": 1}
    (after,) = map(json.loads, store.data.values())
    assert after == {**before, "a": 1}
    assert after["__metadata__"]["lifetime"] == 3600


class Counting(InMemoryStore):
    """Records the ttl of each write."""

    def __init__(self):
        super().__init__()
        self.ttls = []

    async def write(self, session_id, data, lifetime, ttl):
        self.ttls.append(ttl)
        return await super().write(session_id, data, lifetime, ttl)


async def test_a_session_is_touched_at_most_once_a_minute(serve, browse, monkeypatch):
    store = Counting()
    site = await serve(Session(), sessions=StoreSessions(store, lifetime=100), http=storing(store))
    _, client = await log_in(browse, site, user="ann")
    store.ttls.clear()
    real, later = time.monotonic, 0
    clock = SimpleNamespace(time=time.time, monotonic=lambda: real() + later)  # not the server's: that would time out
    monkeypatch.setattr("fastws.sessions.time", clock)
    for later in (0, 1, 50, 59, 61, 62, 110, 130):  # noqa: B007
        await ask(client)
    assert store.ttls == [3600] * 3  # at 0, 61 and 130; the data's own lifetime counts


async def test_a_short_lived_session_is_touched_more_often(serve, browse, monkeypatch):
    store = Counting()
    site = await serve(Session(), sessions=StoreSessions(store), http=storing(store, lifetime=30))
    _, client = await log_in(browse, site, user="ann")
    store.ttls.clear()
    real, now = time.monotonic, time.time
    monkeypatch.setattr(time, "time", lambda: now() + later)
    monkeypatch.setattr("fastws.sessions.time", SimpleNamespace(time=time.time, monotonic=lambda: real() + later))
    for later in (0, 10, 20, 40, 60):  # noqa: B007
        assert await values(client) == {"user": "ann"}
    assert store.ttls == [30] * 4
    later = 91
    assert await values(client) == {}


async def test_nothing_is_written_where_nothing_changed(serve, browse):
    store = Counting()
    site = await serve(Session(), sessions=StoreSessions(store, touch=False), http=storing(store))
    _, client = await log_in(browse, site, user="ann", cart=[])
    store.ttls.clear()
    for _ in range(3):
        await ask(client, set={"user": "ann"})
    assert store.ttls == []
    await ask(client, append=["cart", 1])
    assert len(store.ttls) == 1


@pytest.mark.parametrize("rolling", [True, False])
async def test_messages_keep_a_session_from_expiring(serve, browse, redis_client, rolling):
    store = RedisStore(connection=redis_client)
    site = await serve(Session(), sessions=StoreSessions(store), http=storing(store, rolling=rolling))
    ann, client = await log_in(browse, site, user="ann")
    (key,) = await redis_client.keys()
    data = json.loads(await redis_client.get(key))
    data["__metadata__"]["created"] -= 3500
    await redis_client.set(key, json.dumps(data), ex=100)
    await ask(client)
    assert 3590 <= await redis_client.ttl(key) <= 3600
    assert await ann.get() == {"user": "ann"}  # which also writes it
    assert 3590 <= await redis_client.ttl(key) <= 3600


async def test_without_touch_messages_do_not_prolong_a_session(serve, browse, redis_client):
    store = RedisStore(connection=redis_client)
    site = await serve(Session(), sessions=StoreSessions(store, touch=False), http=storing(store))
    _, client = await log_in(browse, site, user="ann")
    (key,) = await redis_client.keys()
    await redis_client.expire(key, 100)
    await ask(client)
    assert await redis_client.ttl(key) <= 100
    data = json.loads(await redis_client.get(key))
    data["__metadata__"]["last_access"] -= 3000
    await redis_client.set(key, json.dumps(data), ex=600)
    await ask(client, set={"a": 1})
    assert 590 <= await redis_client.ttl(key) <= 600


async def test_a_session_that_expired_in_a_store_that_never_forgets_is_none(serve, browse, monkeypatch):
    store = InMemoryStore()
    site = await serve(Session(), sessions=StoreSessions(store, touch=False), http=storing(store))
    ann, client = await log_in(browse, site, user="ann")
    real, ann_cookies = time.time, ann.cookies
    monkeypatch.setattr(time, "time", lambda: real() + 3601)
    assert await values(client) == {}
    assert await first(ann.join, f"{site.url}/ws/cars", *ann_cookies) is None


async def test_a_session_that_ended_with_the_browser_in_mind_has_the_lifetime_given(serve, browse, redis_client):
    store = RedisStore(connection=redis_client)
    site = await serve(Session(), sessions=StoreSessions(store, lifetime=1000), http=storing(store, lifetime=0))
    _, client = await log_in(browse, site, user="ann")
    await ask(client)
    (key,) = await redis_client.keys()
    assert 990 <= await redis_client.ttl(key) <= 1000


async def test_logged_out_over_http_the_session_is_empty_and_stays_dead(serve, browse, store, listener):
    site = await serve(listener, sessions=StoreSessions(store), http=storing(store))
    ann, client = await log_in(browse, site, user="ann")
    await ann.post("/logout")
    assert await values(client) == {}
    assert await values(client, set={"user": "ann"}) == {"user": "ann"}
    assert await values(client) == {}
    (session,) = [ws.session for ws in site.manager.connections.values()]
    assert await store.read(session.id, 3600) == b""
    await store.write(session.id, b'{"user": "eve"}', 3600, 3600)
    assert await values(client) == {}


async def test_a_handler_that_was_running_at_the_logout_does_not_bring_the_session_back(serve, browse, store):
    reached, may_go = asyncio.Event(), asyncio.Event()

    class Wait(Session):
        async def on_message(self, ws, message):
            ws.session["number"] = 1
            reached.set()
            await may_go.wait()
            return seen(ws)

    site = await serve(Wait(), sessions=StoreSessions(store), http=storing(store))
    ann, client = await log_in(browse, site, user="ann")
    await client.send({})
    await reached.wait()
    await ann.post("/logout")
    may_go.set()
    await client.receive()
    assert await values(client) == {"number": 1}  # on its way out, and then
    (ws,) = site.manager.connections.values()
    await eventually(lambda: dict(ws.session) == {})
    assert await store.read(ws.session.id, 3600) == b""


async def test_a_store_with_replace_is_safe_from_a_logout_between_reading_and_writing(serve, browse, redis_client):
    class Safe(RedisStore):
        async def replace(self, session_id, data, lifetime, ttl):
            await redis_client.flushall()  # a logout at this moment
            return await redis_client.set(self.prefix(session_id), data, ex=ttl, xx=True)

    store = Safe(connection=redis_client)
    site = await serve(Session(), sessions=StoreSessions(store), http=storing(store))
    _, client = await log_in(browse, site, user="ann")
    assert await values(client) == {}
    assert await redis_client.keys() == []
