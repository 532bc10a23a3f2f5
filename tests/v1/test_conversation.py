"""docs/protocol.md: what a client sends, and what it is answered."""

import json
import time

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from fastws.hub import Hub

from ..lib.support import eventually
from ..lib.v1 import Named, rules


async def test_a_script_of_ten_lines_talks(serve):
    site = await serve()
    async with connect(f"{site.url}/ws?user=ann") as ws:
        await ws.send(json.dumps({"type": "hello", "version": 1, "channels": {"cars": None}}))
        welcome, subscribed = json.loads(await ws.recv()), json.loads(await ws.recv())
        await ws.send(json.dumps({"type": "publish", "id": 1, "channel": "cars", "message": {"text": "hi"}}))
        message, ack = json.loads(await ws.recv()), json.loads(await ws.recv())
    assert (welcome["type"], subscribed["type"]) == ("welcome", "subscribed")
    assert (message["type"], message["message"]) == ("message", {"text": "hi"})
    assert ack == {"type": "ack", "id": 1, "connections": 1}


# -- hello


async def test_the_welcome_says_who_and_what_is(serve):
    site = await serve(Named(rules("*"), heartbeat=7))
    client = await site.dial("/ws?user=ann")
    await client.hello()
    assert client.welcome == {
        "type": "welcome",
        "version": 1,
        "id": next(iter(site.manager.connections)),
        "user": "ann",
        "expires": None,
        "heartbeat": 7,
        "retry": [0.5, 20],
        "data": None,
    }
    assert client.ws.subprotocol == "fastws.v1"


async def test_a_client_that_offers_no_subprotocol_is_served_all_the_same(serve):
    site = await serve()
    client = await site.join(None, "cars", subprotocols=None)
    assert client.ws.subprotocol is None
    assert client.welcome["user"] is None


async def test_each_channel_of_hello_is_answered(serve):
    site = await serve(Named(rules("cars", {"pattern": "closed"})))
    client = await site.dial()
    channels = {"cars": None, "closed": "12-3", "nowhere": None, "": None}
    answers = await client.hello(channels=channels, client="test/1")
    assert answers[0] == {
        "type": "subscribed",
        "channel": "cars",
        "subscribers": 1,
        "log": None,
        "position": None,
        "recovered": False,
        "reason": "new",
        "count": 0,
    }
    assert [answer["code"] for answer in answers[1:]] == ["forbidden", "unknown_channel", "bad_channel"]
    assert [answer.get("channel") for answer in answers[1:]] == ["closed", "nowhere", None]
    assert site.manager.channels == {"cars": 1}


async def test_the_channel_of_the_path_is_joined_after_hello_and_once(serve):
    site = await serve()
    client = await site.dial("/ws/caf%C3%A9")
    await client.ws.ping()
    assert site.manager.channels == {}
    assert [answer["channel"] for answer in await client.hello(channels={"café": None})] == ["café"]
    assert await client.so_far() == []
    assert site.manager.channels == {"café": 1}


@pytest.mark.parametrize(
    "frame",
    [
        "{}",
        '{"type": "subscribe", "channel": "cars"}',
        '{"type": "hello"}',
        '{"type": "hello", "version": 2}',
        '{"type": "hello", "version": 1, "channels": []}',
        "nothing",
        b"binary",
    ],
)
async def test_the_first_frame_has_to_be_a_hello(serve, frame):
    site = await serve()
    client = await site.dial()
    answer = await client.ask(frame)
    assert (answer["type"], answer["retry"]) == ("error", False)
    assert answer["code"] == ("bad_json" if frame in ("nothing", b"binary") else "bad_field")
    assert await client.closed() == (1008, "the first frame is a hello")


async def test_whoever_does_not_say_hello_in_time_is_closed_and_nobody_else(serve):
    site = await serve(Named(rules("*"), hello_timeout=1))
    talker = await site.join("ann", "cars")
    silent = [await site.dial() for _ in range(2)]
    begin = time.monotonic()
    for client in silent:
        assert await client.closed() == (1008, "the first frame is a hello")
    assert time.monotonic() - begin > 0.5
    assert await talker.so_far() == []


async def test_nothing_is_delivered_before_hello(serve):
    site = await serve()
    hub = Hub(site.server)
    client = await site.dial("/ws?user=ann")
    await eventually(lambda: "ann" in site.manager.users)
    assert hub.subscribe("cars", users="ann") == 1
    assert hub.broadcast("cars", "lost") == 0
    assert hub.send("lost too", users="ann") == 0
    [subscribed] = [*await client.hello(), await client.receive()]
    assert (subscribed["type"], subscribed["channel"]) == ("subscribed", "cars")
    assert hub.broadcast("cars", "here") == 1
    assert (await client.receive())["message"] == "here"


