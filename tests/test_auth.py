"""JSON Web Tokens: how they come, which are refused, and what their end does to a connection."""

import asyncio
import base64
import hmac
import json
import logging
import sys
import time
from urllib.parse import quote

import pytest
from joserfc import jws, jwt
from joserfc.jwk import ECKey, KeySet, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from fastws import ConfigurationError, JWTAuth, Listener
from fastws.testing import Refused

from .hostile import FORGED
from .raw import TEXT, frame, request
from .support import Echo, Recorder, eventually, nothing_left, records_naming

SECRET = b"a secret that is quite long enough"
OTHER_SECRET = b"another one, and long enough as well"
RSA = RSAKey.generate_key(2048)
PUBLIC_PEM = RSA.as_pem(private=False)
EVERY = list(JWSRegistry.algorithms)
HOUR = 3600


def token(key=SECRET, alg="HS256", header=(), **claims):
    """A token of ann's for an hour; a claim that is None is left out."""
    claims = {"sub": "ann", "exp": int(time.time()) + HOUR} | claims
    claims = {name: value for name, value in claims.items() if value is not None}
    key = OctKey.import_key(key) if isinstance(key, bytes) else key
    registry = JWSRegistry(algorithms=EVERY, strict_check_header=False)
    return jwt.encode({"alg": alg, **dict(header)}, claims, key, registry=registry)


def unsigned(header, claims, signature=b""):
    """A token put together by hand."""
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def signed(header, claims):
    """A token whose signature is right, whatever else it is."""
    return with_signature(unsigned(header, claims).rpartition(".")[0])


def with_signature(head):
    signature = hmac.digest(SECRET, head.encode(), "sha256")
    return f"{head}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


async def refused(join, url, **options):
    """The Refused of a handshake."""
    with pytest.raises(Refused) as error:
        await join(url, **options)
    return error.value


async def is_admitted(join, url, token):
    try:
        client = await join(url, headers=bearer(token))
    except Refused as error:
        if error.status != 401:
            raise
        return False
    await client.close()
    return True


class Who(Listener):
    """Tells who it took the client for."""

    def on_open(self, ws):
        ws.send(json.dumps({"user": ws.user, "claims": ws.request.claims}))  # which knows integers of any size

    def on_message(self, ws, message):
        return message


async def user(client):
    return (await client.receive_json())["user"]


@pytest.fixture
async def site(serve):
    return await serve(Who(), auth=JWTAuth(SECRET))


# -- how a token comes


async def test_a_token_in_the_header_says_who_it_is_and_its_claims_are_there(site, join):
    made = token(sub="ann", role="admin", nbf=1, iat=1)
    found = await (await join(f"{site.url}/ws/cars", headers=bearer(made))).receive_json()
    assert found["user"] == "ann"
    assert found["claims"].keys() == {"sub", "exp", "role", "nbf", "iat"}


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
async def test_the_schemes_name_is_understood_in_any_case(site, join, scheme):
    headers = {"Authorization": f"{scheme} {token()}"}
    assert await user(await join(f"{site.url}/ws/cars", headers=headers)) == "ann"


async def test_a_browser_brings_its_token_among_the_subprotocols_and_never_gets_it_back(site, join):
    made = token()
    client = await join(f"{site.url}/ws/cars", subprotocols=["bearer", made])
    assert await user(client) == "ann"
    assert client.subprotocol == "bearer"
    assert made not in str(client.headers)


async def test_a_subprotocol_of_the_endpoints_own_is_answered_instead(serve, join):
    site = await serve(Who(), auth=JWTAuth(SECRET), subprotocols=["chat"])
    client = await join(f"{site.url}/ws/cars", subprotocols=["chat", "bearer", token()])
    assert (await user(client), client.subprotocol) == ("ann", "chat")


