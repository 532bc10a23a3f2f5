"""The HTTP API refuses what is wrong: with the status, a sentence and the field that it is about."""

import asyncio
import contextlib
import json
import logging

import aiohttp
import pytest

from fastws.access.keys import KeySettings
from fastws.web.api import ApiSettings
from tests.web.api.site import BEARER, KEY, NARROW, READER, curl

MESSAGE = {"channel": "cars", "message": 1}


def error_of(said):
    assert set(said) == {"error"}
    assert set(said["error"]) <= {"code", "message", "request_id", "field"}
    return said["error"]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/broadcast", [], "$"),
        ("/broadcast", {"message": 1}, "$.channel"),
        ("/broadcast", {"channel": "cars"}, "$.message"),
        ("/broadcast", {**MESSAGE, "text": "hi"}, "$.message"),
        ("/broadcast", {"channel": "cars", "text": "hi", "base64": ""}, "$.message"),
        ("/broadcast", {**MESSAGE, "channels": ["cars"]}, "$.channels"),
        ("/broadcast", {"channels": [], "message": 1}, "$.channels"),
        ("/broadcast", {"channels": ["a"] * 1001, "message": 1}, "$.channels"),
        ("/broadcast", {"channels": ["a", "b\n"], "message": 1}, "$.channels[1]"),
        ("/broadcast", {**MESSAGE, "channel": ""}, "$.channel"),
        ("/broadcast", {**MESSAGE, "channel": "\u00e9" * 128}, "$.channel"),
        ("/broadcast", {**MESSAGE, "users": [True]}, "$.users[0]"),
        ("/broadcast", {**MESSAGE, "to": ["a", 7]}, "$.to[1]"),
        ("/broadcast", {**MESSAGE, "key": "k" * 65}, "$.key"),
        ("/broadcast", {**MESSAGE, "endpoint": "/nowhere"}, "$.endpoint"),
        ("/broadcast", {**MESSAGE, "usrs": []}, "$.usrs"),
        ("/broadcast", {**MESSAGE, "compress": "true"}, "$.compress"),
        ("/send", {"users": "ann", "message": 1, "compress": 1}, "$.compress"),
        ("/channels/cars?compress=yes", 1, "compress"),
        ("/channels/cars?compress=true&compress=true", 1, "compress"),
        ("/broadcast", {"channel": "cars", "base64": "%"}, "$.base64"),
        ("/channels/" + "%C3%A9" * 128, 1, "name"),
        ("/channels/cars?usr=ann", 1, "usr"),
        ("/channels/cars?endpoint=a&endpoint=b", 1, "endpoint"),
        ("/channels/cars?endpoint=a", 1, "endpoint"),
        ("/send", {"message": 1}, "$"),
        ("/send", {"users": "ann"}, "$.message"),
        ("/subscribe", {"channel": "cars"}, "$"),
        ("/subscribe", {"users": "ann"}, "$"),
        ("/unsubscribe", {"users": "ann", "channel": "\0"}, "$.channel"),
        ("/close", {}, "$"),
        ("/close", {"users": "ann", "code": 1005}, "$.code"),
        ("/close", {"users": "ann", "code": 1006}, "$.code"),
        ("/close", {"users": "ann", "code": 2999}, "$.code"),
        ("/close", {"users": "ann", "code": 5000}, "$.code"),
        ("/close", {"users": "ann", "reason": "\u00e9" * 62}, "$.reason"),
        ("/batch", {"commands": [{}]}, "$.commands[0]"),
        ("/batch", {"commands": [{"send": {"users": "a", "text": ""}, "close": {"users": "a"}}]}, "$.commands[0]"),
        ("/batch", {"commands": [{"send": {"users": [None]}}]}, "$.commands[0].send.users[0]"),
        ("/batch", {"commands": [{"send": {"users": "a", "text": ""}}] * 1001}, "$.commands"),
        ("/info?pretty=1", None, "pretty"),
        ("/channels?limit=0", None, "limit"),
        ("/channels?limit=1001", None, "limit"),
        ("/channels?limit=x", None, "limit"),
        ("/refusals?limit=-1", None, "limit"),
    ],
)
async def test_what_is_wrong_is_named(site, call, path, body, field):
    status, said = await call("GET" if body is None else "POST", path, body)
    error = error_of(said)
    assert (status, error["code"], error["field"]) == (400, 400, field), error
    assert len(error["request_id"]) == 16
    assert error["message"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"channel": "\xff"}', b'{"channel": "cars", "message": "\xff"}', b"[" * 100_000]
)
@pytest.mark.parametrize("path", ["/broadcast", "/channels/cars"])
async def test_what_is_not_json_is_refused(site, call, path, body):
    headers = {**BEARER, "Content-Type": "application/json"}
    status, said = await call("POST", path, data=body, headers=headers)
    assert status == 400
    assert error_of(said)["message"]


