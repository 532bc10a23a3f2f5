"""The directory of users, and the nodes: who beats, who is buried by whom."""

import asyncio

from fastws.backplane.base import NodeKey, UserName

ANN, BOB, EVE = (UserName("/ws", name) for name in ("ann", "bob", "eve"))


async def test_nodes_claim_and_release_users(backplanes):
    a, b = await backplanes.node("a"), await backplanes.node("b")
    assert await a.backplane.claim([ANN, BOB]) == [[], []]
    assert await b.backplane.claim([BOB, EVE]) == [[a.key], []]
    assert await a.backplane.claim([ANN]) == [[]]  # again
    found = await b.backplane.find([ANN, BOB, EVE, UserName("/other", "ann")])
    assert [set(nodes) for nodes in found] == [{a.key}, {a.key, b.key}, {b.key}, set()]
    assert await a.backplane.release([ANN, BOB]) == [[], [b.key]]
    assert await a.backplane.release([ANN]) == [[]]
    assert await b.backplane.release([BOB, EVE]) == [[], []]
    assert await b.backplane.find([ANN, BOB, EVE]) == [[], [], []]
    assert await b.backplane.find([]) == []


async def test_of_two_that_claim_at_once_one_is_first_and_one_is_last(backplanes):
    a, b = await backplanes.node("a"), await backplanes.node("b")
    for number in range(30):
        user = UserName("/ws", f"user{number}")
        (first,), (second,) = await asyncio.gather(a.backplane.claim([user]), b.backplane.claim([user]))
        assert [not first, not second].count(True) == 1
        (first,), (second,) = await asyncio.gather(a.backplane.release([user]), b.backplane.release([user]))
        assert [not first, not second].count(True) == 1


async def test_the_last_of_claims_and_releases_in_a_turn_counts(backplanes):
    a, b = await backplanes.node("a"), await backplanes.node("b")
    await asyncio.gather(a.backplane.claim([ANN]), a.backplane.release([ANN]), a.backplane.claim([ANN]))
    assert await b.backplane.find([ANN]) == [[a.key]]


async def test_a_node_holds_what_it_claimed(backplanes):
    a, b = await backplanes.node("a"), await backplanes.node("b")
    users = [UserName("/ws" if number % 2 else "/other", f"user {number}\n") for number in range(1500)]
    await a.backplane.claim(users)
    await b.backplane.claim(users[:3])
    assert set(await b.backplane.holdings(a.key)) == set(users)
    assert await a.backplane.release(users[3:]) == [[]] * 1497
    assert set(await b.backplane.holdings(a.key)) == set(users[:3])
    assert await b.backplane.holdings(NodeKey("nobody", 1)) == []


async def test_a_node_releases_the_users_of_a_dead_one(backplanes):
    a, b = await backplanes.node("a"), await backplanes.node("b")
    await a.backplane.claim([ANN, BOB])
    await b.backplane.claim([BOB])
    assert await b.backplane.release([ANN, BOB], a.key) == [[], [b.key]]
    assert await b.backplane.holdings(a.key) == []
    assert await b.backplane.find([ANN, BOB]) == [[], [b.key]]


async def test_incarnations_are_different_nodes_in_the_directory(backplanes):
    a, b = await backplanes.node("a"), await backplanes.node("b")
    before = a.key
    await a.backplane.claim([ANN])
    a.backplane.rename(NodeKey("a", 2))
    assert await a.backplane.claim([ANN]) == [[before]]
    assert await b.backplane.release([ANN], before) == [[NodeKey("a", 2)]]


async def test_beats_are_counted_and_tell_of_all_nodes(backplanes):
    a, b = await backplanes.node("a"), await backplanes.node("b")
    first = await a.backplane.beat(b"info of a")
    assert not first.was_known
    assert first.nodes[a.key] == (1, b"info of a")
    await b.backplane.beat(b"\0\n")
    second = await a.backplane.beat(b"more of a")
    assert second.was_known
    assert dict(second.nodes) == {a.key: (2, b"more of a"), b.key: (1, b"\0\n")}


async def test_a_node_that_leaves_is_not_there(backplanes):
    a, b = await backplanes.node("a"), await backplanes.node("b")
    await a.backplane.beat(b"")
    await a.backplane.leave()
    assert set((await b.backplane.beat(b"")).nodes) == {b.key}


async def test_who_has_beaten_since_is_not_buried(backplanes):
    a, b = await backplanes.node("a"), await backplanes.node("b")
    await a.backplane.beat(b"")
    await a.backplane.beat(b"")
    assert await b.backplane.bury(a.key, 1) == []
    assert await b.backplane.bury(NodeKey("nobody", 1), 1) == []
    assert (await a.backplane.beat(b"")).was_known


async def test_the_dead_go_to_exactly_one(backplanes):
    a, b, c = [await backplanes.node(name) for name in "abc"]
    await a.backplane.beat(b"")
    got = await asyncio.gather(*[peer.backplane.bury(a.key, 1) for peer in (b, c)])
    assert sorted(got) == [[], [a.key]]
    assert set((await b.backplane.beat(b"")).nodes) == {b.key}
    assert not (await a.backplane.beat(b"")).was_known


async def test_who_buries_a_burier_inherits(backplanes):
    a, b, c = [await backplanes.node(name) for name in "abc"]
    for peer in (a, b, c):
        await peer.backplane.beat(b"")
    assert await b.backplane.bury(a.key, 1) == [a.key]
    assert set(await c.backplane.bury(b.key, 1)) == {a.key, b.key}
    await c.backplane.buried(a.key)
    d = await backplanes.node("d")
    assert set(await d.backplane.bury(c.key, 1)) == {b.key, c.key}
    for dead in (b.key, c.key):
        await d.backplane.buried(dead)
    await d.backplane.beat(b"")
    e = await backplanes.node("e")
    assert await e.backplane.bury(d.key, 1) == [d.key]
