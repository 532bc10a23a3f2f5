"""pusher-js in a page, with cookies and an Origin as browsers send them."""

import json

import pytest

from fastws import Server

from ..lib.tab import CHROMIUM, CI, async_playwright
from .conftest import KEY, NODE, USER, Driven, options_for

PAGE = b"""<!doctype html><meta charset="utf-8"><script src="/pusher.js"></script><script type="module">
import { driver } from "/driver.mjs"
window.act = driver(Pusher, null, (...what) => tell(what))
</script>"""


@pytest.mark.skipif(CHROMIUM is None and not CI, reason="optional: chromium is not installed")
async def test_a_page_subscribes_and_hears(serve_pusher, auth):
    script = NODE / "node_modules" / "pusher-js" / "dist" / "web" / "pusher.min.js"
    if not script.exists() and not CI:
        pytest.skip("optional: pusher-js is not installed: run npm install in tests/pusher/node")
    auth.pages |= {
        "/": (PAGE, "text/html"),
        "/pusher.js": (script.read_bytes(), "text/javascript"),
        "/driver.mjs": ((NODE / "driver.mjs").read_bytes(), "text/javascript"),
    }
    app = await serve_pusher(Server(port=0, origins=[auth.url]))
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = await browser.new_page()
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        driven = Driven(lambda command: page.evaluate("command => act(...command)", command))
        await page.expose_function("tell", lambda what: driven.hear(*what))
        await page.goto(auth.url)
        await page.wait_for_function("() => typeof act === 'function'")
        await driven.ask("connect", "ann", KEY, options_for(app, auth))
        await driven.ask("subscribe", "ann", "presence-room")
        there = await driven.until("ann", "presence-room", "pusher:subscription_succeeded")
        assert there["members"] == {"ann": USER["user_info"]}
        await app.call("trigger", "presence-room", "said", {"text": "hé"})
        await driven.until("ann", "presence-room", "said", {"text": "hé"})
        await browser.close()
    assert errors == []
    assert json.dumps(driven.heard).count("error") == 0