async def test_a_second_hello_is_an_error(serve):
    client = await (await serve()).join()
    answer = await client.ask({"type": "hello", "version": 1, "id": 5})
    assert (answer["code"], answer["id"]) == ("bad_field", 5)


# -- channels


async def test_subscribe_and_unsubscribe_are_answered_with_and_without_an_id(serve):
    site = await serve()
    other = await site.join(None, "cars")
    client = await site.join()
    subscribed = await client.ask({"type": "subscribe", "id": "a", "channel": "cars", "position": "1-2"})
    assert (subscribed["type"], subscribed["id"], subscribed["subscribers"]) == ("subscribed", "a", 2)
    again = await client.ask({"type": "subscribe", "channel": "cars"})
    assert again == {key: value for key, value in subscribed.items() if key != "id"}
    assert site.manager.channels == {"cars": 2}
    left = await client.ask({"type": "unsubscribe", "id": 9, "channel": "cars"})
    assert left == {"type": "unsubscribed", "id": 9, "channel": "cars", "reason": "asked"}
    assert site.manager.channels == {"cars": 1}
    assert (await client.ask({"type": "unsubscribe", "channel": "cars"}))["code"] == "not_a_member"
    assert await other.so_far() == []


async def test_whoever_is_taken_out_of_a_channel_or_put_into_one_is_told(serve):
    site = await serve()
    client = await site.join("ann", "cars")
    site.manager.unsubscribe_user("ann", "cars")
    assert await client.receive() == {"type": "unsubscribed", "channel": "cars", "reason": "kicked"}
    site.manager.subscribe_user("ann", "boats")
    subscribed = await client.receive()
    assert (subscribed["type"], subscribed["channel"], subscribed["subscribers"]) == ("subscribed", "boats", 1)
    assert await client.so_far() == []


async def test_a_connection_is_in_at_most_max_channels(serve):
    site = await serve(Named(rules("*"), max_channels=3))
    client = await site.join(None, "a", "b")
    assert (await client.ask({"type": "subscribe", "channel": "c"}))["type"] == "subscribed"
    error = await client.ask({"type": "subscribe", "channel": "d", "id": 1})
    assert (error["code"], error["channel"], error["id"]) == ("too_many", "d", 1)
    assert (await client.ask({"type": "subscribe", "channel": "c"}))["type"] == "subscribed"  # it is there already


async def test_a_full_channel_takes_nobody_else(serve):
    site = await serve(Named(rules({"pattern": "*", "subscribe": "anyone", "max_subscribers": 2})))
    first, _ = await site.join(None, "cars"), await site.join(None, "cars")
    third = await site.join()
    assert (await third.ask({"type": "subscribe", "channel": "cars"}))["code"] == "too_many"
    await first.ask({"type": "unsubscribe", "channel": "cars"})
    assert (await third.ask({"type": "subscribe", "channel": "cars"}))["subscribers"] == 2


# -- messages


async def test_a_message_reaches_all_members_and_says_whose_it_is_and_when(serve):
    site = await serve()
    ann, bob, eve = await site.join("ann", "cars"), await site.join("bob", "cars"), await site.join("eve", "boats")
    before = time.time() * 1000 - 1
    await ann.send({"type": "publish", "channel": "cars", "message": [1, "two", None]})
    message = await bob.receive()
    assert before <= message.pop("time") <= time.time() * 1000 + 1
    assert message == {
        "type": "message",
        "channel": "cars",
        "message": [1, "two", None],
        "from": {"user": "ann", "id": ann.welcome["id"]},
    }
    assert [frame["type"] for frame in await ann.so_far()] == ["message"]  # no ack without an id
    assert await eve.so_far() == []


@pytest.mark.parametrize("message", [None, True, 0, -1.5, "", "text", '\u2028é"\\', [], {}, {"type": "hello"}, [[{}]]])
async def test_any_json_arrives_as_it_was(serve, message):
    client = await (await serve()).join("ann", "cars")
    received = await client.ask({"type": "publish", "channel": "cars", "message": message})
    assert received["message"] == message
    assert type(received["message"]) is type(message)


async def test_numbers_pass_that_no_parser_here_could_keep(serve):
    client = await (await serve()).join("ann", "cars")
    number = "123456789012345678901234567890.000000000000000000001"
    await client.send(f'{{"type": "publish", "channel": "cars", "message": {{"n": {number}}}}}')
    assert number in await client.text()


