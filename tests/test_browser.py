"""The chat's page in Chromium: what users see, and what goes over the wire."""

import asyncio
import json
import os
import shutil
from urllib.parse import urlencode

import pytest
import pytest_asyncio

from fastws.demo import create_server

CI = os.environ.get("CI") == "true"
CHROMIUM = shutil.which("chromium")
TIMEOUT = 10  # seconds

try:
    from playwright.async_api import async_playwright, expect
except ImportError:
    if CI:
        raise
    pytest.skip("playwright is not installed", allow_module_level=True)

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None and not CI, reason="chromium is not installed"),
]

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Tab:
    """A page with the chat, and every frame that its sockets received."""

    def __init__(self, page):
        self.page = page
        self.frames = []
        self.sockets = 0
        self.errors = []
        self.changed = asyncio.Event()
        page.on("websocket", self.opened)
        page.on("pageerror", lambda error: self.errors.append(error))

    def opened(self, socket):
        self.sockets += 1
        socket.on("framereceived", self.received)

    def received(self, payload):
        self.frames.append(json.loads(payload))
        self.changed.set()

    async def until(self, **fields):
        """Wait for a frame with these fields to have come over the wire."""
        async with asyncio.timeout(TIMEOUT):
            while not any(fields.items() <= frame.items() for frame in self.frames):
                self.changed.clear()
                await self.changed.wait()

    def got(self, kind):
        return [frame for frame in self.frames if frame["type"] == kind]

    def __call__(self, selector, **options):
        return self.page.locator(selector, **options)

    async def say(self, text):
        await self("#text").fill(text)
        await self("#text").press("Enter")

    async def enter(self, channel):
        await self("#other").fill(channel)
        await self("#other").press("Enter")
        await expect(self("#title")).to_have_text(channel)

    async def show(self, channel):
        await self(f"#channel-list li[data-name='{channel}'] .channel").click()

    async def pick(self, user):
        await self.page.get_by_label(f"Whisper to {user}").check()

    async def kick(self, user):
        await self(f"#member-list li[data-name='{user}']").hover()
        await self.page.get_by_label(f"Kick {user}").click()
        await self("#confirm button", has_text="Kick").click()

    @property
    def texts(self):
        return self(".log:not([hidden]) .text")

    @property
    def members(self):
        return self("#member-list .name")

    @property
    def channels(self):
        return self("#channel-list .name")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser():
    assert CHROMIUM, "chromium is not installed"
    expect.set_options(timeout=TIMEOUT * 1000)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def server():
    async with create_server(port=0) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def visit(browser, server):
    """Opens the page; at the end no page may have thrown anything."""
    tabs = []

    async def visit(query=None, **options):
        page = await browser.new_page(**options)
        tab = Tab(page)
        tabs.append(tab)
        await page.goto(f"http://127.0.0.1:{server.port}/?{urlencode(query or {})}")
        return tab

    yield visit
    for tab in tabs:
        await tab.page.context.close()
    assert [error for tab in tabs for error in tab.errors] == []


@pytest_asyncio.fixture(loop_scope="module")
async def join(visit):
    async def join(name, channel="cars", **options):
        tab = await visit({"name": name, "channel": channel}, **options)
        await expect(tab("#state")).to_have_text("Online")
        return tab

    return join


async def test_one_joins_by_name_through_the_form(visit):
    tab = await visit()
    await tab("#enter").click()
    await expect(tab("#chat")).to_be_hidden()
    await tab.page.get_by_label("Your name").fill(" ann ")
    await tab.page.get_by_role("textbox", name="Channel").fill("#cars")
    await tab.page.get_by_role("button", name="Join").click()
    await expect(tab("#title")).to_have_text("cars")
    await expect(tab.members).to_have_text(["ann (you)"])
    assert tab.page.url.endswith("?name=ann&channel=cars")


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
    ann, bob, cat = [await join(name) for name in ("ann", "bob", "cat")]
    await ann.pick("bob")
    await ann.say("only for bob")
    await expect(bob(".message.whisper .text")).to_have_text("only for bob")
    await expect(bob(".message.whisper .to")).to_have_text("whispers to you")
    await expect(ann(".message.whisper .to")).to_have_text("You whisper to bob")
    await ann.page.get_by_label("Do not whisper to bob").click()
    await ann.say("for all")
    await cat.until(type="message", message="for all")
    await expect(cat.texts).to_have_text(["for all"])
    assert cat.got("whisper") == []
    assert "only for bob" not in json.dumps(cat.frames)
    assert len(bob.got("whisper")) == len(ann.got("whisper")) == 1


async def test_a_whisper_is_not_said_to_all_when_its_reader_left(join):
    ann, bob, cat = [await join(name) for name in ("ann", "bob", "cat")]
    await ann.pick("bob")
    await ann("#text").fill("only for bob")
    await bob.page.close()
    await ann.until(type="leave", user="bob")
    await ann("#text").press("Enter")
    await expect(ann(".event.error")).to_have_text("Not sent: bob left")
    await expect(ann("#text")).to_have_value("only for bob")
    await ann.page.get_by_label("Do not whisper to bob").click()
    await ann.say("for all")
    await cat.until(type="message", message="for all")
    assert "only for bob" not in json.dumps(cat.frames)


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


async def test_the_kicked_are_told_and_come_back_only_when_they_ask(join):
    ann, bob, other = await join("ann"), await join("bob"), await join("bob")
    await bob.page.clock.install()
    await ann.kick("bob")
    for tab in (bob, other):
        await expect(tab("#notice")).to_have_text("You were kicked by ann.")
    await expect(ann.members).to_have_text(["ann (you)"])
    await bob.page.clock.fast_forward(60_000)
    assert bob.sockets == 1
    await bob.page.get_by_role("button", name="Join again").click()
    await expect(bob("#state")).to_have_text("Online")
    await expect(ann.members).to_have_text(["ann (you)", "bob"])
    await bob.say("back")
    await expect(ann.texts).to_have_text(["back"])


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
    async with create_server(port=port):
        for tab in (ann, bob):
            await expect(tab("#banner")).to_be_hidden()
        await expect(bob.members).to_have_text(["bob (you)", "ann"])
        await ann("#text").press("Enter")
        await expect(bob.texts).to_have_text(["written while offline"])
        await ann.show("cars")
        await ann.say("here too")
        await expect(bob("#channel-list li[data-name=cars] .badge")).to_have_text("1")


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
