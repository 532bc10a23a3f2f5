"""Who is there and since when, who may see whom, who is told, and the moves of people from the server's side."""

import asyncio
import itertools
import json
import random
import time
from datetime import UTC, datetime, timedelta

import pytest

from fastws import ConfigurationError, Listener, SignedCookieSessions, presence
from fastws.testing import Closed, Refused, connect

from .support import Named, Recorder, eventually, signed_cookie

NEVER = 3600  # seconds; no test takes so long


class People(Recorder):
    """Users by the query string, who may block each other."""

    def __init__(self):
        super().__init__()
        self.blocks = set()  # (who blocks, who is blocked)
        self.asked = []

    def on_handshake(self, request):
        request.user = request.query.get("user")

    def can_see(self, viewer, user):
        self.asked.append((viewer, user))
        return (user, viewer) not in self.blocks


@pytest.fixture
async def enter(serve, join):
    """`await enter(site, user, channel)` is a client that is in the channel."""
    numbers = itertools.count()

    async def come(site, user, channel="cars"):
        name = "" if user is None else f"?user={user}"
        client = await join(f"{site.url}/ws/{channel}{name}", headers={"X-Number": (number := str(next(numbers)))})
        await eventually(lambda: ours(site, number))
        client.ws = ours(site, number)
        await client.ping()
        return client

    def ours(site, number):
        return next((ws for ws in site.manager.connections.values() if ws.headers.get("x-number") == number), None)

    return come


async def gone(site, client):
    """Close, and wait until the server knows."""
    await client.close()
    await eventually(lambda: client.ws.id not in site.manager.connections)


async def notices(client):
    """What came, as (event, who), lists by the names in them."""
    found = []
    for text in await client.received():
        notice = json.loads(text)
        assert notice.pop("type") == "presence"
        assert notice.pop("channel") == "cars"
        event = notice.pop("event")
        if event == "list":
            found.append((event, {user["user"]: user["devices"] for user in notice["users"]}))
        else:
            found.append((event, notice["user"]))
    return found


# -- presence


async def test_presence_counts_devices_and_says_since_when(serve, enter):
    site = await serve(Named())
    before = datetime.now(UTC)
    await enter(site, "ann")
    between = datetime.now(UTC)
    await asyncio.sleep(0.05)
    await enter(site, "ann")
    await enter(site, "bob")
    await enter(site, None)
    found = site.manager.presence("cars")
    assert {user: there.devices for user, there in found.items()} == {"ann": 2, "bob": 1}
    tick = timedelta(milliseconds=20)  # of the clock that it is kept by
    assert before - tick <= found["ann"].since <= between + tick < found["bob"].since
    assert found["ann"].since.tzinfo is UTC
    assert site.manager.presence("cars") == found


@pytest.mark.parametrize("leave", ["close", "unsubscribe"])
async def test_since_is_the_first_devices_time_whichever_devices_leave(serve, enter, leave):
    site = await serve(Named())
    devices = []
    for _ in range(4):
        devices.append(await enter(site, "ann"))
        await asyncio.sleep(0.02)
    since = site.manager.presence("cars")["ann"].since
    for count, device in zip((3, 2, 1), (devices[0], devices[2], devices[1]), strict=True):
        if leave == "close":
            await gone(site, device)
        else:
            device.ws.unsubscribe("cars")
        assert site.manager.presence("cars") == {"ann": (since, count)}


async def test_a_device_in_another_channel_is_none_in_this(serve, enter):
    site = await serve(Named())
    await enter(site, "ann", "cars")
    bikes = await enter(site, "ann", "bikes")
    assert site.manager.presence("cars")["ann"].devices == 1
    bikes.ws.subscribe("cars")
    assert site.manager.presence("cars")["ann"].devices == 2
    assert site.manager.presence("bikes")["ann"].devices == 1


async def test_a_user_that_comes_back_after_leaving_is_there_since_then(serve, enter):
    site = await serve(Named())
    ann = await enter(site, "ann")
    first = site.manager.presence("cars")["ann"].since
    await gone(site, ann)
    assert site.manager.presence("cars") == {}
    await asyncio.sleep(0.05)
    await enter(site, "ann")
    assert site.manager.presence("cars")["ann"].since > first


