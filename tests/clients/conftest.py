"""Clients in Node and in Chromium: `js` is one, of each kind in turn."""

import asyncio
import os
import shutil

import pytest
import pytest_asyncio

from .both import Python, Script
from .fake import faking
from .js import TIMEOUT, node, pages

try:
    from playwright.async_api import async_playwright
except ImportError:
    async_playwright = None

CI = os.environ.get("CI") == "true"
CHROMIUM = shutil.which("chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser():
    """None where there is no Chromium."""
    if async_playwright is None or CHROMIUM is None:
        assert not CI, "chromium or playwright is not installed"
        yield None
        return
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def open_page(browser):
    async with pages(browser) as open_page:
        yield open_page


@pytest_asyncio.fixture(loop_scope="module", params=["node", "chromium"])
async def js(request, browser, open_page):
    if request.param == "node":
        async with node() as client:
            yield client
        return
    if browser is None:
        pytest.skip("chromium is not installed")
    client = await open_page()
    yield client
    await client.page.close()


@pytest_asyncio.fixture(loop_scope="module", params=["python", "node", "chromium"])
async def client(request, browser, open_page):
    """Either client, of each kind in turn."""
    if request.param == "python":
        client = Python()
        yield client
        await client.close()
    elif request.param == "node":
        async with node() as driven:
            yield Script(driven)
    elif browser is None:
        pytest.skip("chromium is not installed")
    else:
        page = await open_page()
        yield Script(page)
        await page.page.close()


@pytest_asyncio.fixture(loop_scope="module")
async def fake():
    async with faking() as fake:
        yield fake


@pytest.fixture
def soon():
    """Waits until something is so."""

    async def soon(reached):
        async with asyncio.timeout(TIMEOUT):
            while not reached():
                await asyncio.sleep(0.005)

    return soon
