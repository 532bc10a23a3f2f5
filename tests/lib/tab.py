"""The chat's page in a tab of Chromium."""

import asyncio
import json
import os
import shutil

import pytest

CI = os.environ.get("CI") == "true"
CHROMIUM = shutil.which("chromium")
TIMEOUT = 20  # seconds
SECRET = "which outlives a restart"

try:
    from playwright.async_api import async_playwright, expect
except ImportError:
    if CI:
        raise
    async_playwright = expect = None

MISSING = "playwright" if expect is None else "chromium" if CHROMIUM is None else None
IN_CHROMIUM = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(MISSING is not None and not CI, reason=f"{MISSING} is not installed"),
]


def strings(value):
    """Every string within a JSON value, except keys of objects ("channel" contains "ann")."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from strings(each)


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
        """Wait until a frame with these fields has been received."""
        async with asyncio.timeout(TIMEOUT):
            while not any(fields.items() <= frame.items() for frame in self.frames):
                self.changed.clear()
                await self.changed.wait()

    def got(self, kind, **fields):
        return [frame for frame in self.frames if {"type": kind, **fields}.items() <= frame.items()]

    def notices(self, event):
        """What the chat told of an event that the protocol has no frame for."""
        return [each["message"] for each in self.got("direct") if each["message"]["event"] == event]

    def told_of(self, text):
        """The frames that contain a text anywhere, except in field names."""
        return [frame for frame in self.frames if any(text in value for value in strings(frame))]

    def strays(self):
        """The frames not meant for this tab: of channels that it is not in, and whispers or invitations to others."""
        me, there, strays = None, set(), []
        for frame in self.frames:
            kind, channel = frame.get("type"), frame.get("channel")
            notice = frame["message"] if kind == "direct" else {}
            if kind == "welcome":
                me, there = frame["user"], set()
            elif kind == "subscribed":
                there.add(channel)
            if (
                (channel is not None and kind != "error" and channel not in there)
                or (kind == "whisper" and me not in (frame["from"]["user"], *frame["to"]))
                or (notice.get("event") == "invite" and me != notice["user"])
                or (notice.get("event") == "kick" and notice["channel"] not in there)
            ):
                strays.append(frame)
            if kind == "unsubscribed":
                there.discard(channel)
        return strays

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

    async def act(self, what, user):
        """Press a button at a member's name."""
        await self(f"#member-list li[data-name='{user}']").hover()
        await self.page.get_by_label(f"{what} {user}", exact=True).click()

    async def kick(self, user):
        await self.act("Kick", user)
        await self("#confirm button", has_text="Kick").click()

    async def unblock(self, user):
        await self.page.get_by_label(f"Unblock {user}", exact=True).click()

    async def invite(self, user):
        await self("#guest").fill(user)
        await self("#guest").press("Enter")

    async def log_in(self, name, channel="cars"):
        await self("#name").fill(name)
        await self("#first").fill(channel)
        await self("#enter").click()
        await expect(self("#state")).to_have_text("Online")

    async def log_out(self):
        await self.page.get_by_role("button", name="Log out").click()

    @property
    def texts(self):
        return self(".log:not([hidden]) .text")

    @property
    def members(self):
        return self("#member-list .name")

    @property
    def channels(self):
        return self("#channel-list .name")