# -- a reload is no offline/online pair


async def test_who_is_back_in_time_was_never_offline(serve, enter):
    site = await serve(people := People(), offline_after=NEVER)
    ann = await enter(site, "ann")
    since = site.manager.presence("cars")["ann"].since
    await asyncio.sleep(0.02)
    await gone(site, ann)
    await people.until("on_unsubscribe")
    assert site.manager.presence("cars") == {"ann": (since, 0)}
    await enter(site, "ann")
    assert site.manager.presence("cars") == {"ann": (since, 1)}
    assert people.of("on_user_online") == [("ann",)]
    assert people.of("on_user_offline") == []


async def test_who_is_not_back_in_time_is_offline(serve, enter):
    site = await serve(people := People(), offline_after=0.1)
    ann = await enter(site, "ann")
    bob = await enter(site, "bob")
    began = time.monotonic()
    await gone(site, ann)
    await gone(site, bob)
    assert await people.until("on_user_offline") == ("ann",)
    assert time.monotonic() - began >= 0.09  # the loop's clock has whole milliseconds
    assert await people.until("on_user_offline", 2) == ("bob",)
    assert site.manager.presence("cars") == {}
    await enter(site, "ann")
    assert people.of("on_user_online") == [("ann",), ("bob",), ("ann",)]


async def test_each_absence_has_its_own_time(serve, enter):
    site = await serve(people := People(), offline_after=0.3)
    for _ in range(3):
        await gone(site, await enter(site, "ann"))
        await asyncio.sleep(0.15)  # half the time: the last absence is half over when the first would have been
    assert people.of("on_user_offline") == []
    await people.until("on_user_offline")
    assert people.of("on_user_online") == [("ann",)]


async def test_a_stop_ends_every_absence(serve, enter):
    site = await serve(people := People(), offline_after=NEVER)
    bob = await enter(site, "bob")
    await gone(site, await enter(site, "ann"))
    await people.until("on_unsubscribe")
    stop = asyncio.create_task(site.server.stop())
    await bob.closed()
    await stop
    assert sorted(people.of("on_user_offline")) == [("ann",), ("bob",)]


async def test_while_the_server_stops_nobody_is_told_of_each_who_goes(serve, enter):
    site = await serve(Named(), drain_rate=10)
    site.manager.watch_presence("cars")
    clients = [await enter(site, user) for user in ("ann", "bob", "eve")]
    for client in clients:
        await client.received()
    stop = asyncio.create_task(site.server.stop())
    for client in clients:
        with pytest.raises(Closed):
            await client.receive()
    await stop


async def test_a_failing_on_user_offline_is_logged_and_told(serve, enter, caplog):
    class Fails(People):
        def on_user_offline(self, user):
            raise ValueError("nobody")

    site = await serve(fails := Fails(), offline_after=0.05)
    await gone(site, await enter(site, "ann"))
    error = await fails.until("on_error")
    assert str(error[0]) == "nobody"


# -- watched channels


async def test_members_are_told_who_comes_and_goes(serve, enter):
    site = await serve(Named())
    site.manager.watch_presence("cars")
    ann = await enter(site, "ann")
    assert await notices(ann) == [("list", {"ann": 1})]
    bob = await enter(site, "bob")
    assert await notices(bob) == [("list", {"ann": 1, "bob": 1})]
    assert await notices(ann) == [("join", "bob")]
    phone = await enter(site, "bob")
    assert await notices(phone) == [("list", {"ann": 1, "bob": 2})]
    await gone(site, bob)
    stranger = await enter(site, None)
    assert await notices(stranger) == [("list", {"ann": 1, "bob": 1})]
    assert await notices(ann) == []
    await gone(site, phone)
    for client in (ann, stranger):
        assert await notices(client) == [("leave", "bob")]


