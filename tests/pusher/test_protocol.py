"""The protocol, frame by frame: what is answered, with which code, and to whom."""

import asyncio
import json

import pytest

from fastws.pusher import silence
from fastws.pusher.names import socket_id_of, ws_id_of

from ..lib.support import eventually
from .conftest import KEY, library

PONG = ("pusher:pong", None, {})
INVALID = 4200


def code_of(frame):
    event, channel, data = frame
    assert (event, channel) == ("pusher:error", None), frame
    return data["code"]


# -- coming and going


@pytest.mark.parametrize(
    ("key", "query", "code"),
    [
        ("no-key", "?protocol=7", 4001),
        (KEY, "", 4008),
        (KEY, "?protocol=seven", 4006),
        (KEY, "?protocol=-7", 4006),
        (KEY, "?protocol=3", 4007),
        (KEY, "?protocol=8", 4007),
    ],
)
async def test_whoever_cannot_be_served_is_told_why_and_closed(serve_pusher, dial_pusher, key, query, code):
    app = await serve_pusher()
    wire = await dial_pusher(app, query, key)
    await wire.send("pusher:subscribe", {"channel": "cars"})
    assert code_of(await wire.receive()) == code
    assert (await wire.closed())[0] == code
    assert app.manager.channels == {}


async def test_older_clients_are_served(serve_pusher, dial_pusher):
    app = await serve_pusher(activity_timeout=77)
    for version in (4, 5, 6, 7):
        wire = await dial_pusher(app, f"?protocol={version}&client=js&version=1")
        event, _, data = await wire.receive()
        assert event == "pusher:connection_established"
        assert data["activity_timeout"] == 77


async def test_connections_over_the_quota_are_refused(serve_pusher, dial_pusher):
    app = await serve_pusher(max_connections=1)
    one = await dial_pusher(app)
    assert code_of(await (await dial_pusher(app, "?protocol=7")).receive()) == 4004
    await one.client.close()
    await eventually(lambda: app.manager.connection_count == 0)
    await dial_pusher(app)


async def test_socket_ids_stand_for_connections_on_any_node(serve_pusher, dial_pusher):
    app = await serve_pusher()
    ids = {(await dial_pusher(app)).socket_id for _ in range(3)}
    assert {ws_id_of(each) for each in ids} == set(app.manager.connections)
    assert all(socket_id_of(ws_id_of(each)) == each for each in ids)
    assert socket_id_of("00000000ff-a-10000000000") == f"255.{0x10000000000 << 32 | 10}"
    for wrong in ("", "1", "1.", ".1", "1.2.3", "a.b", "-1.2", "1" * 99 + ".1"):
        assert ws_id_of(wrong) is None


async def test_a_stop_has_clients_come_back_at_once(serve_pusher, dial_pusher):
    app = await serve_pusher()
    wire = await dial_pusher(app)
    await app.server.stop()
    assert (await wire.closed())[0] == 4200


async def test_ping_is_answered(serve_pusher, dial_pusher):
    wire = await dial_pusher(await serve_pusher())
    await wire.send("pusher:ping")
    assert await wire.receive() == PONG


async def test_the_silent_are_asked_and_closed_if_they_do_not_answer(serve_pusher, dial_pusher, monkeypatch):
    monkeypatch.setattr(silence, "PONG_TIMEOUT", 0.2)
    app = await serve_pusher()
    app.listener._silence._seconds = 0.2
    answering, silent = await dial_pusher(app), await dial_pusher(app)
    for _ in range(3):
        assert await answering.receive() == ("pusher:ping", None, {})
        await answering.send("pusher:pong")
    assert await silent.receive() == ("pusher:ping", None, {})
    assert code_of(await silent.receive()) == 4201
    assert (await silent.closed())[0] == 4201
    assert app.manager.connection_count == 1
    await answering.client.close()
    await eventually(lambda: app.listener._silence._timer is None)


# -- subscriptions


async def test_channels_are_joined_and_left(serve_pusher, dial_pusher):
    app = await serve_pusher(max_channels=2)
    wire = await dial_pusher(app)
    for channel in ("cars", "private-cars"):
        assert await wire.subscribe(channel) == ("pusher_internal:subscription_succeeded", channel, {})
    await wire.send("pusher:subscribe", '{"channel": "cars"}')  # as some clients have it
    again = await wire.receive()
    assert again == ("pusher_internal:subscription_succeeded", "cars", {})
    assert app.manager.channels == {"cars": 1, "private-cars": 1}
    assert code_of(await wire.subscribe("bikes")) == 4100
    assert (await wire.receive())[:2] == ("pusher:subscription_error", "bikes")
    await wire.send("pusher:unsubscribe", {"channel": "cars"})
    await wire.send("pusher:unsubscribe", {"channel": "where it is not"})
    assert (await wire.subscribe("bikes"))[0] == "pusher_internal:subscription_succeeded"


