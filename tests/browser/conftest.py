"""Fixtures: `browser` is Chromium, `server` the demo; `visit` opens its page, `join` logs in as well."""

from urllib.parse import urlencode

import pytest_asyncio

import fastws.demo
from fastws.demo import create_server

from ..lib.tab import CHROMIUM, SECRET, TIMEOUT, Tab, async_playwright, expect

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser():
    assert CHROMIUM, "chromium is not installed"
    expect.set_options(timeout=TIMEOUT * 1000)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def server(monkeypatch, request):
    """A user who is away for less than `request.param` seconds was never away."""
    monkeypatch.setattr(fastws.demo, "RELOAD_SECONDS", getattr(request, "param", 1))
    async with create_server(port=0, secret=SECRET) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def visit(browser, server):
    """Opens the page. At the end no page may have thrown an error, or received anything not meant for it."""
    tabs = []

    async def visit(query=None, beside=None, **options):
        """In a new browser, or in that of another tab."""
        context = beside.page.context if beside else await browser.new_context(**options)
        tab = Tab(await context.new_page())
        tabs.append(tab)
        await tab.page.goto(f"http://127.0.0.1:{server.port}/?{urlencode(query or {})}")
        return tab

    yield visit
    for tab in tabs:
        await tab.page.context.close()
    assert [error for tab in tabs for error in tab.errors] == []
    assert [stray for tab in tabs for stray in tab.strays()] == []


@pytest_asyncio.fixture(loop_scope="module")
async def join(visit):
    async def join(name, channel="cars", **options):
        tab = await visit(**options)
        await tab.log_in(name, channel)
        await tab.until(type="presence", event="list", channel=channel)
        return tab

    return join
