"""The demo's chat and relay over real sockets; the page itself is tried in test_browser.py."""

import asyncio
import json
import time
from urllib.parse import quote

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from fastws.demo import create_server
from fastws.demo.chat import MAX_CHANNELS, MAX_MESSAGE, MAX_NAME

TIMEOUT = 5


class Client:
    """A tab of a user; every wait has a timeout."""

    def __init__(self, socket):
        self.socket = socket

    async def send(self, kind, **fields):
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def receive(self):
        return json.loads(await asyncio.wait_for(self.socket.recv(), TIMEOUT))

    async def until(self, kind, **fields):
        """The next message of that type with those fields; those before it are dropped."""
        wanted = {"type": kind, **fields}.items()
        while not wanted <= (message := await self.receive()).items():
            pass
        return message

    async def drained(self):
        """All that was sent to this tab before now: an error is the answer to a request without a type."""
        await self.socket.send("{}")
        messages = []
        while (message := await self.receive())["type"] != "error":
            messages.append(message)
        return messages

    async def close_code(self):
        await asyncio.wait_for(self.socket.wait_closed(), TIMEOUT)
        return self.socket.close_code, self.socket.close_reason


@pytest.fixture
async def server():
    async with create_server(port=0) as server:
        yield server


@pytest.fixture
async def opened(server):
    """Opens sockets, and closes them at the end."""
    sockets = []

    async def opened(path):
        socket = await connect(f"ws://127.0.0.1:{server.port}{path}")
        sockets.append(socket)
        return socket

    yield opened
    for socket in sockets:
        await socket.close()


@pytest.fixture
def join(opened):
    async def join(name, channel="cars"):
        client = Client(await opened(f"/ws/chat/{quote(channel, safe='')}?name={quote(name)}"))
        await client.until("members", channel=channel)
        return client

    return join


async def refusal(server, path):
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws://127.0.0.1:{server.port}{path}")
    return refused.value.response


# Coming in


@pytest.mark.parametrize("query", ["", "?name=", "?name=%20", "?name=" + "a" * (MAX_NAME + 1), "?name=a%00b"])
async def test_a_name_that_will_not_do_is_refused_with_a_reason(server, query):
    response = await refusal(server, f"/ws/chat/cars{query}")
    assert response.status_code == 400
    assert b"?name=" in response.body


@pytest.mark.parametrize("channel", ["a" * (MAX_NAME + 1), "%20cars", "a%E2%80%AEb"])
async def test_a_channel_name_that_will_not_do_is_refused_with_a_reason(server, channel):
    response = await refusal(server, f"/ws/chat/{channel}?name=ann")
    assert response.status_code == 400
    assert b"channel" in response.body


async def test_a_newcomer_is_welcomed_and_told_the_members(opened, join):
    await join("bob")
    ann = Client(await opened("/ws/chat/cars?name=ann"))
    welcome, members = await ann.receive(), await ann.receive()
    assert welcome == {"type": "welcome", "user": "ann", "id": welcome["id"]}
    assert members == {"type": "members", "channel": "cars", "users": ["ann", "bob"]}


async def test_names_and_channels_may_be_any_text(join):
    zoe, ann = await join("Zoë A/B", "röd & grön/?"), await join("ann", "röd & grön/?")
    await ann.send("message", channel="röd & grön/?", message="hej")
    assert (await zoe.until("message"))["channel"] == "röd & grön/?"


async def test_the_member_list_follows_joins_and_leaves(join):
    ann, bob = await join("ann"), await join("bob")
    assert await ann.until("join") == {"type": "join", "channel": "cars", "user": "bob"}
    await bob.socket.close()
    assert await ann.until("leave") == {"type": "leave", "channel": "cars", "user": "bob"}
    await join("cat")
    assert (await ann.until("join"))["user"] == "cat"


# Messages


async def test_a_message_goes_to_all_members_and_to_its_sender(join):
    ann, bob = await join("ann"), await join("bob")
    before = int(time.time() * 1000)
    await ann.send("message", channel="cars", message="hi <b>\n")
    message = await bob.until("message")
    timestamp = message.pop("timestamp")
    assert message == {"type": "message", "channel": "cars", "from": "ann", "message": "hi <b>\n"}
    assert before <= timestamp <= time.time() * 1000
    assert await ann.until("message") == message | {"timestamp": timestamp}


