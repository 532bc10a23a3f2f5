"""The HTTP API: every route, by a real client."""

import asyncio
import base64
import json
import time

import pytest

from fastws.web.app import WebRequest
from fastws.web.operations import OPERATIONS
from tests.web.api.site import BEARER, KEY, curl


def ids(site, user):
    return [ws.id for ws in site.hub.user(user)]


def message_of(frame):
    return json.loads(frame)["message"]


@pytest.mark.parametrize(
    ("said", "raw", "wrapped"),
    [
        ({"message": {"a": [1, 2.5, None]}}, '{"a": [1, 2.5, null]}', {"a": [1, 2.5, None]}),
        ({"message": "hi"}, "hi", "hi"),
        ({"message": None}, "null", None),
        ({"text": '{"as": "it is"}'}, '{"as": "it is"}', '{"as": "it is"}'),
        ({"message": 10**30}, str(10**30), 10**30),
        ({"message": "\u00e9\U0001f600"}, "\u00e9\U0001f600", "\u00e9\U0001f600"),
    ],
)
async def test_a_broadcast_is_bare_on_own_endpoints_and_wrapped_where_the_listener_wraps(
    site, call, said, raw, wrapped
):
    plain, enveloped = await site.join("/raw/cars"), await site.join("/ws/cars")
    assert await call("POST", "/broadcast", {"channel": "cars", **said}) == (200, {"connections": 2})
    assert await plain.receive() == raw
    assert message_of(await enveloped.receive()) == wrapped


async def test_a_binary_message_comes_in_base64_and_goes_out_binary(site, call):
    client = await site.join("/raw/cars")
    body = {"channel": "cars", "base64": base64.b64encode(b"\0\xff").decode()}
    assert await call("POST", "/broadcast", body) == (200, {"connections": 1})
    assert await client.receive() == b"\0\xff"


async def test_several_channels_are_counted_each(site, call):
    await site.join("/raw/a")
    await site.join("/raw/b")
    await site.join("/ws/b")
    body = {"channels": ["a", "b", "c"], "message": 1}
    assert await call("POST", "/broadcast", body) == (200, {"connections": {"a": 1, "b": 2, "c": 0}})


async def test_a_broadcast_is_targeted(site, call):
    ann = await site.join("/raw/cars?user=ann")
    await site.join("/ws/cars?user=bob")
    cars = {"channel": "cars", "message": 1}
    assert await call("POST", "/broadcast", {**cars, "users": "ann"}) == (200, {"connections": 1})
    assert await call("POST", "/broadcast", {**cars, "users": ["ann"], "to": ids(site, "bob")}) == (
        200,
        {"connections": 2},
    )
    assert await call("POST", "/broadcast", {**cars, "exclude": ids(site, "ann")[0]}) == (200, {"connections": 1})
    assert await call("POST", "/broadcast", {**cars, "endpoint": "/raw/{channel}"}) == (200, {"connections": 1})
    assert [await ann.receive() for _ in range(3)] == ["1"] * 3


async def test_a_key_of_idempotency_sends_once_a_channel(site, call):
    client = await site.join("/raw/cars")
    body = {"channel": "cars", "message": 1, "key": "order-17"}
    for _ in range(3):
        assert await call("POST", "/broadcast", body) == (200, {"connections": 1})
    assert await call("POST", "/broadcast", {**body, "channel": "bikes"}) == (200, {"connections": 0})
    await call("POST", "/broadcast", {**body, "message": 2, "key": "order-18"})
    assert [await client.receive(), await client.receive()] == ["1", "2"]


async def test_one_line_of_curl_publishes_a_body_as_it_is(site):
    client = await site.join("/raw/shop%2F1")
    where = f"{site.url}/channels/shop%2F1"
    auth = ("-H", f"X-API-Key: {KEY}")
    for options, got in [
        (("-d", "hi, all"), "hi, all"),
        (("-H", "Content-Type: text/html", "-d", "<p>hi"), "<p>hi"),
        (("-H", "Content-Type: application/json", "-d", '{ "a" : 1 }'), '{ "a" : 1 }'),
        (("-H", "Content-Type: application/octet-stream", "--data-binary", "@-"), b"\0\xff"),
        (("-H", "Content-Type:", "--data-binary", "@-"), b"\0\xff"),
    ]:
        status, _, said = await curl(*auth, *options, where, data=b"\0\xff")
        assert (status, said) == (200, {"connections": 1})
        assert await client.receive() == got


async def test_a_published_json_body_is_a_value_where_the_listener_wraps(site, call):
    client = await site.join("/ws/cars")
    assert await call("POST", "/channels/cars", {"a": 1}) == (200, {"connections": 1})
    assert message_of(await client.receive()) == {"a": 1}