async def test_times_in_notices_are_those_of_presence(serve, enter):
    site = await serve(Named())
    site.manager.watch_presence("cars")
    ann = await enter(site, "ann")
    await ann.received()
    bob = await enter(site, "bob")
    since = site.manager.presence("cars")["bob"].since
    assert datetime.fromisoformat((await ann.receive_json())["since"]) == since
    listed = (await bob.receive_json())["users"]
    assert [datetime.fromisoformat(user["since"]) for user in listed if user["user"] == "bob"] == [since]


async def test_watching_begins_with_a_list_for_each_member_and_ends(serve, enter):
    site = await serve(Named())
    ann, bob = await enter(site, "ann"), await enter(site, "bob")
    for _ in range(2):
        site.manager.watch_presence("cars")  # twice is once
    for client in (ann, bob):
        assert await notices(client) == [("list", {"ann": 1, "bob": 1})]
    for _ in range(2):
        site.manager.unwatch_presence("cars")
    eve = await enter(site, "eve")
    await gone(site, bob)
    assert await notices(eve) == await notices(ann) == []
    site.manager.watch_presence("cars")
    assert await notices(ann) == [("list", {"ann": 1, "eve": 1})]


async def test_other_channels_hear_nothing(serve, enter):
    site = await serve(Named())
    site.manager.watch_presence("cars")
    bikes = await enter(site, "ann", "bikes")
    await gone(site, await enter(site, "bob"))
    assert await bikes.received() == []


async def test_a_reload_is_told_to_nobody_and_a_newcomer_still_knows(serve, enter):
    site = await serve(Named(), offline_after=NEVER)
    site.manager.watch_presence("cars")
    ann, bob = await enter(site, "ann"), await enter(site, "bob")
    await ann.received()
    await gone(site, bob)
    eve = await enter(site, "eve")
    assert await notices(eve) == [("list", {"ann": 1, "bob": 0, "eve": 1})]
    await enter(site, "bob")
    assert await notices(ann) == [("join", "eve")]
    assert await notices(eve) == []


async def test_leaving_on_purpose_is_told_at_once(serve, enter):
    site = await serve(Named(), offline_after=NEVER)
    site.manager.watch_presence("cars")
    ann, bob = await enter(site, "ann"), await enter(site, "bob")
    await ann.received()
    bob.ws.unsubscribe("cars")
    assert await notices(ann) == [("leave", "bob")]
    bob.ws.subscribe("cars")
    assert await notices(ann) == [("join", "bob")]


async def test_channels_of_on_open_are_told_once_the_user_is_in(serve, enter):
    class Lobby(Named):
        def on_open(self, ws):
            ws.subscribe("cars")
            if ws.user == "eve":
                return False
            return None

    site = await serve(Lobby(), offline_after=NEVER)
    site.manager.watch_presence("cars")
    ann = await enter(site, "ann", "bikes")
    assert await notices(ann) == [("list", {"ann": 1})]
    async with connect(f"{site.url}/ws/bikes?user=eve") as eve:
        assert await eve.closed() == (1008, "refused by the server")
    assert await notices(ann) == []
    assert set(site.manager.presence("cars")) == {"ann"}


@pytest.mark.parametrize("name", ["\ud800", 'a"b', "ä€😀"])
async def test_any_name_can_be_told(serve, enter, name):
    class Odd(Listener):
        def on_handshake(self, request):
            request.user = name if request.query["user"] == "odd" else request.query["user"]

    site = await serve(Odd())
    site.manager.watch_presence("cars")
    ann = await enter(site, "ann")
    await ann.received()
    odd = await enter(site, "odd")
    assert await notices(ann) == [("join", name)]
    assert await notices(odd) == [("list", {"ann": 1, name: 1})]


async def test_users_that_are_no_strings_are_told_as_json_or_str(serve, enter):
    class Numbered(Listener):
        def on_handshake(self, request):
            request.user = {"1": 1, "2": (2, "b"), "3": frozenset([3])}[request.query["user"]]

    site = await serve(Numbered())
    site.manager.watch_presence("cars")
    first = await enter(site, "1")
    await first.received()
    await enter(site, "2")
    await enter(site, "3")
    assert await notices(first) == [("join", [2, "b"]), ("join", "frozenset({3})")]


