"""The demo's chat and relay over real sockets, logged in by real HTTP; the page itself is tried in test_browser.py."""

import asyncio
import json
import socket
import time
from base64 import b64decode
from urllib.parse import quote

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

import fastws.demo
from fastws import ConfigurationError
from fastws.demo import create_server
from fastws.demo.chat import MAX_BLOCKED, MAX_CHANNELS, MAX_MESSAGE_CHARACTERS, MAX_NAME_CHARACTERS
from fastws.demo.ended import LIFETIME_SECONDS, Ended
from fastws.demo.page import COOKIE, MAX_BODY_BYTES

from .hostile.hosts import HOST, NOT_ALLOWED, NOT_SERVED, ORIGINS, WELCOME
from .raw import Raw, request
from .support import signed_cookie

TIMEOUT = 5
SECRET = "of the tests"
RELOAD = 0.5  # seconds; in place of the demo's, so that a leave is soon seen


class Client:
    """A tab of a user; every wait has a timeout."""

    def __init__(self, socket, cookie=None):
        self.socket = socket
        self.cookie = cookie

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

    async def members(self, channel="cars"):
        """Who is there, as this tab is told when it comes in."""
        entered = await self.until("presence", event="list", channel=channel)
        return sorted(member["user"] for member in entered["users"])

    async def joined(self, user, channel="cars"):
        return await self.until("presence", event="join", channel=channel, user=user)

    async def departed(self, user, channel="cars"):
        return await self.until("presence", event="leave", channel=channel, user=user)

    async def drained(self):
        """All that was sent to this tab before now: an error is the answer to a request without a type."""
        await self.socket.send("{}")
        messages = []
        while (message := await self.receive())["type"] != "error":
            messages.append(message)
        return messages

    async def refused(self, kind, **fields):
        """Send a request that is refused; the error's code and text."""
        await self.send(kind, **fields)
        error = await self.until("error")
        return error["code"], error["message"]

    async def close_code(self):
        await asyncio.wait_for(self.socket.wait_closed(), TIMEOUT)
        return self.socket.close_code, self.socket.close_reason


@pytest.fixture
async def server(monkeypatch):
    monkeypatch.setattr(fastws.demo, "RELOAD_SECONDS", RELOAD)
    async with create_server(port=0, secret=SECRET) as server:
        yield server


@pytest.fixture
async def opened(server):
    """Opens sockets, and closes them at the end."""
    sockets = []

    async def opened(path, cookie=None):
        headers = {"Cookie": cookie} if cookie else {}
        socket = await connect(f"ws://127.0.0.1:{server.port}{path}", additional_headers=headers)
        sockets.append(socket)
        return socket

    yield opened
    for opened_one in sockets:
        await opened_one.close()


@pytest.fixture
def enter(server, opened):
    """A tab that is told all from its welcome on; of the same browser as `tab`, or of one more."""

    async def enter(name, channel="cars", tab=None):
        cookie = tab.cookie if tab else await log_in(server, name)
        return Client(await opened(f"/ws/chat/{quote(channel, safe='')}", cookie), cookie)

    return enter


@pytest.fixture
def join(enter):
    """A tab that has been told who is in its channel."""

    async def join(name, channel="cars", tab=None):
        client = await enter(name, channel, tab)
        await client.members(channel)
        return client

    return join


