"""The demo's login: who is admitted, and that whoever logged out stays out."""

import json
import time
from base64 import b64decode

import pytest

from fastws.cluster.shared import SharedDict
from fastws.demo import create_server
from fastws.demo.chat import MAX_NAME_CHARACTERS
from fastws.demo.ended import LIFETIME_SECONDS, Ended
from fastws.demo.page import COOKIE, MAX_BODY_BYTES

from ..lib.chat import SECRET, fetch, log_in, post, refusal, who
from ..lib.support import signed_cookie


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
    await phone.send("publish", channel="cars", message="still here")
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
    """A signature can be later than the logout: that of an answer under way at the time."""
    cookie, other = await log_in(server, "ann"), await log_in(server, "bob")
    await post(server, "/logout", {}, cookie)
    chat, real = server.endpoints["/ws/chat/{room}"].listener, time.time
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
    chat = server.endpoints["/ws/chat/{room}"].listener
    early, *users = [await log_in(server, name) for name in ("early", "a", "b", "c", "d", "late")]
    late = users.pop()
    for cookie in reversed(users):
        await post(server, "/logout", {}, cookie)
        assert len(chat.ended) <= 3
    for cookie in users:
        assert await who(server, cookie) is None
        await post(server, "/logout", {}, cookie)  # once more
    assert len(chat.ended) == 3
    assert await who(server, early) is None  # over, since a, whose logout is forgotten, logged in later
    assert await who(server, late) == "late"
    assert await who(server, await log_in(server, "early", early)) == "early"


def test_what_is_remembered_of_log_outs_is_bounded(monkeypatch):
    monkeypatch.setattr("fastws.demo.ended.MAX_REMEMBERED_SESSIONS", 1000)
    ended, now = Ended(SharedDict("ended")), time.time()
    sessions = [{"id": str(number), "since": now - number} for number in range(5000)]
    for session in sessions:
        ended.add(session)
        ended.add(session)
    assert len(ended) == len(ended._by_login) == 1000
    assert all(ended.has(session) for session in sessions)
    assert not ended.has({"id": "new", "since": now + 1})
