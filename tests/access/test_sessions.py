"""The visitor's HTTP session on a WebSocket: whose it is, logging out, and invalid configurations."""

import asyncio
import itertools
import json
import math
import sys

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starsessions import InMemoryStore

from fastws import ConfigurationError, Listener, SignedCookieSessions, StoreSessions
from fastws.testing import Refused

from ..lib.visitors import (
    SECRET,
    Session,
    cookies,
    first,
    flask_cookie,
    log_in,
    signing,
    starlette_cookie,
    storing,
    values,
)

# -- whose session it is


class Town:
    """Three applications on one server, each with its own visitor; all call their cookie "session"."""

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
    """Every combination of their cookies, in every order, at every application."""
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
    for path, sent in (("/ws/boats", [cookie]), ("/ws/cars", [])):
        with pytest.raises(Refused) as refused:
            await join(site.url + path, headers=cookies(*sent))
        assert refused.value.status == 403


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
