"""The demo's chat over real sockets; the page itself is tested in tests/browser."""

import json
import time

import pytest

from fastws.demo.chat import MAX_CHANNELS, MAX_MESSAGE_CHARACTERS, MAX_NAME_CHARACTERS

from ..lib.chat import log_in, refusal

# Joining


@pytest.mark.parametrize("channel", ["a" * (MAX_NAME_CHARACTERS + 1), "%20cars", "a%E2%80%AEb"])
async def test_a_channel_name_that_will_not_do_is_refused_with_a_reason(server, channel):
    response = await refusal(server, f"/ws/chat/{channel}", await log_in(server, "ann"))
    assert response.status_code == 400
    assert b"channel" in response.body


async def test_a_newcomer_is_welcomed_and_told_the_members(enter, join):
    bob = await join("bob")
    await join("bob", tab=bob)
    ann = await enter("ann")
    welcome, subscribed, members = [await ann.receive() for _ in range(3)]
    assert (welcome["type"], welcome["user"], welcome["data"]) == ("welcome", "ann", {"blocked": []})
    assert (subscribed["type"], subscribed["channel"], subscribed["subscribers"]) == ("subscribed", "cars", 3)
    there = {member.pop("user"): member for member in members.pop("users")}
    assert members == {"type": "presence", "channel": "cars", "event": "list"}
    assert {user: member["devices"] for user, member in there.items()} == {"ann": 1, "bob": 2}
    assert there["bob"]["since"] <= there["ann"]["since"]


async def test_names_and_channels_may_be_any_text(join):
    zoe, ann = await join("Zoë A/B", "röd & grön/?"), await join("ann", "röd & grön/?")
    await ann.send("publish", channel="röd & grön/?", message="hej")
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
    # Leaves are announced in order: by the time of cid's, bob's would have been.
    cid = await join("cid")
    await cid.socket.close()
    heard = [await ann.receive(), await ann.receive()]
    assert [(notice["event"], notice["user"]) for notice in heard] == [("join", "cid"), ("leave", "cid")]


# Messages


async def test_a_message_goes_to_all_members_and_to_its_sender(join):
    ann, bob = await join("ann"), await join("bob")
    before = int(time.time() * 1000)
    await ann.send("publish", channel="cars", message="hi <b>\n")
    message = await bob.until("message")
    moment, sender = message["time"], message["from"]
    assert message == {"type": "message", "channel": "cars", "message": "hi <b>\n"} | {
        field: message[field] for field in ("time", "from", "position")
    }
    assert before <= moment <= time.time() * 1000
    assert (sender["user"], await ann.until("message")) == ("ann", message)


async def test_one_socket_is_in_several_channels_at_once(join):
    ann, bob = await join("ann", "cars"), await join("bob", "boats")
    await ann.send("subscribe", channel="boats")
    assert await ann.members("boats") == ["ann", "bob"]
    await bob.send("publish", channel="boats", message="ahoy")
    assert (await ann.until("message"))["channel"] == "boats"
    await ann.send("publish", channel="cars", message="vroom")
    assert (await ann.until("message"))["channel"] == "cars"
    assert "message" not in [message["type"] for message in (await bob.drained())[2:]]


async def test_who_leaves_a_channel_hears_no_more_of_it(join):
    ann, bob = await join("ann"), await join("bob")
    await ann.send("unsubscribe", channel="cars")
    assert await ann.until("unsubscribed") == {"type": "unsubscribed", "channel": "cars", "reason": "asked"}
    await bob.departed("ann")
    await bob.send("publish", channel="cars", message="gone?")
    await bob.until("message")
    assert await ann.drained() == []


# Whispers


async def test_a_whisper_reaches_those_named_and_the_senders_tabs_alone(join):
    ann, other_ann, bob, cid, dora = [await join(name) for name in ("ann", "ann", "bob", "cid", "dora")]
    await ann.send("whisper", channel="cars", to=["cid", "bob"], message="psst")
    whisper = await ann.until("whisper")
    expected = {"type": "whisper", "channel": "cars", "to": ["bob", "cid"], "message": "psst"}
    assert whisper == expected | {"time": whisper["time"], "from": whisper["from"]}
    assert whisper["from"]["user"] == "ann"
    for client in (other_ann, bob, cid):
        assert await client.until("whisper") == whisper
    assert await dora.drained() == []


async def test_a_whisper_to_a_name_in_another_channel_does_not_reach_it(join):
    ann, bob, cid = await join("ann"), await join("bob"), await join("cid", "boats")
    await ann.send("whisper", channel="cars", to=["bob", "cid"], message="psst")
    assert (await bob.until("whisper"))["to"] == ["bob"]
    assert await cid.drained() == []