async def test_one_socket_is_in_several_channels_at_once(join):
    ann, bob = await join("ann", "cars"), await join("bob", "boats")
    await ann.send("subscribe", channel="boats")
    assert (await ann.until("members", channel="boats"))["users"] == ["ann", "bob"]
    await bob.send("message", channel="boats", message="ahoy")
    assert (await ann.until("message"))["channel"] == "boats"
    await ann.send("message", channel="cars", message="vroom")
    assert (await ann.until("message"))["channel"] == "cars"
    assert "message" not in [message["type"] for message in (await bob.drained())[2:]]


async def test_who_leaves_a_channel_hears_no_more_of_it(join):
    ann, bob = await join("ann"), await join("bob")
    await ann.send("unsubscribe", channel="cars")
    assert (await ann.until("leave"))["user"] == "ann"
    assert (await bob.until("leave"))["user"] == "ann"
    await bob.send("message", channel="cars", message="gone?")
    await bob.until("message")
    assert await ann.drained() == []


# Whispers


async def test_a_whisper_reaches_those_named_and_the_senders_tabs_alone(join):
    ann, other_ann, bob, cat, dan = [await join(name) for name in ("ann", "ann", "bob", "cat", "dan")]
    await ann.send("whisper", channel="cars", to=["cat", "bob"], message="psst")
    whisper = await ann.until("whisper")
    expected = {"type": "whisper", "channel": "cars", "from": "ann", "to": ["bob", "cat"], "message": "psst"}
    assert whisper == expected | {"timestamp": whisper["timestamp"]}
    for client in (other_ann, bob, cat):
        assert await client.until("whisper") == whisper
    assert await dan.drained() == []


async def test_a_whisper_to_a_name_in_another_channel_does_not_reach_it(join):
    ann, bob, cat = await join("ann"), await join("bob"), await join("cat", "boats")
    await ann.send("whisper", channel="cars", to=["bob", "cat"], message="psst")
    assert (await bob.until("whisper"))["to"] == ["bob"]
    assert await cat.drained() == []


@pytest.mark.parametrize("to", [[], ["nobody"], ["ann"], [None, 7, {}]])
async def test_a_whisper_to_nobody_is_an_error(join, to):
    ann, bob = await join("ann"), await join("bob")
    await ann.send("whisper", channel="cars", to=to, message="psst")
    assert (await ann.until("error"))["code"] == "no_recipient"
    assert await bob.drained() == []


# Typing


async def test_a_typing_notice_goes_to_the_others_and_not_to_the_typist(join):
    ann, other_ann, bob = await join("ann"), await join("ann"), await join("bob")
    await other_ann.until("join", user="bob")
    await ann.send("typing", channel="cars")
    assert await bob.until("typing") == {"type": "typing", "channel": "cars", "from": "ann"}
    assert "typing" not in [message["type"] for message in await ann.drained()]
    assert await other_ann.drained() == []


async def test_a_typing_notice_is_not_kept(join):
    ann, bob = await join("ann"), await join("bob")
    await ann.send("typing", channel="cars")
    await bob.until("typing")
    cat = await join("cat")
    assert await cat.drained() == []


# Two tabs of one user


async def test_a_user_with_two_tabs_is_one_member(join):
    bob, ann = await join("bob"), await join("ann")
    await bob.until("join", user="ann")
    second = await join("ann")
    await second.socket.close()
    await ann.send("message", channel="cars", message="still here")
    assert [message["type"] for message in await bob.drained()] == ["message"]
    await ann.socket.close()
    assert (await bob.until("leave"))["user"] == "ann"


async def test_what_one_tab_says_is_seen_in_the_other(join):
    ann, other = await join("ann"), await join("ann")
    await ann.send("message", channel="cars", message="from the first")
    assert (await other.until("message"))["from"] == "ann"


async def test_joining_and_leaving_a_channel_is_mirrored_to_the_other_tab(join):
    ann, other = await join("ann"), await join("ann")
    await ann.send("subscribe", channel="boats")
    assert (await other.until("members", channel="boats"))["users"] == ["ann"]
    await other.send("unsubscribe", channel="boats")
    assert await ann.until("leave") == {"type": "leave", "channel": "boats", "user": "ann"}
    assert await other.until("leave") == {"type": "leave", "channel": "boats", "user": "ann"}


async def test_a_new_tab_comes_into_all_channels_of_the_user_and_brings_its_own(join):
    ann, bob = await join("ann", "cars"), await join("bob", "boats")
    await ann.send("subscribe", channel="boats")
    await ann.until("members", channel="boats")
    other = Client((await join("ann", "trains")).socket)
    assert (await ann.until("members", channel="trains"))["users"] == ["ann"]
    await bob.send("message", channel="boats", message="ahoy")
    assert (await other.until("message"))["channel"] == "boats"


# Kicks