async def test_a_token_in_the_query_string_counts_only_where_that_was_asked_for(serve, join, site):
    path = f"/ws/cars?token={token()}"
    assert (await refused(join, site.url + path)).status == 401
    site = await serve(Who(), auth=JWTAuth(SECRET, query_parameter="token"))
    assert await user(await join(site.url + path)) == "ann"
    assert (await refused(join, f"{site.url}/ws/cars?access_token={token()}")).status == 401


async def test_the_header_counts_before_the_subprotocol_and_that_before_the_query(serve, join):
    site = await serve(Who(), auth=JWTAuth(SECRET, query_parameter="token"))
    url = f"{site.url}/ws/cars?token={token(sub='query')}"
    offer = ["bearer", token(sub="subprotocol")]
    assert await user(await join(url, headers=bearer(token(sub="header")), subprotocols=offer)) == "header"
    assert await user(await join(url, subprotocols=offer)) == "subprotocol"
    assert await user(await join(url)) == "query"
    assert await user(await join(url, headers={"Authorization": "Basic YTpi"})) == "query"
    assert (await refused(join, url, headers=bearer("bad"), subprotocols=offer)).status == 401
    assert (await refused(join, url, subprotocols=["bearer", "bad"])).status == 401


@pytest.mark.parametrize("offer", [["bearer"], ["chat"], ["chat", "bearer"], []])
async def test_without_a_token_the_answer_is_401_and_says_what_is_wanted(site, join, offer):
    error = await refused(join, f"{site.url}/ws/cars", subprotocols=offer)
    assert (error.status, error.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "token" in error.error["message"]


async def test_two_authorization_headers_are_no_token(site, dial):
    raw = await dial(site.url)
    await raw.send(request("/ws/cars", extra=[("Authorization", f"Bearer {token()}")] * 2))
    assert (await raw.response()).status == 401


async def test_the_listener_is_asked_after_the_token_and_may_refuse_still(serve, join):
    class Strict(Who):
        def on_handshake(self, request):
            assert request.claims["sub"] == request.user
            return request.user != "ann"

    site = await serve(Strict(), auth=JWTAuth(SECRET))
    assert (await refused(join, f"{site.url}/ws/cars", headers=bearer(token()))).status == 403
    assert await user(await join(f"{site.url}/ws/cars", headers=bearer(token(sub="bob")))) == "bob"


async def test_the_listener_never_hears_of_who_was_refused(serve, join):
    site = await serve(recorder := Recorder(), auth=JWTAuth(SECRET))
    await refused(join, f"{site.url}/ws/cars", headers=bearer(token(OTHER_SECRET)))
    assert recorder.calls == []


async def test_a_refused_token_is_in_no_answer_and_no_log(site, join, caplog):
    caplog.set_level("DEBUG")
    made = token(OTHER_SECRET)
    error = await refused(join, f"{site.url}/ws/cars", headers=bearer(made))
    assert error.headers["WWW-Authenticate"].startswith('Bearer error="invalid_token"')
    for part in made.split("."):
        assert part not in str(error) + str(error.headers)
        assert not records_naming(caplog, part)


# -- which are refused


async def test_a_token_signed_by_another_key_is_refused(site, join):
    assert not await is_admitted(join, f"{site.url}/ws/cars", token(OTHER_SECRET))
    assert await is_admitted(join, f"{site.url}/ws/cars", token())


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", " none", "HS256", None, 0, ["HS256"], {"a": 1}])
@pytest.mark.parametrize("signature", [b"", b"\0" * 32])
async def test_an_unsigned_token_is_refused_whatever_it_calls_its_algorithm(site, join, alg, signature):
    made = unsigned({"alg": alg}, {"sub": "ann", "exp": 2**40}, signature)
    assert not await is_admitted(join, f"{site.url}/ws/cars", made)


async def test_a_public_key_used_as_a_secret_signs_nothing(serve, join):
    """The best known attack on JWT: RS256 swapped for HS256, with what everybody may know as the secret."""
    site = await serve(Who(), auth=JWTAuth(PUBLIC_PEM))
    url = f"{site.url}/ws/cars"
    assert await is_admitted(join, url, token(RSA, "RS256"))
    der = RSA.as_der(private=False)
    for secret in (PUBLIC_PEM, PUBLIC_PEM.strip(), der, json.dumps(RSA.as_dict(private=False)).encode()):
        assert not await is_admitted(join, url, token(OctKey(secret, secret), "HS256"))


@pytest.mark.parametrize("alg", ["RS384", "RS512", "PS256"])
async def test_an_algorithm_of_the_same_family_is_refused_where_it_was_not_asked_for(serve, join, alg):
    site = await serve(Who(), auth=JWTAuth(PUBLIC_PEM))
    assert not await is_admitted(join, f"{site.url}/ws/cars", token(RSA, alg))
    site = await serve(Who(), auth=JWTAuth(PUBLIC_PEM, algorithms=["RS256", alg]))
    assert await is_admitted(join, f"{site.url}/ws/cars", token(RSA, alg))


@pytest.mark.parametrize(
    ("key", "alg"),
    [
        (OctKey.import_key(SECRET), "HS256"),
        (RSA, "RS256"),
        (ECKey.generate_key("P-256"), "ES256"),
        (ECKey.generate_key("P-384"), "ES384"),
        (ECKey.generate_key("P-521"), "ES512"),
        (OKPKey.generate_key("Ed25519"), "Ed25519"),
        (OKPKey.generate_key("Ed25519"), "EdDSA"),
        (OKPKey.generate_key("Ed448"), "Ed448"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # so says joserfc, when it signs
async def test_the_keys_type_says_which_algorithm_is_accepted(serve, join, key, alg):
    forms = [key, key.as_dict(private=False)] + (
        [SECRET] if key.key_type == "oct" else [key.as_pem(private=False), key.as_der(private=False)]
    )
    made = token(key, alg)
    for form in forms:
        site = await serve(Who(), auth=JWTAuth(form))
        assert await is_admitted(join, f"{site.url}/ws/cars", made)
        assert not await is_admitted(join, f"{site.url}/ws/cars", token(OTHER_SECRET))


@pytest.mark.parametrize(
    ("options", "claims", "is_good"),
    [
        ({"audience": "chat"}, {"aud": "chat"}, True),
        ({"audience": "chat"}, {"aud": ["shop", "chat"]}, True),
        ({"audience": ["chat", "talk"]}, {"aud": "talk"}, True),
        ({"audience": "chat"}, {"aud": "shop"}, False),
        ({"audience": "chat"}, {"aud": ["shop"]}, False),
        ({"audience": "chat"}, {"aud": []}, False),
        ({"audience": "chat"}, {"aud": {"chat": 1}}, False),
        ({"audience": "chat"}, {"aud": "chatter"}, False),
        ({"audience": "chat"}, {}, False),
        ({}, {"aud": "chat"}, False),
        ({"issuer": "https://id.example"}, {"iss": "https://id.example"}, True),
        ({"issuer": ["https://id.example", "b"]}, {"iss": "b"}, True),
        ({"issuer": "https://id.example"}, {"iss": "https://id.example/"}, False),
        ({"issuer": "https://id.example"}, {"iss": ["https://id.example"]}, False),
        ({"issuer": "https://id.example"}, {}, False),
        ({}, {"exp": None}, False),
        ({}, {"exp": "tomorrow"}, False),
        ({}, {"exp": True}, False),
        ({}, {"exp": [2**40]}, False),
        ({}, {"exp": 0}, False),
        ({}, {"exp": -1}, False),
        ({}, {"exp": 2**40 + 0.5}, True),
        ({}, {"nbf": 2**40}, False),
        ({}, {"nbf": "x"}, False),
        ({}, {"iat": 2**40}, False),
        ({}, {"sub": None}, False),
        ({}, {"sub": ""}, False),
        ({}, {"sub": 7}, False),
        ({}, {"sub": ["ann"]}, False),
        ({"user_claim": "email"}, {"email": "ann@example.org"}, True),
        ({"user_claim": "email"}, {}, False),
        ({"user_claim": "email"}, {"email": {"not": "hashable"}}, False),
        ({"user_claim": "uid"}, {"uid": 7}, True),
    ],
)
async def test_claims_are_checked(serve, join, options, claims, is_good):
    site = await serve(Who(), auth=JWTAuth(SECRET, **options))
    assert await is_admitted(join, f"{site.url}/ws/cars", token(**claims)) is is_good


@pytest.mark.parametrize("exp", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000])
async def test_an_expiry_that_is_no_time_is_refused(site, join, exp):
    claims = '{"sub": "ann", "exp": %s}' % exp  # noqa: UP031
    registry = JWSRegistry(algorithms=["HS256"])
    made = jws.serialize_compact({"alg": "HS256"}, claims, OctKey.import_key(SECRET), registry=registry)
    assert not await is_admitted(join, f"{site.url}/ws/cars", made)


async def test_an_expired_token_is_refused_and_the_client_is_told_that_it_is_only_old(site, join):
    error = await refused(join, f"{site.url}/ws/cars", headers=bearer(token(exp=int(time.time()) - 1)))
    assert error.status == 401
    assert "expired" in error.error["message"]
    assert "expired" in error.headers["WWW-Authenticate"]


async def test_clocks_may_differ_by_the_leeway(serve, join):
    site = await serve(Who(), auth=JWTAuth(SECRET, leeway=30))
    now = int(time.time())
    for claims, is_good in (
        ({"exp": now - 20}, True),
        ({"exp": now - 40}, False),
        ({"nbf": now + 20}, True),
        ({"nbf": now + 40}, False),
    ):
        assert await is_admitted(join, f"{site.url}/ws/cars", token(**claims)) is is_good, claims


HS256 = base64.urlsafe_b64encode(b'{"alg": "HS256"}').decode().rstrip("=") + "."
MALFORMED = {
    "empty": "",
    "a word": "ann",
    "two parts": token().rpartition(".")[0],
    "four parts": token() + ".x",
    "five parts": "a.b.c.d.e",
    "dots": "..",
    "no base64": "!.!.!",
    "no JSON": base64.urlsafe_b64encode(b"{").decode() + "." + token().partition(".")[2],
    "header is a list": unsigned(["alg"], {}),
    "header is null": unsigned(None, {}),
    "no algorithm": unsigned({}, {}),
    "deep": base64.urlsafe_b64encode(b"[" * 9000).decode() + ".e30.e30",
    "claims are deep": with_signature(HS256 + base64.urlsafe_b64encode(b"[" * 9000).decode()),
    "a claim is deep": with_signature(HS256 + base64.urlsafe_b64encode(b'{"sub":' + b"[" * 8991).decode()),
    "a user who is deep": with_signature(
        HS256 + base64.urlsafe_b64encode(b'{"exp": 9999999999, "sub":%b}' % (b"[" * 900 + b"]" * 900)).decode()
    ),
    "claims are a list": signed({"alg": "HS256"}, [1]),
    "claims are null": signed({"alg": "HS256"}, None),
    "key id is a number": signed({"alg": "HS256", "kid": 7}, {"sub": "ann", "exp": 2**40}),
    "unknown and critical": signed({"alg": "HS256", "crit": ["x"], "x": 1}, {"sub": "ann", "exp": 2**40}),
    "critical is no list": signed({"alg": "HS256", "crit": 7}, {"sub": "ann", "exp": 2**40}),
    "latin-1": "\xff\xfe",
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_what_is_no_token_is_refused(site, dial, name):
    raw = await dial(site.url)
    await raw.send(request("/ws/cars", extra=[("Authorization", f"Bearer {MALFORMED[name]}")]))
    assert (await raw.response()).status == 401


async def test_what_a_token_says_of_its_key_writes_no_line_of_its_own_into_the_log(serve, join, caplog):
    caplog.set_level(logging.DEBUG, logger="fastws")
    keys = KeySet([OctKey.import_key(SECRET, {"kid": "1"}), OctKey.import_key(OTHER_SECRET, {"kid": "2"})])
    site = await serve(Who(), auth=JWTAuth(keys))
    forged = signed({"alg": "HS256", "kid": f"3'{FORGED}"}, {"sub": "ann", "exp": 2**40})
    assert not await is_admitted(join, f"{site.url}/ws/cars", forged)
    assert records_naming(caplog, "No key for kid")
    assert all(record.getMessage().isprintable() for record in caplog.records)


async def test_a_token_cut_short_or_altered_anywhere_is_refused():
    auth, made = JWTAuth(SECRET), token()
    auth._verify(made)
    for at in range(len(made)):
        with pytest.raises(Exception, match="token"):
            auth._verify(made[:at])
        if at < len(made) - 1:  # the last character of Base64 has bits that do not count
            with pytest.raises(Exception, match="token"):
                auth._verify(made[:at] + ("A" if made[at] != "A" else "B") + made[at + 1 :])


async def test_header_fields_that_nobody_here_knows_are_no_fault(site, join):
    assert await is_admitted(join, f"{site.url}/ws/cars", token(header={"nonce": "x", "x5t": "y" * 1000}.items()))


async def test_a_token_of_more_than_16_kib_is_refused_unread(serve, join, monkeypatch):
    auth = JWTAuth(SECRET)
    site = await serve(Who(), auth=auth, max_header_size=64 * 1024)
    assert await is_admitted(join, f"{site.url}/ws/cars", token(data="x" * 11_000))
    monkeypatch.setattr(auth, "_decode", lambda *_, **__: pytest.fail("it was read"))
    assert not await is_admitted(join, f"{site.url}/ws/cars", token(data="x" * 13_000))


async def test_a_mebibyte_of_claims_is_refused_in_the_head_and_in_a_message(serve, join):
    site = await serve(Who(), auth=JWTAuth(SECRET), max_message_size=4 << 20)
    huge = token(data="x" * (1 << 20))
    with pytest.raises(Refused) as error:
        await join(f"{site.url}/ws/cars", headers=bearer(huge))
    assert error.value.status == 431
    client = await join(f"{site.url}/ws/cars", headers=bearer(token()))
    await client.receive()
    await client.send({"type": "authenticate", "token": huge})
    assert await client.closed() == (4001, "token refused")


# -- key sets


@pytest.fixture(scope="module")
def keys():
    """Two keys of RSA, one of EC, by id."""
    made = {"old": RSA, "new": RSAKey.generate_key(2048), "curve": ECKey.generate_key("P-256")}
    return {kid: type(key).import_key({**key.as_dict(private=True), "kid": kid}) for kid, key in made.items()}


def jwks(keys, **extra):
    return {"keys": [{**key.as_dict(private=False), **extra} for key in keys.values()]}


@pytest.mark.parametrize(
    "form", [lambda keys: jwks(keys), lambda keys: KeySet(list(keys.values()))], ids=["dict", "set"]
)
async def test_of_a_key_set_the_tokens_kid_names_the_key(serve, join, keys, form):
    site = await serve(Who(), auth=JWTAuth(form(keys)))
    for kid, alg in (("old", "RS256"), ("new", "RS256"), ("curve", "ES256")):
        assert await is_admitted(join, f"{site.url}/ws/cars", token(keys[kid], alg, {"kid": kid}.items()))
    for kid in ("new", "curve", "nobody", "", "../old"):
        assert not await is_admitted(join, f"{site.url}/ws/cars", token(keys["old"], "RS256", {"kid": kid}.items()))


async def test_a_kid_may_be_missing_where_there_is_but_one_key(serve, join, keys):
    made = jwt.encode({"alg": "RS256"}, {"sub": "ann", "exp": 2**40}, RSA)
    one = await serve(Who(), auth=JWTAuth(jwks({"old": keys["old"]})))
    assert await is_admitted(join, f"{one.url}/ws/cars", made)
    several = await serve(Who(), auth=JWTAuth(jwks(keys)))
    assert not await is_admitted(join, f"{several.url}/ws/cars", made)


async def test_a_key_for_encryption_or_of_another_algorithm_verifies_nothing(serve, join, keys):
    made = token(keys["old"], "RS256", {"kid": "old"}.items())
    sets = {"use": "enc"}, {"alg": "RS512"}, {"alg": "RSA-OAEP"}
    for extra in sets:
        known = jwks({"old": keys["old"]}, **extra)["keys"] + jwks({"curve": keys["curve"]})["keys"]
        site = await serve(Who(), auth=JWTAuth({"keys": known}))
        assert not await is_admitted(join, f"{site.url}/ws/cars", made)


async def test_the_algorithm_that_a_key_names_is_accepted(serve, join, keys):
    site = await serve(Who(), auth=JWTAuth(jwks({"old": keys["old"]}, alg="PS256")))
    assert await is_admitted(join, f"{site.url}/ws/cars", token(RSA, "PS256", {"kid": "old"}.items()))
    assert not await is_admitted(join, f"{site.url}/ws/cars", token(RSA, "RS256", {"kid": "old"}.items()))


# -- channels


@pytest.mark.parametrize(
    ("globs", "allowed", "refused_"),
    [
        (None, ["cars", "boats"], []),
        (["cars"], ["cars"], ["car", "cars2", "Cars", "boats"]),
        (["news.*", "room-?"], ["news.", "news.sport", "room-7"], ["news", "room-77", "my news.x"]),
        ("cars", ["cars"], ["boats", "c"]),
        (["[ab]x"], ["ax"], ["cx"]),
        (["*"], ["cars", "boats"], []),
        ([], [], ["cars"]),
        (["", 7, None, ["cars"]], [], ["cars", "7"]),
        (7, [], ["cars", "7"]),
        ({"cars": True}, [], ["cars"]),
    ],
)
async def test_the_channels_claim_says_which_channels_are_open(serve, join, globs, allowed, refused_):
    site = await serve(Who(), auth=JWTAuth(SECRET))
    headers = bearer(token(channels=globs))
    for channel in allowed:
        assert await user(await join(f"{site.url}/ws/{quote(channel)}", headers=headers)) == "ann"
    for channel in refused_:
        assert (await refused(join, f"{site.url}/ws/{quote(channel)}", headers=headers)).status == 403


async def test_a_channels_claim_that_is_null_allows_nothing():
    auth = JWTAuth(SECRET)
    assert not auth._allows({"channels": None}, "cars")
    assert auth._allows({}, "cars")


async def test_the_listeners_authorize_is_asked_as_well(serve, join):
    class Only(Who):
        def authorize(self, request, channel):
            return channel != "closed"

    site = await serve(Only(), auth=JWTAuth(SECRET, channels_claim="rooms"))
    headers = bearer(token(rooms=["open", "closed"]))
    assert await user(await join(f"{site.url}/ws/open", headers=headers)) == "ann"
    for channel in ("closed", "other"):
        assert (await refused(join, f"{site.url}/ws/{quote(channel)}", headers=headers)).status == 403


async def test_without_a_channel_in_the_path_the_claim_keeps_nobody_out(serve, join):
    site = await serve(Who(), "/ws", auth=JWTAuth(SECRET))
    assert await user(await join(f"{site.url}/ws", headers=bearer(token(channels=["cars"])))) == "ann"


# -- the end of a token


async def test_a_connection_closes_with_4001_when_its_token_expires(site, join):
    exp = time.time() + 0.3
    client = await join(f"{site.url}/ws/cars", headers=bearer(token(exp=exp)))
    await client.receive()
    assert await client.closed() == (4001, "token expired")
    assert 0 <= time.time() - exp < 1


async def test_the_leeway_counts_at_the_end_too(serve, join):
    site = await serve(Who(), auth=JWTAuth(SECRET, leeway=0.5))
    exp = time.time()
    client = await join(f"{site.url}/ws/cars", headers=bearer(token(exp=exp)))
    await client.receive()
    assert await client.closed() == (4001, "token expired")
    assert time.time() - exp >= 0.5


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
    client = await join(f"{site.url}/ws/cars", headers=bearer(token(exp=time.time() + 0.4)))
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
    client = await join(f"{site.url}/ws/cars", headers=bearer(token(exp=time.time() + 0.5, role="guest")))
    expires = int(time.time()) + HOUR
    await client.send({"type": "authenticate", "token": token(exp=expires, role="admin")})
    assert await client.receive_json() == {"type": "authenticated", "expires": expires}
    await asyncio.sleep(0.6)
    assert await client.received() == []
    (ws,) = listener.sockets
    assert (ws.request.claims["role"], ws.request.claims["exp"]) == ("admin", expires)
    assert listener.of("on_message") == []


async def test_the_end_of_the_fresh_token_counts(site, join):
    client = await enter(join, site)
    await client.send({"type": "authenticate", "token": token(exp=time.time() + 0.3)})
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
    client = await join(f"{site.url}/ws/cars", headers=bearer(token(exp=time.time() + 0.5)))
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


# -- configuration


@pytest.mark.parametrize(
    ("key", "options", "message"),
    [
        ("", {}, "key is empty"),
        (b"", {}, "key is empty"),
        ({}, {}, "key is empty"),
        (None, {}, "NoneType"),
        ({"kty": "??"}, {}, "cannot be read"),
        ({"keys": []}, {}, "cannot be read"),
        (json.dumps(jwks({"a": RSA})), {}, "json.loads"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", {}, "PEM"),
        (KeySet([]), {}, "verifies no signatures"),
        ({**RSA.as_dict(private=False), "use": "enc"}, {}, "verifies no signatures"),
        ({"kty": "oct", "k": "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlY3JldA", "alg": "none"}, {}, "verifies no"),
        (SECRET, {"algorithms": ["none"]}, "'none' signs nothing"),
        (SECRET, {"algorithms": ["HS256", "None"]}, "'None' signs nothing"),
        (SECRET, {"algorithms": ["HS265"]}, "'HS265'"),
        (SECRET, {"algorithms": ["RS256"]}, "'RS256' is not for this kind of key"),
        (PUBLIC_PEM, {"algorithms": ["HS256"]}, "'HS256' is not for this kind of key"),
        (PUBLIC_PEM, {"algorithms": ["RS256", "HS512"]}, "'HS512' is not for this kind of key"),
        (SECRET, {"algorithms": []}, r"algorithms=\[\]"),
        (SECRET, {"algorithms": "HS256"}, "algorithms='HS256'"),
        (SECRET, {"audience": ""}, "audience=''"),
        (SECRET, {"audience": []}, r"audience=\[\]"),
        (SECRET, {"issuer": [7]}, r"issuer=\[7\]"),
        (SECRET, {"leeway": -1}, "leeway=-1"),
        (SECRET, {"leeway": "1"}, "leeway='1'"),
        (SECRET, {"user_claim": ""}, "user_claim=''"),
        (SECRET, {"channels_claim": None}, "channels_claim=None"),
        (SECRET, {"query_parameter": ""}, "query_parameter=''"),
    ],
)
def test_what_cannot_work_is_refused_at_once_in_one_sentence(key, options, message):
    with pytest.raises(ConfigurationError, match=message) as error:
        JWTAuth(key, **options)
    assert "\n" not in str(error.value)
    assert SECRET.decode() not in str(error.value)


def test_a_short_secret_is_warned_of_and_not_shown(caplog):
    JWTAuth("hunter2")
    assert records_naming(caplog, "can be guessed")
    assert "hunter2" not in caplog.text


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "joserfc", None)
    with pytest.raises(ConfigurationError, match=r'pip install "fastws-server\[jwt\]"'):
        JWTAuth(SECRET)
