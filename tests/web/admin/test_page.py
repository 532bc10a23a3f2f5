"""The status page in Chromium."""

import asyncio
import re
from urllib.parse import quote

import aiohttp
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.browser.conftest import ARGUMENTS
from tests.lib.support import eventually
from tests.lib.tab import CHROMIUM, IN_CHROMIUM, TIMEOUT, async_playwright, expect
from tests.web.admin.site import KEY, ORIGIN, READER, serving, settings

pytestmark = IN_CHROMIUM

HOSTILE = "<img src=x onerror=\"document.title='owned'\">'\"&amp;</script><script>document.title='owned'</script>"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser():
    assert CHROMIUM, "chromium is not installed"
    expect.set_options(timeout=TIMEOUT * 1000)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def site(tmp_path, request):
    async with serving(settings(tmp_path, **getattr(request, "param", {}))) as site:
        yield site


@pytest_asyncio.fixture(loop_scope="module")
async def visit(browser, site):
    """Opens the page; at the end none may have thrown an error, or been kept by its policy from anything."""
    contexts, errors = [], []

    async def visit(key=KEY, **options):
        contexts.append(await browser.new_context(**options))
        page = await contexts[-1].new_page()
        page.on("pageerror", lambda error: errors.append(error))  # playwright marks what it calls
        page.on("console", lambda line: errors.append(line.text) if "Content Security" in line.text else None)
        await page.goto(site.page)
        if key is not None:
            await enter(page, key)
            await expect(page.locator("#status")).to_be_visible()
        return page

    yield visit
    for context in contexts:
        await context.close()
    assert errors == []


async def enter(page, key):
    await page.locator("#key").fill(key)
    await page.locator("#key").press("Enter")


async def go(page, view):
    await page.evaluate("view => { location.hash = '#/' + view }", view)


def tile(page, name):
    return page.locator(".tiles div", has=page.get_by_text(name, exact=True)).locator("dd")


async def test_a_thousand_live_connections_are_shown(site, visit):
    page = await visit()
    clients = []
    try:
        for begin in range(0, 1000, 100):
            clients += await asyncio.gather(
                *(connect(f"{site.url}/raw/c{n % 10}?user=u{n}", origin=ORIGIN) for n in range(begin, begin + 100))
            )
        await expect(tile(page, "Connections")).to_have_text("1,000")
        await expect(tile(page, "Users")).to_have_text("1,000")
        await expect(tile(page, "Channels")).to_have_text("10")
        await expect(tile(page, "Pages like this")).to_have_text("1")
        await expect(page.locator("table tbody tr")).to_have_text(
            [re.compile("^/ws0"), re.compile("^/raw/{channel}1,000")]
        )
        await go(page, "channels")
        await expect(page.locator(".rows li")).to_have_count(10)
        await expect(page.locator(".rows li").first).to_contain_text("100 subscribers")
        await go(page, "users")
        await expect(page.locator(".bar .note")).to_have_text("The 100 largest of 1,000")
        await page.get_by_label("Find users").fill("u99")
        await expect(page.locator(".rows li")).to_have_count(11)
    finally:
        await asyncio.gather(*(client.close() for client in clients))
    await go(page, "overview")
    await expect(tile(page, "Connections")).to_have_text("0")
    await expect(page.locator(".plot .line").first).to_have_attribute("d", re.compile("^M.*L"))


async def test_a_wrong_key_is_told_and_the_next_may_be_right(site, visit):
    page = await visit(None)
    await enter(page, "wrong")
    await expect(page.locator("#notice")).to_contain_text("this key is not known")
    await expect(page.locator("#status")).to_be_hidden()
    for _ in range(4):
        await enter(page, "wrong")
        await expect(page.locator("#enter")).to_be_enabled()
    await enter(page, "wrong")
    await expect(page.locator("#notice")).to_contain_text("too many wrong keys")
    await enter(page, KEY)
    await expect(page.locator("#title")).to_have_text("Overview")
    assert await page.evaluate("sessionStorage.length + localStorage.length + document.cookie.length") == 0
    await page.reload()
    await expect(page.locator("#login")).to_be_visible()


