"""The visitor's HTTP session on the socket: signed cookies of Starlette and Flask, and starsessions' stores."""

import asyncio
import base64
import functools
import hashlib
import itertools
import json
import math
import shutil
import socket
import subprocess
import sys
import time
import tracemalloc
import uuid
import zlib
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from types import SimpleNamespace

import aiohttp
import flask
import pytest
import redis.asyncio
from itsdangerous import TimestampSigner
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starsessions import InMemoryStore, SessionAutoloadMiddleware, get_session_id
from starsessions import SessionMiddleware as StoreMiddleware
from starsessions.stores.redis import RedisStore

from fastws import ConfigurationError, Listener, SignedCookieSessions, StoreSessions
from fastws.testing import Refused

from ..lib.support import eventually, records_naming, signed_cookie

DAY = 24 * 3600
SECRET = "a secret of the HTTP application"


# -- the HTTP side


async def show(request):
    return JSONResponse(dict(request.session))


async def change(request):
    request.session.update(await request.json())
    return JSONResponse(dict(request.session))


async def log_out(request):
    request.session.clear()
    return JSONResponse({})


async def log_out_everywhere(request):
    request.session.clear()
    return JSONResponse(request.app.state.manager.close_session(get_session_id(request)))


def application(*middleware):
    routes = [
        Route("/", show),
        Route("/", change, methods=["POST"]),
        Route("/logout", log_out, methods=["POST"]),
        Route("/everywhere", log_out_everywhere, methods=["POST"]),
    ]
    return Starlette(routes=routes, middleware=list(middleware))


def signing(secret=SECRET):
    return application(Middleware(SessionMiddleware, secret))


def storing(store, **options):
    options = {"lifetime": 3600, "cookie_https_only": False} | options
    return application(Middleware(StoreMiddleware, store, **options), Middleware(SessionAutoloadMiddleware))


def flask_app(secret=SECRET):
    app = flask.Flask("shop")
    app.secret_key = secret

    @app.post("/")
    def change():
        flask.session.update(flask.request.get_json())
        return ""

    return app


def flask_cookie(values, secret=SECRET):
    """What a real Flask sends to a browser for a session."""
    return cookie_in(flask_app(secret).test_client().post("/", json=values).headers["Set-Cookie"])


def starlette_cookie(values, secret=SECRET):
    return signed_cookie(values, secret)


def cookie_in(set_cookie):
    return set_cookie.partition(";")[0].partition("=")[2]


class Browser:
    """One visitor, who keeps the cookies that HTTP sets."""

    def __init__(self, site, http, join):
        self.http = http
        self.join = join
        self.front = site.url.replace("ws:", "http:")
        self.url = site.url

    async def get(self, path="/"):
        async with self.http.get(self.front + path) as response:
            return await response.json()

    async def post(self, path="/", body=None):
        async with self.http.post(self.front + path, json=body) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    @property
    def cookies(self):
        return [cookie.value for cookie in self.http.cookie_jar]

    async def connect(self, path="/ws/cars"):
        return await self.join(self.url + path, headers=cookies(*self.cookies))


@pytest.fixture
async def browse(join):
    """`await browse(site)` is a visitor with a cookie jar."""
    async with AsyncExitStack() as sessions:

        async def enter(site) -> Browser:
            http = aiohttp.ClientSession(
                cookie_jar=aiohttp.CookieJar(unsafe=True), timeout=aiohttp.ClientTimeout(total=5)
            )
            return Browser(site, await sessions.enter_async_context(http), join)

        yield enter


def cookies(*values):
    return [("Cookie", "; ".join(f"session={value}" for value in values))] if values else []


# -- the socket side


class Session(Listener):
    """Tells what it sees: {"set": {...}}, {"remove": [...]}, {"append": [name, value]} change it first."""

    def on_open(self, ws):
        ws.send(seen(ws))

    def on_message(self, ws, message):
        apply(ws.session, json.loads(message))
        return seen(ws)