async def test_text_that_is_not_utf8_is_refused(site, call):
    headers = {**BEARER, "Content-Type": "text/plain"}
    status, said = await call("POST", "/channels/cars", data=b"\xff", headers=headers)
    assert (status, error_of(said)["message"]) == (400, "the body is not UTF-8")


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "application/jsonx"])
async def test_a_command_has_to_be_said_to_be_json(site, call, kind):
    headers = {**BEARER, "Content-Type": kind}
    status, said = await call("POST", "/send", data=json.dumps({"users": "ann", "text": ""}), headers=headers)
    assert (status, error_of(said)["code"]) == (415, 415)


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "application/vnd.x+json"])
async def test_json_goes_by_several_names(site, call, kind):
    headers = {**BEARER, "Content-Type": kind}
    body = json.dumps({"users": "ann", "text": ""})
    assert await call("POST", "/send", data=body, headers=headers) == (200, {"connections": 0})


async def test_a_wrong_method_and_a_wrong_path_are_told(site, call):
    status, fields, said = await curl("-X", "PUT", f"{site.url}/channels/cars")
    assert (status, fields["allow"], error_of(said)["code"]) == (405, "GET, HEAD, POST", 405)
    status, fields, _ = await curl(f"{site.url}/send")
    assert (status, fields["allow"]) == (405, "POST")
    assert (await call("GET", "/nothing"))[0] == 404
    assert (await call("GET", "/channels/%ff"))[0] == 400
    assert (await curl(site.url.replace("/api", "/ws/cars")))[0] == 426


# -- keys


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong-wrong-wrong-wrong"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Bearer "},
        {"X-API-Key": "wrong"},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": "Bearer \u00e9\u00e9"},
    ],
)
async def test_without_a_key_that_is_known_nothing_is_done(site, call, headers):
    client = await site.join("/raw/cars")
    for path, body in [("/broadcast", MESSAGE), ("/batch", {"commands": []}), ("/channels/cars", 1)]:
        async with aiohttp.request("POST", site.url + path, headers=headers, json=body) as answer:
            assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
            error_of(await answer.json())
    await call("POST", "/broadcast", {**MESSAGE, "message": 2})
    assert await client.receive() == "2"


@pytest.mark.parametrize("headers", [{"Authorization": f"bearer  {KEY} "}, {"X-API-Key": KEY}])
async def test_a_key_comes_in_either_header(site, call, headers):
    assert (await call("GET", "/info", headers=headers))[0] == 200


async def test_a_key_in_the_query_string_is_none(site):
    for name in ("key", "api_key", "access_token"):
        assert (await curl(f"{site.url}/info?{name}={KEY}"))[0] == 401


async def test_a_key_does_what_it_is_for_and_nothing_else(site, call):
    reader = {"X-API-Key": READER}
    assert (await call("GET", "/info", headers=reader))[0] == 200
    for path, body in [
        ("/broadcast", MESSAGE),
        ("/channels/cars", 1),
        ("/send", {"users": "a", "text": ""}),
        ("/subscribe", {"users": "a", "channel": "cars"}),
        ("/unsubscribe", {"users": "a", "channel": "cars"}),
        ("/close", {"users": "a"}),
    ]:
        status, said = await call("POST", path, body, headers=reader)
        assert (status, error_of(said)["code"]) == (403, 403)
    batch = {"commands": [{"broadcast": MESSAGE}, {"send": {"users": "a", "text": ""}}]}
    status, said = await call("POST", "/batch", batch, headers=reader)
    assert (status, [error_of(result)["code"] for result in said["results"]]) == (200, [403, 403])


async def test_a_key_names_only_the_channels_that_it_covers(site, call):
    client = await site.join("/raw/cars?user=ann")
    await site.join("/raw/shop.1")
    for path, body in [
        ("/broadcast", MESSAGE),
        ("/broadcast", {"channels": ["shop.1", "cars"], "message": 1}),
        ("/channels/cars", 1),
        ("/subscribe", {"users": "ann", "channel": "cars"}),
        ("/unsubscribe", {"users": "ann", "channel": "cars"}),
        ("/close", {"channel": "cars"}),
    ]:
        assert (await call("POST", path, body, headers=NARROW))[0] == 403
    assert (await call("GET", "/channels/cars", headers=NARROW))[0] == 403
    assert await call("POST", "/broadcast", {**MESSAGE, "channel": "shop.1"}, headers=NARROW) == (
        200,
        {"connections": 1},
    )
    _, said = await call("GET", "/channels?limit=1", headers=NARROW)
    assert said == {"channels": [{"name": "shop.1", "subscribers": 1, "users": 0}], "next": None}
    await call("POST", "/broadcast", {**MESSAGE, "message": 2})
    assert await client.receive() == "2"


