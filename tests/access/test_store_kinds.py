"""All kinds of stores: those that fail, that answer at once or later, and custom ones."""

import asyncio
import functools
import json
from types import SimpleNamespace

import pytest
from starsessions import InMemoryStore

from fastws import ConfigurationError, StoreSessions
from fastws.testing import Refused

from ..lib.support import records_naming
from ..lib.visitors import DEEP, Cookies, Session, cookies, first, log_in, storing, values


class Failing(InMemoryStore):
    """Fails while `fails` is set."""

    fails = False

    async def read(self, session_id, lifetime):
        if self.fails:
            raise OSError("the store is down")
        return await super().read(session_id, lifetime)

    async def write(self, session_id, data, lifetime, ttl):
        if self.fails:
            raise OSError("the store is full")
        return await super().write(session_id, data, lifetime, ttl)


async def test_a_store_that_fails_refuses_a_handshake_with_500_and_names_no_internals(serve, browse, caplog):
    store = Failing()
    site = await serve(Session(), sessions=StoreSessions(store), http=storing(store))
    ann, _ = await log_in(browse, site, user="ann")
    store.fails = True
    with pytest.raises(Refused) as refused:
        await ann.connect()
    assert refused.value.status == 500
    assert b"store" not in refused.value.body
    assert records_naming(caplog, refused.value.error["request_id"])
    store.fails = False
    assert (await (await ann.connect()).receive_json())["user"] == "ann"


@pytest.mark.parametrize("fails", ["read", "write"])
async def test_a_store_that_fails_costs_a_message_its_own_connection(serve, browse, caplog, listener, fails):
    class Breaks(type(listener)):
        def on_message(self, ws, message):
            if fails == "write":
                store.fails = True
            return super().on_message(ws, message)

    store = Failing()
    site = await serve(Breaks(), sessions=StoreSessions(store), http=storing(store))
    ann, client = await log_in(browse, site, user="ann")
    bystander = await (await browse(site)).connect()
    assert await bystander.receive_json() is None
    store.fails = fails == "read"
    await client.send({"set": {"a": 1}})
    assert (await client.closed())[0] == 1011
    store.fails = False
    assert "the store is" in caplog.text
    assert await bystander.received() == []
    assert await ann.get() == {"user": "ann"}


@pytest.mark.parametrize(
    "data", [b"{", b"\xff", b"[1]", b'"text"', b"7", b'{"__metadata__": 7}', b'{"__metadata__": {}}', DEEP]
)
async def test_a_session_that_cannot_be_read_is_none_and_is_logged(serve, join, caplog, data):
    store = InMemoryStore()
    store.data["abc"] = data
    site = await serve(Session(), sessions=StoreSessions(store))
    assert await first(join, f"{site.url}/ws/cars", "abc") is None
    assert records_naming(caplog, "unreadable")


async def test_only_ids_that_somebody_could_have_made_are_looked_up_and_at_most_eight(serve, join):
    asked = []

    class Asked(InMemoryStore):
        async def read(self, session_id, lifetime):
            asked.append(session_id)
            return b""

    site = await serve(Session(), sessions=StoreSessions(Asked()))
    ids = ["x" * 256, "x" * 257, "", '"a\\012b"', "a b", *"12345"]
    assert await first(join, f"{site.url}/ws/cars", *ids) is None
    assert asked == ["x" * 256, "1", "2", "3"]


async def test_a_store_in_memory_answers_without_a_task_and_any_other_within_one():
    class Careful(InMemoryStore):
        async def read(self, session_id, lifetime):
            async with asyncio.timeout(1):  # which asks for the task
                return await super().read(session_id, lifetime)

    for store, is_at_once in ((InMemoryStore(), True), (Careful(), False)):
        await store.write("abc", b'{"user": "ann"}', 10, 10)
        sessions = StoreSessions(store, touch=False)
        session = sessions.find(Cookies("nothing", "abc"))
        assert asyncio.iscoroutine(session) is not is_at_once
        session = session if is_at_once else await session
        assert dict(session) == {"user": "ann"}
        session["user"] = "bob"
        waiting = sessions.save(session)
        assert (waiting is None) is is_at_once
        if not is_at_once:
            await waiting
        assert json.loads(await store.read("abc", 10)) == {"user": "bob"}


