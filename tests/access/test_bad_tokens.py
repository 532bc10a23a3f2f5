"""JSON Web Tokens that are refused: forged, expired, malformed, oversized, or signed with another key."""

import base64
import json
import logging
import time

import pytest
from joserfc import jws, jwt
from joserfc.jwk import ECKey, KeySet, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from fastws import JWTAuth
from fastws.testing import Refused

from ..hostile import FORGED
from ..lib.raw import request
from ..lib.support import records_naming
from ..lib.tokens import (
    OTHER_SECRET,
    PUBLIC_PEM,
    RSA,
    SECRET,
    Who,
    bearer,
    is_admitted,
    jwks,
    refused,
    signed,
    token,
    unsigned,
    with_signature,
)


async def test_a_token_signed_by_another_key_is_refused(site, join):
    assert not await is_admitted(join, f"{site.url}/ws/cars", token(OTHER_SECRET))
    assert await is_admitted(join, f"{site.url}/ws/cars", token())


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", " none", "HS256", None, 0, ["HS256"], {"a": 1}])
@pytest.mark.parametrize("signature", [b"", b"\0" * 32])
async def test_an_unsigned_token_is_refused_whatever_it_calls_its_algorithm(site, join, alg, signature):
    made = unsigned({"alg": alg}, {"sub": "ann", "exp": 2**40}, signature)
    assert not await is_admitted(join, f"{site.url}/ws/cars", made)


async def test_a_public_key_used_as_a_secret_signs_nothing(serve, join):
    """The best known attack on JWT: RS256 replaced by HS256, with the public key as the secret."""
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
@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # a warning of joserfc's when it signs
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
        if at < len(made) - 1:  # the last character of Base64 has unused bits
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
    """Two RSA keys and one EC key, by id."""
    made = {"old": RSA, "new": RSAKey.generate_key(2048), "curve": ECKey.generate_key("P-256")}
    return {kid: type(key).import_key({**key.as_dict(private=True), "kid": kid}) for kid, key in made.items()}


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
