"""Sessions in signed cookies of Starlette and Flask: which are accepted, and which are not."""

import base64
import hashlib
import time
import tracemalloc
import uuid
import zlib
from datetime import UTC, datetime

import flask
import pytest
from itsdangerous import TimestampSigner
from markupsafe import Markup
from starsessions import InMemoryStore

from fastws import Listener, SignedCookieSessions, StoreSessions

from ..lib.visitors import (
    DAY,
    DEEP,
    SECRET,
    Cookies,
    Session,
    cookie_in,
    cookies,
    first,
    flask_app,
    flask_cookie,
    signing,
    starlette_cookie,
)


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


def signed_as_flask(payload):
    """A cookie with Flask's signature and any content."""
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
    """It would expand to 256 MiB."""
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
        if at < len(cookie) - 1:  # the last character of Base64 has unused bits
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
