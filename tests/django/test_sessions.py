"""`DjangoSessions` beside Django's pages, in one process: who it is, live sessions, every way to be logged out."""

import asyncio
import json
import threading

import pytest
from django.test import override_settings

from fastws import ConfigurationError, Listener
from fastws.django import DjangoSessions
from fastws.testing import Refused

from ..lib.raw import TIMEOUT
from ..lib.support import eventually
from ..lib.visitors import apply

ENGINES = ["db", "cache", "cached_db", "file", "signed_cookies"]
STORES = ENGINES[:-1]
LOGGED_OUT = (4001, "logged out")


class Who(Listener):
    """Says who it is, and what the session has; changes it first, as the session of a store."""

    def on_open(self, ws):
        ws.send(seen(ws))

    async def on_message(self, ws, message):
        await asyncio.sleep(0)
        apply(ws.session, json.loads(message))
        return seen(ws)


def seen(ws):
    values = ws.session or {}
    return {"user": ws.user, **{name: value for name, value in values.items() if not name.startswith("_")}}


async def ask(client, **command):
    await client.send(command)
    return await client.receive_json()


@pytest.fixture
def engine(request, shop):
    """Which `SESSION_ENGINE` the project has."""
    name = getattr(request, "param", "db")
    with override_settings(SESSION_ENGINE=f"django.contrib.sessions.backends.{name}"):
        yield name


def engines(names):
    return pytest.mark.parametrize("engine", names, indirect=True)


@pytest.fixture
async def open_shop(serve, visit, engine):
    """`await open_shop(...)` serves Django and a WebSocket on one port; returns the site, and how to visit it."""
    from django.core.asgi import get_asgi_application

    async def open_(listener=None, **options):
        app = get_asgi_application()
        site = await serve(listener or Who(), sessions=DjangoSessions(**options), http=app)
        return site, lambda: visit(site.url.replace("ws:", "http:"), site.url)

    return open_


async def log_in(person, name="ann"):
    """Somebody logged in, and one of their sockets."""
    await person.log_in(name)
    client = await person.connect()
    return client, await client.receive_json()


def id_of(name):
    from django.contrib.auth.models import User
    from django.db import connection

    try:
        return str(User.objects.values_list("pk", flat=True).get(username=name))
    finally:
        connection.close()


async def in_thread(work, *arguments):
    return await asyncio.to_thread(work, *arguments)


@engines(ENGINES)
async def test_whoever_is_logged_in_by_djangos_own_form_is_the_user_and_nobody_else(open_shop):
    _, enter = await open_shop()
    ann, stranger = await enter(), await enter()
    assert await (await stranger.connect()).receive_json() == {"user": None}
    _, first = await log_in(ann)
    assert first == {"user": await in_thread(id_of, "ann")}
    await ann.log_out()
    assert await (await ann.connect()).receive_json() == {"user": None}


async def test_the_user_may_go_by_another_field(open_shop):
    _, enter = await open_shop(user_field="username")
    assert (await log_in(await enter()))[1] == {"user": "ann"}


@engines(ENGINES)
async def test_an_anonymous_visitor_has_a_session_and_no_user(open_shop):
    _, enter = await open_shop()
    visitor = await enter()
    await visitor.get("/accounts/login/")
    await visitor.change(cart=[1])
    client = await visitor.connect()
    assert await client.receive_json() == {"user": None, "cart": [1]}


@engines(STORES)
async def test_both_sides_see_what_the_other_has_changed(open_shop):
    _, enter = await open_shop()
    ann = await enter()
    client, first = await log_in(ann)
    await ann.change(number=1, cart=[1])
    assert await ask(client, append=["cart", 2]) == {**first, "number": 1, "cart": [1, 2]}
    assert json.loads(await ann.get("/session")) == {"user": "ann", "number": 1, "cart": [1, 2]}
    await ask(client, remove=["number"])
    assert json.loads(await ann.get("/session")) == {"user": "ann", "cart": [1, 2]}


@engines(["signed_cookies"])
async def test_a_signed_cookie_is_read_only(open_shop):
    site, enter = await open_shop()
    ann = await enter()
    client, first = await log_in(ann)
    await ann.change(number=1)
    assert await ask(client) == first
    (ws,) = site.manager.connections.values()
    for change in (lambda: ws.session.update(a=1), lambda: ws.session.pop("_auth_user_id")):
        with pytest.raises(TypeError, match="read-only"):
            change()


async def test_a_session_that_is_not_live_is_read_once_and_read_only(open_shop):
    site, enter = await open_shop(live=False)
    ann = await enter()
    client, first = await log_in(ann)
    await ann.change(number=1)
    assert await ask(client) == first
    (ws,) = site.manager.connections.values()
    with pytest.raises(TypeError, match="read-only: use live=True"):
        ws.session["a"] = 1


