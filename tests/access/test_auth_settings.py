"""[auth]: tokens at both kinds of socket, keys from files and from a URL, and what the command line makes of them."""

import asyncio
import json
import threading
import time
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey
from joserfc.jws import serialize_compact
from websockets.exceptions import InvalidStatus

import fastws.access.tokens
from fastws import ConfigurationError, Server
from fastws.access.rules import ChannelRule
from fastws.access.tokens import JWKS, AuthSettings, Tokens, check_token, make_token
from fastws.command.settings import Settings
from fastws.standalone import create_server
from fastws.testing import running
from fastws.v1.raw import RawSettings

from ..lib.support import eventually
from ..lib.v1 import Site

SECRET = "s" * 32
OPEN = ChannelRule(pattern="open.*", subscribe="anyone", publish="anyone")
TOKEN = ChannelRule(pattern="room.*", subscribe="token", publish="token")


def settings(auth=None, *channels, **more):
    return Settings(
        **{
            "options": {"port": 0},
            "anonymous": True,
            "channels": channels or (OPEN, TOKEN),
            "auth": auth,
            "raw": None,
            "hooks": None,
        }
        | more
    )


@asynccontextmanager
async def site_of(given):
    server = create_server(given)
    async with running(server) as url, AsyncExitStack() as clients:
        yield Site(server, server.endpoints["/ws"], url, clients)


def bearer(token):
    return {"additional_headers": {"Authorization": f"Bearer {token}"}}


def offered(token):
    return {"subprotocols": ["fastws.v1", "bearer", token]}


# -- at the sockets


async def test_a_token_says_who_it_is_and_which_channels_are_open():
    auth = AuthSettings(secret=SECRET)
    token = make_token(auth, "ann", channels=["room.1"], publish=["room.1"], ttl=100)
    async with site_of(settings(auth)) as site:
        for options in (bearer(token), offered(token)):
            client = await site.dial(**options)
            answers = await client.hello(channels={"open.1": None, "room.1": None, "room.2": None})
            assert [answer.get("code") for answer in answers] == [None, None, "forbidden"]
            assert client.welcome["user"] == "ann"
            assert client.welcome["expires"] == pytest.approx(time.time() + 100, abs=5)
            assert client.ws.subprotocol == "fastws.v1"
            [ws] = [each for each in site.manager.connections.values() if each.id == client.welcome["id"]]
            assert ws.channels == {"open.1", "room.1"}


async def test_without_a_token_one_is_nobody_or_refused():
    auth = AuthSettings(secret=SECRET)
    async with site_of(settings(auth)) as site:
        client = await site.dial()
        answers = await client.hello(channels={"open.1": None, "room.1": None})
        assert client.welcome["user"] is None
        assert client.welcome["expires"] is None
        assert [answer.get("code") for answer in answers] == [None, "unauthenticated"]
        assert (await client.ask({"type": "authenticate", "token": make_token(auth, "ann")}))["code"] == "refused"
    async with site_of(settings(auth, anonymous=False, raw=RawSettings())) as site:
        assert (await (await site.dial()).closed())[0] == 4401
        for path in ("/ws", "/raw/open.1"):
            with pytest.raises(InvalidStatus) as refused:
                await site.dial(path, subprotocols=None)
            assert refused.value.response.status_code == 401
            assert refused.value.response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("token", ["x", "a.b.c", "", make_token(AuthSettings(secret="t" * 32), "ann")])
async def test_a_bad_token_is_401_whoever_else_may_come(token):
    async with site_of(settings(AuthSettings(secret=SECRET))) as site:
        code, reason = await (await site.dial(**bearer(token))).closed()
    assert (code, reason.split(" (")[0]) == (4401, "the token is not valid")


async def test_a_connection_ends_with_its_token_unless_a_fresh_one_comes():
    auth = AuthSettings(secret=SECRET)
    async with site_of(settings(auth, raw=RawSettings())) as site:
        client = await site.dial(**bearer(make_token(auth, "ann", channels=["room.*"], ttl=3)))
        await client.hello(channels={"room.1": None, "room.2": None})
        renewed = await client.ask(
            {"type": "authenticate", "id": 7, "token": make_token(auth, "ann", channels=["room.1"], ttl=100)}
        )
        assert (renewed["type"], renewed["id"]) == ("authenticated", 7)
        assert renewed["expires"] == pytest.approx(time.time() + 100, abs=5)
        assert await client.receive() == {"type": "unsubscribed", "channel": "room.2", "reason": "kicked"}
        assert (await client.ask({"type": "authenticate", "token": 1}))["code"] == "bad_field"
        brief = make_token(auth, "ann", channels=["*"], ttl=4)
        plain, other = await site.dial("/raw/room.1", **bearer(brief)), await site.dial(**bearer(brief))
        assert await plain.closed() == await other.closed() == (4001, "token expired")
        await client.send({"type": "authenticate", "token": make_token(auth, "bob")})
        assert await client.closed() == (4001, "token refused")
        assert site.manager.options.auth._timers == {}