async def test_somebody_who_could_not_connect_is_found_by_id(site, visit):
    with pytest.raises(InvalidStatus) as caught:
        await connect(site.url + "/ws", origin="https://elsewhere.example", user_agent_header="Ann's phone")
    request_id = re.search(rb'"request_id":\s*"(\w+)"', caught.value.response.body)[1].decode()
    with pytest.raises(InvalidStatus):
        await connect(site.url + "/nowhere", origin=ORIGIN)
    page = await visit()
    await go(page, "refusals")
    await expect(page.locator(".refusal")).to_have_count(2)
    await page.keyboard.press("/")
    await page.keyboard.type(request_id)
    await expect(page.locator(".refusal")).to_have_count(1)
    for text in (
        "403",
        "origin not allowed",
        "127.0.0.1",
        "/ws",
        "https://elsewhere.example",
        "Ann's phone",
        request_id,
    ):
        await expect(page.locator(".refusal")).to_contain_text(text)
    with pytest.raises(InvalidStatus):
        await connect(site.url + "/later", origin=ORIGIN)
    await page.get_by_label("Find refusals").fill("/later")
    await expect(page.locator(".refusal .said")).to_have_text("no WebSocket endpoint at this path")


async def test_a_channel_shows_who_is_there_and_gets_a_message(site, visit):
    ann, other = await site.join("room 1/ü", user="ann"), await site.join("room 1/ü")
    page = await visit()
    await go(page, "channels")
    await page.get_by_role("link", name="room 1/ü").click()
    await expect(page.locator("#title")).to_have_text("room 1/ü")
    await expect(page.get_by_text("2 connections, 1 user.")).to_be_visible()
    await expect(page.locator(".rows").first.locator("li")).to_have_count(1)
    await expect(page.locator(".rows").nth(1).locator("li")).to_have_count(2)
    await page.get_by_label("Message").fill("hello, all")
    await page.get_by_role("button", name="Send").click()
    await expect(page.locator(".answer").first).to_have_text("Done: 2 connections.")
    assert [await ann.recv(), await other.recv()] == ["hello, all"] * 2
    await page.get_by_label("What it is").select_option("as JSON")
    await page.get_by_role("button", name="Send").click()
    await expect(page.locator(".answer").first).to_have_text("This is not JSON.")
    await page.get_by_label("Remove ann from room 1/ü").click()
    await expect(page.locator(".rows").nth(1).locator("li")).to_have_count(1)


async def test_a_connection_shows_its_facts_and_is_closed(site, visit):
    ann = await site.join("cars", user="ann")
    page = await visit()
    await go(page, "users")
    await page.get_by_role("link", name="ann", exact=True).click()
    await expect(page.get_by_text("1 connection, in 1 channel.")).to_be_visible()
    await page.locator(".rows .main a").click()
    facts = page.locator(".facts")
    for text in ("ann", "127.0.0.1", "/raw/{channel}", "/raw/cars", "0 bytes"):
        await expect(facts).to_contain_text(text)
    await page.get_by_label("Channel", exact=True).fill("bikes")
    await page.get_by_role("button", name="Subscribe").click()
    await expect(page.locator(".chip")).to_have_count(2)
    await page.get_by_label("Close code").fill("4003")
    await page.get_by_label("Reason").fill("go away")
    await page.locator("form").get_by_role("button", name="Close").click()
    await page.locator("#confirm").get_by_role("button", name="Cancel").click()
    await expect(page.locator("#confirm")).to_be_hidden()
    await page.locator("form").get_by_role("button", name="Close").click()
    await page.locator("#confirm").get_by_role("button", name="Close").click()
    await ann.wait_closed()
    assert (ann.close_code, ann.close_reason) == (4003, "go away")
    await expect(page.get_by_text("This connection is closed.")).to_be_visible()
    await go(page, "refusals")
    await expect(page.locator(".refusal")).to_have_count(1)  # it stopped asking for what is gone


@pytest.mark.parametrize("site", [{"admin": "readonly = true"}], indirect=True)
async def test_readonly_hides_every_action(site, visit):
    await site.join("cars", user="ann")
    page = await visit()
    await expect(page.locator("#rights")).to_have_text("This page only shows")
    for view in ("channel/cars", "user/ann"):
        await go(page, view)
        await expect(page.locator(".rows li").first).to_be_visible()
        await expect(page.locator("#view form, #view button")).to_have_count(0)
    call = "call('POST', '/close', { channel: 'cars' }).catch((error) => error.message)"
    assert "the status page is read-only" in await page.evaluate(call)


async def test_a_key_that_only_reads_is_shown_no_action(site, visit):
    await site.join("cars", user="ann")
    page = await visit(READER)
    await go(page, "channel/cars")
    await expect(page.locator(".rows li").first).to_be_visible()
    await expect(page.locator("#view form, #view button")).to_have_count(0)