@pytest.mark.parametrize("to", [["nobody"], ["ann"], [7]])
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
    assert await bob.until("typing") == {"type": "typing", "channel": "cars", "user": "ann"}
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
    await ann.send("publish", channel="cars", message="still here")
    assert [message["type"] for message in await bob.drained()] == ["message"]
    await ann.socket.close()
    await bob.departed("ann")


async def test_what_one_tab_says_is_seen_in_the_other(join):
    ann, other = await join("ann"), await join("ann")
    await ann.send("publish", channel="cars", message="from the first")
    assert (await other.until("message"))["from"]["user"] == "ann"


async def test_joining_and_leaving_a_channel_is_mirrored_to_the_other_tab(join):
    ann, other = await join("ann"), await join("ann")
    await ann.send("subscribe", channel="boats")
    assert await other.members("boats") == ["ann"]
    await other.send("unsubscribe", channel="boats")
    for tab in (ann, other):
        await tab.until("unsubscribed", channel="boats")


async def test_a_new_tab_comes_into_all_channels_of_the_user_and_brings_its_own(join):
    ann, bob = await join("ann", "cars"), await join("bob", "boats")
    await ann.send("subscribe", channel="boats")
    await ann.members("boats")
    other = await join("ann", "trains")
    assert await ann.members("trains") == ["ann"]
    await bob.send("publish", channel="boats", message="ahoy")
    assert (await other.until("message"))["channel"] == "boats"


# Invitations


async def test_an_invitation_brings_every_tab_of_a_user_into_the_channel(join):
    ann, cid, bob = await join("ann", "boats"), await join("cid", "boats"), await join("bob")
    phone = await join("bob")
    await ann.call("invite", channel="boats", user="bob")
    for tab in (bob, phone):
        assert await tab.members("boats") == ["ann", "bob", "cid"]
        invitation = {"event": "invite", "channel": "boats", "user": "bob", "by": "ann"}
        assert await tab.told("invite") == invitation
    await cid.joined("bob", "boats")
    assert await cid.drained() == []
    await phone.send("publish", channel="boats", message="ahoy")
    assert (await ann.until("message"))["from"]["user"] == "bob"


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
    assert (await ann.refused("invite", channel="cars", user="bob"))[0] == "too_many"


# Bad input

TOO_LONG = "x" * (MAX_MESSAGE_CHARACTERS + 1)


def call(method, **params):
    return json.dumps({"type": "call", "id": 1, "method": method, "params": params})


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ('{"type": "publish", "channel": "cars", "message": 7}', "bad_field"),
        ('{"type": "publish", "channel": "cars", "message": " \\n"}', "bad_field"),
        ('{"type": "publish", "channel": "boats", "message": "x"}', "not_a_member"),
        ('{"type": "whisper", "channel": "cars", "message": [], "to": ["bob"]}', "bad_field"),
        ('{"type": "whisper", "channel": "cars", "message": "x", "to": []}', "bad_field"),
        ('{"type": "whisper", "channel": "boats", "message": "x", "to": ["bob"]}', "not_a_member"),
        ('{"type": "typing", "channel": "boats"}', "not_a_member"),
        ('{"type": "unsubscribe", "channel": "boats"}', "not_a_member"),
        ('{"type": "subscribe", "channel": ""}', "bad_channel"),
        ('{"type": "subscribe", "channel": ".."}', "bad_channel"),
        (call("shout"), "refused"),
        (call("kick", channel="cars", user="nobody"), "no_such_member"),
        (call("kick", channel="cars", user="ann"), "no_such_member"),
        (call("kick", channel="cars"), "bad_field"),
        (call("kick", channel="boats", user="bob"), "not_a_member"),
        (call("invite", channel="boats", user="bob"), "not_a_member"),
        (call("invite", channel="cars"), "bad_field"),
        (call("block"), "bad_field"),
        (call("block", user=["bob"]), "bad_field"),
        (call("unblock", user=7), "bad_field"),
        ('{"type": "call", "id": 1, "method": "block", "params": [1]}', "bad_field"),
        (json.dumps({"type": "publish", "channel": "cars", "message": TOO_LONG}), "too_large"),
    ],
)
async def test_bad_input_is_answered_with_an_error_and_reaches_nobody(join, sent, code):
    ann, bob = await join("ann"), await join("bob")
    await ann.joined("bob")
    await ann.socket.send(sent)
    error = await ann.receive()
    assert (error["type"], error["code"], error["retry"]) == ("error", code, False)
    await ann.send("publish", channel="cars", message="goes on")
    assert [message["type"] for message in await bob.drained()] == ["message"]


async def test_nobody_is_in_more_channels_than_the_limit(join):
    ann = await join("ann", "0")
    for number in range(1, MAX_CHANNELS + 1):
        await ann.send("subscribe", channel=str(number))
    assert (await ann.until("error"))["code"] == "too_many"
