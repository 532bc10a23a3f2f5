"""Channels for ASGI applications: the helper, and the three messages that do the same."""

import asyncio
import logging
from types import SimpleNamespace
from urllib.request import urlopen

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute

from fastws import Server
from fastws.asgi import channels
from fastws.backplane.memory import Memory, MemoryStore
from fastws.testing import running

from ..lib.raw import TIMEOUT


async def subscribe(call, topic):
    await call.send({"type": "websocket.subscribe", "topic": topic})


async def publish(call, topic, **fields):
    await call.send({"type": "websocket.publish", "topic": topic, **fields})


async def test_a_room_is_reached_by_one_call(scripted):
    app = await scripted()
    members = [await app.open() for _ in range(3)]
    rooms = [channels(call.scope) for call, _ in members]
    assert [room.subscribe("cars") for room in rooms] == [1, 2, 3]
    one, two, three = rooms
    assert one.broadcast("cars", "all") == 3
    assert one.broadcast("cars", {"to": "others"}, exclude="self") == 2
    assert one.broadcast("cars", b"to one", to=two.id) == 1
    assert one.broadcast("cars", "not you", exclude=[two.id, three.id]) == 1
    assert one.broadcast("boats", "nobody") == 0
    assert two.unsubscribe("cars") == 2
    assert three.broadcast("cars", "the rest") == 2
    got = [await client.received() for _, client in members]
    others = '{"to":"others"}'
    assert got == [["all", "not you", "the rest"], ["all", others, b"to one"], ["all", others, "the rest"]]
    assert app.server.asgi.channels == {"cars": 2}
    assert one.manager is app.server.asgi
    assert "asgi" in repr(one)


async def test_a_user_has_devices_and_is_present(scripted):
    app = await scripted()
    phone, phone_client = await app.asked()
    channels(phone.scope).user = "ann"  # before the accept
    await phone.send({"type": "websocket.accept"})
    laptop, laptop_client = await app.open()
    channels(laptop.scope).user = "ann"  # after it
    bob, bob_client = await app.open()
    for call in (phone, laptop, bob):
        channels(call.scope).subscribe("cars")
    room = channels(bob.scope)
    room_of_ann = channels(phone.scope)
    assert (room.user, room_of_ann.user) == (None, "ann")
    assert {user: presence.devices for user, presence in room.presence("cars").items()} == {"ann": 2}
    assert room.broadcast("cars", "to ann", users="ann") == 2
    assert app.server.asgi.send_to_user("ann", "too") == 2
    assert await (await phone_client).received() == await laptop_client.received() == ["to ann", "too"]
    assert await bob_client.received() == []
    assert app.server.asgi.close_user("ann") == 2
    assert await laptop_client.closed() == (4001, "logged out")


async def test_a_user_is_set_once_also_in_channels(scripted):
    app = await scripted()
    call, _ = await app.open()
    room = channels(call.scope)
    room.subscribe("cars")
    with pytest.raises(TypeError, match="unhashable"):
        room.user = []
    room.user = "ann"
    room.user = "ann"
    with pytest.raises(RuntimeError, match="the user is 'ann' already: it can be set once"):
        room.user = "bob"
    assert app.server.asgi.users == {"ann": [room.id]}
    assert list(room.presence("cars")) == ["ann"]


async def test_what_needs_the_connection_says_so_before_it_is_accepted(scripted):
    app = await scripted()
    call, _ = await app.asked()
    room = channels(call.scope)
    for needs in (lambda: room.id, lambda: room.subscribe("cars"), lambda: room.broadcast("cars", "x", exclude="self")):
        with pytest.raises(RuntimeError, match="is not accepted yet: accept it first"):
            needs()
    assert room.broadcast("cars", "x") == 0


async def test_who_has_left_is_in_no_channel(scripted):
    app = await scripted()
    call, client = await app.open()
    room = channels(call.scope)
    room.subscribe("cars")
    await client.close()
    await call.receive()
    assert app.server.asgi.channels == {}
    assert room.subscribe("cars") == 0
    assert room.broadcast("cars", "x") == 0


@pytest.mark.parametrize("other", [{}, {"extensions": {}}, {"extensions": None}, SimpleNamespace(scope={}), None, 5])
def test_another_server_is_named_as_the_reason(other):
    with pytest.raises(RuntimeError, match=r"this needs fastws \(fastws serve app:app\)"):
        channels(other)


# -- the messages