async def test_a_published_body_is_targeted_by_the_query(site, call):
    await site.join("/raw/cars?user=ann")
    await site.join("/raw/cars?user=bob")
    await site.join("/ws/cars")
    for query, count in [
        ("users=ann&users=bob", 2),
        (f"exclude={ids(site, 'ann')[0]}", 2),
        (f"to={ids(site, 'bob')[0]}&users=ann", 2),
        ("endpoint=/ws/%7Bchannel%7D", 1),
        ("", 3),
    ]:
        assert await call("POST", f"/channels/cars?{query}", 1) == (200, {"connections": count})


async def test_send_reaches_users_and_connections_wherever_they_are(site, call):
    ann, bob = await site.join("/raw/cars?user=ann"), await site.join("/ws/bikes?user=bob")
    body = {"users": "ann", "to": ids(site, "bob"), "message": "hi"}
    assert await call("POST", "/send", body) == (200, {"connections": 2})
    assert (await ann.receive(), json.loads(await bob.receive())) == ("hi", {"direct": "hi"})
    assert await call("POST", "/send", {**body, "exclude": ids(site, "bob")}) == (200, {"connections": 1})
    once = {"users": ["ann"], "text": "once", "key": "k"}
    assert await call("POST", "/send", once) == await call("POST", "/send", once) == (200, {"connections": 1})
    assert await call("POST", "/send", {"users": "ann", "text": "last"}) == (200, {"connections": 1})
    assert [await ann.receive() for _ in range(3)] == ["hi", "once", "last"]


async def test_users_and_connections_join_and_leave_channels(site, call):
    await site.join("/raw/cars?user=ann")
    await site.join("/ws/cars?user=bob")
    assert await call("POST", "/subscribe", {"users": ["ann", "bob"], "channel": "bikes"}) == (200, {"connections": 2})
    assert site.hub.channels("bikes") == [("bikes", 2, 2)]
    assert await call("POST", "/unsubscribe", {"to": ids(site, "bob"), "channel": "bikes"}) == (
        200,
        {"connections": 1},
    )
    assert site.hub.channels("bikes") == [("bikes", 1, 1)]


async def test_connections_are_closed(site, call):
    ann, bob = await site.join("/raw/cars?user=ann"), await site.join("/ws/cars?user=bob")
    body = {"users": "ann", "code": 4100, "reason": "over"}
    assert await call("POST", "/close", body) == (200, {"connections": 1})
    assert await ann.closed() == (4100, "over")
    assert await call("POST", "/close", {"channel": "cars", "to": "nobody", "session": "none"}) == (
        200,
        {"connections": 1},
    )
    assert await bob.closed() == (4001, "")


async def test_a_batch_is_carried_out_in_order_each_command_by_itself(site, call):
    ann = await site.join("/raw/cars?user=ann")
    commands = [
        {"broadcast": {"channel": "cars", "message": 1}},
        {"subscribe": {"users": "ann", "channel": "bikes"}},
        {"broadcast": {"channels": ["bikes", "cars"], "message": 2}},
        {"unsubscribe": {"users": "ann", "channel": "bikes"}},
        {"send": {"users": "ann", "text": "bye"}},
        {"close": {"users": "ann"}},
    ]
    status, said = await call("POST", "/batch", {"commands": commands})
    assert status == 200
    assert said["results"] == [
        {"connections": 1},
        {"connections": 1},
        {"connections": {"bikes": 1, "cars": 1}},
        {"connections": 1},
        {"connections": 1},
        {"connections": 1},
    ]
    assert [await ann.receive() for _ in range(4)] == ["1", "2", "2", "bye"]
    assert (await ann.closed())[0] == 4001


async def test_channels_come_in_pages(site, call):
    for path in ("/raw/a?user=ann", "/ws/a?user=ann", "/raw/b", "/ws/b2"):
        await site.join(path)
    page = {"channels": [{"name": "a", "subscribers": 2, "users": 1}], "next": "a"}
    assert await call("GET", "/channels?limit=1") == (200, page)
    status, said = await call("GET", "/channels?after=a&prefix=b")
    assert (status, [entry["name"] for entry in said["channels"]], said["next"]) == (200, ["b", "b2"], None)


async def test_a_channel_tells_who_is_there(site, call):
    await site.join("/raw/cars?user=ann")
    await site.join("/ws/cars?user=bob")
    status, said = await call("GET", "/channels/cars?limit=1")
    assert (status, said["name"], said["subscribers"], said["more"]) == (200, "cars", 2, 1)
    assert [(user["user"], user["devices"]) for user in said["users"]] == [("ann", 1)]
    assert (await call("GET", "/channels/nothing"))[0] == 404


