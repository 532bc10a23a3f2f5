"""JSON Web Tokens: how they are sent, which channels they allow, and their configuration."""

import json
import sys
from urllib.parse import quote

import pytest
from joserfc.jwk import KeySet

from fastws import ConfigurationError, JWTAuth

from ..lib.raw import request
from ..lib.support import Recorder, records_naming
from ..lib.tokens import OTHER_SECRET, PUBLIC_PEM, RSA, SECRET, Who, bearer, jwks, refused, token, user

# -- how a token is sent


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
        (KeySet([]), {}, "cannot verify signatures"),
        ({**RSA.as_dict(private=False), "use": "enc"}, {}, "cannot verify signatures"),
        (
            {"kty": "oct", "k": "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlY3JldA", "alg": "none"},
            {},
            "cannot verify signatures",
        ),
        (SECRET, {"algorithms": ["none"]}, "'none' is not a signature algorithm"),
        (SECRET, {"algorithms": ["HS256", "None"]}, "'None' is not a signature algorithm"),
        (SECRET, {"algorithms": ["HS265"]}, "'HS265'"),
        (SECRET, {"algorithms": ["RS256"]}, "'RS256' does not fit this kind of key"),
        (PUBLIC_PEM, {"algorithms": ["HS256"]}, "'HS256' does not fit this kind of key"),
        (PUBLIC_PEM, {"algorithms": ["RS256", "HS512"]}, "'HS512' does not fit this kind of key"),
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
