"""Watched channels: members are told who joins and leaves, and end up with the truth."""

import random
from datetime import datetime

import pytest

from fastws import Listener
from fastws.testing import Refused, connect

from ..lib.people import NEVER, People, gone, notices
from ..lib.support import Named


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
        site.manager.watch_presence("cars")  # a second call changes nothing
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


# -- all of it together


class Member:
    """A client that derives from its notices who is there."""

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