async def test_what_strangers_choose_is_text_wherever_it_is_shown(site, visit):
    await site.join(HOSTILE, user=HOSTILE)
    with pytest.raises(InvalidStatus):
        await connect(f"{site.url}/{quote(HOSTILE)}", origin=HOSTILE, user_agent_header=HOSTILE)
    page = await visit()
    await go(page, "channels")
    await page.get_by_role("link", name=HOSTILE).click()
    await expect(page.locator("#title")).to_have_text(HOSTILE)
    await page.locator(".rows").first.get_by_role("link", name=HOSTILE).click()
    await expect(page.get_by_text("1 connection, in 1 channel.")).to_be_visible()
    await page.locator(".rows .main a").click()
    await expect(page.locator(".chip a")).to_have_text(HOSTILE)
    await go(page, "users")
    await expect(page.locator(".rows li a")).to_have_text(HOSTILE)
    await go(page, "refusals")
    await expect(page.locator(".refusal")).to_contain_text(HOSTILE)
    assert await page.locator("#view img, #view script, img, #confirm script").count() == 0
    assert "owned" not in await page.title()
    assert await page.evaluate("document.scripts.length") == 1


async def test_the_policy_keeps_even_an_injected_script_from_running(site, visit, browser):
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(site.page)
    injected = (
        "const s = document.createElement('script'); s.append(\"document.title = 'owned'\"); document.body.append(s)"
    )
    await page.evaluate(f"() => {{ try {{ {injected} }} catch {{ }} }}")
    assert await page.title() == "fastws status"
    html = "try { document.body.innerHTML = '<b>x</b>'; 'done' } catch (error) { error.name }"
    assert await page.evaluate(html) == "TypeError"
    await context.close()


async def test_the_page_comes_back_when_the_server_was_restarted(site, visit):
    page = await visit()
    await go(page, "channels")
    await expect(page.locator("#live")).to_contain_text("up for")
    port = site.server.port
    await site.server.stop()
    await expect(page.locator("#banner")).to_be_visible()
    site.server.reconfigure(port=port)
    await site.server.start()
    await expect(page.locator("#banner")).to_be_hidden()
    await site.join("after")
    await expect(page.locator(".rows li")).to_contain_text("after")  # it watches what it watched


async def test_the_configuration_says_where_each_value_came_from(site, visit):
    page = await visit()
    await go(page, "config")
    await expect(page.locator(".setting", has_text="api.keys[0].name")).to_contain_text("fastws.toml:")
    await expect(page.locator(".setting", has_text="api.keys[0].key")).to_contain_text("********")
    await expect(page.locator(".setting", has_text="max_backlog")).to_have_count(0)
    await page.get_by_label("Defaults as well").check()
    await expect(page.locator(".setting", has_text="max_backlog")).to_contain_text("default")
    assert KEY not in await page.locator("#view").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_nothing_is_wider_than_a_phone(site, visit, scheme):
    await site.join("c" * 200, user="u" * 200)
    with pytest.raises(InvalidStatus):
        await connect(f"{site.url}/{'p' * 300}", origin="https://" + "o" * 200)
    page = await visit(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    for view in ("overview", "channels", "channel/" + "c" * 200, "users", "user/" + "u" * 200, "refusals", "config"):
        await go(page, view)
        await expect(page.locator("#view")).not_to_be_empty()
        await page.locator("#view li, #view table").first.wait_for()
        assert await page.evaluate("document.documentElement.scrollWidth") == 360, view


async def test_the_keyboard_reaches_a_plots_past(site, visit):
    page = await visit()
    await expect(page.locator(".plot .value").first).to_contain_text("open")
    await page.locator(".plot .chart").first.focus()
    await page.keyboard.press("ArrowLeft")
    await expect(page.locator(".plot .at").nth(3)).to_have_text(re.compile(r"\d\d:\d\d:\d\d"))
    await page.keyboard.press("Escape")
    await expect(page.locator(".plot .at").nth(3)).to_have_text("")


async def test_a_page_that_is_closed_is_forgotten(site, visit):
    page = await visit()
    status = site.server.endpoints["/admin/ws"].listener
    assert len(status.pages) == 1
    await page.locator("#forget").click()
    await expect(page.locator("#login")).to_be_visible()
    await eventually(lambda: not status.pages)
    async with aiohttp.ClientSession() as session, session.get(site.page) as answer:
        assert answer.status == 200