async def test_a_user_and_a_connection_are_looked_up(site, call):
    await site.join("/raw/cars?user=ann")
    (ws,) = site.hub.user("ann")
    status, said = await call("GET", "/users/ann")
    facts = said["connections"][0]
    assert (status, said["user"], facts["id"]) == (200, "ann", ws.id)
    assert (facts["endpoint"], facts["path"], facts["channels"]) == ("/raw/{channel}", "/raw/cars", ["cars"])
    assert facts["remote_address"] == "127.0.0.1"
    assert (facts["pending"], abs(facts["since"] - time.time()) < 10) == (0, True)
    assert await call("GET", f"/connections/{ws.id}") == (200, facts)
    assert (await call("GET", "/users/eve"))[0] == (await call("GET", "/connections/none"))[0] == 404


async def test_users_may_be_whole_numbers(site, call):
    await site.join("/raw/cars?user=ann")
    assert await call("POST", "/send", {"users": [7, "ann"], "message": 1}) == (200, {"connections": 1})


async def test_the_server_tells_what_is_on_it(site, call):
    await site.join("/raw/cars?user=ann")
    status, said = await call("GET", "/info")
    assert (status, said["is_ready"], said["connections"]) == (200, True, 1)
    assert said["endpoints"][0] == {"path": "/raw/{channel}", "connections": 1, "channels": 1, "users": 1}


async def test_refusals_are_listed_the_latest_first_without_the_query(site, call):
    await curl(f"{site.url}/info?token=secret", "-A", "a browser")
    await curl("-H", "Origin: http://evil", site.url.replace("/api", "/raw/cars?token=secret"))
    status, said = await call("GET", "/refusals?limit=2")
    assert status == 200
    newest, older = said["refusals"]
    assert (newest["status"], newest["path"], newest["message"]) == (
        426,
        "/raw/cars",
        "this path only accepts WebSocket connections",
    )
    assert (older["status"], older["path"], older["user_agent"]) == (401, "/api/info", "a browser")
    assert older["remote_address"] == "127.0.0.1"
    assert "secret" not in json.dumps(said)


async def test_a_refused_handshake_is_among_the_refusals(site, call):
    upgrade = ("-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Version: 13")
    status, _, said = await curl(
        *upgrade, "-H", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "-H", "Origin: http://x", f"{site.url}/none"
    )
    _, refusals = await call("GET", "/refusals?limit=1")
    assert status == 404
    assert refusals["refusals"][0]["request_id"] == said["error"]["request_id"]
    assert refusals["refusals"][0]["origin"] == "http://x"


async def test_head_is_answered_like_get_without_a_body(site):
    status, fields, body = await curl("-I", "-H", f"Authorization: {BEARER['Authorization']}", f"{site.url}/info")
    assert (status, body, fields["content-type"]) == (200, b"", "application/json")


async def test_a_batch_with_a_fault_does_nothing(site, call):
    client = await site.join("/raw/cars")
    commands = [{"broadcast": {"channel": "cars", "message": n}} for n in range(3)]
    commands[2]["broadcast"]["endpoint"] = "/nowhere"
    status, said = await call("POST", "/batch", {"commands": commands})
    assert (status, said["error"]["field"]) == (400, "$.commands[2].broadcast.endpoint")
    await call("POST", "/broadcast", {"channel": "cars", "message": "after"})
    assert await client.receive() == "after"


async def test_a_command_that_fails_in_a_batch_leaves_the_others(site, call, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("the secret of the house")

    monkeypatch.setattr(site.hub, "send", fail)
    await site.join("/raw/cars")
    commands = [{"send": {"users": "ann", "text": ""}}, {"broadcast": {"channel": "cars", "message": 1}}]
    status, said = await call("POST", "/batch", {"commands": commands})
    failed, done = said["results"]
    assert (status, failed["error"]["message"], done) == (200, "internal server error", {"connections": 1})


async def test_batches_that_come_at_once_have_each_a_turn_of_the_loop(site, monkeypatch):
    loop, turn, turns = asyncio.get_running_loop(), 0, []

    def count():
        nonlocal turn
        turn += 1
        loop.call_soon(count)

    async def receive():
        return {"type": "http.request", "body": b'{"commands": [{"send": {"users": "ann", "text": ""}}]}'}

    monkeypatch.setattr(site.hub, "send", lambda *args, **options: turns.append(turn))
    headers = [(b"x-api-key", KEY.encode()), (b"content-type", b"application/json")]
    scope = {"method": "POST", "path": "", "raw_path": b"/", "query_string": b"", "headers": headers, "client": None}
    handle = site.api.handler(next(operation for operation in OPERATIONS if operation.name == "batch"))
    count()
    answers = await asyncio.gather(*(handle(WebRequest(scope, receive)) for _ in range(5)))
    assert [answer.status for answer in answers] == [200] * 5
    assert len(set(turns)) == 5
