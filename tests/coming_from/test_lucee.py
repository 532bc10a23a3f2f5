"""docs/coming-from/lucee.md: what each of its programs, and its fastws.toml, does for real clients."""

import json
import re
import time

import aiohttp
import pytest
from websockets.asyncio.client import connect as dial
from websockets.exceptions import InvalidStatus

from ..backplane.conftest import redis_server  # noqa: F401  (a fixture)
from ..lib import pages
from ..lib.raw import TIMEOUT
from ..lib.support import eventually, records_naming, signed_cookie
from .cfml import Application
from .conftest import COMING_FROM

PAGE = COMING_FROM / "lucee.md"
ORIGIN = "https://www.example.org"

# Read in the sources: Constants.java of isapir/lucee-websocket; the keys of AbsWSClient and of the endpoint in
# lucee/extension-websocket.
OF_2X = """onHandshake onOpen onMessage onClose onError onChannelOpen onChannelClose onSubscribe onUnsubscribe
    broadcast getChannel getChannels log subscribe unsubscribe unsubscribeAll
    close getAsyncRemote getBasicRemote getConnectionManager getSessionScope getApplicationScope getId getMaxIdleTimeout
    getOpenSessions getPathParameters getQueryString getRequestURI getUserProperties getWebsocketSession isOpen isSecure
    sendText sendTextAsync setMaxIdleTimeout WebsocketServer WebsocketRegister"""
OF_3X = """onFirstOpen onOpen onOpenAsync onMessage onClose onError onLastClose wsclient.send wsclient.broadcast
    wsclient.isOpen wsclient.isClose wsclient.close wsclient.getSession wsclients.size wsclients.broadcast
    wsclients.getClients wsclients.close websocketInfo"""


