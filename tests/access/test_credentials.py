"""Hostile cookies and tokens: forged, foreign, expired, duplicate and oversized, sent in every possible way."""

import base64
import hmac
import json
import time
from dataclasses import dataclass

import pytest
from itsdangerous import URLSafeTimedSerializer
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey
from joserfc.jws import JWSRegistry
from starsessions import InMemoryStore

from fastws import JWTAuth, Listener
from fastws.sessions import SignedCookieSessions, StoreSessions

from ..lib.raw import CLOSE, TEXT, frame, request
from ..lib.support import Recorder, eventually, nothing_left, signed_cookie

SECRET = "a secret that is quite long enough"
OTHER_SECRET = "another one, and long enough as well"
HOUR = 3600  # seconds
MIB = 1 << 20


# -- cookies


def signed(values, secret=SECRET, at=None):
    """A session cookie of Starlette's SessionMiddleware; `at` is the time of the signature, in seconds."""
    return signed_cookie(values, secret, at)


ANN, BOB = signed({"user": "ann"}), signed({"user": "bob"})
PAYLOAD, TIMESTAMP, SIGNATURE = ANN.split(".")
NOW = time.time()

# name: (Cookie fields, the user of the session that is found)
COOKIES = {
    "good": ([f"session={ANN}"], "ann"),
    # tampered
    "another payload": ([f"session={BOB.split('.')[0]}.{TIMESTAMP}.{SIGNATURE}"], None),
    "a later timestamp": ([f"session={PAYLOAD}.{TIMESTAMP[:-1]}_.{SIGNATURE}"], None),
    "no timestamp": ([f"session={PAYLOAD}.{SIGNATURE}"], None),
    "no signature": ([f"session={PAYLOAD}.{TIMESTAMP}"], None),
    "an empty signature": ([f"session={PAYLOAD}.{TIMESTAMP}."], None),
    "a signature cut short": ([f"session={ANN[:-2]}"], None),
    "a signature and more": ([f"session={ANN}.x"], None),
    "a payload of nothing": ([f"session=.{TIMESTAMP}.{SIGNATURE}"], None),
    "a payload with a line feed's escape": ([f'session="{PAYLOAD}\\012.{TIMESTAMP}.{SIGNATURE}"'], None),
    "quotes alone": (['session="'], None),
    "every byte that is no control": (["session=" + "".join(map(chr, range(0x80, 0x100)))], None),
    # expired, or not signed yet
    "expired": ([f"session={signed({'user': 'ann'}, at=NOW - 15 * 24 * HOUR)}"], None),
    "of 1970": ([f"session={signed({'user': 'ann'}, at=0)}"], None),
    "of tomorrow": ([f"session={signed({'user': 'ann'}, at=NOW + 24 * HOUR)}"], None),
    "of a time past all clocks": ([f"session={signed({'user': 'ann'}, at=2**62)}"], None),
    # foreign
    "another secret's": ([f"session={signed({'user': 'ann'}, OTHER_SECRET)}"], None),
    "the empty secret's": ([f"session={signed({'user': 'ann'}, b'')}"], None),
    "another application's of the same secret": (
        ["session=" + URLSafeTimedSerializer(SECRET, salt="password-reset").dumps({"user": "ann"})],
        None,
    ),
    "under another name": ([f"sessions={ANN}; ession={ANN}; session2={ANN}"], None),
    "under a name in upper case": ([f"SESSION={ANN}; Session={ANN}"], None),
    "under a name in quotes": ([f'"session"={ANN}'], None),
    "without a name": ([f"={ANN}; {ANN}"], None),
    "in another's value": ([f"theme=session={ANN}"], None),
    "a JSON Web Token": (["session=eyJhbGciOiJub25lIn0.eyJ1c2VyIjoiYW5uIn0."], None),
    # duplicate
    "a forged one first": ([f"session=forged; session={ANN}"], "ann"),
    "a forged one first, in a field of its own": (["session=forged", f"session={ANN}"], "ann"),
    "an empty one first": ([f"session=; session={ANN}"], "ann"),
    "two good ones": ([f"session={ANN}; session={BOB}"], "ann"),
    "two good ones in two fields": ([f"session={BOB}", f"session={ANN}"], "bob"),
    "two joined by a comma": ([f"session={ANN},session={BOB}"], None),
    "a hundred forged ones first": (["session=forged; " * 100 + f"session={ANN}"], None),
    # oversized, but below the limit of the head
    "10 KB of a's": ([f"session={'a' * 10_000}"], None),
    "10 KB of dots": ([f"session={'.' * 10_000}"], None),
    "10 KB behind a good one": ([f"session={ANN}{'A' * 10_000}"], None),
    "10 KB beside a good one": ([f"x={'x' * 10_000}; session={ANN}"], "ann"),
    "10 KB of escapes": (['session="' + "\\" * 10_000 + '"'], None),
    "10 KB in good order": ([f"session={signed({'user': 'ann', 'x': 'x' * 7_000})}"], "ann"),
    "5,000 others": (["a=;" * 5_000 + f"session={ANN}"], "ann"),
}