async def test_a_user_that_cannot_be_looked_up_is_a_500(serve):
    class Wrong(Listener):
        def on_handshake(self, request):
            request.user = ["ann"]

    site = await serve(Wrong())
    with pytest.raises(Refused) as refused:
        async with connect(f"{site.url}/ws/cars"):
            pass
    assert refused.value.status == 500


# -- who may see whom


async def test_who_blocked_me_is_offline_to_me(serve, enter):
    site = await serve(people := People())
    site.manager.watch_presence("cars")
    people.blocks.add(("ann", "eve"))
    people.blocks.add(("ann", None))
    eve, stranger, bob = await enter(site, "eve"), await enter(site, None), await enter(site, "bob")
    for client in (eve, stranger, bob):
        await client.received()
    ann = await enter(site, "ann")
    late_eve = await enter(site, "eve")
    assert await notices(ann) == [("list", {"ann": 1, "bob": 1, "eve": 1})]
    assert await notices(late_eve) == [("list", {"bob": 1, "eve": 2})]
    assert site.manager.notify("cars", "ann", {"typing": "ann"}, exclude=ann.ws) == 1
    await gone(site, ann)
    assert await eve.received() == await stranger.received() == await late_eve.received() == []
    assert [json.loads(text) for text in await bob.received()][1] == {"typing": "ann"}
    assert set(site.manager.presence("cars", viewer="eve")) == {"bob", "eve"}


async def test_presence_for_a_viewer(serve, enter):
    site = await serve(people := People())
    people.blocks |= {("ann", "eve"), ("bob", None), ("eve", "eve")}
    for user in ("ann", "bob", "eve"):
        await enter(site, user)
    for viewer, seen in (
        ("eve", "bob eve"),
        (None, "ann eve"),
        ("bob", "ann bob eve"),
        ("who is not there", "ann bob eve"),
    ):
        assert set(site.manager.presence("cars", viewer=viewer)) == set(seen.split())
    assert set(site.manager.presence("cars")) == {"ann", "bob", "eve"}


async def test_a_change_of_visibility_is_told_to_those_it_concerns(serve, enter):
    site = await serve(people := People())
    site.manager.watch_presence("cars")
    ann, eve, phone, bob = [await enter(site, user) for user in ("ann", "eve", "eve", "bob")]
    for client in (ann, eve, phone, bob):
        await client.received()
    people.blocks.add(("ann", "eve"))
    site.manager.visibility_changed("ann")
    assert await notices(eve) == await notices(phone) == [("leave", "ann")]
    site.manager.visibility_changed("eve")
    people.blocks.clear()
    site.manager.visibility_changed("eve")  # as viewer
    assert await notices(eve) == await notices(phone) == [("join", "ann")]
    assert await notices(ann) == await notices(bob) == []


async def test_a_leave_goes_to_those_who_knew(serve, enter):
    site = await serve(people := People())
    site.manager.watch_presence("cars")
    ann, bob, eve = [await enter(site, user) for user in ("ann", "bob", "eve")]
    people.blocks.add(("ann", "eve"))
    site.manager.visibility_changed("ann")
    for client in (bob, eve):
        await client.received()
    people.blocks = {("ann", "bob")}  # of which nobody was told
    site.manager.life.company.sight.forget("ann")
    await gone(site, ann)
    assert await notices(bob) == [("leave", "ann")]
    assert await notices(eve) == []


async def test_answers_of_can_see_are_kept_until_they_change(serve, enter):
    site = await serve(people := People())
    for user in ("ann", "bob", "eve"):
        await enter(site, user)
    for _ in range(3):
        site.manager.presence("cars", viewer="ann")
        assert site.manager.sees("ann", "ann")
    assert sorted(people.asked) == [("ann", "bob"), ("ann", "eve")]
    site.manager.visibility_changed("bob")
    site.manager.presence("cars", viewer="ann")
    assert sorted(people.asked) == [("ann", "bob"), ("ann", "bob"), ("ann", "eve")]