@pytest.mark.parametrize(("part", "functions"), [("2.x", OF_2X), ("3.x", OF_3X)])
def test_the_tables_have_every_function_of_the_extension(part, functions):
    (text,) = re.findall(
        rf"^## A listener of the extension {part}$(.*?)^## ", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
    theirs = [row.split(" | ")[0] for row in text.splitlines() if row.startswith("| ")]
    for name in functions.split():
        assert any(re.search(rf"\b{re.escape(name)}\(", cell) for cell in theirs), name


def cookie(user, secret, **more):
    return ("Cookie", f"session={signed_cookie({'user': user, **more}, secret)}")


async def test_the_chat_of_2x(started):
    site = await started("lucee", "A listener of the extension 2.x")
    secret = "the secret of the HTTP side"
    ann = await site.join("/ws/chat/cars", headers=[cookie("ann", secret)])
    assert await ann.receive_json() == {"subscribers": 1}
    bob = await site.join("/ws/chat/cars", headers=[cookie("bob", secret)])
    assert [await ann.receive_json(), await bob.receive_json()] == [{"subscribers": 2}] * 2
    await ann.send("hi")
    assert [await ann.receive_json(), await bob.receive_json()] == [{"from": "ann", "text": "hi"}] * 2
    assert (await site.refused("/ws/chat/cars"))["code"] == 403


async def test_the_chat_of_3x(started):
    site = await started("lucee", "A listener of the extension 3.x")
    ann = await site.join("/ws/chat")
    assert [await ann.receive(), await ann.receive()] == ["There are now 1 connections", "Welcome"]
    bob = await site.join("/ws/chat")
    assert [await bob.receive(), await bob.receive()] == ["There are now 2 connections", "Welcome"]
    assert await ann.receive() == "There are now 2 connections"
    await bob.send("hi")
    assert [await ann.receive(), await bob.receive()] == ["hi", "hi"]


async def test_a_whisper_is_seen_by_those_named_alone(started):
    site = await started("lucee", "A whisper without a channel for each user")
    ann, bob, eve = [await site.join(f"/ws/cars?user={user}") for user in ("ann", "bob", "eve")]
    bobs_phone = await site.join("/ws/cars?user=bob")
    await ann.send({"text": "psst", "to": ["bob"]})
    whispered = {"from": "ann", "text": "psst"}
    assert [await bob.receive_json(), await bobs_phone.receive_json()] == [whispered] * 2
    assert (await ann.received(), await eve.received()) == ([], [])
    await ann.send({"text": "hi"})
    for client in (ann, bob, bobs_phone, eve):
        assert await client.receive_json() == {"from": "ann", "text": "hi"}


async def test_two_devices_of_a_user_are_in_sync(started, capsys):
    site = await started("lucee", "Several devices of a user in sync", instead={"offline_after=5": "offline_after=0"})
    phone, laptop = await site.join("/ws/cart?user=ann"), await site.join("/ws/cart?user=ann")
    bob = await site.join("/ws/cart?user=bob")
    await phone.send("the cart has 3 items")
    assert await laptop.receive() == "the cart has 3 items"
    assert (await phone.received(), await laptop.received(), await bob.received()) == ([], [], [])
    await phone.close()
    await eventually(lambda: site.count() == 2)
    assert capsys.readouterr().out == "ann is there\nbob is there\n"
    await laptop.close()
    said = ""
    while "has left" not in said:
        await bob.ping()
        said += capsys.readouterr().out
    assert said == "ann has left\n"


SESSIONS = "The visitor's own session, and never somebody else's"


async def test_two_applications_side_by_side_keep_their_sessions_apart(started):
    site = await started("lucee", SESSIONS)
    at_shop = cookie("ann", "the secret of the shop", theme="dark")
    at_crm = cookie("carol", "the secret of the CRM", theme="light")
    both = [("Cookie", f"{at_shop[1]}; {at_crm[1]}")]  # both are called "session", as a browser may send them
    for headers in ([at_shop], both, [("Cookie", f"{at_crm[1]}; {at_shop[1]}")]):
        visitor = await site.join("/shop/ws", headers=headers)
        await visitor.send("who am I?")
        assert await visitor.receive_json() == {"user": "ann", "theme": "dark"}
    visitor = await site.join("/crm/ws", headers=both)
    await visitor.send("who am I?")
    assert await visitor.receive_json() == {"user": "carol", "theme": "light"}
    assert (await site.refused("/crm/ws", headers=[at_shop]))["code"] == 403
    assert (await site.refused("/shop/ws", headers=[at_crm]))["code"] == 403
    assert site.names["shop"].close_user("carol") == 0
    assert site.names["crm"].close_user("carol") == 1
    assert await visitor.closed() == (4001, "logged out")


async def hello(client):
    await client.send({"type": "hello", "version": 1})
    return await client.receive_json()


async def test_each_cfml_application_is_asked_about_its_own_visitors(applications, started):
    shop, crm = await applications(), await applications()
    instead = {"http://127.0.0.1:8888/shop": f"{shop.url}/shop", "http://127.0.0.1:8888/crm": f"{crm.url}/crm"}
    site = await started("lucee", SESSIONS, 1, instead)
    ann, carol = shop.log_in("ann"), crm.log_in("carol")
    options = {"subprotocols": ["fastws.v1"], "origin": ORIGIN}
    for path, cookies, user in (("/shop/ws", ann, "ann"), ("/crm/ws", carol, "carol")):
        client = await site.join(path, headers={"Cookie": cookies}, **options)
        assert (await hello(client))["user"] == user
    for path, cookies in (("/shop/ws", carol), ("/crm/ws", ann)):
        client = await site.open(path, headers={"Cookie": cookies}, **options)
        code, reason = await client.closed()
        assert (code, reason.partition(" (")[0]) == (4401, "log in first")
    assert [application.connects for application in (shop, crm)] == [2, 2]
    # A page of somebody else is not in the list of origins.
    assert (await site.refused("/shop/ws", headers={"Cookie": ann}, origin="https://evil.example"))["code"] == 403
    assert shop.connects == 2


async def test_the_code_and_the_reason_of_a_close_arrive(started, capsys):
    site = await started("lucee", "close(code, reason)")
    client = await site.join("/ws/door")
    (ws,) = site.names["door"].connections.values()
    for code, reason in ((1006, ""), (999, ""), (4000, "x" * 124)):
        with pytest.raises(ValueError, match=r"code|reason"):
            ws.close(code, reason)
    await client.send("leave")
    assert await client.closed() == (4000, "see you tomorrow")
    await eventually(lambda: site.count() == 0)
    said = ""
    while not said:
        said = capsys.readouterr().out
        await site.join("/ws/door")
    assert said.startswith(f"{ws.id} 4000")


REFUSED = "A refused handshake that says why"


async def test_a_refused_handshake_says_why(started, caplog):
    site = await started("lucee", REFUSED)
    shown = json.loads(pages.block(PAGE, REFUSED, "json"))["error"]
    error = await site.refused("/ws/members?user=eve")
    assert error.keys() == shown.keys()
    assert (error["code"], error["message"]) == (shown["code"], shown["message"])
    assert re.fullmatch(r"[0-9a-f]{16}", error["request_id"])
    assert records_naming(caplog, error["request_id"])
    error = await site.refused("/ws/members")
    assert (error["code"], error["message"]) == (401, "log in first")
    error = await site.refused("/ws/members?user=bob")
    assert error["code"] == 500
    assert "fault" not in error["message"]
    assert records_naming(caplog, error["request_id"])
    await site.join("/ws/members?user=ann")


async def test_json_is_clean(started):
    site = await started("lucee", "Clean JSON")
    client = await site.join("/ws/clock")
    await client.send("?")
    assert await client.receive() == (
        '{"firstName":"Ann","zip":"01234","count":3,"tags":[],"seen":"2026-11-27T00:00:00+00:00"}'
    )


async def test_two_contexts_share_nothing(started):
    site = await started("lucee", "Several contexts and applications")
    shop, crm = await site.join("/shop/ws/news"), await site.join("/crm/ws/news")
    await shop.send("sale")
    assert await shop.receive() == "sale"
    assert await crm.received() == []
    managers = site.names["shop"], site.names["crm"]
    assert [manager.channels for manager in managers] == [{"news": 1}] * 2
    (ws,) = managers[0].connections.values()
    assert managers[1].send([ws.id], "hello") == 0


async def test_two_nodes_are_one_server(started, redis_server):  # noqa: F811
    instead = {
        "redis://127.0.0.1:6379": redis_server.url,
        "Server(port=0, ": 'Server(port=0, prefix="coming-from-lucee", ',
    }
    one, other = [await started("lucee", "A balanced cluster", instead=instead) for _ in range(2)]
    ann, bob = await one.join("/ws/cars?user=ann"), await other.join("/ws/cars?user=bob")
    anns_phone = await other.join("/ws/cars?user=ann")
    await ann.send("hi")
    assert [await client.receive() for client in (ann, bob, anns_phone)] == ["hi"] * 3
    one.names["room"].broadcast("cars", "psst", users=["bob"])
    assert await bob.receive() == "psst"
    one.names["room"].send_to_user("ann", "for all of your devices")
    assert [await client.receive() for client in (ann, anns_phone)] == ["for all of your devices"] * 2
    one.names["room"].close_user("ann")
    assert [await client.closed() for client in (ann, anns_phone)] == [(4001, "logged out")] * 2
    assert await bob.received() == []


CONFIGURED = "Your application stays"
KEY = {"X-API-Key": "4f9d6c2b8a7e1f305d4c3b2a19087f6e"}
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


async def test_a_cfml_application_decides_who_enters_and_publishes(applications, configured):
    application = await applications(SECRET)
    async with aiohttp.ClientSession(headers=KEY) as http:
        site = await configured("lucee", CONFIGURED, {"http://127.0.0.1:8888": application.url})

        async def post(path, **body):
            async with http.post(site.url.replace("ws:", "http:") + path, json=body) as answer:
                return answer.status, await answer.json()

        headers = {"Cookie": application.log_in("ann")}  # by a page of the same host, on another port
        options = {"subprotocols": ["fastws.v1"], "origin": "http://127.0.0.1:8888", "headers": headers}
        laptop, phone = await site.join("/ws", **options), await site.join("/ws", **options)
        for client in (laptop, phone):
            welcome = await hello(client)
            assert (welcome["user"], welcome["data"]) == ("ann", "hello ann")
            assert (await client.receive_json())["channel"] == "user.ann"
            await client.send({"type": "subscribe", "channel": "room.cars"})
            assert {(await client.receive_json())["type"] for _ in range(2)} == {"subscribed", "presence"}
        assert await post("/api/broadcast", channel="room.cars", message={"text": "sold"}) == (200, {"connections": 2})
        assert await post("/api/broadcast", channel="room.cars", message={"text": "?"}, users=["bob"]) == (
            200,
            {"connections": 0},
        )
        assert await post("/api/send", users=["ann"], message={"text": "for you"}) == (200, {"connections": 2})
        for client in (laptop, phone):
            frames = [await client.receive_json() for _ in range(2)]
            assert [(frame["type"], frame["message"]["text"]) for frame in frames] == [
                ("message", "sold"),
                ("direct", "for you"),
            ]
        # A log-out: the session ends first.
        application.sessions.clear()
        assert await post("/api/close", users=["ann"], code=4001, reason="logged out") == (200, {"connections": 2})
        assert [await client.closed() for client in (laptop, phone)] == [(4001, "logged out")] * 2
        code, reason = await (await site.open("/ws", **options)).closed()
        assert (code, reason.partition(" (")[0]) == (4401, "log in first")


class Renewing(Application):
    """Asked again every second, instead of every ten minutes."""

    def decide(self, hook, session):
        status, content = super().decide(hook, session)
        return status, content | {"expires": int(time.time()) + 1, "renew": True} if status == 200 else content


async def test_a_connection_ends_with_its_session(applications, configured):
    application = await applications(SECRET, Renewing)
    site = await configured("lucee", CONFIGURED, {"http://127.0.0.1:8888": application.url})
    headers = {"Cookie": application.log_in("ann")}
    client = await site.join("/ws", subprotocols=["fastws.v1"], origin="http://127.0.0.1:8888", headers=headers)
    assert (await hello(client))["user"] == "ann"
    await eventually(lambda: application.connects > 1)  # and the session is still there
    application.sessions.clear()
    code, _ = await client.closed()
    assert code == 4001


async def test_a_client_without_cookies_and_header_fields_brings_a_ticket(applications, configured):
    """As CreateWebSocketClient does, which offers compression, but neither subprotocols nor fields of its choice."""
    application = await applications(SECRET)
    site = await configured("lucee", CONFIGURED, {"http://127.0.0.1:8888": application.url})
    url = f"{site.url}/raw/room.orders"
    async with dial(f"{url}?ticket=ticket-17", open_timeout=TIMEOUT) as ws:
        await ws.send('{"order": 17}')
        assert await ws.recv() == '{"order": 17}'
    with pytest.raises(InvalidStatus) as caught:
        await dial(f"{url}?ticket=other", open_timeout=TIMEOUT)
    assert caught.value.response.status_code == 401
    assert json.loads(caught.value.response.body)["error"]["message"] == "log in first"
