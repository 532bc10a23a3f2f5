"""The whole standalone server, as an attacker sees it. What a part does by itself is tested with the part."""

import asyncio
import json
import logging
import re

import aiohttp
import pytest
from aiohttp import web
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from fastws import ConfigurationError
from fastws.access.keys import KeySettings
from fastws.access.rules import ChannelRule
from fastws.access.tokens import AuthSettings, make_token
from fastws.command.settings import Settings, TopLevel
from fastws.hooks.settings import HookSettings
from fastws.standalone import create_server
from fastws.v1.raw import RawSettings
from fastws.web.api import ApiSettings

from ..lib.v1 import Client

KEYS = {
    "all": "the-key-for-everything-0123",
    "shop": "the-key-of-the-shop-012345",
    "till": "the-key-of-the-till-0123456",
}
AUTH = AuthSettings(secret="a secret of the tests, of 32 bytes or more")
API = ApiSettings(
    keys=(
        KeySettings(name="all", key=KEYS["all"]),
        KeySettings(name="shop", key=KEYS["shop"], channels=("shop.*",)),
        KeySettings(name="till", key=KEYS["till"], channels=("shop.*",)),
    )
)
EVERYTHING = ChannelRule(pattern="*", subscribe="anyone", publish="member", whisper="member")


def settings(**sections):
    return Settings(options={"port": 0, **sections.pop("options", {})}, **sections)


async def dial(server, path="/ws", **options):
    options.setdefault("subprotocols", ["fastws.v1"])
    return Client(await connect(f"ws://127.0.0.1:{server.port}{path}", **options))


async def call(server, method, path, key=None, body=None, **headers):
    """Status, header fields and body of an answer."""
    headers |= {} if key is None else {"X-API-Key": KEYS[key]}
    url = f"http://127.0.0.1:{server.port}{path}"
    async with aiohttp.ClientSession() as session, session.request(method, url, json=body, headers=headers) as answer:
        return answer.status, answer.headers, await answer.read()


# -- nothing is open that nobody opened


@pytest.mark.parametrize("opened", [(), (EVERYTHING,)])
async def test_without_rules_nothing_is_relayed_on_either_kind_of_socket(opened):
    async with create_server(settings(channels=opened, raw=RawSettings(), api=API)) as server:
        client = await dial(server)
        (answer,) = await client.hello(channels={"a": None})
        publish = await client.ask({"type": "publish", "id": 1, "channel": "a", "message": 1})
        try:
            raw = await dial(server, "/raw/a", subprotocols=None)
            await raw.ws.close()
            is_raw_open = True
        except Exception:
            is_raw_open = False
        await client.ws.close()
    if opened:
        assert (answer["type"], publish["type"], is_raw_open) == ("subscribed", "message", True)
    else:
        assert (answer["code"], publish["code"], is_raw_open) == ("unknown_channel", "unknown_channel", False)


async def test_without_keys_the_api_does_nothing():
    async with create_server(settings(channels=(EVERYTHING,), api=ApiSettings())) as server:
        for method, path in (("POST", "/api/broadcast"), ("POST", "/api/channels/a"), ("GET", "/api/info")):
            status, _, _ = await call(server, method, path, "all", {"channel": "a", "text": "x"})
            assert status == 403


# -- pages of others


async def test_no_page_of_another_origin_may_call_the_api_or_read_its_answers():
    async with create_server(settings(api=API)) as server:
        for method in ("OPTIONS", "POST", "GET"):
            for path in ("/api/broadcast", "/api/info", "/api/openapi.json"):
                asks = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
                status, headers, _ = await call(server, method, path, **asks)
                assert not [name for name in headers if name.lower().startswith("access-control-")]
                assert status != 200 or path == "/api/openapi.json"
        status, headers, _ = await call(server, "GET", "/fastws.js", Origin="https://evil.example")
        assert (status, headers["Access-Control-Allow-Origin"]) == (200, "*")
        assert headers["Content-Type"].startswith("text/javascript")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Credentials" not in headers


