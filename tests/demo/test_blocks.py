"""The chat's blocks and kicks: who no longer sees whom, and who is told."""

import pytest

from fastws.demo.chat import MAX_BLOCKED

# Blocks


@pytest.fixture
def blocked(join):
    """ann has blocked bob; all three have been told, and nothing is left to read."""

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
