"""The other pages in docs/coming-from: what their programs and configurations do for real clients."""

import asyncio
import json
import os

import aiohttp

from ..lib import pages
from ..lib.raw import TIMEOUT
from ..lib.support import eventually
from ..standalone.conftest import browser, page  # noqa: F401  (fixtures)
from .cfml import Application
from .conftest import COMING_FROM


async def test_the_chat_of_socketio(started):
    site = await started("socketio", "Coming from Socket.IO")
    assert (await site.refused("/chat"))["message"] == "say who you are"
    ann, bob = await site.join("/chat?user=ann"), await site.join("/chat?user=bob")
    for number, client in enumerate((ann, bob), 1):
        await client.send({"event": "join", "room": "cars", "id": number})
        assert await client.receive_json() == {"event": "ack", "id": number}
    await ann.send({"event": "say", "room": "cars", "text": "hi", "id": 3})
    assert await bob.receive_json() == {"event": "said", "room": "cars", "from": "ann", "text": "hi"}
    assert await ann.receive_json() == {"event": "ack", "id": 3}
    await bob.send({"event": "leave", "room": "cars"})
    await bob.receive()
    await ann.send({"event": "say", "room": "cars", "text": "still there?"})
    assert await ann.receive_json() == {"event": "ack", "id": None}
    assert await bob.received() == []


def is_log(message):
    return message.type == "log"


async def test_the_page_of_socketio(started, page):  # noqa: F811
    site = await started("socketio", "Coming from Socket.IO")
    script = pages.block(COMING_FROM / "socketio.md", "Coming from Socket.IO", "js")
    async with page.expect_console_message(is_log, timeout=1000 * TIMEOUT) as said:
        await page.add_script_tag(content=script.replace(":8765", f":{site.server.port}"))
    assert await (await said.value).args[0].json_value() == {"event": "ack", "id": 1}


async def test_the_chat_of_fastapi(started):
    site = await started("starlette", "The ConnectionManager of FastAPI's documentation")
    one, two = await site.join("/ws/1"), await site.join("/ws/2")
    await one.send("hi")
    assert [await one.receive(), await one.receive()] == ["You wrote: hi", "Client #1 says: hi"]
    assert await two.receive() == "Client #1 says: hi"
    await one.close()
    assert await two.receive() == "Client #1 left the chat"


async def test_an_asgi_application_broadcasts_by_channels(started):
    site = await started("starlette", "Your application, unchanged")
    ann, bob = await site.join("/ws"), await site.join("/ws")
    await eventually(lambda: site.server.asgi.channels == {"everybody": 2})
    await ann.send("hi")
    assert await bob.receive() == "hi"
    assert await ann.received() == []
    await bob.close()
    assert await ann.receive() == "somebody has left"


async def test_a_route_publishes(started):
    site = await started("starlette", "Routes and sockets on one port")
    client = await site.join("/ws/beetle")
    async with (
        aiohttp.ClientSession() as http,
        http.post(site.url.replace("ws:", "http:") + "/sell/beetle") as answer,
    ):
        assert await answer.json() == {"connections": 1}
    assert await client.receive_json() == {"sold": True}


async def test_the_chat_of_websockets(started):
    site = await started("websockets", "Coming from websockets, picows, aiohttp or socketify")
    ann, bob = await site.join("/chat/cars"), await site.join("/chat/cars")
    await ann.send(b"hi")
    assert await bob.receive() == b"hi"
    assert await ann.received() == []


async def welcomed(site, application, user, origin="http://127.0.0.1:8888", **more):
    """A client of fastws.v1 whose cookies are of a session."""
    options = {"subprotocols": ["fastws.v1"], "origin": origin}
    client = await site.join("/ws", headers={"Cookie": application.log_in(user, **more)}, **options)
    await client.send({"type": "hello", "version": 1})
    assert (await client.receive_json())["user"] == user
    return client


async def ask(client, **frame):
    """The answer to a frame; what else comes before it is passed over."""
    await client.send({"id": 1, **frame})
    while (answer := await client.receive_json()).get("id") != 1:
        pass
    return answer


class Backend(Application):
    """Lets in whoever has a session."""

    def decide(self, hook, session):
        if hook["event"] != "connect":
            return 200, {}
        return (200, {"user": session["user"]}) if session else (401, {})