async def fetch(server, method, path, body=b"", **headers):
    """Status, headers and body of an answer; `content_type="..."` is a header as well."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    fields = {"host": "localhost", "connection": "close", "content-length": len(body), **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    writer.write("\r\n".join([f"{method} {path} HTTP/1.1", *lines, "\r\n"]).encode() + body)
    head, _, answer = (await asyncio.wait_for(reader.read(), TIMEOUT)).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    status, *lines = head.decode().split("\r\n")
    return int(status.split()[1]), {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}, answer


async def post(server, path, asked, cookie=""):
    return await fetch(server, "POST", path, json.dumps(asked).encode(), content_type="application/json", cookie=cookie)


async def log_in(server, name, cookie=""):
    """The cookie that a browser with that cookie has afterwards."""
    status, headers, body = await post(server, "/login", {"name": name}, cookie)
    assert (status, json.loads(body)) == (200, {"name": name})
    return headers["set-cookie"].partition(";")[0] if "set-cookie" in headers else cookie


async def who(server, cookie=""):
    """The name that a browser is logged in by."""
    _, _, body = await fetch(server, "GET", "/session", cookie=cookie)
    return json.loads(body)["name"]


async def refusal(server, path="/ws/chat/cars", cookie=None):
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws://127.0.0.1:{server.port}{path}", additional_headers={"Cookie": cookie} if cookie else {})
    return refused.value.response


# Logging in and out


@pytest.mark.parametrize("name", ["", " ann", "a" * (MAX_NAME_CHARACTERS + 1), "a\0b", "..", None, 7, ["ann"]])
async def test_a_name_that_will_not_do_is_refused_with_a_reason(server, name):
    status, headers, body = await post(server, "/login", {"name": name})
    assert (status, "set-cookie" in headers) == (400, False)
    assert b"printable characters" in body


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b"not JSON", 400),
        ("application/json", b"[]", 400),
        ("application/json", b"[" * MAX_BODY_BYTES, 400),
        ("application/json", b'{"name":' + b"[" * 500 + b"]" * 500 + b"}", 400),
        ("application/json", b'{"name": "%b"}' % (b"a" * MAX_BODY_BYTES), 413),
        ("text/plain", b'{"name": "ann"}', 415),
        ("application/x-www-form-urlencoded", b"name=ann", 415),
    ],
)
async def test_nobody_is_logged_in_by_what_is_no_request_of_the_page(server, kind, body, status):
    answered, headers, _ = await fetch(server, "POST", "/login", body, content_type=kind)
    assert (answered, "set-cookie" in headers) == (status, False)


async def test_the_cookie_is_for_no_script_and_for_no_other_site(server):
    _, headers, _ = await post(server, "/login", {"name": "ann"})
    attributes = headers["set-cookie"].lower().split("; ")
    assert {"httponly", "samesite=strict", "path=/"} <= set(attributes)


async def test_without_a_session_nobody_comes_in(server):
    async with create_server(port=0) as other:
        foreign = await log_in(other, "ann")
    mine = await log_in(server, "ann")
    for cookie in (None, f"{COOKIE}=", f"{COOKIE}=rubbish", foreign, mine[:-1], mine.replace(COOKIE, "session")):
        response = await refusal(server, cookie=cookie)
        assert response.status_code == 401, cookie
        assert b"POST /login" in response.body


async def test_the_page_can_ask_who_is_logged_in(server):
    assert await who(server) is None
    assert await who(server, await log_in(server, "Zoë")) == "Zoë"


async def test_to_log_out_closes_every_tab_of_that_browser_and_no_other(server, join):
    ann = await join("ann")
    tab, phone, bob = await join("ann", tab=ann), await join("ann"), await join("bob")
    status, headers, body = await post(server, "/logout", {}, ann.cookie)
    assert (status, json.loads(body)) == (200, {"name": None})
    assert f"{COOKIE}=null" in headers["set-cookie"]
    assert await ann.close_code() == await tab.close_code() == (4001, "logged out")
    await phone.send("message", channel="cars", message="still here")
    assert [message["type"] for message in await bob.drained()] == ["message"]


async def test_a_session_that_logged_out_does_not_come_back_with_its_old_cookie(server, join):
    ann = await join("ann")
    await post(server, "/logout", {}, ann.cookie)
    assert (await refusal(server, cookie=ann.cookie)).status_code == 401
    assert await who(server, ann.cookie) is None
    again = await log_in(server, "ann", ann.cookie)
    assert again != ann.cookie
    assert await who(server, again) == "ann"


async def test_to_log_in_again_changes_nothing_but_under_another_name_ends_the_session(server, join):
    ann = await join("ann")
    assert await log_in(server, "ann", ann.cookie) == ann.cookie
    bob = await log_in(server, "bob", ann.cookie)
    assert await ann.close_code() == (4001, "logged out")
    assert (await who(server, ann.cookie), await who(server, bob)) == (None, "bob")


async def test_to_log_out_without_being_logged_in_harms_nobody(server, join):
    ann = await join("ann")
    assert (await post(server, "/logout", {}))[0] == 200
    assert (await post(server, "/logout", {}, ann.cookie + "x"))[0] == 200
    assert await ann.drained() == []


async def test_sessions_outlive_a_restart_with_the_same_secret():
    async with create_server(port=0, secret="of the deployment") as before:
        cookie = await log_in(before, "ann")
    async with create_server(port=0, secret="of the deployment") as after:
        assert await who(after, cookie) == "ann"


async def test_an_old_cookie_does_not_come_back_once_its_log_out_is_forgotten(server, monkeypatch):
    """A signature can be younger than the log-out: that of an answer under way then."""
    cookie, other = await log_in(server, "ann"), await log_in(server, "bob")
    await post(server, "/logout", {}, cookie)
    chat, real = server.endpoints["/ws/chat/{channel}"].listener, time.time
    session = json.loads(b64decode(cookie.partition("=")[2].partition(".")[0]))
    assert len(chat.ended) == 1
    monkeypatch.setattr(time, "time", lambda: real() + LIFETIME_SECONDS - 60)
    assert await who(server, cookie) is None
    assert await who(server, other) == "bob"
    renewed = f"{COOKIE}={signed_cookie(session, SECRET)}"
    assert (await refusal(server, cookie=renewed)).status_code == 401
    assert await who(server, renewed) is None
    monkeypatch.setattr(time, "time", lambda: real() + LIFETIME_SECONDS + 60)
    await post(server, "/logout", {}, await log_in(server, "cat"))
    assert len(chat.ended) == 1  # cat's
    assert (await refusal(server, cookie=renewed)).status_code == 401
    assert await who(server, renewed) is None
    assert await who(server, other) is None


async def test_a_session_that_names_no_time_is_none(server):
    assert await who(server, f"{COOKIE}={signed_cookie({'name': 'ann', 'id': '1'}, SECRET)}") is None


async def test_of_too_many_log_outs_the_earliest_are_forgotten_and_still_nobody_comes_back(server, monkeypatch):
    monkeypatch.setattr("fastws.demo.ended.MAX_REMEMBERED_SESSIONS", 3)
    chat = server.endpoints["/ws/chat/{channel}"].listener
    early, *users = [await log_in(server, name) for name in ("early", "a", "b", "c", "d", "late")]
    late = users.pop()
    for cookie in reversed(users):
        await post(server, "/logout", {}, cookie)
        assert len(chat.ended) <= 3
    for cookie in users:
        assert await who(server, cookie) is None
        await post(server, "/logout", {}, cookie)  # once more
    assert len(chat.ended) == 3
    assert await who(server, early) is None  # who must log in again, since a did no later
    assert await who(server, late) == "late"
    assert await who(server, await log_in(server, "early", early)) == "early"


def test_what_is_remembered_of_log_outs_is_bounded(monkeypatch):
    monkeypatch.setattr("fastws.demo.ended.MAX_REMEMBERED_SESSIONS", 1000)
    ended, now = Ended(), time.time()
    sessions = [{"id": str(number), "since": now - number} for number in range(5000)]
    for session in sessions:
        ended.add(session)
        ended.add(session)
    assert len(ended) == len(ended._by_login) == 1000
    assert all(ended.has(session) for session in sessions)
    assert not ended.has({"id": "new", "since": now + 1})


# Hosts and origins


@pytest.fixture
async def guarded():
    """A demo with a host of its own and origins, as `fastws serve` would start it, on an address that can be had."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        async with create_server(host=HOST, fd=[sock.fileno()], origins=ORIGINS, secret=SECRET) as server:
            yield server