@engines(ENGINES)
@pytest.mark.parametrize("page", ["/accounts/logout/", "/leave"], ids=["sync", "async"])
async def test_a_logout_closes_all_tabs_of_that_session_and_no_others(open_shop, page):
    """Django's sync views run in threads; `alogout` sends its signal to a thread as well."""
    _, enter = await open_shop(recheck=None)
    ann, bob = await enter(), await enter()
    tabs = [(await log_in(ann))[0], await ann.connect()]
    other, who = await log_in(bob, "bob")
    await ann.post(page)
    assert [await tab.closed() for tab in tabs] == [LOGGED_OUT] * 2
    assert await ask(other) == who


@engines(STORES)
async def test_a_logout_leaves_the_users_other_devices_alone(open_shop):
    _, enter = await open_shop(recheck=None)
    phone, desk = await enter(), await enter()
    (on_phone, who), (at_desk, _) = await log_in(phone), await log_in(desk)
    await phone.log_out()
    assert await on_phone.closed() == LOGGED_OUT
    assert await ask(at_desk) == who


@engines(["signed_cookies"])
async def test_a_logout_with_signed_cookies_closes_every_device_of_the_user(open_shop):
    _, enter = await open_shop(recheck=None)
    phone, desk = await enter(), await enter()
    (on_phone, _), (at_desk, _) = await log_in(phone), await log_in(desk)
    await phone.log_out()
    assert await on_phone.closed() == await at_desk.closed() == LOGGED_OUT


async def test_a_handshake_that_has_read_the_session_before_the_logout_has_no_user(open_shop, monkeypatch):
    """The session is in the store until the signal's receivers are done: whoever comes then was logged out, too."""
    reached, may_go = threading.Event(), threading.Event()
    _, enter = await open_shop(recheck=None)
    ann = await enter()
    await log_in(ann)
    look_up = DjangoSessions._look_up

    def slow(self, key):
        found = look_up(self, key)
        reached.set()
        assert may_go.wait(TIMEOUT)
        return found

    monkeypatch.setattr(DjangoSessions, "_look_up", slow)
    connecting = asyncio.ensure_future(ann.connect())
    assert await in_thread(reached.wait, TIMEOUT)
    await ann.log_out()
    may_go.set()
    assert await (await connecting).receive_json() == {"user": None}


@engines(STORES)
async def test_a_session_flushed_without_a_signal_is_over_with_the_next_message(open_shop):
    _, enter = await open_shop(recheck=None)
    ann = await enter()
    client, _ = await log_in(ann)
    await ann.post("/flush")
    await client.send({"set": {"number": 1}})
    assert await client.closed() == LOGGED_OUT
    assert await (await ann.connect()).receive_json() == {"user": None}


@engines(STORES)
async def test_a_session_flushed_without_a_signal_is_over_within_recheck(open_shop):
    _, enter = await open_shop(recheck=0.05)
    ann, bob = await enter(), await enter()
    client, _ = await log_in(ann)
    other, who = await log_in(bob, "bob")
    await ann.post("/flush")
    assert await client.closed() == LOGGED_OUT
    assert await ask(other) == who


@engines(["db", "signed_cookies"])
async def test_a_changed_password_ends_the_other_sessions(open_shop):
    _, enter = await open_shop(recheck=0.05)
    phone, desk = await enter(), await enter()
    (on_phone, _), (_, _) = await log_in(phone), await log_in(desk)
    await desk.post("/password", json={"password": "correct horse"})  # the same one, with another salt
    assert await on_phone.closed() == LOGGED_OUT
    assert await (await phone.connect()).receive_json() == {"user": None}
    assert (await (await desk.connect()).receive_json())["user"] is not None


async def test_an_inactive_user_is_out_within_recheck(open_shop):
    from django.contrib.auth.models import User

    def set_active(is_active):
        from django.db import connection

        User.objects.filter(username="bob").update(is_active=is_active)
        connection.close()

    _, enter = await open_shop(recheck=0.05)
    bob = await enter()
    client, _ = await log_in(bob, "bob")
    await in_thread(set_active, False)
    try:
        assert await client.closed() == LOGGED_OUT
        assert await (await bob.connect()).receive_json() == {"user": None}
    finally:
        await in_thread(set_active, True)


@engines(ENGINES)
async def test_an_expired_session_is_none_and_over_within_recheck(open_shop, engine, monkeypatch):
    """Time goes on by two weeks and a day."""
    import time

    from django.utils import timezone

    _, enter = await open_shop(recheck=0.05)
    ann = await enter()
    client, _ = await log_in(ann)
    real, real_now, later = time.time, timezone.now, 15 * 24 * 3600
    monkeypatch.setattr("django.core.signing.time.time", lambda: real() + later)
    monkeypatch.setattr(timezone, "now", lambda: real_now() + timezone.timedelta(seconds=later))
    assert await client.closed() == LOGGED_OUT
    assert await (await ann.connect()).receive_json() == {"user": None}


