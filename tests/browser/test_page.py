"""The chat's page in Chromium: what users see."""

import pytest

from fastws.demo import create_server

from ..lib.tab import IN_CHROMIUM, SECRET, Tab, expect

pytestmark = IN_CHROMIUM


async def test_one_logs_in_through_the_form(visit):
    tab = await visit()
    await tab("#enter").click()
    await expect(tab("#chat")).to_be_hidden()
    await tab.page.get_by_label("Your name").fill(" ann ")
    await tab.page.get_by_role("textbox", name="Channel").fill("#cars")
    await tab.page.get_by_role("button", name="Log in").click()
    await expect(tab("#title")).to_have_text("cars")
    await expect(tab.members).to_have_text(["ann (you)"])
    assert tab.page.url.endswith("/?channel=cars")


@pytest.mark.parametrize("host", ["localhost", "chat.localhost", "127.0.0.1"])
async def test_the_page_works_by_every_name_of_this_machine(browser, server, host):
    tab = Tab(await browser.new_page())
    await tab.page.goto(f"http://{host}:{server.port}/")
    await tab.log_in("ann")
    await tab.until(type="presence", event="list", channel="cars")
    await tab.say("hi")
    await expect(tab.texts).to_have_text(["hi"])
    await tab.page.context.close()


async def test_a_page_of_another_port_of_this_machine_opens_no_socket_and_logs_nobody_out(browser, join, server):
    """SameSite does not consider it another site, so the browser sends the cookie."""
    ann = await join("ann")
    async with create_server(port=0) as other:
        page = await ann.page.context.new_page()
        await page.goto(f"http://127.0.0.1:{other.port}/session")
        opened = """(url) => new Promise((resolve) => {
            const socket = new WebSocket(url);
            socket.onopen = () => resolve(true);
            socket.onerror = () => resolve(false);
        })"""
        for path in ("/ws/chat/cars", "/ws/cars"):
            assert await page.evaluate(opened, f"ws://127.0.0.1:{server.port}{path}") is False
            assert await page.evaluate(opened, f"ws://127.0.0.1:{other.port}/ws/cars") is True
        log_out = "(url) => fetch(url, {method: 'POST', mode: 'no-cors', credentials: 'include'})"
        await page.evaluate(log_out, f"http://127.0.0.1:{server.port}/logout")
        await page.close()
    await ann.say("still here")
    await expect(ann.texts).to_have_text(["still here"])


async def test_a_name_that_the_server_refuses_is_told_at_the_form(visit):
    tab = await visit()
    await tab("#name").fill("..")
    await tab("#enter").click()
    await expect(tab("#notice")).to_contain_text("a name must be")
    assert tab.sockets == 0


async def test_who_is_logged_in_comes_straight_to_the_channel_of_the_address(join, visit):
    ann = await join("ann")
    tab = await visit({"channel": "boats"}, beside=ann)
    await expect(tab("#title")).to_have_text("boats")
    await expect(ann.channels).to_have_text(["cars", "boats"])


async def test_the_address_fills_in_the_form(visit):
    tab = await visit({"channel": "boats"})
    await expect(tab("#first")).to_have_value("boats")
    await expect(tab("#entrance")).to_be_visible()


async def test_two_users_talk_over_two_channels(join):
    ann, bob = await join("ann"), await join("bob")
    await ann.say("hi bob")
    await bob.say("hi ann")
    for tab in (ann, bob):
        await expect(tab.texts).to_have_text(["hi bob", "hi ann"])
    await ann.enter("boats")
    await bob.enter("boats")
    await ann.say("ahoy")
    await expect(bob.texts).to_have_text(["ahoy"])
    await bob.show("cars")
    await expect(bob.texts).to_have_text(["hi bob", "hi ann"])
    assert (ann.sockets, bob.sockets) == (1, 1)


async def test_a_whisper_never_reaches_a_third(join):
    ann, bob, cid = [await join(name) for name in ("ann", "bob", "cid")]
    await ann.pick("bob")
    await ann.say("only for bob")
    await expect(bob(".message.whisper .text")).to_have_text("only for bob")
    await expect(bob(".message.whisper .to")).to_have_text("whispers to you")
    await expect(ann(".message.whisper .to")).to_have_text("You whisper to bob")
    await ann.page.get_by_label("Do not whisper to bob").click()
    await ann.say("for all")
    await cid.until(type="message", message="for all")
    await expect(cid.texts).to_have_text(["for all"])
    assert cid.got("whisper") == []
    assert cid.told_of("only for bob") == []
    assert len(bob.got("whisper")) == len(ann.got("whisper")) == 1


async def test_a_whisper_is_not_said_to_all_when_its_reader_left(join):
    ann, bob, cid = [await join(name) for name in ("ann", "bob", "cid")]
    await ann.pick("bob")
    await ann("#text").fill("only for bob")
    await bob.page.close()
    await ann.until(type="presence", event="leave", user="bob")
    await ann("#text").press("Enter")
    await expect(ann(".event.error")).to_have_text("Not sent: bob left")
    await expect(ann("#text")).to_have_value("only for bob")
    await ann.page.get_by_label("Do not whisper to bob").click()
    await ann.say("for all")
    await cid.until(type="message", message="for all")
    assert cid.told_of("only for bob") == []