async def test_exclude_self_leaves_the_sender_out_and_its_other_devices_in(serve):
    site = await serve()
    here, there = await site.join("ann", "cars"), await site.join("ann", "cars")
    ack = await here.ask({"type": "publish", "id": 1, "channel": "cars", "message": 1, "exclude": "self"})
    assert ack == {"type": "ack", "id": 1, "connections": 1}
    assert (await there.receive())["message"] == 1


async def test_what_comes_over_http_is_from_nobody(serve):
    site = await serve()
    client = await site.join("ann", "cars")
    hub = site.manager.listener.hub
    hub.broadcast("cars", {"hi": 1})
    hub.broadcast("cars", b"\x00\xff")
    hub.send("psst", users="ann")
    hub.send(b"\xff", to=client.welcome["id"])
    message, binary, direct, bare = [await client.receive() for _ in range(4)]
    assert (message["message"], message["from"]) == ({"hi": 1}, None)
    assert (binary["base64"], "message" in binary) == ("AP8=", False)
    assert (direct["type"], direct["message"], set(direct)) == ("direct", "psst", {"type", "message", "time"})
    assert (bare["type"], bare["base64"]) == ("direct", "/w==")


# -- whispers


async def test_a_whisper_reaches_the_named_and_the_senders_other_devices_and_nobody_else(serve):
    site = await serve()
    ann, tab = await site.join("ann", "cars"), await site.join("ann", "cars")
    bob, phone = await site.join("bob", "cars"), await site.join("bob", "cars")
    away = await site.join("bob", "boats")
    eve, unnamed = await site.join("eve", "cars"), await site.join(None, "cars")
    ack = await ann.ask(
        {"type": "whisper", "id": 1, "channel": "cars", "to": ["bob", "carol", "bob"], "message": "psst"}
    )
    assert ack == {"type": "ack", "id": 1, "connections": 3}
    for client in (bob, phone, tab):
        whisper = await client.receive()
        assert whisper.pop("time") > 0
        assert whisper == {
            "type": "whisper",
            "channel": "cars",
            "message": "psst",
            "from": {"user": "ann", "id": ann.welcome["id"]},
            "to": ["bob"],
        }
    for client in (ann, bob, phone, tab, away, eve, unnamed):
        assert await client.so_far() == []


async def test_a_whisper_to_nobody_who_is_there_is_an_error(serve):
    site = await serve()
    ann, _ = await site.join("ann", "cars"), await site.join("bob", "boats")
    for to in (["bob"], ["nobody", 7], ["ann"]):
        error = await ann.ask({"type": "whisper", "id": 1, "channel": "cars", "to": to, "message": 1})
        assert (error["code"], error["id"], error["channel"]) == ("no_recipient", 1, "cars")


async def test_whispers_need_membership_and_the_rule(serve):
    site = await serve(Named(rules("cars", {"pattern": "quiet", "subscribe": "anyone"})))
    ann = await site.join("ann", "quiet")
    whisper = {"type": "whisper", "to": ["ann"], "message": 1}
    assert (await ann.ask(whisper | {"channel": "cars"}))["code"] == "not_a_member"
    assert (await ann.ask(whisper | {"channel": "quiet"}))["code"] == "forbidden"
    assert (await ann.ask(whisper | {"channel": "nowhere"}))["code"] == "unknown_channel"


# -- typing and presence


async def test_typing_is_told_to_others_once_in_two_seconds(serve, monkeypatch):
    site = await serve()
    ann, tab, bob = await site.join("ann", "cars"), await site.join("ann", "cars"), await site.join("bob", "cars")
    moment = 1000.0
    monkeypatch.setattr("fastws.v1.listener.clock", lambda: moment)
    for _ in range(3):
        assert await ann.ask({"type": "typing", "id": 1, "channel": "cars"}) == {"type": "ack", "id": 1}
    await tab.send({"type": "typing", "channel": "cars"})
    assert await tab.so_far() == []
    assert await bob.so_far() == [{"type": "typing", "channel": "cars", "user": "ann"}]
    await bob.send({"type": "typing", "channel": "cars"})
    assert await bob.so_far() == []
    moment += 2
    await ann.ask({"type": "typing", "id": 2, "channel": "cars"})
    assert len(await bob.so_far()) == 1
    assert len(site.manager.listener._typing) == 1  # bob's is forgotten