class SlowSession(Session):
    """The same, and it takes its time."""

    async def on_message(self, ws, message):
        await asyncio.sleep(0)
        apply(ws.session, json.loads(message))
        await asyncio.sleep(0)
        return seen(ws)


def seen(ws):
    return None if ws.session is None else {"id": ws.session.id, **ws.session}


def apply(session, command):
    session.update(command.get("set", {}))
    for name in command.get("remove", ()):
        del session[name]
    if "append" in command:
        name, value = command["append"]
        session[name].append(value)


async def ask(client, **command):
    await client.send(command)
    return await client.receive_json()


async def values(client, **command):
    """What the handler sees, less the id."""
    answer = await ask(client, **command)
    del answer["id"]
    return answer


async def first(join, url, *values):
    """What the connection with these cookies finds."""
    return await (await join(url, headers=cookies(*values))).receive_json()


# -- whose session it is


class Town:
    """Three applications on one server, each with a visitor of its own; all call their cookie "session"."""

    def __init__(self, site, cookies, expected):
        self.site = site
        self.cookies = cookies
        self.expected = expected


@pytest.fixture
async def town(serve, browse):
    store = InMemoryStore()
    app = Starlette(routes=[Mount("/a", signing("secret of a")), Mount("/c", storing(store, cookie_path="/"))])
    site = await serve(Session(), "/a/{channel}", sessions=SignedCookieSessions("secret of a"), http=app)
    site.server.endpoint("/b/{channel}", Session(), sessions=SignedCookieSessions("secret of b"))
    site.server.endpoint("/c/{channel}", Session(), sessions=StoreSessions(store))
    ann, cat = await browse(site), await browse(site)
    await ann.post("/a/", {"id": "1", "user": "ann"})
    await cat.post("/c/", {"user": "cat"})
    (ann_cookie,), (cat_cookie,) = ann.cookies, cat.cookies
    return Town(
        site,
        {"a": ann_cookie, "b": flask_cookie({"id": "1", "user": "bob"}, "secret of b"), "c": cat_cookie},
        {"a": {"id": "1", "user": "ann"}, "b": {"id": "1", "user": "bob"}, "c": {"id": cat_cookie, "user": "cat"}},
    )


async def test_three_applications_with_one_cookie_name_never_see_each_others_session(town, join):
    """Every set of their cookies, in every order, at every application."""
    for number in range(4):
        for sent in itertools.permutations("abc", number):
            for app in "abc":
                found = await first(join, f"{town.site.url}/{app}/cars", *[town.cookies[name] for name in sent])
                assert found == (town.expected[app] if app in sent else None), (app, sent)


async def test_two_endpoints_with_the_same_secret_but_other_cookie_names_share_nothing(serve, join):
    site = await serve(Session(), sessions=SignedCookieSessions(SECRET, "session"))
    site.server.endpoint("/admin", Session(), sessions=SignedCookieSessions(SECRET, "admin"))
    cookie = starlette_cookie({"user": "ann"})
    assert await first(join, f"{site.url}/ws/cars", cookie) == {"id": None, "user": "ann"}
    assert await first(join, f"{site.url}/admin", cookie) is None


async def test_an_endpoint_without_sessions_has_none_whatever_comes(serve, join):
    site = await serve(Session(), sessions=SignedCookieSessions(SECRET))
    site.server.endpoint("/open", Session(), sessions=None)
    assert await first(join, f"{site.url}/open", starlette_cookie({"user": "ann"})) is None


@pytest.mark.parametrize("kind", ["signed", "store"])
async def test_two_browsers_never_share_a_session(serve, browse, kind):
    store = InMemoryStore()
    app = signing() if kind == "signed" else storing(store)
    sessions = SignedCookieSessions(SECRET) if kind == "signed" else StoreSessions(store)
    site = await serve(Session(), sessions=sessions, http=app)
    ann, bob, nobody = [await browse(site) for _ in range(3)]
    await asyncio.gather(ann.post(body={"user": "ann"}), bob.post(body={"user": "bob"}))
    for _ in range(3):
        clients = await asyncio.gather(ann.connect(), bob.connect(), nobody.connect())
        found = [await client.receive_json() for client in clients]
        assert [one and one["user"] for one in found] == ["ann", "bob", None]
        if kind == "store":
            assert len({one["id"] for one in found if one}) == 2