async def test_a_plain_socket_renews_its_token_and_nobody_gets_to_see_it():
    auth = AuthSettings(secret=SECRET)
    rule = ChannelRule(pattern="room.*", subscribe="token", publish="anyone")
    async with site_of(settings(auth, rule, raw=RawSettings())) as site:
        token = make_token(auth, "ann", channels=["room.*"])
        plain, other = [await site.dial("/raw/room.1", **bearer(token)) for _ in range(2)]
        assert (await plain.ask({"type": "authenticate", "token": token}))["type"] == "authenticated"
        await other.ws.send("hi")
        assert await other.text() == "hi"
        await plain.send({"type": "authenticate", "token": make_token(auth, "ann", channels=["room.2"])})
        assert await plain.closed() == (4403, "this channel is not allowed any more")


async def test_plain_sockets_and_frames_share_channels_of_create_server():
    async with site_of(settings(raw=RawSettings(path="/plain/{channel}"))) as site:
        plain, client = await site.dial("/plain/open.1"), await site.join(None, "open.1")
        await client.send({"type": "publish", "channel": "open.1", "message": {"a": 1}})
        assert json.loads(await plain.text()) == {"a": 1}


async def test_names_that_no_frame_can_carry_are_no_users():
    auth = AuthSettings(secret=SECRET, user_claim="name")
    key = OctKey.import_key(SECRET)
    async with site_of(settings(auth)) as site:
        for user in (2**60, -(2**60), "half \ud800"):
            claims = json.dumps({"name": user, "exp": time.time() + 60}).encode()
            token = serialize_compact({"alg": "HS256"}, claims, key)
            assert (await (await site.dial(**bearer(token))).closed())[1].startswith("the user's name is")
        seven = serialize_compact({"alg": "HS256"}, claims.replace(b'"half \\ud800"', b"7"), key)
        assert await user_of(site, seven) == 7


async def test_without_rules_nothing_is_allowed():
    async with site_of(
        Settings(options={"port": 0}, anonymous=True, channels=(), auth=None, raw=None, hooks=None)
    ) as site:
        client = await site.dial()
        [error] = await client.hello(channels={"cars": None})
        assert error["code"] == "unknown_channel"
        assert isinstance(site.server, Server)
        with pytest.raises(InvalidStatus):
            await site.dial("/raw/cars")


# -- settings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "no key"),
        ({"secret": ""}, "no key"),
        ({"secret": "x", "jwks_url": "https://a"}, "secret and jwks_url"),
        ({"jwks_url": "a.example/jwks"}, "is not a URL"),
        ({"jwks_url": "file:///etc/passwd"}, "is not a URL"),
    ],
)
def test_one_key_it_is(given, message):
    with pytest.raises(ConfigurationError, match=message):
        AuthSettings(**given)


def test_unknown_names_are_refused():
    with pytest.raises(msgspec.ValidationError, match="unknown field `sercet`"):
        msgspec.convert({"sercet": "x"}, AuthSettings)


def test_keys_come_from_files(tmp_path):
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    token = make_token(AuthSettings(secret_file=str(tmp_path / "secret")), "ann")
    assert check_token(AuthSettings(secret=SECRET), token).user == "ann"
    private = ECKey.generate_key("P-256")
    (tmp_path / "key.pem").write_bytes(private.as_pem(private=False))
    public = AuthSettings(public_key_file=str(tmp_path / "key.pem"))
    signed = jwt.encode({"alg": "ES256"}, {"sub": "bob", "exp": time.time() + 60}, private)
    assert check_token(public, signed)[::3] == ("bob", "")
    forged = jwt.encode({"alg": "HS256"}, {"sub": "eve", "exp": time.time() + 60}, OctKey.import_key("k" * 32))
    assert check_token(public, forged).fault
    with pytest.raises(ConfigurationError, match="only a secret signs tokens"):
        make_token(public, "ann")