class Backend:
    """Lets everybody in as whoever their cookie says; keeps what it is asked."""

    def __init__(self):
        self.asked = []

    async def answer(self, request):
        asked = await request.json()
        if asked["event"] != "events":
            self.asked.append((dict(request.headers), asked))
        return web.json_response({"user": request.cookies.get("user")})

    async def __aenter__(self):
        app = web.Application()
        app.router.add_post("/", self.answer)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}/"
        return self

    async def __aexit__(self, *_):
        await self.runner.cleanup()


@pytest.mark.parametrize(
    ("origins", "origin", "user"),
    [
        (None, None, "ann"),  # no browser
        (None, "http://127.0.0.1", "ann"),
        (None, "https://127.0.0.1:8443", "ann"),  # a port of the same host, to which the cookie goes all the same
        (None, "https://evil.example", None),
        (None, "https://127.0.0.1.evil.example", None),
        (None, "https://evil.example/127.0.0.1", None),
        (None, "null", None),
        (None, "http://[", None),
        (["https://www.example.org"], "https://www.example.org", "ann"),
    ],
)
async def test_a_page_of_another_site_connects_in_nobodys_name(caplog, origins, origin, user):
    caplog.set_level(logging.WARNING, logger="fastws.hooks")
    async with Backend() as backend:
        options = {} if origins is None else {"origins": origins}
        async with create_server(settings(options=options, hooks=HookSettings(url=backend.url))) as server:
            headers = {"Cookie": "user=ann", "Authorization": "Basic YW5uOmFubg=="}
            client = await dial(server, additional_headers=headers, origin=origin)
            await client.hello()
            assert client.welcome["user"] == user
            await client.ws.close()
    ((fields, asked),) = backend.asked
    given = {name.lower() for name in fields} & {"cookie", "authorization"}
    assert given == set(asked["connection"]["headers"]) == (set() if user is None else {"cookie", "authorization"})
    assert ("add it to origins" in caplog.text) == (user is None)
    assert "user=ann" not in caplog.text


# -- keys apart from each other


async def test_a_key_learns_of_no_channel_that_it_does_not_cover():
    channels = {"shop.1": None, "secret": None}
    async with create_server(settings(channels=(EVERYTHING,), api=API, auth=AUTH)) as server:
        token = make_token(AUTH, "ann")
        client = await dial(server, subprotocols=["fastws.v1", "bearer", token])
        await client.hello(channels=channels)
        for path in ("users/ann", f"connections/{client.welcome['id']}", "channels"):
            assert b"secret" in (await call(server, "GET", f"/api/{path}", "all"))[2]
            status, _, body = await call(server, "GET", f"/api/{path}", "shop")
            assert (status, b"secret" in body, b"shop.1" in body) == (200, False, True)
        assert (await call(server, "GET", "/api/channels/secret", "shop"))[0] == 403
        await client.ws.close()


async def test_no_key_can_use_up_the_idempotency_keys_of_another():
    async with create_server(settings(channels=(EVERYTHING,), api=API)) as server:
        client = await dial(server)
        await client.hello(channels={"shop.1": None})
        for key in ("shop", "till", "shop", "till"):
            body = {"channel": "shop.1", "text": f"of {key}", "key": "order-17"}
            assert (await call(server, "POST", "/api/broadcast", key, body))[0] == 200
            direct = {"to": client.welcome["id"], "text": f"for {key}", "key": "order-17"}
            assert (await call(server, "POST", "/api/send", key, direct))[0] == 200
        heard = [(await client.receive())["message"] for _ in range(4)]
        assert heard == ["of shop", "for shop", "of till", "for till"]
        assert await client.so_far() == []
        await client.ws.close()


# -- what is never shown