async def answers(server, host, origin):
    """(Status, reason or body) of requests by HTTP, and of both endpoints' handshakes."""
    fields = {"host": host} if origin is None else {"host": host, "origin": origin}
    paths = [("GET", "/"), ("GET", "/session"), ("POST", "/logout")]
    by_http = [await fetch(server, method, path, **fields) for method, path in paths]
    cookie = f"{COOKIE}={signed_cookie({'name': 'ann', 'id': '1', 'since': time.time()}, SECRET)}"
    extra = [(name.title(), value) for name, value in fields.items()]
    by_socket = []
    for path in ("/ws/chat/cars", "/ws/cars"):
        raw = await Raw.open(f"ws://127.0.0.1:{server.port}")
        await raw.send(request(path, without=["Host"], extra=[*extra, ("Cookie", cookie)]))
        response = await raw.response()
        by_socket.append((response.status, "" if response.status == 101 else response.error["message"]))
        raw.close()
    return [(status, body.decode()) for status, _, body in by_http], by_socket


@pytest.mark.parametrize("name", WELCOME)
async def test_the_demos_own_pages_and_those_allowed_are_served(guarded, name):
    by_http, by_socket = await answers(guarded, *WELCOME[name])
    assert [status for status, _ in by_http] == [200] * 3
    assert [status for status, _ in by_socket] == [101] * 2