@pytest.mark.parametrize(
    ("name", "content"), [("secret_file", None), ("secret_file", "\n"), ("public_key_file", "x" * 40)]
)
def test_a_file_that_holds_no_key_is_told(tmp_path, name, content):
    path = tmp_path / "key"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=name):
        Tokens(AuthSettings(**{name: str(path)}))


# -- for the command line


def test_a_token_is_made_as_the_settings_want_it():
    given = AuthSettings(
        secret=SECRET, audience=("a", "b"), issuer="i", user_claim="u", channels_claim="c", publish_claim="p"
    )
    report = check_token(given, make_token(given, "ann", channels=["x.*"], publish=[], ttl=60))
    assert (report.user, report.fault) == ("ann", "")
    assert report.expires == pytest.approx(time.time() + 60, abs=5)
    assert {name: report.claims[name] for name in "cp"} == {"c": ["x.*"], "p": []}
    assert (report.claims["aud"], report.claims["iss"]) == ("a", "i")
    assert "publish" not in make_and_read(AuthSettings(secret=SECRET))


def make_and_read(given):
    return check_token(given, make_token(given, "ann")).claims


@pytest.mark.parametrize(
    ("user", "ttl"), [("", 60), ("ann", 0), ("ann", -1), ("ann", float("inf")), ("ann", float("nan"))]
)
def test_a_token_for_nobody_or_no_time_is_refused(user, ttl):
    with pytest.raises(ConfigurationError):
        make_token(AuthSettings(secret=SECRET), user, ttl=ttl)


def test_check_says_what_is_wrong():
    given = AuthSettings(secret=SECRET, audience="shop", issuer="me")
    key = OctKey.import_key(SECRET)
    good = {"sub": "ann", "exp": time.time() + 60, "aud": "shop", "iss": "me"}

    def fault(claims, by=key):
        return check_token(given, jwt.encode({"alg": "HS256"}, claims, by)).fault

    assert fault(good) == ""
    assert "expired" in fault(good | {"exp": time.time() - 60})
    assert "exp" in fault({name: value for name, value in good.items() if name != "exp"})
    assert "aud" in fault(good | {"aud": "other"})
    assert "iss" in fault(good | {"iss": "other"})
    assert "nbf" in fault(good | {"nbf": time.time() + 60}) or "not yet" in fault(good | {"nbf": time.time() + 60})
    assert "'sub' names no user" in fault(good | {"sub": ""})
    assert fault(good, OctKey.import_key("t" * 32))
    for token in ("", "x", "a.b.c", "é", "." * 100, make_token(given, "ann")[:-2]):
        assert check_token(given, token).fault


# -- keys behind a URL


class Issuer:
    """An HTTP server of keys."""

    def __init__(self):
        self.keys = []
        self.asked = 0
        self.status = 200
        self.body = None
        self.delay = threading.Event()
        self.delay.set()

    def add(self, kid, kind=RSAKey, size=2048, **more):
        key = kind.generate_key(size, {"kid": kid, **more})
        self.keys.append(key.as_dict(private=False))
        return key

    def token(self, key, user="ann", **claims):
        head = {"alg": "RS256" if key.key_type == "RSA" else "ES256", "kid": key.kid}
        return jwt.encode(head, {"sub": user, "exp": time.time() + 60, **claims}, key)