def test_settings_show_no_secrets():
    shown = repr(
        [
            HookSettings(url="http://name:password@127.0.0.1/", secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
            AUTH,
            API,
            TopLevel(ssl_keyfile_password="password"),
        ]
    )
    for secret in (*KEYS.values(), AUTH.secret, "whsec_", "password@", "='password'"):
        assert secret not in shown


def test_the_password_in_a_url_is_not_in_the_sentence_about_it():
    for make in (
        lambda: HookSettings(url="http://name:password@backend.example/"),
        lambda: HookSettings(url="ftp://name:password@127.0.0.1/"),
        lambda: create_server(settings(auth=AuthSettings(jwks_url="http://name:password@127.0.0.1:1/"))),
    ):
        with pytest.raises(ConfigurationError) as raised:
            make()
        assert "password" not in str(raised.value)


async def test_the_log_has_neither_keys_nor_tokens_nor_cookies(caplog):
    caplog.set_level(logging.DEBUG)
    logging.getLogger("fastws.access").setLevel(logging.INFO)
    token = make_token(AUTH, "ann")
    bad = token[:-4] + "AAAA"
    async with create_server(settings(channels=(EVERYTHING,), api=API, auth=AUTH, anonymous=False)) as server:
        for path, offered, headers in (
            (f"/ws?token={bad}", ["fastws.v1", "bearer", bad], {"Cookie": "session=of-ann"}),
            (f"/ws?token={token}", ["fastws.v1"], {"Cookie": "session=of-ann"}),
            ("/ws", ["fastws.v1", "bearer", token], {"Cookie": "session=of-ann"}),
            ("/ws", ["fastws.v1"], {"Authorization": f"Bearer {bad}"}),
        ):
            client = await dial(server, path, subprotocols=offered, additional_headers=headers)
            try:
                await client.send({"type": "hello", "version": 1, "client": "c\n1"})
                await client.send({"type": "authenticate", "token": bad})
                await client.closed()
            except ConnectionClosed:
                pass
        await call(server, "GET", "/api/info", "all")
        await call(server, "GET", f"/api/info?key={KEYS['all']}")
        await call(server, "GET", "/api/info", **{"X-API-Key": KEYS["all"] + "x"})
    logging.getLogger("fastws.access").setLevel(logging.WARNING)
    ours = [r for r in caplog.records if r.name.startswith("fastws")]
    assert ours
    for record in ours:
        said = record.getMessage() + repr(vars(record))
        for secret in (*KEYS.values(), token, bad, "of-ann", "c\n1"):
            assert secret not in said, said


# -- between Web and the engine


HEAD = "Host: 127.0.0.1\r\n"
PUBLISH = json.dumps({"channel": "shop.1", "text": "x"})
KEYED = f"{HEAD}X-API-Key: {KEYS['all']}\r\nContent-Type: application/json\r\n"
UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
SMUGGLED = f"POST /api/broadcast HTTP/1.1\r\n{KEYED}Content-Length: {len(PUBLISH)}\r\n\r\n{PUBLISH}"


@pytest.mark.parametrize(
    "fields",
    [
        "Content-Length: 3\r\nContent-Length: 3\r\n",
        "Content-Length: 3, 3\r\n",
        "Content-Length: +3\r\n",
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Content-Length: 99999999999999999999\r\n",
    ],
)
@pytest.mark.parametrize("is_second", [False, True])
async def test_no_request_hides_in_the_body_of_another(fields, is_second):
    async with create_server(settings(channels=(EVERYTHING,), api=API)) as server:
        client = await dial(server)
        await client.hello(channels={"shop.1": None})
        first = f"GET /api/info HTTP/1.1\r\n{KEYED}\r\n" if is_second else ""
        for target in ("POST /api/broadcast", "POST /api/channels/shop.1", "GET /ws"):
            upgrade = UPGRADE if target == "GET /ws" else ""
            sent = f"{first}{target} HTTP/1.1\r\n{KEYED}{upgrade}{fields}\r\n0\r\n\r\n{SMUGGLED}"
            answer = await exchange(server.port, sent.encode())
            statuses = [int(status) for status in re.findall(r"HTTP/1\.1 (\d{3})", answer)]
            assert statuses == [200, 400][not is_second :], answer
        assert await client.so_far() == []
        await client.ws.close()


async def exchange(port, sent):
    """All that is answered until the server closes, which it does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    async with asyncio.timeout(5):
        answer = await reader.read(-1)
    writer.close()
    return answer.decode("latin-1")