async def test_namespaces_of_centrifugo_as_rules(applications, configured):
    backend = await applications(kind=Backend)
    site = await configured("centrifugo", "Namespaces become rules", {"http://127.0.0.1:3000": backend.url})
    ann = await welcomed(site, backend, "ann", "https://www.example.org")
    subscribed = await ask(ann, type="subscribe", channel="chat:1")
    assert (subscribed["type"], subscribed["log"]) == ("subscribed", "history")
    assert (await ask(ann, type="publish", channel="chat:1", message="hi"))["type"] == "ack"
    assert (await ask(ann, type="subscribe", channel="personal:ann"))["type"] == "subscribed"
    assert (await ask(ann, type="subscribe", channel="personal:bob"))["type"] == "error"
    assert (await ask(ann, type="publish", channel="news:1", message="hi"))["code"] == "forbidden"
    assert (await ask(ann, type="subscribe", channel="other:1"))["code"] == "unknown_channel"

    line = pages.block(COMING_FROM / "centrifugo.md", "The API", "sh")
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        "set -e\n" + line.replace("127.0.0.1:8000", f"127.0.0.1:{site.server.port}"),
        env={**os.environ, "KEY": "a-key-of-16-characters-or-more"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    assert json.loads(said)["connections"] == 1
    while (frame := await ann.receive_json()).get("message") != {"text": "hello"}:
        pass
    assert frame["channel"] == "chat:1"


class Stocks(Application):
    """Answers as the lines of docs/coming-from/coldfusion.md."""

    def decide(self, hook, session):
        match hook["event"]:
            case "connect":
                return 200, {"user": session["user"], "data": {"trader": session["trader"]}}
            case "subscribe" if hook["channel"].startswith("stocks") and not hook["connection"]["data"]["trader"]:
                return 403, {"error": {"message": "for traders only"}}
            case "publish":
                return 200, {"message": {"text": hook["message"]["text"], "publishedAt": "2026-11-27T00:00:00"}}
            case "call":
                return 200, {"result": "sales"}
        return 200, {}


async def test_the_channel_listener_of_coldfusion_as_hooks(applications, configured):
    backend = await applications("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", Stocks)
    site = await configured("coldfusion", "Application.cfc", {"http://127.0.0.1:8500": backend.url})
    ann, bob = await welcomed(site, backend, "ann", trader=True), await welcomed(site, backend, "bob", trader=False)
    assert (await ask(ann, type="subscribe", channel="stocks.tech"))["type"] == "subscribed"
    refused = await ask(bob, type="subscribe", channel="stocks.tech")
    assert (refused["code"], refused["message"]) == ("forbidden", "for traders only")
    assert (await ask(bob, type="subscribe", channel="news"))["type"] == "subscribed"
    await ann.send({"type": "publish", "channel": "stocks.tech", "message": {"text": "up"}})
    while (frame := await ann.receive_json())["type"] != "message":
        pass
    assert frame["message"] == {"text": "up", "publishedAt": "2026-11-27T00:00:00"}
    assert (await ask(bob, type="call", method="getdept", params=["eid_2"]))["result"] == "sales"


async def test_the_page_of_coldfusion(applications, configured, page):  # noqa: F811
    """Its cookies, of the application's own page on another port of the host, say who it is."""
    backend = await applications("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", Stocks)
    site = await configured("coldfusion", "Application.cfc", {"http://127.0.0.1:8500": backend.url})
    url = site.url.replace("ws:", "http:")
    for cookie in backend.log_in("ann", trader=True).split("; "):
        name, value = cookie.split("=")
        await page.context.add_cookies([{"name": name, "value": value, "url": url}])
    await page.goto(url + "/healthz")
    async with page.expect_console_message(is_log, timeout=1000 * TIMEOUT) as said:
        await page.set_content(pages.block(COMING_FROM / "coldfusion.md", "cfwebsocket", "html"))
        manager = site.server.endpoints["/ws"]
        await eventually(lambda: {"stocks", "news"} <= set(manager.channels))
        key = {"X-API-Key": "4f9d6c2b8a7e1f305d4c3b2a19087f6e"}
        news = {"channel": "stocks", "message": {"symbol": "ADBE", "price": 512.3}}
        async with aiohttp.ClientSession(headers=key) as http, http.post(url + "/api/broadcast", json=news) as answer:
            assert await answer.json() == {"connections": 1}
    assert await (await said.value).args[0].json_value() == news["message"]
    assert list(manager.users) == ["ann"]