async def test_the_member_list_follows(join):
    ann = await join("ann")
    await expect(ann.members).to_have_text(["ann (you)"])
    bob = await join("bob")
    await expect(ann.members).to_have_text(["ann (you)", "bob"])
    await expect(bob.members).to_have_text(["bob (you)", "ann"])
    await expect(ann("#count")).to_have_text("2 members")
    await bob.page.close()
    await expect(ann.members).to_have_text(["ann (you)"])


async def test_unread_messages_are_counted_until_they_are_seen(join):
    ann, bob = await join("ann"), await join("bob")
    await bob.enter("boats")
    await ann.say("one")
    await ann.say("two")
    await expect(bob("#channel-list li[data-name=cars] .badge")).to_have_text("2")
    assert (await bob.page.title()).startswith("(2)")
    await bob.show("cars")
    await expect(bob("#channel-list .badge:visible")).to_have_count(0)
    assert await bob.page.title() == "#cars · fastws chat"


async def test_typing_is_shown_to_others_and_goes_by_itself(join):
    ann, bob = await join("ann"), await join("bob")
    await bob.page.clock.install()
    await ann("#text").press_sequentially("he")
    await expect(bob("#typing")).to_have_text("ann is typing…")
    await bob.page.clock.fast_forward(5000)
    await expect(bob("#typing")).to_be_empty()
    await ann.say("hello")
    await bob.until(type="message", message="hello")
    assert len(bob.got("typing")) == 1
    assert ann.got("typing") == []


async def test_two_tabs_of_a_user_stay_in_step(join):
    first, second, bob = await join("ann"), await join("ann"), await join("bob")
    await expect(bob.members).to_have_text(["bob (you)", "ann"])
    await first.say("from the first tab")
    await expect(second(".message.own .text")).to_have_text("from the first tab")
    await first.enter("boats")
    await expect(second.channels).to_have_text(["cars", "boats"])
    await expect(second("#title")).to_have_text("cars")
    await second("#channel-list li[data-name=boats]").hover()
    await second.page.get_by_label("Leave boats").click()
    await expect(first.channels).to_have_text(["cars"])
    await expect(first("#title")).to_have_text("cars")
    await bob.pick("ann")
    await bob.say("to both tabs")
    for tab in (first, second):
        await expect(tab(".message.whisper .text")).to_have_text("to both tabs")


async def test_two_tabs_of_one_browser_are_one_log_in(join, visit):
    first = await join("ann")
    second = await visit({"channel": "cars"}, beside=first)
    await expect(second("#state")).to_have_text("Online")
    await second.say("from the second tab")
    await expect(first(".message.own .text")).to_have_text("from the second tab")
    await second.log_out()
    for tab in (first, second):
        await expect(tab("#notice")).to_have_text("You are logged out.")
        await expect(tab("#chat")).to_be_hidden()
    await first.log_in("bob")
    await expect(first.members).to_have_text(["bob (you)"])


async def test_the_kicked_are_told_and_stay_where_else_they_are(join):
    ann, bob, phone = await join("ann"), await join("bob"), await join("bob")
    await bob.enter("boats")
    await expect(phone.channels).to_have_text(["cars", "boats"])
    await ann.kick("bob")
    for tab in (bob, phone):
        await expect(tab("#told")).to_have_text("ann kicked you from #cars")
        await expect(tab.channels).to_have_text(["boats"])
        await expect(tab("#state")).to_have_text("Online")
    await expect(ann.members).to_have_text(["ann (you)"])
    await bob.page.get_by_role("button", name="Close notice").click()
    await expect(bob("#news")).to_be_hidden()
    await bob.enter("cars")
    await expect(ann.members).to_have_text(["ann (you)", "bob"])


async def test_who_is_kicked_from_the_last_channel_waits_for_an_invitation(join):
    ann, bob = await join("ann"), await join("bob")
    await ann.kick("bob")
    await expect(bob.channels).to_have_count(0)
    await expect(bob("#send")).to_be_disabled()
    await expect(bob("#invite")).to_be_hidden()
    await ann.invite("bob")
    await expect(bob("#title")).to_have_text("cars")
    await expect(bob("#told")).to_have_text("ann invited you to #cars")
    await bob.say("back")
    await expect(ann.texts).to_have_text(["back"])


async def test_a_refusal_is_seen(join):
    ann = await join("ann")
    await ann.invite("nobody")
    await expect(ann(".event.error")).to_have_text("Refused: nobody else called nobody is online")