class Session(Listener):
    """Reports whose session it found."""

    def on_open(self, ws):
        ws.send("nobody" if ws.session is None else ws.session["user"])

    def on_message(self, ws, message):
        return message


@pytest.mark.parametrize("name", COOKIES)
async def test_a_cookie_counts_only_as_it_was_signed(serve, dial, name):
    fields, user = COOKIES[name]
    site = await serve(Session(), sessions=SignedCookieSessions(SECRET), max_header_size=32 * 1024)
    raw = await dial(site.url)
    await raw.upgrade("/ws/cars", extra=[("Cookie", field) for field in fields])
    assert await raw.text() == (user or "nobody")


@pytest.mark.parametrize("kind", ["signed", "store"])
async def test_a_cookie_over_the_headers_limit_is_431_and_asks_no_store(serve, dial, kind):
    class Untouched(InMemoryStore):
        async def read(self, session_id, lifetime):
            pytest.fail("the store was asked")

    sessions = SignedCookieSessions(SECRET) if kind == "signed" else StoreSessions(Untouched())
    site = await serve(recorder := Recorder(), sessions=sessions)
    raw = await dial(site.url)
    await raw.send(request("/ws/cars", extra=[("Cookie", f"session={'a' * MIB}")]))
    assert (await raw.response()).status == 431
    assert recorder.calls == []
    await raw.eof()
    raw.close()
    await eventually(lambda: nothing_left(site))


FOREIGN_IDS = ["00000000000000000000000000000000", "../../etc/passwd", "*", "a%00b", "session", "'; DROP TABLE--"]


@pytest.mark.parametrize("name", FOREIGN_IDS)
async def test_an_id_that_a_visitor_made_up_is_no_session_and_never_becomes_one(serve, dial, name):
    class Login(Session):
        def on_message(self, ws, message):
            assert ws.session is None
            return message

    store = InMemoryStore()
    await store.write("somebody's", b'{"user": "ann"}', lifetime=HOUR, ttl=HOUR)
    before = dict(store.data)
    site = await serve(Login(), sessions=StoreSessions(store))
    raw = await dial(site.url)
    await raw.upgrade("/ws/cars", extra=[("Cookie", f"session={name}")])
    assert await raw.text() == "nobody"
    await raw.send(frame(TEXT, b"hi"))
    assert await raw.text() == "hi"
    assert store.data == before


# -- tokens


RSA, OTHER_RSA = RSAKey.generate_key(2048), RSAKey.generate_key(2048)
EC, OTHER_EC = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")
PEM = RSA.as_pem(private=False)
CLAIMS = {"sub": "ann", "aud": "chat", "exp": int(NOW) + HOUR}


def encoded(part):
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def unsigned(header, claims):
    """The signed part of a token."""
    return f"{encoded(json.dumps(header).encode())}.{encoded(json.dumps(claims).encode())}"


def token(secret=SECRET, header=(), digest="sha256", **claims):
    """A token assembled by hand, which may be invalid; claims and fields that are None are omitted."""
    header = {name: value for name, value in {"alg": "HS256", **dict(header)}.items() if value is not None}
    head = unsigned(header, {name: value for name, value in {**CLAIMS, **claims}.items() if value is not None})
    secret = secret if isinstance(secret, bytes) else secret.encode()
    return f"{head}.{encoded(hmac.digest(secret, head.encode(), digest))}"


def by_key(key, alg, **header):
    """A token that is valid, except perhaps for its key and additional header fields."""
    registry = JWSRegistry(algorithms=list(JWSRegistry.algorithms), strict_check_header=False)
    return jwt.encode({"alg": alg, **header}, CLAIMS, key, registry=registry)


GOOD = token()
HEADER, PAYLOAD_OF_ANN, MAC = GOOD.split(".")
OTHER_OCT = OctKey.import_key(OTHER_SECRET)
FOREIGN_JWK = OTHER_RSA.as_dict(private=False)
ZEROS = encoded(bytes(64))


@dataclass
class Keys:
    """The key of a server, a token that it accepts, and tokens that it must refuse."""

    key: object
    good: str
    bad: dict[str, str]