async def must_be_refused(server, host, origin, expected, what):
    """Every answer says what is refused, and how to allow it."""
    by_http, by_socket = await answers(server, host, origin)
    for status, message in by_http + by_socket:
        assert status == expected
        assert message.startswith(what)
        assert message.endswith("--origins https://chat.example.org")
        assert len(message) < 300


@pytest.mark.parametrize("name", NOT_SERVED)
async def test_a_host_that_nobody_named_is_421_and_says_how_to_allow_it(guarded, name):
    host, origin = NOT_SERVED[name]
    await must_be_refused(guarded, host, origin, 421, f"the host '{host[:20]}")


@pytest.mark.parametrize("name", NOT_ALLOWED)
async def test_another_origin_is_403_and_says_how_to_allow_it(guarded, name):
    host, origin = NOT_ALLOWED[name]
    await must_be_refused(guarded, host, origin, 403, f"the origin '{origin.strip()}'")


async def test_the_machines_own_name_is_served(server):
    name = socket.gethostname()
    status, _, _ = await fetch(server, "GET", "/", host=f"{name}:{server.port}")
    assert status == 200


async def test_a_request_that_comes_later_on_a_connection_is_looked_at_as_well(server):
    """Uvicorn reads it, which is not as strict about Host."""
    for fields in ("Host: evil.example", "X-A: none", "Host: localhost\r\nHost: evil.example", "Host: a b", "Host:"):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /session HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b'{"name":null}'), TIMEOUT)
        writer.write(f"GET /session HTTP/1.1\r\n{fields}\r\nConnection: close\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), TIMEOUT)
        assert answer.startswith(b"HTTP/1.1 421 "), fields
        writer.close()


async def test_over_tls_a_page_that_came_without_is_of_another_origin(server_side, client_side):
    async with create_server(port=0, ssl=server_side) as server:
        url = f"wss://127.0.0.1:{server.port}/ws/cars"
        client_side.check_hostname = False
        async with connect(url, ssl=client_side, origin=f"https://127.0.0.1:{server.port}"):
            pass
        with pytest.raises(InvalidStatus) as refused:
            await connect(url, ssl=client_side, origin=f"http://127.0.0.1:{server.port}")
        assert refused.value.response.status_code == 403


@pytest.mark.parametrize(
    "origin", ["chat.example.org", "https://chat.example.org/", "https://", "null", "*", "https://café.example", "://a"]
)
def test_an_origin_that_is_none_is_refused_at_once_in_one_sentence(origin):
    with pytest.raises(ConfigurationError) as error:
        create_server(port=0, origins=[origin])
    assert f"{origin!r} is not an origin: write " in str(error.value)


# Coming in


@pytest.mark.parametrize("channel", ["a" * (MAX_NAME_CHARACTERS + 1), "%20cars", "a%E2%80%AEb"])
async def test_a_channel_name_that_will_not_do_is_refused_with_a_reason(server, channel):
    response = await refusal(server, f"/ws/chat/{channel}", await log_in(server, "ann"))
    assert response.status_code == 400
    assert b"channel" in response.body


async def test_a_newcomer_is_welcomed_and_told_the_members(enter, join):
    bob = await join("bob")
    await join("bob", tab=bob)
    ann = await enter("ann")
    welcome, members = await ann.receive(), await ann.receive()
    assert welcome == {"type": "welcome", "user": "ann", "id": welcome["id"], "blocked": []}
    there = {member.pop("user"): member for member in members.pop("users")}
    assert members == {"type": "presence", "channel": "cars", "event": "list"}
    assert {user: member["devices"] for user, member in there.items()} == {"ann": 1, "bob": 2}
    assert there["bob"]["since"] <= there["ann"]["since"]


async def test_names_and_channels_may_be_any_text(join):
    zoe, ann = await join("Zoë A/B", "röd & grön/?"), await join("ann", "röd & grön/?")
    await ann.send("message", channel="röd & grön/?", message="hej")
    assert (await zoe.until("message"))["channel"] == "röd & grön/?"


async def test_the_member_list_follows_joins_and_leaves(join):
    ann, bob = await join("ann"), await join("bob")
    joined = await ann.joined("bob")
    assert joined.keys() == {"type", "channel", "event", "user", "since"}
    await bob.socket.close()
    left = await ann.departed("bob")
    assert left == {"type": "presence", "channel": "cars", "event": "leave", "user": "bob"}
    await join("cid")
    await ann.joined("cid")


async def test_a_reload_is_neither_a_leave_nor_a_join(join):
    ann, bob = await join("ann"), await join("bob")
    await ann.joined("bob")
    await bob.socket.close()
    await join("bob", tab=bob)
    # Leaves are told in the order of the ends: by that of cid, bob's would have been.
    cid = await join("cid")
    await cid.socket.close()
    heard = [await ann.receive(), await ann.receive()]
    assert [(notice["event"], notice["user"]) for notice in heard] == [("join", "cid"), ("leave", "cid")]


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
    assert await ann.members("boats") == ["ann", "bob"]
    await bob.send("message", channel="boats", message="ahoy")
    assert (await ann.until("message"))["channel"] == "boats"
    await ann.send("message", channel="cars", message="vroom")
    assert (await ann.until("message"))["channel"] == "cars"
    assert "message" not in [message["type"] for message in (await bob.drained())[2:]]


async def test_who_leaves_a_channel_hears_no_more_of_it(join):
    ann, bob = await join("ann"), await join("bob")
    await ann.send("unsubscribe", channel="cars")
    assert await ann.until("left") == {"type": "left", "channel": "cars"}
    await bob.departed("ann")
    await bob.send("message", channel="cars", message="gone?")
    await bob.until("message")
    assert await ann.drained() == []


# Whispers


async def test_a_whisper_reaches_those_named_and_the_senders_tabs_alone(join):
    ann, other_ann, bob, cid, dora = [await join(name) for name in ("ann", "ann", "bob", "cid", "dora")]
    await ann.send("whisper", channel="cars", to=["cid", "bob"], message="psst")
    whisper = await ann.until("whisper")
    expected = {"type": "whisper", "channel": "cars", "from": "ann", "to": ["bob", "cid"], "message": "psst"}
    assert whisper == expected | {"timestamp": whisper["timestamp"]}
    for client in (other_ann, bob, cid):
        assert await client.until("whisper") == whisper
    assert await dora.drained() == []


async def test_a_whisper_to_a_name_in_another_channel_does_not_reach_it(join):
    ann, bob, cid = await join("ann"), await join("bob"), await join("cid", "boats")
    await ann.send("whisper", channel="cars", to=["bob", "cid"], message="psst")
    assert (await bob.until("whisper"))["to"] == ["bob"]
    assert await cid.drained() == []


@pytest.mark.parametrize("to", [[], ["nobody"], ["ann"], [None, 7, {}]])
async def test_a_whisper_to_nobody_is_an_error(join, to):
    ann, bob = await join("ann"), await join("bob")
    await ann.send("whisper", channel="cars", to=to, message="psst")
    assert (await ann.until("error"))["code"] == "no_recipient"
    assert await bob.drained() == []


# Typing


async def test_a_typing_notice_goes_to_the_others_and_not_to_the_typist(join):
    ann, other_ann, bob = await join("ann"), await join("ann"), await join("bob")
    await other_ann.joined("bob")
    await ann.send("typing", channel="cars")
    assert await bob.until("typing") == {"type": "typing", "channel": "cars", "from": "ann"}
    assert "typing" not in [message["type"] for message in await ann.drained()]
    assert await other_ann.drained() == []


async def test_a_typing_notice_is_not_kept(join):
    ann, bob = await join("ann"), await join("bob")
    await ann.send("typing", channel="cars")
    await bob.until("typing")
    cid = await join("cid")
    assert await cid.drained() == []


# Two tabs of one user


async def test_a_user_with_two_tabs_is_one_member(join):
    bob, ann = await join("bob"), await join("ann")
    await bob.joined("ann")
    second = await join("ann")
    await second.socket.close()
    await ann.send("message", channel="cars", message="still here")
    assert [message["type"] for message in await bob.drained()] == ["message"]
    await ann.socket.close()
    await bob.departed("ann")


async def test_what_one_tab_says_is_seen_in_the_other(join):
    ann, other = await join("ann"), await join("ann")
    await ann.send("message", channel="cars", message="from the first")
    assert (await other.until("message"))["from"] == "ann"


async def test_joining_and_leaving_a_channel_is_mirrored_to_the_other_tab(join):
    ann, other = await join("ann"), await join("ann")
    await ann.send("subscribe", channel="boats")
    assert await other.members("boats") == ["ann"]
    await other.send("unsubscribe", channel="boats")
    for tab in (ann, other):
        await tab.until("left", channel="boats")


async def test_a_new_tab_comes_into_all_channels_of_the_user_and_brings_its_own(join):
    ann, bob = await join("ann", "cars"), await join("bob", "boats")
    await ann.send("subscribe", channel="boats")
    await ann.members("boats")
    other = await join("ann", "trains")
    assert await ann.members("trains") == ["ann"]
    await bob.send("message", channel="boats", message="ahoy")
    assert (await other.until("message"))["channel"] == "boats"


# Invitations


async def test_an_invitation_brings_every_tab_of_a_user_into_the_channel(join):
    ann, cid, bob = await join("ann", "boats"), await join("cid", "boats"), await join("bob")
    phone = await join("bob")
    await ann.send("invite", channel="boats", user="bob")
    for tab in (bob, phone):
        assert await tab.members("boats") == ["ann", "bob", "cid"]
        invitation = {"type": "invite", "channel": "boats", "user": "bob", "by": "ann"}
        assert await tab.until("invite") == invitation
    await cid.joined("bob", "boats")
    assert await cid.drained() == []
    await phone.send("message", channel="boats", message="ahoy")
    assert (await ann.until("message"))["from"] == "bob"


async def test_who_is_absent_or_there_already_cannot_be_invited(join):
    ann, bob = await join("ann"), await join("bob")
    for user in ("nobody", "ann"):
        assert (await ann.refused("invite", channel="cars", user=user))[0] == "not_online"
    assert (await ann.refused("invite", channel="cars", user="bob"))[0] == "already_there"
    assert await bob.drained() == []


async def test_nobody_is_invited_into_more_channels_than_the_limit(join):
    ann, bob = await join("ann"), await join("bob", "0")
    for number in range(1, MAX_CHANNELS):
        await bob.send("subscribe", channel=str(number))
    await bob.members(str(MAX_CHANNELS - 1))
    assert (await ann.refused("invite", channel="cars", user="bob"))[0] == "too_many_channels"


# Blocks


@pytest.fixture
def blocked(join):
    """ann has blocked bob; all three are told, and nothing is left to read."""

    async def blocked():
        ann, bob, cid = [await join(name) for name in ("ann", "bob", "cid")]
        await ann.send("block", user="bob")
        assert await ann.until("blocked") == {"type": "blocked", "users": ["bob"]}
        for tab in (bob, cid):
            await tab.drained()
        return ann, bob, cid

    return blocked


async def test_to_the_blocked_one_is_offline_and_to_no_one_else(join):
    ann, phone, bob, cid = [await join(name) for name in ("ann", "ann", "bob", "cid")]
    for tab in (ann, phone, bob):
        await tab.joined("cid")
    await ann.send("block", user="bob")
    for tab in (ann, phone):
        assert await tab.until("blocked") == {"type": "blocked", "users": ["bob"]}
    left = {"type": "presence", "channel": "cars", "event": "leave", "user": "ann"}
    assert await bob.drained() == [left]
    assert await cid.drained() == await ann.drained() == await phone.drained() == []
    await phone.send("unblock", user="bob")
    assert await ann.until("blocked") == {"type": "blocked", "users": []}
    await bob.joined("ann")
    assert await bob.drained() == await cid.drained() == []


async def test_the_blocked_are_told_of_no_coming_and_going(blocked, enter, join):
    ann, bob, cid = await blocked()
    phone = await enter("bob")
    assert await phone.members() == ["bob", "cid"]
    await bob.drained()
    await ann.send("unsubscribe", channel="cars")
    await cid.departed("ann")
    await ann.send("subscribe", channel="cars")
    await cid.joined("ann")
    await ann.socket.close()
    await cid.departed("ann")
    await join("ann")
    await cid.joined("ann")
    assert await bob.drained() == await phone.drained() == []


async def test_who_comes_later_hears_whom_he_has_blocked(blocked, enter):
    await blocked()
    assert (await (await enter("ann")).until("welcome"))["blocked"] == ["bob"]
    assert (await (await enter("bob")).until("welcome"))["blocked"] == []


async def test_the_blocked_do_not_see_one_type(blocked):
    ann, bob, cid = await blocked()
    await ann.send("typing", channel="cars")
    await cid.until("typing")
    assert await bob.drained() == []


async def test_for_the_blocked_one_is_as_absent_as_anybody(blocked):
    ann, bob, _ = await blocked()
    for kind, field in [("whisper", "to"), ("invite", "user"), ("kick", "user")]:
        code, reason = await bob.refused(
            kind, channel="cars", message="psst", **{field: ["ann"] if field == "to" else "ann"}
        )
        absent = await bob.refused(kind, channel="cars", message="psst", **{field: ["eve"] if field == "to" else "eve"})
        assert absent == (code, reason.replace("ann", "eve"))
    assert await ann.drained() == []


async def test_no_whisper_names_a_reader_to_one_who_is_blocked(blocked):
    ann, bob, cid = await blocked()
    await cid.send("whisper", channel="cars", to=["ann", "bob"], message="psst")
    assert (await bob.until("whisper"))["to"] == ["bob"]
    for tab in (ann, cid):
        assert (await tab.until("whisper"))["to"] == ["ann", "bob"]


async def test_the_blocked_learn_of_no_kick(blocked):
    ann, bob, cid = await blocked()
    await cid.send("kick", channel="cars", user="ann")
    await ann.until("left", channel="cars")
    assert await bob.drained() == []


async def test_messages_reach_all_members_in_spite_of_a_block(blocked):
    ann, bob, _ = await blocked()
    for one, other in ((ann, bob), (bob, ann)):
        await one.send("message", channel="cars", message="to all")
        for tab in (one, other):
            await tab.until("message", message="to all")
    await ann.send("whisper", channel="cars", to=["bob"], message="psst")
    assert (await bob.until("whisper"))["from"] == "ann"


async def test_one_may_block_who_is_absent_but_not_oneself_nor_everybody(enter, join):
    ann = await join("ann")
    assert (await ann.refused("block", user="ann"))[0] == "bad_user"
    assert (await ann.refused("block", user=" "))[0] == "bad_user"
    for number in range(MAX_BLOCKED):
        await ann.send("block", user=f"eve{number}")
    assert (await ann.refused("block", user="one more"))[0] == "too_many_blocked"
    eve = await enter("eve7")
    assert await eve.members() == ["eve7"]


# Kicks


async def test_a_kick_takes_every_tab_out_of_the_channel_and_leaves_them_connected(join):
    ann, bob, phone = await join("ann"), await join("bob"), await join("bob")
    await ann.joined("bob")
    await bob.send("subscribe", channel="boats")
    await ann.send("kick", channel="cars", user="bob")
    kick = {"type": "kick", "channel": "cars", "user": "bob", "by": "ann"}
    for tab in (bob, phone):
        assert await tab.until("kick") == kick
        await tab.until("left", channel="cars")
    assert await ann.until("kick") == kick
    await ann.departed("bob")
    assert (await bob.refused("message", channel="cars", message="but"))[0] == "not_a_member"
    await phone.send("message", channel="boats", message="still here")
    await bob.until("message")
    await bob.send("subscribe", channel="cars")
    assert await phone.members() == ["ann", "bob"]
    await ann.joined("bob")


# Bad input


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("not JSON", "bad_json"),
        (b"\xff\x00", "bad_json"),
        ("[1]", "bad_json"),
        ("null", "bad_json"),
        ("[" * 5000, "bad_json"),
        ('{"type":' + "[" * 900 + "]" * 900 + "}", "bad_field"),
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
        ('{"type": "invite", "channel": "boats", "user": "bob"}', "not_a_member"),
        ('{"type": "invite", "channel": "cars"}', "bad_field"),
        ('{"type": "block"}', "bad_field"),
        ('{"type": "block", "user": ["bob"]}', "bad_field"),
        ('{"type": "unblock", "user": 7}', "bad_field"),
        (json.dumps({"type": "message", "channel": "cars", "message": "x" * (MAX_MESSAGE_CHARACTERS + 1)}), "too_long"),
    ],
)
async def test_bad_input_is_answered_with_an_error_and_reaches_nobody(join, sent, code):
    ann, bob = await join("ann"), await join("bob")
    await ann.joined("bob")
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


async def test_the_page_is_served_at_the_root(server):
    status, headers, body = await fetch(server, "GET", "/?channel=cars")
    assert status == 200
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["content-security-policy"].startswith("default-src 'none'; ")
    assert headers["x-content-type-options"] == "nosniff"
    assert int(headers["content-length"]) == len(body)
    assert body.startswith(b"<!doctype html>")


async def test_head_has_the_headers_of_get_and_no_body(server):
    _, page, body = await fetch(server, "GET", "/")
    status, headers, nothing = await fetch(server, "HEAD", "/")
    assert (status, nothing) == (200, b"")
    assert headers["content-length"] == page["content-length"] == str(len(body))


@pytest.mark.parametrize(
    ("method", "path", "status", "allowed"),
    [
        ("GET", "/nothing", 404, None),
        ("POST", "/", 405, {"GET", "HEAD"}),
        ("GET", "/login", 405, {"POST"}),
        ("GET", "/logout", 405, {"POST"}),
    ],
)
async def test_all_else_is_refused(server, method, path, status, allowed):
    answered, headers, _ = await fetch(server, method, path)
    assert answered == status
    assert allowed is None or set(headers["allow"].split(", ")) == allowed