@pytest.fixture
def issuer():
    issuer = Issuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            issuer.asked += 1
            issuer.delay.wait(10)
            body = json.dumps({"keys": issuer.keys}).encode() if issuer.body is None else issuer.body
            self.send_response(issuer.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with serving(Handler) as url:
        issuer.url = url
        yield issuer
        issuer.delay.set()


@contextmanager
def serving(handler):
    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request, client_address):
            """Whoever asked did not wait for the answer."""

    with Quiet(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/jwks"
        server.shutdown()
        thread.join()


async def user_of(site, token):
    """Who a token makes one; the close code where it is refused."""
    client = await site.dial(**bearer(token))
    try:
        await client.hello()
    except Exception:
        return (await client.closed())[0]
    return client.welcome["user"]


async def test_keys_are_fetched_at_start_and_again_for_one_that_is_not_known(issuer, monkeypatch):
    old = issuer.add("old")
    async with site_of(settings(AuthSettings(jwks_url=issuer.url))) as site:
        assert issuer.asked == 1
        assert await user_of(site, issuer.token(old)) == "ann"
        new = issuer.add("new", ECKey, "P-256")
        assert await user_of(site, issuer.token(new)) == 4401  # it was looked at within a minute
        assert issuer.asked == 1
        monkeypatch.setattr(fastws.access.tokens, "OFTEN", 0.0)
        issuer.delay.clear()
        waiting = [asyncio.ensure_future(user_of(site, issuer.token(new, user))) for user in ("ann", "bob", "eve")]
        await eventually(lambda: issuer.asked == 2)
        assert await user_of(site, issuer.token(old)) == "ann"  # and whoever is known does not wait
        issuer.delay.set()
        assert await asyncio.gather(*waiting) == ["ann", "bob", "eve"]
        assert issuer.asked == 2
        monkeypatch.setattr(fastws.access.tokens, "OFTEN", 60.0)
        stranger = RSAKey.generate_key(2048, {"kid": "stranger"})
        assert await user_of(site, issuer.token(stranger)) == 4401
        assert issuer.asked == 2


async def test_an_issuer_that_fails_leaves_the_old_keys(issuer, monkeypatch, caplog):
    old = issuer.add("old")
    async with site_of(settings(AuthSettings(jwks_url=issuer.url))) as site:
        monkeypatch.setattr(fastws.access.tokens, "OFTEN", 0.0)
        monkeypatch.setattr(fastws.access.tokens, "PATIENCE", 0.3)
        new = RSAKey.generate_key(2048, {"kid": "new"})
        for body, status in [(b"{}", 200), (b"[", 200), (b'{"keys": []}', 200), (b"", 503)]:
            issuer.body, issuer.status = body, status
            assert await user_of(site, issuer.token(new)) == 4401
            assert await user_of(site, issuer.token(old)) == "ann"
        issuer.delay.clear()
        assert await user_of(site, issuer.token(new)) == 4401
        assert await user_of(site, issuer.token(old)) == "ann"
    assert sum("the keys stay as they are" in record.getMessage() for record in caplog.records) == 5


async def test_a_fresh_token_by_a_new_key_is_looked_for_too(issuer, monkeypatch):
    old = issuer.add("old")
    async with site_of(settings(AuthSettings(jwks_url=issuer.url), raw=RawSettings())) as site:
        client = await site.dial(**bearer(issuer.token(old)))
        plain = await site.dial("/raw/open.1", **bearer(issuer.token(old)))
        await client.hello()
        new = issuer.add("new")
        monkeypatch.setattr(fastws.access.tokens, "OFTEN", 0.0)
        answer = await client.ask({"type": "authenticate", "id": 1, "token": issuer.token(new)})
        assert (answer["type"], answer["id"]) == ("authenticated", 1)
        newer = issuer.add("newer")
        answer = await plain.ask({"type": "authenticate", "token": issuer.token(newer)})
        assert answer["type"] == "authenticated"


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"null", b'{"keys": 1}', b'{"keys": [1]}', b'{"keys": []}'])
def test_a_start_without_keys_is_refused(issuer, body):
    issuer.body = body
    with pytest.raises(ConfigurationError, match="jwks_url="):
        create_server(settings(AuthSettings(jwks_url=issuer.url)))


def test_a_start_without_an_issuer_is_refused():
    with pytest.raises(ConfigurationError, match="gives no JWKS"):
        JWKS("http://127.0.0.1:9/jwks").load()


def test_what_is_no_public_key_for_signatures_is_left_out(issuer):
    good = issuer.add("good")
    issuer.add("encrypts", use="enc")
    issuer.keys += [
        {"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "kid": "shared"},
        {"kty": "quantum", "kid": "future"},
        {"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"},
    ]
    assert [key["kid"] for key in JWKS(issuer.url).load()["keys"]] == ["good"]
    report = check_token(AuthSettings(jwks_url=issuer.url), issuer.token(good))
    assert (report.user, report.fault) == ("ann", "")


@pytest.mark.parametrize(
    "token", [None, 1, "", ".", "e30", "bnVsbA.x.y", "W10.x.y", "é.x.y", "eyJraWQiOjF9.x.y", "\ud800"]
)
def test_the_kid_of_a_strangers_token_breaks_nothing(token):
    assert fastws.access.tokens.kid_of(token) is None