async def test_a_refusal_is_seen_on_a_phone_where_a_panel_was_open(join):
    phone = await join("ann", viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
    await phone.page.get_by_role("button", name="Channels").tap()
    await phone("#other").evaluate("input => input.value = 'x'.repeat(33)")
    await phone("#other").press("Enter")
    await expect(phone(".event.error")).to_contain_text("Refused: a channel name must be")
    await expect(phone("#channels")).to_be_hidden()
    await phone.page.get_by_role("button", name="Members").tap()
    await phone.invite("nobody")
    await expect(phone(".event.error").nth(1)).to_be_in_viewport()
    await expect(phone("#members")).to_be_hidden()


async def test_an_invitation_leads_to_its_channel(join):
    ann, bob = await join("ann"), await join("bob")
    await ann.enter("boats")
    await expect(ann("#guests option")).to_have_text(["bob"])
    await ann.invite("bob")
    await expect(bob("#title")).to_have_text("cars")
    await bob.page.get_by_role("button", name="Open").click()
    await expect(bob("#title")).to_have_text("boats")
    await expect(bob("#news")).to_be_hidden()
    await expect(ann("#guests option")).to_have_count(0)


async def test_what_is_half_written_stays_in_its_channel(join):
    ann, bob = await join("ann"), await join("bob")
    await ann.pick("bob")
    await ann("#text").fill("only for bob")
    await ann.enter("boats")
    await expect(ann("#text")).to_have_value("")
    await ann.show("cars")
    await expect(ann("#text")).to_have_value("only for bob")
    await ann("#text").press("Enter")
    await expect(bob(".message.whisper .text")).to_have_text("only for bob")


async def test_the_blocked_are_listed_and_can_be_unblocked(join):
    ann, bob = await join("ann"), await join("bob")
    await expect(ann("#blocked")).to_be_hidden()
    await ann.act("Block", "bob")
    await expect(ann("#blocked-list .name")).to_have_text(["bob"])
    await expect(bob.members).to_have_text(["bob (you)"])
    await expect(ann.members).to_have_text(["ann (you)", "bob"])
    await ann.page.reload()
    await expect(ann("#blocked-list .name")).to_have_text(["bob"])
    await ann.unblock("bob")
    await expect(ann("#blocked")).to_be_hidden()
    await expect(bob.members).to_have_text(["bob (you)", "ann"])


async def test_the_page_reconnects_after_the_server_restarts(join, server):
    ann, bob = await join("ann"), await join("bob")
    for tab in (ann, bob):
        await tab.enter("boats")
    port = server.port
    await server.stop()
    for tab in (ann, bob):
        await expect(tab("#banner")).to_contain_text("Trying again in")
        await expect(tab("#send")).to_be_disabled()
    await ann("#text").fill("written while offline")
    async with create_server(port=port, secret=SECRET):
        for tab in (ann, bob):
            await expect(tab("#banner")).to_be_hidden()
        await expect(bob.members).to_have_text(["bob (you)", "ann"])
        await ann("#text").press("Enter")
        await expect(bob.texts).to_have_text(["written while offline"])
        await ann.show("cars")
        await ann.say("here too")
        await expect(bob("#channel-list li[data-name=cars] .badge")).to_have_text("1")


async def test_the_page_asks_for_a_new_log_in_where_its_session_has_ended(join, server):
    ann = await join("ann")
    port = server.port
    await server.stop()
    await expect(ann("#banner")).to_contain_text("Trying again in")
    async with create_server(port=port, secret="another"):
        await expect(ann("#notice")).to_contain_text("Log in again")
        await ann("#enter").click()
        await expect(ann.members).to_have_text(["ann (you)"])


async def test_what_users_write_is_never_markup(join):
    text = "<img src=x onerror=\"document.title='hacked'\"><b>bold</b>"
    ann, bob = await join("<i>ann</i>"), await join("bob")
    await ann.say(text)
    await expect(bob.texts).to_have_text([text])
    await expect(bob.members).to_have_text(["bob (you)", "<i>ann</i>"])
    await expect(bob("#room img, #room article b b, #chat i")).to_have_count(0)


async def test_a_phone_sized_screen_shows_all_of_it(join):
    size = {"width": 360, "height": 640}
    phone = await join("ann", viewport=size, has_touch=True, is_mobile=True)
    bob = await join("bob")
    await bob.say("a rather long message, " * 10)
    await expect(phone.texts).to_have_count(1)
    assert await phone.page.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [360, 360]
    composer = await phone("#compose").bounding_box()
    assert composer["y"] + composer["height"] <= size["height"]
    await expect(phone("#members")).to_be_hidden()
    await phone.page.get_by_role("button", name="Members").tap()
    await phone.pick("bob")
    await phone("#scrim").tap(position={"x": 10, "y": 300})
    await expect(phone("#members")).to_be_hidden()
    await phone("#text").fill("thumbs")
    await phone.page.get_by_role("button", name="Send").tap()
    await expect(bob(".message.whisper .text")).to_have_text("thumbs")
    screenshot = await phone.page.screenshot(scale="css")
    assert [int.from_bytes(screenshot[at : at + 4]) for at in (16, 20)] == [360, 640]  # PNG: width, height
    assert len(screenshot) > 10_000