async def test_a_kick_closes_every_tab_of_the_kicked(join):
    ann, bob, other_bob = await join("ann"), await join("bob"), await join("bob")
    await ann.until("join", user="bob")
    await ann.send("kick", channel="cars", user="bob")
    assert await bob.until("kick") == {"type": "kick", "channel": "cars", "user": "bob", "by": "ann"}
    assert await bob.close_code() == (4000, "kicked")
    assert await other_bob.close_code() == (4000, "kicked")
    assert [message["type"] for message in await ann.drained()] == ["kick", "leave"]
    again = await join("bob")
    assert await again.drained() == []


# Bad input


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("not JSON", "bad_json"),
        (b"\xff\x00", "bad_json"),
        ("[1]", "bad_json"),
        ("null", "bad_json"),
        ("[" * 5000, "bad_json"),
        ("{}", "bad_field"),
        ('{"type": 1}', "bad_field"),
        ('{"type": "message"}', "bad_field"),
        ('{"type": "shout", "channel": "cars"}', "unknown_type"),
        ('{"type": "message", "channel": ["cars"], "message": "x"}', "bad_field"),
        ('{"type": "message", "channel": "cars"}', "bad_field"),
        ('{"type": "message", "channel": "cars", "message": 7}', "bad_field"),
        ('{"type": "message", "channel": "cars", "message": " \\n"}', "bad_field"),
        ('{"type": "message", "channel": "boats", "message": "x"}', "not_a_member"),
        ('{"type": "whisper", "channel": "boats", "message": "x", "to": ["bob"]}', "not_a_member"),
        ('{"type": "whisper", "channel": "cars", "message": "x", "to": "bob"}', "bad_field"),
        ('{"type": "whisper", "channel": "cars", "message": "x"}', "bad_field"),
        ('{"type": "typing", "channel": "boats"}', "not_a_member"),
        ('{"type": "unsubscribe", "channel": "boats"}', "not_a_member"),
        ('{"type": "subscribe", "channel": ""}', "bad_channel"),
        ('{"type": "subscribe", "channel": ".."}', "bad_channel"),
        ('{"type": "kick", "channel": "cars", "user": "nobody"}', "no_such_member"),
        ('{"type": "kick", "channel": "cars", "user": "ann"}', "no_such_member"),
        ('{"type": "kick", "channel": "cars"}', "bad_field"),
        ('{"type": "kick", "channel": "boats", "user": "bob"}', "not_a_member"),
        (json.dumps({"type": "message", "channel": "cars", "message": "x" * (MAX_MESSAGE + 1)}), "too_long"),
    ],
)
async def test_bad_input_is_answered_with_an_error_and_reaches_nobody(join, sent, code):
    ann, bob = await join("ann"), await join("bob")
    await ann.until("join", user="bob")
    await ann.socket.send(sent)
    error = await ann.receive()
    assert error == {"type": "error", "code": code, "message": error["message"]}
    await ann.send("message", channel="cars", message="goes on")
    assert [message["type"] for message in await bob.drained()] == ["message"]


async def test_nobody_is_in_more_channels_than_the_limit(join):
    ann = await join("ann", "0")
    for number in range(1, MAX_CHANNELS + 1):
        await ann.send("subscribe", channel=str(number))
    assert (await ann.until("error"))["code"] == "too_many_channels"


# The relay


async def test_the_relay_passes_everything_on_as_it_is(opened):
    ann, bob, other = await opened("/ws/chat"), await opened("/ws/chat"), await opened("/ws/boats")
    for message in ("not JSON é", b"\x00\xff"):
        await ann.send(message)
        for client in (ann, bob):
            assert await asyncio.wait_for(client.recv(), TIMEOUT) == message
    await other.send("mine")
    assert await asyncio.wait_for(other.recv(), TIMEOUT) == "mine"


# The page


async def fetch(server, method, path):
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    head, _, body = (await asyncio.wait_for(reader.read(), TIMEOUT)).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(status.split()[1]), headers, body


async def test_the_page_is_served_at_the_root(server):
    status, headers, body = await fetch(server, "GET", "/?name=ann&channel=cars")
    assert status == 200
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert int(headers["content-length"]) == len(body)
    assert body.startswith(b"<!doctype html>")


async def test_head_has_the_headers_of_get_and_no_body(server):
    _, page, body = await fetch(server, "GET", "/")
    status, headers, nothing = await fetch(server, "HEAD", "/")
    assert (status, nothing) == (200, b"")
    assert headers["content-length"] == page["content-length"] == str(len(body))


async def test_all_else_is_refused(server):
    assert (await fetch(server, "GET", "/nothing"))[0] == 404
    assert (await fetch(server, "POST", "/"))[0] == 405