SERVERS = {
    "secret": Keys(
        SECRET,
        GOOD,
        {
            # the algorithm
            "none": unsigned({"alg": "none"}, CLAIMS) + ".",
            "none, in other letters": unsigned({"alg": "nOnE"}, CLAIMS) + ".",
            "none, and signed": token(header={"alg": "none"}),
            "no algorithm": token(header={"alg": None}),
            "an algorithm that is a list": token(header={"alg": ["HS256"]}),
            "HS512 of the same secret": token(header={"alg": "HS512"}, digest="sha512"),
            "HS256, in name HS512": token(header={"alg": "HS512"}),
            "HS512, in name HS256": token(digest="sha512"),
            "RS256 of somebody's": by_key(OTHER_RSA, "RS256"),
            "ES256 of somebody's": by_key(OTHER_EC, "ES256"),
            # the signature
            "another secret's": token(OTHER_SECRET),
            "the empty secret's": token(""),
            "another payload": f"{HEADER}.{token(sub='root').split('.')[1]}.{MAC}",
            "another header": f"{token(header={'typ': 'JWT'}).split('.')[0]}.{PAYLOAD_OF_ANN}.{MAC}",
            "no signature": f"{HEADER}.{PAYLOAD_OF_ANN}.",
            "no signature and no dot": f"{HEADER}.{PAYLOAD_OF_ANN}",
            "half a signature": f"{HEADER}.{PAYLOAD_OF_ANN}.{MAC[:22]}",
            "two signatures": f"{GOOD}{MAC}",
            "a signature of zeros": f"{HEADER}.{PAYLOAD_OF_ANN}.{encoded(bytes(32))}",
            "two tokens": f"{GOOD}.{GOOD}",
            # headers with their own rules
            "a key of its own": token(OTHER_SECRET, {"jwk": OTHER_OCT.as_dict()}),
            "a key that it points to": token(OTHER_SECRET, {"jku": "http://127.0.0.1:9/keys", "kid": "x"}),
            "a key that is an empty file": token("", {"kid": "../../../../dev/null"}),
            "an encoding of its own": token(header={"b64": False, "crit": ["b64"]}),
            "critical and unknown": token(header={"crit": ["x"], "x": 1}),
            "an encrypted one's five parts": f"{encoded(b'{}')}....",
            # the claims
            "expired": token(exp=int(NOW) - HOUR),
            "expired long ago": token(exp=0),
            "without an end": token(exp=None),
            "an end that is text": token(exp=str(int(NOW) + HOUR)),
            "an end that is no number": token(exp=float("nan")),
            "an end that is infinite": token(exp=float("inf")),
            "an end that is true": token(exp=True),
            "not valid yet": token(nbf=int(NOW) + HOUR),
            "made tomorrow": token(iat=int(NOW) + 24 * HOUR),
            "for another audience": token(aud="shop"),
            "for other audiences": token(aud=["shop", "chatter"]),
            "for an audience in other letters": token(aud="Chat"),
            "for no audience": token(aud=None),
            "for an audience that is null": token(aud=[None]),
            "of nobody": token(sub=None),
            "of an empty name": token(sub=""),
            "of a list": token(sub=["ann"]),
        },
    ),
    "RSA": Keys(
        PEM,
        by_key(RSA, "RS256"),
        {
            "the public key as a secret": token(PEM, {"alg": "HS256"}),
            "the public key as a secret, without its last line end": token(PEM.rstrip(), {"alg": "HS256"}),
            "the public key's DER as a secret": token(RSA.as_der(private=False), {"alg": "HS256"}),
            "none": unsigned({"alg": "none"}, CLAIMS) + ".",
            "another key's": by_key(OTHER_RSA, "RS256"),
            "another key's, which it brings": by_key(OTHER_RSA, "RS256", jwk=FOREIGN_JWK),
            "another key's, whose certificate it brings": by_key(OTHER_RSA, "RS256", x5c=["MIIB"], x5t="x"),
            "another key's, which it points to": by_key(OTHER_RSA, "RS256", jku="http://127.0.0.1:9/keys"),
            "RS512 of the same key": by_key(RSA, "RS512"),
            "PS256 of the same key": by_key(RSA, "PS256"),
            "a signature of zeros": f"{unsigned({'alg': 'RS256'}, CLAIMS)}.{encoded(bytes(256))}",
            "a signature of ones": f"{unsigned({'alg': 'RS256'}, CLAIMS)}.{encoded(bytes(255) + b'1')}",
        },
    ),
    "EC": Keys(
        EC.as_pem(private=False),
        by_key(EC, "ES256"),
        {
            "the public key as a secret": token(EC.as_pem(private=False), {"alg": "HS256"}),
            "another key's": by_key(OTHER_EC, "ES256"),
            "a signature of zeros (CVE-2022-21449)": f"{unsigned({'alg': 'ES256'}, CLAIMS)}.{ZEROS}",
            "ES384 in name": f"{unsigned({'alg': 'ES384'}, CLAIMS)}.{by_key(EC, 'ES256').split('.')[2]}",
            "ES256K in name": f"{unsigned({'alg': 'ES256K'}, CLAIMS)}.{ZEROS}",
        },
    ),
}