async def test_a_wrong_signature_is_4009_and_the_channel_stays_closed(serve_pusher, dial_pusher):
    app = await serve_pusher()
    wire = await dial_pusher(app)
    wrong = ("", "x", f"{KEY}:", f"{KEY}:0123", "other:{}", f"{KEY}:{{}}0", f"{KEY}:ä")
    for channel in ("private-a", "presence-a", "private-encrypted-a", "private-cache-a"):
        data = {"user_id": "1"} if channel.startswith("presence-") else None
        right = library().authenticate(channel, wire.socket_id, data)["auth"].partition(":")[2]
        for auth in wrong:
            assert code_of(await wire.subscribe(channel, auth.format(right), data)) == 4009
            event, where, error = await wire.receive()
            assert (event, where) == ("pusher:subscription_error", channel)
            assert (error["type"], error["status"]) == ("AuthError", 401)
    assert app.manager.channels == {}


async def test_a_signature_is_for_one_socket_one_channel_and_one_user(serve_pusher, dial_pusher):
    app = await serve_pusher()
    one, two = await dial_pusher(app), await dial_pusher(app)
    signed = library().authenticate("private-a", one.socket_id)["auth"]
    for wire, channel in ((two, "private-a"), (one, "private-b")):
        assert code_of(await wire.subscribe(channel, signed)) == 4009
    ann = library().authenticate("presence-a", two.socket_id, {"user_id": "ann"})
    await two.so_far()
    data = {"channel": "presence-a", "auth": ann["auth"], "channel_data": '{"user_id": "bob"}'}
    await two.send("pusher:subscribe", data)
    assert code_of(await two.receive()) == 4009
    del data["channel_data"]
    await two.so_far()
    await two.send("pusher:subscribe", data)
    assert code_of(await two.receive()) == 4009
    await two.so_far()
    await two.send("pusher:subscribe", {"channel": "#server-to-user-ann"})
    assert code_of(await two.receive()) == 4009


async def test_members_are_users_and_only_their_first_and_last_socket_is_told(serve_pusher, dial_pusher):
    app = await serve_pusher()
    ann, phone, bob = [await dial_pusher(app) for _ in range(3)]
    there = await ann.join("presence-a", "ann", name="Ann")
    assert there == {"count": 1, "ids": ["ann"], "hash": {"ann": {"name": "Ann"}}}
    await phone.join("presence-a", "ann", name="Ann on the phone")
    assert await ann.so_far() == []
    there = await bob.join("presence-a", 7)
    assert there == {"count": 2, "ids": ["ann", "7"], "hash": {"ann": {"name": "Ann"}, "7": {}}}
    for wire in (ann, phone):
        assert await wire.so_far() == [
            ("pusher_internal:member_added", "presence-a", {"user_id": "7", "user_info": {}})
        ]
    assert await ann.join("presence-a", "ann", name="Ann") == there
    assert await bob.so_far() == []
    await ann.client.close()
    assert await bob.so_far() == []
    await phone.send("pusher:unsubscribe", {"channel": "presence-a"})
    assert await bob.receive() == ("pusher_internal:member_removed", "presence-a", {"user_id": "ann"})
    assert await phone.so_far() == []
    await bob.client.close()
    await eventually(lambda: not app.listener.rooms._rooms)


async def test_a_member_may_be_somebody_else_in_another_channel(serve_pusher, dial_pusher):
    app = await serve_pusher()
    wire, other = await dial_pusher(app), await dial_pusher(app)
    await other.join("presence-b", "bob")
    await wire.join("presence-a", "ann")
    assert (await wire.join("presence-b", "nick"))["ids"] == ["bob", "nick"]
    assert (await other.receive())[2]["user_id"] == "nick"
    assert list(app.manager.users) == ["bob", "ann"]


