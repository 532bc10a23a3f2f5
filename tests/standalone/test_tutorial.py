"""docs/tutorial: whoever pastes one box after the other gets what the pages say."""

import asyncio
import re

import pytest

from ..lib.paste import Reader, boxes
from ..lib.support import unused_port
from .conftest import ROOT

TUTORIAL = ROOT / "docs" / "tutorial"
PAGES = sorted(TUTORIAL.glob("[0-9]-*.md"))


class Browser:
    """What the reader does in a browser, and sees there; each visitor has cookies of their own."""

    def __init__(self, browser, reader):
        self._browser = browser
        self._reader = reader
        self._people = {}

    async def visit(self, name, address):
        """A window of somebody's, at a file of the folder or at an address."""
        if name not in self._people:
            context = await self._browser.new_context()
            self._people[name] = await context.new_page()
        page = self._people[name]
        await page.goto("about:blank")
        is_file = "://" not in address
        await page.goto((self._reader.here / address).as_uri() if is_file else self._reader.with_ports(address))
        return page

    async def say(self, name, text):
        box = self._people[name].locator("#text")
        await box.fill(text)
        await box.press("Enter")

    async def sees(self, name, selector, text):
        await self._people[name].locator(selector, has_text=text).first.wait_for(timeout=20_000)

    async def is_with(self, name, *people):
        """The page's list has these people, in whatever order they came (or came back)."""
        shown = "document.querySelector('#here').textContent.split(', ').sort().join()"
        await self._people[name].wait_for_function(f"{shown} === '{','.join(people)}'", timeout=20_000)

    # -- the checks that the pages name

    async def open_fastws_html(self):
        await self.visit("somebody", "fastws.html")
        await self.sees("somebody", "#state", "public.news: open")

    async def fastws_html_shows_hello(self):
        await self.sees("somebody", "#news", '"hello"')

    async def fastws_html_shows_hello_from_curl(self):
        await self.sees("somebody", "#news", "hello from curl")

    async def fastws_html_shows_the_price_once(self):
        await self.sees("somebody", "#news", "211.4")
        assert await self._people["somebody"].locator("li", has_text="211.4").count() == 1

    async def two_talk_in_lobby_html(self):
        for name in ("one", "two"):
            await self.visit(name, "lobby.html")
            await self.sees(name, "#state", "open")
        await self.say("one", "is anybody here?")
        await self.sees("two", "li", "somebody: is anybody here?")
        await self.sees("one", "li", "somebody: is anybody here?")

    async def ann_and_bob_meet_in_room_html(self):
        for name, address in zip(("ann", "bob"), self._reader.said.split(), strict=True):
            await self.visit(name, address)
        await self.is_with("ann", "ann", "bob")
        await self.say("bob", "hello, ann")
        await self.sees("ann", "li", "bob: hello, ann")

    async def room_html_without_a_token_is_refused(self):
        await self.visit("somebody", "room.html")
        await self.sees("somebody", "#state", "this needs a user")

    async def ann_is_logged_out(self):
        await self.sees("ann", "#state", "closed")
        await self.is_with("bob", "bob")

    async def log_in(self, name, address):
        page = await self.visit(name, address)
        await page.locator("[name=user]").fill(name)
        await page.locator("[name=user]").press("Enter")
        await self.sees(name, "#state", "open")

    async def ann_and_bob_log_in_at_the_backend(self):
        for name in ("ann", "bob"):
            await self.log_in(name, "http://127.0.0.1:8000/")
        await self.say("ann", "hello again")
        await self.sees("bob", "li", "ann: hello again")
        for name in ("ann", "bob"):  # who may be there already, in the window of the step before
            await asyncio.to_thread(self._reader.expect, f"...{name} is online", of="python backend.py")

    async def ann_logs_out_at_the_backend(self):
        other = await self._people["ann"].context.new_page()
        await other.goto(self._people["ann"].url)
        await other.locator("#state", has_text="open").wait_for()
        await self._people["ann"].get_by_role("button").click()
        await self.sees("ann", "form", "")
        assert await self._people["ann"].locator("[name=user]").count() == 1
        await other.locator("#state", has_text="closed you have logged out").wait_for()
        await asyncio.to_thread(self._reader.expect, "...ann is offline", of="python backend.py")

    async def ann_and_bob_talk_in_the_lobby(self):
        for name in ("ann", "bob"):
            await self.log_in(name, "http://127.0.0.1:8765/")
        await self.say("ann", "hello from Python")
        await self.sees("bob", "li", "ann: hello from Python")

    async def ann_bob_and_eve_whisper_and_block(self):
        for name in ("ann", "bob"):
            await self.visit(name, "http://127.0.0.1:8765/")
        await self.log_in("eve", "http://127.0.0.1:8765/")
        await self.is_with("bob", "ann", "bob", "eve")
        await self.say("ann", "/w bob psst")
        await self.sees("bob", "li", "ann whispers: psst")
        await self.say("ann", "/block eve")
        await self.is_with("eve", "bob", "eve")
        await self.say("eve", "where is ann?")
        await self.sees("bob", "li", "eve: where is ann?")
        await self.say("bob", "here")
        for name in ("ann", "eve"):
            await self.sees(name, "li", "bob: here")
        assert await self._people["eve"].locator("li", has_text="psst").count() == 0
        assert await self._people["ann"].locator("li", has_text="where is ann?").count() == 0

    async def ann_and_bob_talk_in_the_lobby_of_the_server(self):
        for name in ("ann", "bob"):
            await self.visit(name, "http://127.0.0.1:8765/")
            await self.sees(name, "#state", "open")
        await self.say("ann", "are we live?")
        await self.sees("bob", "li", "ann: are we live?")

    async def the_page_comes_back_after_a_restart(self):
        await asyncio.to_thread(self._reader.stop, "fastws serve")
        await self.sees("ann", "#state", "closed")
        await asyncio.to_thread(self._reader.start, "fastws serve")
        await self.sees("ann", "#state", "open")
        await self.say("ann", "back again")
        await self.sees("ann", "li", "ann: back again")


@pytest.mark.timeout(300)
async def test_whoever_pastes_every_box_gets_what_the_pages_say(folder, browser, tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    with unused_port() as server, unused_port() as backend:
        ports = {"8765": str(server), "8000": str(backend)}
        reader = Reader(folder, state, ports, f"export FASTWS_PORT={server}")  # for where no file says it
        visitor = Browser(browser, reader)
        try:
            for page in PAGES:
                for box in boxes(page):
                    await do(box, reader, visitor, page.name)
        finally:
            await asyncio.to_thread(reader.stop_all)


async def do(box, reader, visitor, page):
    try:
        if box.language:
            await asyncio.to_thread(reader.read, box)
        else:
            await getattr(visitor, re.sub(r"\W", "_", box.text))()
    except Exception as error:
        error.add_note(f"{page}, line {box.line}: {box.text[:200]}")
        raise