async def test_the_messages_do_the_same(scripted):
    app = await scripted()
    (one, one_client), (two, two_client) = await app.open(), await app.open()
    channels(two.scope).user = "bob"
    for call in (one, two):
        await subscribe(call, "cars")
    await publish(one, "cars", text="all")
    await publish(one, "cars", bytes=b"others", exclude="self")
    await publish(one, "cars", text="bob", users=["bob"])
    await publish(one, "cars", text="me", to=[channels(one.scope).id])
    await two.send({"type": "websocket.unsubscribe", "topic": "cars"})
    await publish(two, "cars", text="the rest")
    assert await one_client.received() == ["all", "me", "the rest"]
    assert await two_client.received() == ["all", b"others", "bob"]


# -- from HTTP


async def in_loop(request):
    return JSONResponse({"reached": channels(request).broadcast("cars", "from a coroutine")})


def in_thread(request):
    return JSONResponse({"reached": channels(request).broadcast("cars", "from a thread")})


def of_nobody(request):
    room = channels(request)
    with pytest.raises(RuntimeError, match="a plain request has no user and is in no channel"):
        room.subscribe("cars")
    with pytest.raises(RuntimeError, match="a plain request has no user and is in no channel"):
        room.user = "ann"
    with pytest.raises(RuntimeError, match="a plain request has no user and is in no channel"):
        room.broadcast("cars", "x", exclude="self")
    return JSONResponse({"text": repr(room)})


async def member(websocket):
    channels(websocket).user = "ann"
    await websocket.accept()
    channels(websocket).subscribe("cars")
    await websocket.send_text("subscribed")
    await websocket.receive()


ROUTES = [
    Route("/loop", in_loop),
    Route("/thread", in_thread),
    Route("/nobody", of_nobody),
    WebSocketRoute("/ws", member),
]


async def fetched(url, path):
    def fetch():
        with urlopen(url.replace("ws:", "http:") + path, timeout=TIMEOUT) as answer:
            return answer.read()

    return await asyncio.to_thread(fetch)


async def test_a_route_reaches_them_on_the_loop_and_in_a_thread(apply, join):
    url, _ = await apply(Starlette(routes=ROUTES))
    client = await join(url + "/ws")
    assert await client.receive() == "subscribed"
    assert await fetched(url, "/loop") == b'{"reached":1}'
    assert await fetched(url, "/thread") == b'{"reached":1}'
    assert await client.received() == ["from a coroutine", "from a thread"]
    assert b"of a request" in await fetched(url, "/nobody")


async def test_an_applications_sockets_are_counted_and_logged_under_their_name(scripted, caplog):
    caplog.set_level(logging.INFO, "fastws.access")
    app = await scripted()
    await app.open("/some/where?token=secret")
    assert app.server.endpoints == {"asgi": app.server.asgi}
    assert app.server.stats["handshakes"] == {("asgi", 101): 1}
    assert app.server.asgi.stats["connections"] == 1
    (record,) = [record for record in caplog.records if record.name == "fastws.access"]
    assert (record.endpoint, record.path, record.status) == ("asgi", "/some/where", 101)
    assert "secret" not in record.getMessage()


async def test_options_may_turn_it_on_and_off_before_the_start():
    server = Server(port=0)
    for _ in range(2):
        server.reconfigure(http=Starlette(), max_message_size=100)
        assert server.asgi.options.max_message_size == 100
        server.reconfigure(http=Starlette(routes=ROUTES))
        assert list(server.endpoints) == ["asgi"]
        server.reconfigure(http_websockets=False)
        assert list(server.endpoints) == []
        with pytest.raises(RuntimeError, match="no application takes WebSockets"):
            _ = server.asgi
        server.reconfigure(http_websockets=True)
    async with running(server) as url:
        assert await fetched(url, "/loop") == b'{"reached":0}'


async def test_two_servers_with_one_application_share_nothing(scripted):
    app = await scripted()
    call, client = await app.open()
    channels(call.scope).subscribe("cars")
    async with running(Server(port=0, http=app)) as url:
        joining = asyncio.create_task(app._join(url))
        other = await app._arrived.get()
        await other.receive()
        await other.send({"type": "websocket.accept"})
        await joining
        assert channels(other.scope).broadcast("cars", "x") == 0
        assert channels(other.scope).manager is not app.server.asgi
        other.returns()
    assert await client.received() == []


async def test_with_a_backplane_a_room_is_on_all_nodes(scripted):
    store = MemoryStore()
    apps = [await scripted(backplane=Memory(store)) for _ in range(2)]
    (one, one_client), (two, two_client) = [await app.open() for app in apps]
    channels(two.scope).user = "bob"
    for call in (one, two):
        await subscribe(call, "cars")  # when this is done, it gets what other nodes say
    channels(one.scope).broadcast("cars", "to all")
    channels(one.scope).broadcast("cars", "to bob", users="bob")
    assert [await two_client.receive(), await two_client.receive()] == ["to all", "to bob"]
    assert await one_client.received() == ["to all"]