async def test_so_many_answers_are_kept_and_no_more(monkeypatch):
    monkeypatch.setattr(presence, "MAX_CACHED_ANSWERS", 100)
    sight = presence.Sight(lambda viewer, user: (viewer + user) % 3)
    for _ in range(2):
        for viewer, user in itertools.product(range(30), repeat=2):
            assert sight.sees(viewer, user) == (viewer == user or (viewer + user) % 3 != 0)
            assert sum(map(len, sight._answers.values())) <= 100
        for user in range(30):
            sight.forget(user)
        assert sight._answers == {} or sum(map(len, sight._answers.values())) == 0


async def test_a_can_see_that_raises_hides_and_is_logged(serve, enter, caplog):
    class Fails(Named):
        def can_see(self, viewer, user):
            raise LookupError("no friends")

    site = await serve(Fails())
    site.manager.watch_presence("cars")
    ann = await enter(site, "ann")
    bob = await enter(site, "bob")
    assert await notices(ann) == [("list", {"ann": 1})]
    assert await notices(bob) == [("list", {"bob": 1})]
    assert "no friends" in caplog.text


async def test_an_async_can_see_stops_at_start(serve):
    class Late(Listener):
        async def can_see(self, viewer, user):
            return True

    with pytest.raises(ConfigurationError, match=r"Late\.can_see is async: make it a plain def"):
        await serve(Late())


async def test_notify_without_rules_reaches_all_but_the_excluded(serve, enter):
    site = await serve(Named())
    ann, phone, bob = [await enter(site, user) for user in ("ann", "ann", "bob")]
    assert site.manager.notify("cars", "ann", "typing", exclude=[ann.ws, phone.ws.id]) == 1
    assert await bob.received() == ["typing"]
    assert await ann.received() == await phone.received() == []


# -- moves from the server's side


async def test_subscribe_user_moves_every_device(serve, enter):
    site = await serve(people := People())
    devices = [await enter(site, "ann"), await enter(site, "ann", "bikes")]
    bob = await enter(site, "bob")
    assert site.manager.subscribe_user("ann", "planes") == 2
    assert site.manager.subscribe_user("nobody", "planes") == 2
    assert site.manager.broadcast("planes", "hello") == 2
    for device in devices:
        assert await device.received() == ["hello"]
    assert site.manager.unsubscribe_user("ann", "planes") == 0
    assert site.manager.unsubscribe_user("ann", "cars") == 1
    assert site.manager.broadcast("cars", "bob alone") == 1
    assert await bob.received() == ["bob alone"]
    assert ("planes",) in people.of("on_channel_close")


async def test_who_is_kicked_while_away_is_gone_at_once(serve, enter):
    site = await serve(Named(), offline_after=NEVER)
    site.manager.watch_presence("cars")
    ann, bob = await enter(site, "ann"), await enter(site, "bob")
    await ann.received()
    await gone(site, bob)
    assert site.manager.unsubscribe_user("bob", "cars") == 1
    assert await notices(ann) == [("leave", "bob")]


async def test_close_user_reaches_every_device_and_nobody_else(serve, enter):
    site = await serve(Named())
    devices = [await enter(site, "ann"), await enter(site, "ann", "bikes")]
    bob = await enter(site, "bob")
    assert site.manager.close_user("ann") == 2
    for device in devices:
        assert await device.closed() == (4001, "logged out")
    assert site.manager.close_user("ann") == 0
    assert site.manager.close_user("bob", 4010, "by an admin") == 1
    assert await bob.closed() == (4010, "by an admin")


@pytest.mark.parametrize("close", ["close_user", "close_session"])
async def test_a_close_that_may_not_be_sent_is_an_error_even_where_nobody_is(serve, close):
    site = await serve(Named())
    with pytest.raises(ValueError, match="1005"):
        getattr(site.manager, close)("ann", 1005)
    with pytest.raises(ValueError, match="123 bytes"):
        getattr(site.manager, close)("ann", 4001, "x" * 124)


class Slow(Listener):
    """Waits in the handshake, or in on_open, until it is let go."""

    def __init__(self, wait_in):
        self.wait_in = wait_in
        self.reached = asyncio.Event()
        self.go = asyncio.Event()

    async def on_handshake(self, request):
        request.user = request.session and request.session["id"]
        await self.wait("on_handshake")

    async def on_open(self, ws):
        await self.wait("on_open")

    async def wait(self, where):
        if where == self.wait_in:
            self.reached.set()
            await self.go.wait()