class Sometimes(InMemoryStore):
    """Waits while `waits` is set, and counts how often it was aborted."""

    waits = False
    broken_off = 0

    async def read(self, session_id, lifetime):
        if self.waits:
            try:
                await asyncio.sleep(0)
            except GeneratorExit:
                self.broken_off += 1
                raise
        return await super().read(session_id, lifetime)


async def test_an_immediate_store_needs_no_task_however_it_is_written():
    store = Sometimes()
    await store.write("abc", b'{"user": "ann"}', 10, 10)
    sessions = StoreSessions(store, immediate=True)
    session = sessions.find(Cookies("abc"))
    seen = sessions.wrap(lambda ws, message: ws.session["user"])
    assert [seen(SimpleNamespace(session=session), "") for _ in range(3)] == ["ann"] * 3
    session["user"] = "bob"
    assert sessions.save(session) is None
    assert json.loads(store.data["abc"])["user"] == "bob"


async def test_an_immediate_store_that_waits_is_broken_off_and_named(serve, browse, caplog):
    store = Sometimes()
    site = await serve(Session(), sessions=StoreSessions(store, immediate=True), http=storing(store))
    ann, client = await log_in(browse, site, user="ann")
    assert await values(client) == {"user": "ann"}
    store.waits = True
    await client.send({})
    assert (await client.closed())[0] == 1011
    with pytest.raises(Refused) as refused:
        await ann.connect()
    assert refused.value.status == 500
    assert caplog.text.count("Sometimes.read() waits, so the store is not immediate: use immediate=False") == 2
    assert store.broken_off == 2


async def test_an_immediate_store_may_not_answer_with_a_future():
    class Future(InMemoryStore):
        def read(self, session_id, lifetime):
            return asyncio.get_running_loop().create_future()

    with pytest.raises(ConfigurationError, match="use immediate=False"):
        StoreSessions(Future(), immediate=True).find(Cookies("abc"))


async def test_a_store_may_answer_from_a_cache_and_wait_for_the_rest(serve, browse):
    class Cached(InMemoryStore):
        """As a decorator may make it: ``def``, and awaitable only if the value is not cached."""

        def __init__(self):
            super().__init__()
            self.cache = {}

        def read(self, session_id, lifetime):
            return self.cache.get(session_id) or self.fetch(session_id)

        async def fetch(self, session_id):
            await asyncio.sleep(0)
            return self.data.get(session_id, b"")

    store, shared = Cached(), InMemoryStore()
    store.data = store.cache = shared.data
    site = await serve(Session(), sessions=StoreSessions(store), http=storing(shared))
    _, client = await log_in(browse, site, user="ann")
    assert await values(client) == {"user": "ann"}
    store.cache = {}
    assert await values(client) == {"user": "ann"}


async def test_a_stores_methods_may_be_partial_functions(serve, browse):
    async def read_from(data, session_id, lifetime):
        return data.get(session_id, b"")

    store = InMemoryStore()
    store.read = functools.partial(read_from, store.data)
    for immediate in (None, False, True):
        site = await serve(Session(), sessions=StoreSessions(store, immediate=immediate), http=storing(store))
        _, client = await log_in(browse, site, user="ann")
        assert await values(client, set={"a": 1}) == {"user": "ann", "a": 1}


async def test_a_store_and_a_serializer_may_be_ones_own_with_plain_methods(serve, join):
    class Plain:
        def __init__(self):
            self.data = {"abc": "user=ann"}

        def read(self, session_id, lifetime):
            return self.data.get(session_id, "").encode()

        def write(self, session_id, data, lifetime, ttl):
            self.data[session_id] = data.decode()

        def remove(self, session_id):
            del self.data[session_id]

    class Pairs:
        def serialize(self, data):
            return ";".join(f"{name}={value}" for name, value in data.items()).encode()

        def deserialize(self, data):
            return dict(pair.split("=") for pair in data.decode().split(";") if pair)

    store = Plain()
    site = await serve(Session(), sessions=StoreSessions(store, serializer=Pairs()))
    client = await join(f"{site.url}/ws/cars", headers=cookies("abc"))
    await client.receive_json()
    assert await values(client, set={"city": "Bern"}) == {"user": "ann", "city": "Bern"}
    assert await values(client, remove=["user"]) == {"city": "Bern"}
    assert store.data == {"abc": "city=Bern"}