async def test_the_session_is_there_in_on_handshake_and_authorize_already(serve, join):
    class Members(Listener):
        def on_handshake(self, request):
            request.user = request.session["user"] if request.session else None
            return request.user is not None

        def authorize(self, request, channel):
            return channel in request.session["channels"]

        def on_open(self, ws):
            ws.send({"user": ws.user, "same": ws.session is ws.request.session})

    site = await serve(Members(), sessions=SignedCookieSessions(SECRET))
    cookie = starlette_cookie({"user": "ann", "channels": ["cars"]})
    assert await first(join, f"{site.url}/ws/cars", cookie) == {"user": "ann", "same": True}
    for path, values in (("/ws/boats", [cookie]), ("/ws/cars", [])):
        with pytest.raises(Refused) as refused:
            await join(site.url + path, headers=cookies(*values))
        assert refused.value.status == 403


# -- signed cookies


async def test_what_starlettes_middleware_wrote_is_read(serve, browse):
    site = await serve(Session(), sessions=SignedCookieSessions(SECRET, id_key="sid"), http=signing())
    ann = await browse(site)
    await ann.post(body={"user": "Zoë", "cart": [1, {"two": None}], "sid": 7})
    found = await (await ann.connect()).receive_json()
    assert found == {"id": "7", "user": "Zoë", "cart": [1, {"two": None}], "sid": 7}


async def test_what_flask_wrote_is_read_with_all_its_types(serve, join):
    found = {}

    class Look(Listener):
        def on_open(self, ws):
            found.update(ws.session)

    app = flask_app()
    written = {
        "tuple": (1, [2, (3,)]),
        "bytes": b"\x00\xff",
        "uuid": uuid.UUID(int=7),
        "time": datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC),
        "like a tag": {" t": [1]},
        "text": Markup("<b>"),
        "long": "x" * 3000,  # compressed
        "dict": {"a": 1, "b": {}},
    }

    @app.get("/types")
    def types():
        flask.session.update(written)
        return ""

    site = await serve(Look(), sessions=SignedCookieSessions(SECRET))
    cookie = cookie_in(app.test_client().get("/types").headers["Set-Cookie"])
    await join(f"{site.url}/ws/cars", headers=cookies(cookie))
    assert found == written
    assert type(found["tuple"]) is tuple


@pytest.mark.parametrize("make", [starlette_cookie, flask_cookie])
@pytest.mark.parametrize(
    ("later", "is_found"), [(0, True), (14 * DAY - 60, True), (14 * DAY + 60, False), (-60, False)]
)
async def test_a_cookie_counts_until_it_expires(serve, join, monkeypatch, make, later, is_found):
    site = await serve(Session(), sessions=SignedCookieSessions(SECRET))
    cookie, real = make({"user": "ann"}), time.time
    monkeypatch.setattr(time, "time", lambda: real() + later)
    assert (await first(join, f"{site.url}/ws/cars", cookie) is not None) is is_found


async def test_without_a_max_age_a_cookie_of_any_age_counts(serve, join, monkeypatch):
    site = await serve(Session(), sessions=SignedCookieSessions(SECRET, max_age=None))
    cookie, real = starlette_cookie({"user": "ann"}), time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3650 * DAY)
    assert (await first(join, f"{site.url}/ws/cars", cookie))["user"] == "ann"


GOOD = starlette_cookie({"user": "ann"})
GOOD_FLASK = flask_cookie({"user": "ann"})
SIGN = TimestampSigner(SECRET).sign
DEEP = b"[" * 9000