# How a token is sent: what the request contains.
WAYS = {
    "header": lambda made: request("/ws/cars", extra=[("Authorization", f"Bearer {made}")]),
    "subprotocol": lambda made: request("/ws/cars", extra=[("Sec-WebSocket-Protocol", f"bearer, {made}")]),
    "query": lambda made: request(f"/ws/cars?token={made}"),
}


@pytest.fixture
async def guard(serve):
    """Starts a server that verifies with a key."""

    async def started(key, listener=None, **options):
        auth = JWTAuth(key, audience="chat", query_parameter="token")
        return await serve(listener or Session(), auth=auth, **options)

    return started


async def status(dial, site, data):
    raw = await dial(site.url)
    await raw.send(data)
    return (await raw.response()).status


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", SERVERS)
async def test_a_hostile_token_is_401_by_every_way(guard, dial, kind, way):
    keys = SERVERS[kind]
    site = await guard(keys.key, recorder := Recorder())
    found = {name: await status(dial, site, WAYS[way](bad)) for name, bad in keys.bad.items()}
    assert found == dict.fromkeys(keys.bad, 401)
    assert recorder.calls == []
    assert await status(dial, site, WAYS[way](keys.good)) == 101


@pytest.mark.parametrize("kind", SERVERS)
async def test_a_hostile_token_refreshes_nothing(guard, dial, kind):
    keys = SERVERS[kind]
    site = await guard(keys.key)
    for name, bad in keys.bad.items():
        raw = await dial(site.url)
        await raw.send(WAYS["header"](keys.good))
        assert (await raw.response()).status == 101
        assert await raw.text() == "nobody"
        await raw.send(frame(TEXT, json.dumps({"type": "authenticate", "token": bad}).encode()))
        assert await raw.closing() == (4001, "token refused"), name
        await raw.send(frame(CLOSE, (4001).to_bytes(2)))
        assert await raw.eof() == b""


@pytest.mark.parametrize(
    "value",
    [
        f"Bearer {GOOD}, Bearer {GOOD}",
        f"Bearer {GOOD},{GOOD}",
        f"Bearer {GOOD} {GOOD}",
        f"Bearer Bearer {GOOD}",
        f"Bearer\t{GOOD}",
        f"Bearer={GOOD}",
        f'Bearer "{GOOD}"',
        f"Bearer {GOOD}=",
        f"Basic {GOOD}",
        f"Token {GOOD}",
        GOOD,
        "Bearer",
        "Bearer ,",
        "Bearer \xff",
    ],
)
async def test_a_token_in_disorder_is_no_token(guard, dial, value):
    site = await guard(SECRET)
    assert await status(dial, site, request("/ws/cars", extra=[("Authorization", value)])) == 401


@pytest.mark.parametrize("offer", ["bearer", f"{GOOD}, bearer", f"x, {GOOD}", f"Bearer, {GOOD}", f"bearer, x, {GOOD}"])
async def test_subprotocols_in_disorder_are_no_token(guard, dial, offer):
    site = await guard(SECRET)
    assert await status(dial, site, request("/ws/cars", extra=[("Sec-WebSocket-Protocol", offer)])) == 401


@pytest.mark.parametrize("way", WAYS)
async def test_a_mebibyte_of_claims_is_refused_by_every_way_and_costs_nothing_to_speak_of(
    guard, dial, way, monkeypatch
):
    site = await guard(SECRET, max_header_size=MIB)
    (auth,) = {manager.options.auth for manager in site.server.endpoints.values()}
    monkeypatch.setattr(auth, "_decode", lambda *_, **__: pytest.fail("it was read"))
    assert await status(dial, site, WAYS[way](token(x="x" * MIB))) == 431
    assert await status(dial, site, WAYS[way](token(x="x" * (MIB // 2)))) == 401


@pytest.mark.parametrize("way", WAYS)
async def test_an_end_beyond_all_calendars_is_lawful_and_sets_no_timer_that_overflows(guard, dial, way):
    site = await guard(SECRET)
    for exp in (2**31, 2**32, 2**53, 2**63, 2**64, 10**30, 1e300):
        assert await status(dial, site, WAYS[way](token(exp=exp))) == 101, exp