def cookie(id):
    return {"Cookie": "session=" + signed_cookie({"id": id}, "secret")}


@pytest.mark.parametrize("close", ["close_user", "close_session"])
async def test_a_log_out_during_the_handshake_refuses_it(serve, close):
    site = await serve(slow := Slow("on_handshake"), sessions=SignedCookieSessions("secret"))

    async def come(id):
        async with connect(f"{site.url}/ws/cars", headers=cookie(id)) as client:
            return await client.ping()

    ann, bob = asyncio.create_task(come("ann")), asyncio.create_task(come("bob"))
    await slow.reached.wait()
    await eventually(lambda: len(site.manager.life._pending) == 2)
    assert getattr(site.manager, close)("ann") == 0
    slow.go.set()
    with pytest.raises(Refused) as refused:
        await ann
    assert (refused.value.status, refused.value.error["message"]) == (401, "logged out")
    assert await bob > 0
    assert site.manager.life._pending == {}


@pytest.mark.parametrize("close", ["close_user", "close_session"])
async def test_a_log_out_during_on_open_closes(serve, join, close):
    site = await serve(slow := Slow("on_open"), sessions=SignedCookieSessions("secret"))
    client = await join(f"{site.url}/ws/cars", headers=cookie("ann"))
    await slow.reached.wait()
    assert getattr(site.manager, close)("ann") == 1
    slow.go.set()
    assert await client.closed() == (4001, "logged out")
    assert site.manager.channels == {}


# -- all of it together


class Belief:
    """What a client makes of its notices: who is there."""

    def __init__(self):
        self.there = None

    def take(self, notice):
        if notice["event"] == "list":
            self.there = {user["user"] for user in notice["users"]}
        elif notice["event"] == "join":
            assert notice["user"] not in self.there, "told of twice"
            self.there.add(notice["user"])
        else:
            assert notice["user"] in self.there, "told of the end of what was hidden"
            self.there.discard(notice["user"])


class Member:
    """A client, and what it makes of its notices: who is there."""

    def __init__(self, client, ws):
        self.client, self.ws = client, ws
        self.there = None

    @property
    def is_in(self):
        return "cars" in self.ws.channels

    async def catch_up(self):
        for event, who in await notices(self.client):
            if event == "list":
                self.there = set(who)
            elif self.there is None:
                assert event == "leave"  # of somebody, just before this one left
            elif event == "join":
                assert who not in self.there, "told of twice"
                self.there.add(who)
            else:
                assert who in self.there, "told of the end of what was hidden"
                self.there.discard(who)
        if not self.is_in:
            self.there = None


@pytest.mark.parametrize("offline_after", [0, NEVER])
@pytest.mark.parametrize("seed", range(4))
async def test_what_members_believe_is_what_they_may_see(serve, enter, seed, offline_after):
    site = await serve(people := People(), offline_after=offline_after)
    site.manager.watch_presence("cars")
    users = ["ann", "bob", "eve", "dan"]
    chance = random.Random(seed)
    members = []

    async def come():
        client = await enter(site, chance.choice([*users, None]))
        members.append(Member(client, client.ws))

    async def go():
        await gone(site, members.pop(chance.randrange(len(members))).client)

    async def move():
        ws = chance.choice(members).ws
        ws.unsubscribe("cars") if "cars" in ws.channels else ws.subscribe("cars")

    async def block():
        user = chance.choice(users)
        people.blocks ^= {(user, chance.choice([*users, None]))}
        site.manager.visibility_changed(user)

    async def kick():
        site.manager.unsubscribe_user(chance.choice(users), "cars")

    for _ in range(100):
        await chance.choice([come, go, move, block, block, kick] if members else [come])()
        for member in members:
            await member.catch_up()
        for member in filter(lambda member: member.is_in, members):
            viewer = member.ws.user
            hidden = {user for user in users if user != viewer and (user, viewer) in people.blocks}
            assert member.there == set(site.manager.presence("cars")) - hidden