def signed_as_flask(payload):
    """A cookie that has Flask's signature, whatever is in it."""
    signer = {"key_derivation": "hmac", "digest_method": hashlib.sha1}
    return TimestampSigner(SECRET, salt="cookie-session", **signer).sign(payload).decode()


def compressed(data):
    return signed_as_flask(b"." + base64.urlsafe_b64encode(zlib.compress(data, 9)).rstrip(b"="))


NO_SESSIONS = {
    "empty": "",
    "a word": "ann",
    "cleared by starlette": "null",
    "cleared by starsessions": "''",
    "dots": "...",
    "signature of another": GOOD.rpartition(".")[0] + "." + starlette_cookie({"a": 1}).rpartition(".")[2],
    "of another secret": starlette_cookie({"user": "ann"}, "another secret"),
    "of another flask": flask_cookie({"user": "ann"}, "another secret"),
    "another payload": starlette_cookie({"user": "root"}).partition(".")[0] + "." + GOOD.partition(".")[2],
    "starlette's as flask's": "." + GOOD,
    "two in one": GOOD + GOOD,
    "two joined": f"{GOOD},{GOOD}",
    "no signature": GOOD.rpartition(".")[0],
    "lower case": GOOD.lower(),
    "oversized": GOOD + "A" * 8000,
    "all dots": "." * 8000,
    "not ascii": GOOD + "é",
    "latin-1": "\xff\xfe\x80.\xff.\xff",
    "in quotes, escaped": '"\\377\\000\\012"',
    "signed, but no base64": SIGN(b"!").decode(),
    "signed, but no JSON": SIGN(base64.b64encode(b"{")).decode(),
    "signed, but no text": SIGN(base64.b64encode(b"\xff")).decode(),
    "signed, but a list": SIGN(base64.b64encode(b"[1]")).decode(),
    "signed, but null": SIGN(base64.b64encode(b"null")).decode(),
    "signed, but deep": SIGN(base64.b64encode(DEEP)).decode(),
    "signed, but deep in a value": SIGN(base64.b64encode(b'{"id":' + DEEP)).decode(),
    "signed by flask, but no base64": signed_as_flask(b"!"),
    "signed by flask, but deep": signed_as_flask(base64.urlsafe_b64encode(DEEP)),
    "signed by flask, but deep and compressed": compressed(DEEP * 20),
    "signed by flask, but not compressed": signed_as_flask(b"." + base64.urlsafe_b64encode(b'{"user": "ann"}')),
    "signed by flask, but cut short": signed_as_flask(
        b"." + base64.urlsafe_b64encode(zlib.compress(b'{"user": "ann"}')[:-5])
    ),
    "signed by flask, but a bomb": compressed(b'{"user": "%b"}' % (b"a" * 9_000_000)),
}


@pytest.mark.parametrize("name", NO_SESSIONS)
@pytest.mark.parametrize("kind", ["signed", "store"])
async def test_what_is_no_session_of_ours_is_none_and_no_error(serve, dial, caplog, name, kind):
    sessions = SignedCookieSessions(SECRET) if kind == "signed" else StoreSessions(InMemoryStore())
    site = await serve(Session(), sessions=sessions)
    raw = await dial(site.url)
    response = await raw.upgrade("/ws/cars", extra=cookies(NO_SESSIONS[name]))
    assert (response.status, await raw.text()) == (101, "null")
    assert caplog.records == []


async def test_a_small_cookie_cannot_become_much_memory():
    """What it would be is 256 MiB."""
    bomb = compressed(b'{"user": "%b"}' % (b"a" * (1 << 28)))
    sessions = SignedCookieSessions(SECRET)
    assert sessions.find(Cookies(compressed(b'{"user": "%b"}' % (b"a" * 200_000)))) is not None
    tracemalloc.start()
    try:
        assert sessions.find(Cookies(bomb)) is None
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("cookie", [GOOD, GOOD_FLASK], ids=["starlette", "flask"])
async def test_a_truncated_or_altered_cookie_is_none_wherever_it_was_hit(cookie):
    sessions = SignedCookieSessions(SECRET)
    assert sessions.find(Cookies(cookie)) is not None
    for at in range(len(cookie)):
        assert sessions.find(Cookies(cookie[:at])) is None
        if at < len(cookie) - 1:  # the last character of Base64 has bits that do not count
            other = "A" if cookie[at] != "A" else "B"
            assert sessions.find(Cookies(cookie[:at] + other + cookie[at + 1 :])) is None


