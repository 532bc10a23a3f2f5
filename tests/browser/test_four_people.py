"""Four people, five browsers, six tabs: all received frames are recorded, and must be meant for them."""

import pytest
import pytest_asyncio

from ..lib.tab import IN_CHROMIUM, expect

pytestmark = IN_CHROMIUM


@pytest_asyncio.fixture(loop_scope="module")
async def people(join, visit):
    async def people():
        laptop, phone, bob, cid, dora = [await join(name) for name in ("ann", "ann", "bob", "cid", "dora")]
        second = await visit({"channel": "cars"}, beside=laptop)
        tabs = (laptop, second, phone, bob, cid, dora)
        for tab in tabs:
            await expect(tab.members).to_have_count(4)
        return tabs

    return people


async def settle(speaker, tabs):
    """When a message has reached all of them, so has everything sent before it."""
    mark = f"mark {speaker.sockets} {len(speaker.frames)}"
    await speaker.say(mark)
    for tab in tabs:
        await tab.until(type="message", message=mark)


async def test_four_people_one_of_them_on_two_devices_which_are_in_step(people):
    tabs = laptop, second, phone, *others = await people()
    await phone.say("from the phone")
    for tab in (laptop, second, phone):
        await expect(tab(".message.own .text")).to_have_text(["from the phone"])
    await laptop.enter("boats")
    for tab in (laptop, second, phone):
        await expect(tab.channels).to_have_text(["cars", "boats"])
        await tab.show("boats")
    await second.say("to oneself")
    await expect(phone.texts).to_have_text(["to oneself"])
    await settle(others[0], tabs)
    for tab in others:
        assert tab.told_of("boats") == tab.told_of("to oneself") == []
        assert len(tab.got("presence", event="join", user="ann")) == 0


async def test_four_people_a_whisper_is_on_no_other_wire(people):
    tabs = laptop, second, phone, bob, cid, dora = await people()
    await bob.pick("ann")
    await bob.say("for ann alone")
    for tab in (laptop, second, phone, bob):
        await expect(tab(".message.whisper .text")).to_have_text(["for ann alone"])
    await bob.page.get_by_label("Do not whisper to ann").click()
    await settle(bob, tabs)
    assert cid.told_of("for ann alone") == dora.told_of("for ann alone") == []
    assert [len(tab.got("whisper")) for tab in tabs] == [1, 1, 1, 1, 0, 0]


async def test_four_people_an_invitation_reaches_the_invited_alone(people):
    tabs = laptop, _, _, bob, cid, dora = await people()
    await laptop.enter("boats")
    await laptop.invite("cid")
    await expect(cid("#told")).to_have_text("ann invited you to #boats")
    await expect(cid.channels).to_have_text(["cars", "boats"])
    await expect(laptop.members).to_have_text(["ann (you)", "cid"])
    await cid.show("boats")
    await cid.say("ahoy")
    await expect(laptop.texts).to_have_text(["ahoy"])
    await settle(bob, tabs)
    assert [len(tab.got("invite")) for tab in tabs] == [0, 0, 0, 0, 1, 0]
    assert bob.told_of("boats") == dora.told_of("boats") == []


async def test_four_people_to_the_blocked_one_is_gone(people):
    tabs = laptop, second, phone, bob, cid, dora = await people()
    await dora.pick("ann")
    await dora.pick("bob")
    await laptop.act("Block", "dora")
    await expect(dora.members).to_have_text(["dora (you)", "bob", "cid"])
    before = len(dora.frames)
    await laptop("#text").press_sequentially("so")
    await expect(bob("#typing")).to_have_text("ann is typing…")
    await laptop("#text").fill("")
    await dora.say("between us")
    await expect(bob(".message.whisper .text")).to_have_text("between us")
    await phone.enter("boats")
    await settle(bob, tabs)
    assert dora.told_of("ann")[-1] == {"type": "presence", "channel": "cars", "event": "leave", "user": "ann"}
    heard = [(frame["type"], frame["from"]) for frame in dora.frames[before:]]
    assert heard == [("whisper", "dora"), ("typing", "bob"), ("message", "bob")]
    assert dora.got("whisper")[0]["to"] == ["bob"]
    for tab in (laptop, second, phone, cid):
        assert tab.told_of("between us") == []
    assert [len(tab.got("presence", event="leave")) for tab in tabs] == [0, 0, 0, 0, 0, 1]
    assert [len(tab.got("blocked")) for tab in tabs] == [1, 1, 1, 0, 0, 0]
    await phone.show("cars")
    await phone.unblock("dora")
    await expect(dora.members).to_have_text(["dora (you)", "ann", "bob", "cid"])


async def test_four_people_the_kicked_hears_no_more_of_the_channel(people):
    tabs = laptop, second, phone, bob, cid, dora = await people()
    await bob.kick("ann")
    for tab in (laptop, second, phone):
        await expect(tab("#told")).to_have_text("bob kicked you from #cars")
        await expect(tab.channels).to_have_count(0)
        await expect(tab("#state")).to_have_text("Online")
    await settle(cid, (bob, cid, dora))
    await laptop.enter("boats")
    await laptop.say("elsewhere")
    await phone.until(type="message", message="elsewhere")
    for tab in (laptop, second, phone):
        assert tab.told_of("mark") == []
    assert [len(tab.got("kick")) for tab in tabs] == [1] * 6


@pytest.fixture
def somebody_comes_and_goes(join):
    """Leaves are announced in order: anybody who was away before this leaves before it, or has come back."""

    async def somebody_comes_and_goes(tabs):
        eve = await join("eve")
        await eve.page.close()
        for tab in tabs:
            await tab.until(type="presence", event="leave", user="eve")

    return somebody_comes_and_goes


# Long enough for a page to load on a busy machine.
@pytest.mark.parametrize("server", [6], indirect=True)
async def test_four_people_a_reload_is_no_coming_and_going(people, somebody_comes_and_goes):
    tabs = await people()
    bob = tabs[3]
    before = [len(tab.got("presence", user="bob")) for tab in tabs]
    await bob.page.reload()
    await expect(bob.members).to_have_text(["bob (you)", "ann", "cid", "dora"])
    await somebody_comes_and_goes(tabs)
    assert bob.sockets == 2
    assert [len(tab.got("presence", user="bob")) for tab in tabs] == before


async def test_four_people_to_log_out_closes_the_tabs_of_one_browser(people, somebody_comes_and_goes):
    tabs = laptop, second, phone, bob, cid, dora = await people()
    await laptop.log_out()
    for tab in (laptop, second):
        await expect(tab("#notice")).to_have_text("You are logged out.")
    told = [len(tab.frames) for tab in (laptop, second)]
    await somebody_comes_and_goes(tabs[2:])
    for tab in (bob, cid, dora):
        await expect(tab.members).to_have_count(4)
        assert tab.got("presence", event="leave", user="ann") == []
    assert [len(tab.frames) for tab in (laptop, second)] == told
    await phone.log_out()
    for tab in (bob, cid, dora):
        await tab.until(type="presence", event="leave", user="ann")
    await laptop.page.reload()
    await expect(laptop("#entrance")).to_be_visible()
    assert laptop.sockets == 1