async def test_with_no_key_set_only_the_description_is_there(make_site):
    site = await make_site(keys=())
    for method, path in [("GET", "/info"), ("POST", "/broadcast"), ("GET", "/channels/cars"), ("POST", "/batch")]:
        status, _, said = await curl("-X", method, "-H", f"X-API-Key: {KEY}", site.url + path)
        assert (status, error_of(said)["message"]) == (403, "no key is set: [[api.keys]] in fastws.toml")
    assert (await curl(f"{site.url}/openapi.json"))[0] == 200


async def test_wrong_keys_are_throttled_and_the_right_one_is_not(site, call):
    statuses = [(await call("GET", "/info", headers={"X-API-Key": f"wrong-{n}"}))[0] for n in range(7)]
    assert statuses == [401] * 5 + [429] * 2
    assert (await call("GET", "/info"))[0] == 200


async def test_keys_are_never_logged_or_shown(site, call, caplog):
    caplog.set_level(logging.DEBUG)
    wrong = "wrong-key-wrong-key-wrong-key"
    for headers in (BEARER, {"X-API-Key": KEY}, {"X-API-Key": wrong}, {"Authorization": f"Bearer {wrong}"}):
        for method, path, body in [("GET", "/info", None), ("POST", "/send", {"users": 1}), ("GET", "/none", None)]:
            await call(method, path, body, headers=headers)
    site.api.broadcast = None  # a failure within
    await call("POST", "/channels/cars", 1, headers={"X-API-Key": READER})
    _, refusals = await call("GET", "/refusals")
    said = [record.getMessage() + repr(vars(record)) for record in caplog.records if record.name.startswith("fastws")]
    shown = "\n".join([*said, json.dumps(refusals), repr(site.api.keys), repr(KeySettings(name="shop", key=KEY))])
    shown += repr(ApiSettings(keys=(KeySettings(name="shop", key=KEY),)))
    assert said
    assert not [secret for secret in (KEY, READER, wrong) if secret in shown]


async def test_a_failure_within_names_no_internals(site, call, monkeypatch, caplog):
    def fail(*args, **options):
        raise RuntimeError("the secret of the house")

    monkeypatch.setattr(site.hub, "send", fail)
    status, said = await call("POST", "/send", {"users": "ann", "text": ""})
    assert (status, error_of(said)["message"]) == (500, "internal server error")
    assert "secret" not in json.dumps(said)
    assert said["error"]["request_id"] in caplog.text
    assert "the secret of the house" in caplog.text


# -- bodies


async def test_a_body_that_is_too_large_is_refused_before_it_is_read(make_site):
    site = await make_site(max_message_size=1000)
    limit = 1000 + 64 * 1024
    auth = ("-H", f"X-API-Key: {KEY}", "-H", "Content-Type: text/plain", "-H", "Expect:")
    for size, expected in [(limit, 200), (limit + 1, 413)]:
        status, _, said = await curl(*auth, "--data-binary", "@-", f"{site.url}/channels/cars", data=b"x" * size)
        assert status == expected, said
    chunked = ("-H", "Transfer-Encoding: chunked")
    status, _, said = await curl(
        *auth, *chunked, "--data-binary", "@-", f"{site.url}/channels/cars", data=b"x" * (limit + 1)
    )
    assert (status, error_of(said)["code"]) == (413, 413)


async def test_a_slow_body_holds_up_nobody_and_is_dropped_in_the_end(make_site):
    site = await make_site(idle_timeout=0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
    head = f"POST /api/channels/cars HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nContent-Length: 100\r\n\r\nhi"
    writer.write(head.encode())
    await writer.drain()
    status, _, _ = await curl("-H", f"X-API-Key: {KEY}", f"{site.url}/info")
    assert status == 200
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    writer.close()


async def test_a_body_in_many_pieces_arrives(site):
    client = await site.join("/raw/cars")
    reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
    head = f"POST /api/channels/cars HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nContent-Type: text/plain\r\n"
    for piece in (f"{head}Content-Length: 6\r\n\r\nab", "cd", "ef"):
        writer.write(piece.encode())
        await writer.drain()
        await asyncio.sleep(0.01)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    assert await client.receive() == "abcdef"
    writer.close()


async def test_a_peer_that_leaves_in_its_body_leaves_nothing(site, call, caplog):
    _, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
    writer.write(
        f"POST /api/channels/cars HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nContent-Length: 9\r\n\r\n".encode()
    )
    await writer.drain()
    writer.transport.abort()
    assert (await call("GET", "/info"))[0] == 200
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_many_publish_at_once_and_every_message_arrives(site, call):
    client = await site.join("/raw/cars")
    answers = await asyncio.gather(*[call("POST", "/broadcast", {**MESSAGE, "message": n}) for n in range(200)])
    assert answers == [(200, {"connections": 1})] * 200
    assert sorted([int(await client.receive()) for _ in range(200)]) == list(range(200))