async def test_a_cache_channel_keeps_its_last_event(serve_pusher, dial_pusher):
    app = await serve_pusher()
    wire = await dial_pusher(app)
    for channel in ("cache-a", "private-cache-a", "private-encrypted-cache-a"):
        await wire.subscribe(channel)
        assert await wire.receive() == ("pusher:cache_miss", channel, {})
    for number in range(3):
        await app.call("trigger", "cache-a", "news", {"no": number}, wire.socket_id)
    late = await dial_pusher(app)
    await late.subscribe("cache-a")
    assert await late.receive() == ("news", "cache-a", {"no": 2})
    assert await wire.so_far() == []
    there = await late.join("presence-cache-a", "ann")
    assert there["count"] == 1
    assert await late.receive() == ("pusher:cache_miss", "presence-cache-a", {})


# -- client events


async def test_client_events_reach_the_other_members_alone(serve_pusher, dial_pusher):
    app = await serve_pusher()
    ann, bob, stranger = [await dial_pusher(app) for _ in range(3)]
    for number, wire in enumerate((ann, bob)):
        await wire.subscribe("private-a")
        await wire.join("presence-a", f"user {number}")
    await ann.so_far()
    await ann.send("client-hi", {"to": "all", "n": 1.5}, channel="private-a")
    await ann.send("client-hi", "text", channel="presence-a")
    assert await bob.receive() == ("client-hi", "private-a", {"to": "all", "n": 1.5})
    frame = json.loads(await bob.client.receive())
    assert frame == {"event": "client-hi", "data": "text", "channel": "presence-a", "user_id": "user 0"}
    assert await ann.so_far() == await stranger.so_far() == []


REFUSED = {
    "members": [
        ("private-elsewhere", "client-hi", 1, 4009),
        (None, "client-hi", 1, 4009),
        ("public", "client-hi", 1, 4009),
        ("private-encrypted-a", "client-hi", 1, 4009),
        ("private-a", "client-" + "x" * 200, 1, 4301),
        ("private-a", "client-hi", "x" * 11_000, 4301),
        ("private-a", "hi", 1, INVALID),
        ("private-a", "pusher:what", 1, INVALID),
        ("private-a", "pusher_internal:member_added", {"user_id": "x"}, INVALID),
    ],
    "all": [("private-encrypted-a", "client-hi", 1, 4009), ("elsewhere", "client-hi", 1, 4009)],
    "none": [("private-a", "client-hi", 1, 4301)],
}


@pytest.mark.parametrize("setting", REFUSED)
async def test_what_may_not_be_sent_is_answered_and_goes_nowhere(serve_pusher, dial_pusher, setting):
    app = await serve_pusher(client_events=setting)
    wire, other = await dial_pusher(app), await dial_pusher(app)
    for each in ("private-a", "public", "private-encrypted-a"):
        await wire.subscribe(each)
        await other.subscribe(each)
    for channel, event, data, code in REFUSED[setting]:
        await wire.send(event, data, **({} if channel is None else {"channel": channel}))
        assert code_of(await wire.receive()) == code
    assert await other.so_far() == []


async def test_where_all_may_members_of_public_channels_may(serve_pusher, dial_pusher):
    app = await serve_pusher(client_events="all")
    wire, other = await dial_pusher(app), await dial_pusher(app)
    for each in (wire, other):
        await each.subscribe("public")
    await wire.send("client-hi", 1, channel="public")
    assert await other.receive() == ("client-hi", "public", 1)


async def test_whoever_sends_too_fast_is_told_and_stays(serve_pusher, dial_pusher):
    app = await serve_pusher(events_per_second=2)
    wire, other = await dial_pusher(app), await dial_pusher(app)
    for each in (wire, other):
        await each.subscribe("private-a")
    for number in range(50):
        await wire.send("client-hi", number, channel="private-a")
    refused = [code_of(frame) for frame in await wire.so_far()]
    got = [data for _, _, data in await other.so_far()]
    assert set(refused) == {4301}
    assert len(refused) + len(got) == 50
    assert got[:2] == [0, 1]
    async with asyncio.timeout(20):
        while not await other.so_far():
            await wire.send("client-hi", "later", channel="private-a")


# -- users


async def test_a_signature_of_the_backend_signs_in(serve_pusher, dial_pusher):
    app = await serve_pusher()
    wire = await dial_pusher(app)
    signed = library().authenticate_user(wire.socket_id, {"id": "ann", "name": "Ann"})
    await wire.send("pusher:signin", {**signed, "auth": signed["auth"][:-1] + "g"})
    assert code_of(await wire.receive()) == 4009
    await wire.send("pusher:signin", signed)
    event, _, data = await wire.receive()
    assert event == "pusher:signin_success"
    assert json.loads(data["user_data"]) == {"id": "ann", "name": "Ann"}
    assert (await wire.subscribe("#server-to-user-ann"))[0] == "pusher_internal:subscription_succeeded"
    assert code_of(await wire.subscribe("#server-to-user-bob")) == 4009
    await wire.so_far()
    assert list(app.manager.users) == ["ann"]
    await wire.send("pusher:signin", library().authenticate_user(wire.socket_id, {"id": "bob"}))
    assert code_of(await wire.receive()) == 4009
    await app.call("terminate_user_connections", "ann")
    assert (await wire.closed())[0] == 4009
    await eventually(lambda: list(app.manager.users) == [])