async def test_of_several_cookies_the_first_that_is_ours_counts_among_eight(serve, join):
    site = await serve(Session(), sessions=SignedCookieSessions(SECRET))
    url, second = f"{site.url}/ws/cars", starlette_cookie({"user": "bob"})
    assert (await first(join, url, "x", GOOD, second))["user"] == "ann"
    assert (await first(join, url, *["x"] * 7, GOOD))["user"] == "ann"
    assert await first(join, url, *["x"] * 8, GOOD) is None


async def test_a_signed_session_is_read_only_and_says_why(serve, join):
    told = []

    class Change(Listener):
        def on_open(self, ws):
            for spoil in (lambda: ws.session.update(a=1), lambda: ws.session.pop("user"), ws.session.clear):
                with pytest.raises(TypeError, match="StoreSessions") as error:
                    spoil()
                told.append(error)
            ws.send(dict(ws.session))

    site = await serve(Change(), sessions=SignedCookieSessions(SECRET))
    assert await first(join, f"{site.url}/ws/cars", GOOD) == {"user": "ann"}
    assert len(told) == 3


async def test_a_session_in_a_log_shows_neither_its_id_nor_its_values():
    session = SignedCookieSessions(SECRET).find(Cookies(starlette_cookie({"id": "17", "user": "ann"})))
    assert (session.id, dict(session)) == ("17", {"id": "17", "user": "ann"})
    assert "17" not in repr(session)
    assert "ann" not in repr(session)


class Cookies:
    """A request of which only the cookies matter."""

    def __init__(self, *values):
        self._values = list(values)

    def _cookie_values(self, name):
        assert name == "session"
        return self._values


# -- stores


@pytest.fixture(scope="module")
def redis_port():
    """The port of a real Redis that keeps nothing on disk."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = {"port": port, "bind": "127.0.0.1", "save": "", "appendonly": "no"}
    command = ["redis-server", *itertools.chain.from_iterable((f"--{name}", str(it)) for name, it in options.items())]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            wait_for(port)
            yield port
        finally:
            process.terminate()


def wait_for(port):
    deadline = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < deadline, "redis-server does not start"
            time.sleep(0.02)


@pytest.fixture
async def redis_client(redis_port):
    async with redis.asyncio.Redis(port=redis_port) as client:
        await client.flushall()
        yield client


@pytest.fixture(params=["memory", "redis"])
def store(request):
    """A store of starsessions'."""
    if request.param == "memory":
        return InMemoryStore()
    return RedisStore(connection=request.getfixturevalue("redis_client"))


@pytest.fixture(params=[Session, SlowSession], ids=["def", "async def"])
def listener(request):
    return request.param()


async def log_in(browse, site, **values):
    """A visitor with a session, and a socket of his or hers."""
    visitor = await browse(site)
    await visitor.post(body=values)
    client = await visitor.connect()
    await client.receive_json()
    return visitor, client


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
    async with asyncio.timeout(5):
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
    """Notes the ttl of each writing."""

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
    assert await ann.get() == {"user": "ann"}  # which writes it, too
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
            await redis_client.flushall()  # a logout, just now
            return await redis_client.set(self.prefix(session_id), data, ex=ttl, xx=True)

    store = Safe(connection=redis_client)
    site = await serve(Session(), sessions=StoreSessions(store), http=storing(store))
    _, client = await log_in(browse, site, user="ann")
    assert await values(client) == {}
    assert await redis_client.keys() == []