async def test_a_session_by_a_former_secret_counts_and_stays_as_it_is(open_shop):
    """Only HTTP can give the browser the new session key that Django then makes."""

    _, enter = await open_shop(recheck=0.05)
    ann = await enter()
    client, who = await log_in(ann)
    with override_settings(
        SECRET_KEY="another secret", SECRET_KEY_FALLBACKS=["a secret of the shop, and long enough for it"]
    ):
        assert await (await ann.connect()).receive_json() == who
        assert await ask(client) == who
        before = ann.cookies["sessionid"]
        assert json.loads(await ann.get("/session"))["user"] == "ann"
        assert ann.cookies["sessionid"] != before
    with override_settings(SECRET_KEY="another secret"):
        assert await (await ann.connect()).receive_json() == who
    with override_settings(SECRET_KEY="a third secret"):
        assert await (await ann.connect()).receive_json() == {"user": None}


@engines(ENGINES)
async def test_another_applications_cookie_of_the_same_name_is_passed_over(open_shop, engine):
    from django.core import signing

    foreign = signing.dumps(
        {"_auth_user_id": "1"}, key="theirs", salt="django.contrib.sessions.backends.signed_cookies"
    )
    _, enter = await open_shop()
    stranger, ann = await enter(), await enter()
    for value in (foreign, "x" * 32, "../../etc/passwd", '"a b"', "", "x" * 5000, "short"):
        client = await stranger.connect(f"sessionid={value}")
        assert await client.receive_json() == {"user": None}
    _, who = await log_in(ann)
    cookie = f"sessionid={ann.cookies['sessionid']}"
    client = await stranger.connect(f"sessionid={foreign}", "sessionid=" + "x" * 32, cookie)
    assert await client.receive_json() == who


async def test_messages_prolong_a_session_where_each_request_does(open_shop):
    from django.contrib.sessions.models import Session as Row

    def age(seconds=None):
        """Make the session expire in so many seconds. Returns how many it has."""
        from datetime import timedelta

        from django.db import connection
        from django.utils import timezone

        try:
            row = Row.objects.get(session_key=key)
            if seconds is not None:
                row.expire_date = timezone.now() + timedelta(seconds=seconds)
                row.save()
            return (row.expire_date - timezone.now()).total_seconds()
        finally:
            connection.close()

    for saves, least in ((True, 1_000_000), (False, 0)):
        with override_settings(SESSION_SAVE_EVERY_REQUEST=saves):
            _, enter = await open_shop()
            ann = await enter()
            client, _ = await log_in(ann)
            key = ann.cookies["sessionid"]
            await in_thread(age, 500)
            await ask(client)
            assert least <= await in_thread(age) <= least + 300_000


async def test_a_database_that_fails_lets_nobody_in_and_names_no_internals(open_shop, monkeypatch, caplog):
    from django.db import DatabaseError

    _, enter = await open_shop(recheck=0.05)
    ann = await enter()
    client, who = await log_in(ann)

    def fail(self, key):
        raise DatabaseError("the database is down")

    with monkeypatch.context() as patch:
        patch.setattr("fastws.django._Engine.load", fail)
        with pytest.raises(Refused) as refused:
            await ann.connect()
        assert refused.value.status == 500
        assert b"database" not in refused.value.body
        await eventually(lambda: "cannot look whether 1 sessions are still valid" in caplog.text)
    assert await ask(client) == who


async def test_a_save_that_fails_is_no_logout(open_shop, monkeypatch, caplog):
    """Django calls every error of the database an UpdateError."""
    from django.db import OperationalError
    from django.db.models import Model

    def fail(self, *args, **kwargs):
        raise OperationalError("database is locked")

    _, enter = await open_shop(recheck=None)
    ann = await enter()
    client, _ = await log_in(ann)
    with monkeypatch.context() as patch:
        patch.setattr(Model, "save", fail)
        await client.send({"set": {"number": 1}})
        assert (await client.closed())[0] == 1011
    assert "UpdateError" in caplog.text
    assert (await (await ann.connect()).receive_json())["user"] is not None


async def test_settings_that_cannot_work_stop_at_the_start(shop):
    with pytest.raises(ConfigurationError, match="recheck=0 is not a duration"):
        DjangoSessions(recheck=0)
    with pytest.raises(ConfigurationError, match="threads=0 is not"):
        DjangoSessions(threads=0)
    with pytest.raises(ConfigurationError, match="user_field='nick' is no field"):
        DjangoSessions(user_field="nick")
    with (
        override_settings(SESSION_ENGINE="shop.nothing"),
        pytest.raises(ConfigurationError, match=r"SESSION_ENGINE='shop\.nothing' cannot be used"),
    ):
        DjangoSessions()