async def test_terminating_closes_those_who_are_known_from_a_presence_channel(serve_pusher, dial_pusher):
    app = await serve_pusher()
    wire, other = await dial_pusher(app), await dial_pusher(app)
    await wire.join("presence-a", "ann")
    await other.join("presence-a", "bob")
    await app.call("terminate_user_connections", "ann")
    assert (await wire.closed())[0] == 4009
    assert (await other.receive())[0] == "pusher_internal:member_removed"


# -- hostile input


SENSELESS = [
    "",
    "{",
    "[]",
    "null",
    "1",
    '{"event": 1}',
    '{"data": {}}',
    '{"event": "pusher:subscribe"}',
    '{"event": "pusher:subscribe", "data": "cars"}',
    '{"event": "pusher:subscribe", "data": {"channel": 1}}',
    '{"event": "pusher:subscribe", "data": {"channel": null}}',
    '{"event": "pusher:unsubscribe", "data": []}',
    '{"event": "pusher:signin", "data": {"auth": "x"}}',
    '{"event": "client-x", "channel": 1, "data": {}}',
    '{"event": "client-\\ud800", "channel": "private-a", "data": {}}',
    '{"event": "client-x", "channel": "private-a", "data": "\\q"}',
    '{"event": "client-x", "channel": "private-a", "data": ' + "[" * 5000 + "]" * 5000 + "}",
    '{"event": "client-x", "channel": "private-a", "data": ' + "[" * 61 + "]" * 61 + "}",
    "[" * 20_000,
    b"\x00\xff",
    b'{"event": "pusher:ping"}',
]


async def test_a_frame_that_makes_no_sense_is_answered_and_harms_nobody(serve_pusher, dial_pusher):
    app = await serve_pusher()
    wire, other = await dial_pusher(app), await dial_pusher(app)
    for each in (wire, other):
        await each.subscribe("private-a")
    for message in SENSELESS:
        await wire.client.send(message)
        assert code_of(await wire.receive()) == INVALID, message
        await wire.send("pusher:ping")
        assert await wire.receive() == PONG
    assert await other.so_far() == []


async def test_a_name_that_no_channel_has_is_refused(serve_pusher, dial_pusher):
    wire = await dial_pusher(await serve_pusher())
    for channel in ("", "a b", "a:b", "private-a:b", "ä", "x" * 201, "#", "#x", "#server-to-user-", "a\n", "a/b"):
        await wire.send("pusher:subscribe", {"channel": channel, "auth": "x:y"})
        assert code_of(await wire.receive()) == 4009, channel


NOBODY = [
    "",
    "{}",
    "[]",
    "x",
    '{"user_id": ""}',
    '{"user_id": null}',
    '{"user_id": "' + "x" * 129 + '"}',
    '{"user_id": 1.5}',
    '{"user_id": "a", "user_info": ' + "[" * 100 + "]" * 100 + "}",
    '{"user_id": "a", "user_info": 1' + "0" * 30 + "}",
    '{"user_id": "\\ud800"}',
]


async def test_channel_data_that_names_nobody_is_refused_though_it_is_signed(serve_pusher, dial_pusher):
    app = await serve_pusher()
    wire = await dial_pusher(app)
    for data in NOBODY:
        auth = f"{KEY}:{app.listener.application.sign(f'{wire.socket_id}:presence-a:{data}'.encode())}"
        await wire.send("pusher:subscribe", {"channel": "presence-a", "auth": auth, "channel_data": data})
        assert code_of(await wire.receive()) == INVALID, data
    assert app.manager.channels == {}
    assert app.listener.rooms._rooms == {}


async def test_a_frame_that_is_too_large_closes_its_connection_alone(serve_pusher, dial_pusher):
    app = await serve_pusher()
    wire, other = await dial_pusher(app), await dial_pusher(app)
    await wire.client.send("x" * 30_000)
    assert (await wire.closed())[0] == 1009
    await other.send("pusher:ping")
    assert await other.receive() == PONG