class Failing(InMemoryStore):
    """Fails while `fails`."""

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
    assert records_naming(caplog, "not readable")


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
    """Waits while `waits`, and notes how often it was broken off."""

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
    assert caplog.text.count("Sometimes.read() waits, so that its store is not immediate: give immediate=False") == 2
    assert store.broken_off == 2


async def test_an_immediate_store_may_not_answer_with_a_future():
    class Future(InMemoryStore):
        def read(self, session_id, lifetime):
            return asyncio.get_running_loop().create_future()

    with pytest.raises(ConfigurationError, match="give immediate=False"):
        StoreSessions(Future(), immediate=True).find(Cookies("abc"))


async def test_a_store_may_answer_from_a_cache_and_wait_for_the_rest(serve, browse):
    class Cached(InMemoryStore):
        """As a decorator would have it: ``def``, and awaitable only where the cache does not know."""

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


# -- logging out


async def test_logging_out_closes_every_tab_of_that_session_and_no_other(serve, browse, store):
    app = storing(store)
    site = await serve(Session(), sessions=StoreSessions(store), http=app)
    app.state.manager = site.manager
    ann, first_tab = await log_in(browse, site, user="ann")
    second_tab = await ann.connect("/ws/boats")
    await second_tab.receive_json()
    phone, on_phone = await log_in(browse, site, user="ann")
    assert await ann.post("/everywhere") == 2
    for tab in (first_tab, second_tab):
        assert await tab.closed() == (4001, "logged out")
    assert await values(on_phone) == {"user": "ann"}
    assert await ann.get() == {}
    assert await phone.get() == {"user": "ann"}
    assert await (await ann.connect()).receive_json() is None


async def test_close_session_knows_signed_sessions_by_the_id_in_them(serve, join):
    site = await serve(Session(), sessions=SignedCookieSessions(SECRET))
    url = f"{site.url}/ws/cars"
    ann, bob, nobody = [
        await join(url, headers=cookies(*[starlette_cookie({"id": number})] * bool(number))) for number in (1, 2, 0)
    ]
    for client in (ann, bob, nobody):
        await client.receive()
    assert site.manager.close_session("1", 4003, "banned") == 1
    assert await ann.closed() == (4003, "banned")
    assert site.manager.close_session("1") == site.manager.close_session("7") == 0
    assert await bob.received() == await nobody.received() == []


# -- configuration


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SignedCookieSessions(""), "secret=''"),
        (lambda: SignedCookieSessions(b""), "secret=b''"),
        (lambda: SignedCookieSessions(None), "NoneType"),
        (lambda: SignedCookieSessions(SECRET, ""), "cookie=''"),
        (lambda: SignedCookieSessions(SECRET, "a b"), "cookie='a b'"),
        (lambda: SignedCookieSessions(SECRET, None), "cookie=None"),
        (lambda: SignedCookieSessions(SECRET, max_age=0), "max_age=0"),
        (lambda: SignedCookieSessions(SECRET, max_age=-1), "max_age=-1"),
        (lambda: SignedCookieSessions(SECRET, max_age=True), "max_age=True"),
        (lambda: SignedCookieSessions(SECRET, max_age=math.nan), "max_age=nan"),
        (lambda: StoreSessions(None), "store=None"),
        (lambda: StoreSessions({}), "read"),
        (lambda: StoreSessions(InMemoryStore(), ""), "cookie=''"),
        (lambda: StoreSessions(InMemoryStore(), lifetime=0), "lifetime=0"),
        (lambda: StoreSessions(InMemoryStore(), lifetime="1h"), "lifetime='1h'"),
        (lambda: StoreSessions(InMemoryStore(), serializer=json), "serialize"),
        (lambda: StoreSessions(InMemoryStore(), immediate="yes"), "immediate='yes'"),
    ],
)
def test_what_cannot_work_is_refused_at_once_in_one_sentence(make, message):
    with pytest.raises(ConfigurationError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
    assert SECRET not in str(error.value)


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "itsdangerous", None)
    with pytest.raises(ConfigurationError, match=r'pip install "fastws-server\[sessions\]"'):
        SignedCookieSessions(SECRET)
