"""Who may see whom: a user who is hidden is offline, in lists and in notices."""

import itertools
import json

import pytest

from fastws import ConfigurationError, Listener, presence

from ..lib.people import People, gone, notices
from ..lib.support import Named


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