async def test_typing_needs_a_user_who_may_publish(serve):
    site = await serve(Named(rules("cars", {"pattern": "news", "subscribe": "anyone"})))
    unnamed, ann = await site.join(None, "cars"), await site.join("ann", "news")
    typing = {"type": "typing", "id": 1}
    assert (await unnamed.ask(typing | {"channel": "cars"}))["code"] == "unauthenticated"
    assert (await ann.ask(typing | {"channel": "news"}))["code"] == "forbidden"
    assert (await ann.ask(typing | {"channel": "cars"}))["code"] == "not_a_member"


async def test_presence_is_told_where_the_rule_says_so(serve):
    site = await serve(Named(rules({"pattern": "room.*", "subscribe": "anyone", "presence": True}, "*")))
    ann = await site.join("ann")
    await ann.send({"type": "subscribe", "channel": "room.1"})
    subscribed, listed = await ann.receive(), await ann.receive()
    assert (subscribed["type"], listed["event"], len(listed["users"])) == ("subscribed", "list", 1)
    bob = await site.join("bob")
    await bob.send({"type": "subscribe", "channel": "room.1"})
    assert [(await bob.receive())["type"] for _ in range(2)] == ["subscribed", "presence"]
    joined = await ann.receive()
    assert (joined["event"], joined["user"], joined["channel"]) == ("join", "bob", "room.1")
    answer = await bob.ask({"type": "presence", "id": 4, "channel": "room.1"})
    assert (answer["type"], answer["event"], answer["id"]) == ("presence", "list", 4)
    assert [(one["user"], one["devices"]) for one in answer["users"]] == [("ann", 1), ("bob", 1)]
    assert all(one["since"].endswith("+00:00") for one in answer["users"])
    await bob.ws.close()
    left = await ann.receive()
    assert (left["event"], left["user"]) == ("leave", "bob")
    assert (await ann.ask({"type": "presence", "channel": "cars"}))["code"] == "not_a_member"
    await ann.ask({"type": "subscribe", "channel": "cars"})
    assert (await ann.ask({"type": "presence", "channel": "cars"}))["code"] == "forbidden"
    await ann.ask({"type": "unsubscribe", "channel": "room.1"})
    assert site.manager.listener._watched == set()


# -- the rest


async def test_a_call_that_nobody_answers_is_refused(serve):
    client = await (await serve()).join()
    error = await client.ask({"type": "call", "id": 1, "method": "time", "params": [1]})
    assert (error["code"], error["id"], error["retry"]) == ("refused", 1, False)


async def test_a_token_where_there_are_none_is_refused(serve):
    client = await (await serve()).join()
    assert (await client.ask({"type": "authenticate", "id": 1, "token": "x"}))["code"] == "refused"


async def test_the_server_gives_signs_of_life_to_all_who_said_hello(serve):
    site = await serve(Named(rules("*"), heartbeat=0.05))
    clients = [await site.join(), await site.join()]
    silent = await site.dial()
    for client in clients:
        assert [await client.text() for _ in range(2)] == ["{}", "{}"]
    await silent.hello()
    assert await silent.text() == "{}"


async def test_signs_of_life_are_not_answered(serve):
    client = await (await serve()).join()
    for frame in ("{}", " {\n} "):
        await client.send(frame)
    assert await client.so_far() == []


async def test_an_id_is_a_safe_number_or_a_short_text(serve):
    client = await (await serve()).join(None, "cars")
    for name in (0, -1, 2**53 - 1, "", "x" * 64):
        await client.send({"type": "publish", "id": name, "channel": "cars", "message": 1, "exclude": "self"})
        assert (await client.receive())["id"] == name


async def test_timers_end_with_the_last_connection(serve):
    site = await serve()
    listener = site.manager.listener
    client = await site.join()
    assert listener._heart is not None
    await client.ws.close()
    await eventually(lambda: site.manager.connection_count == 0)
    assert (listener._heart, listener._clock, listener._waiting, listener._told) == (None, None, {}, set())


async def test_one_listener_serves_one_endpoint(serve):
    listener = Named(rules("*"))
    site = await serve(listener)
    site.server.endpoint("/second", listener)
    await site.join()
    client = await site.dial("/second")
    with pytest.raises(ConnectionClosed):
        await client.hello()
    assert (await client.closed())[0] == 1011


async def test_a_path_with_channel_would_be_joined_before_hello_and_is_refused(serve, caplog):
    site = await serve()
    site.server.endpoint("/wrong/{channel}", Named(rules("*")))
    assert (await (await site.dial("/wrong/cars")).closed())[0] == 4500
    assert "name the path's parameter {room}" in caplog.text
