"""The hub: all endpoints of a server as one set of channels."""

import json

import pytest

from fastws import Listener, Server
from fastws.hub import Hub, Sender
from fastws.testing import connect, running
from tests.lib.support import eventually


class Plain(Listener):
    """Whoever the query string says."""

    def on_handshake(self, request):
        request.user = request.query.get("user")


class Wrapping(Plain):
    """Wraps what goes out, and counts how often."""

    def __init__(self):
        self.wrapped = 0

    def envelope(self, channel, message, sender):
        self.wrapped += 1
        return {"channel": channel, "message": message, "from": sender and sender._asdict()}

    def direct(self, message):
        return {"direct": message}


@pytest.fixture
async def site():
    server = Server(port=0)
    server.endpoint("/raw/{channel}", Plain())
    server.endpoint("/ws/{channel}", Wrapping())
    async with running(server) as url:
        yield server, Hub(server), url


@pytest.fixture
async def join(site):
    _, hub, url = site
    clients = []

    async def enter(path):
        before = sum(manager.connection_count for manager in hub.managers)
        context = connect(url + path)
        clients.append(context)
        client = await context.__aenter__()
        await eventually(lambda: sum(manager.connection_count for manager in hub.managers) > before)
        return client

    yield enter
    for context in clients:
        await context.__aexit__(None, None, None)


def ids(hub, user):
    return [ws.id for ws in hub.user(user)]


async def test_a_message_is_wrapped_where_the_listener_wraps_and_bare_elsewhere(site, join):
    _, hub, _ = site
    raw, wrapped = await join("/raw/cars"), await join("/ws/cars")
    assert hub.broadcast("cars", "hi", sender=Sender("ann", "1-2")) == 2
    assert await raw.receive() == "hi"
    assert json.loads(await wrapped.receive()) == {
        "channel": "cars",
        "message": "hi",
        "from": {"user": "ann", "id": "1-2"},
    }


@pytest.mark.parametrize(("message", "sent"), [(b"\0\1", b"\0\1"), ({"a": [1]}, '{"a":[1]}'), (None, "null"), (7, "7")])
async def test_a_bare_message_keeps_its_kind(site, join, message, sent):
    _, hub, _ = site
    client = await join("/raw/cars")
    assert hub.broadcast("cars", message) == 1
    assert await client.receive() == sent


async def test_a_message_is_wrapped_once_an_endpoint_whatever_the_members(site, join):
    server, hub, _ = site
    for _ in range(3):
        await join("/ws/cars")
    assert hub.broadcast("cars", 1) == 3
    assert hub.broadcast("nobody", 1) == 0
    assert server.endpoints["/ws/{channel}"].listener.wrapped == 1


async def test_an_endpoint_can_be_picked(site, join):
    _, hub, _ = site
    raw, _ = await join("/raw/cars"), await join("/ws/cars")
    assert hub.broadcast("cars", "hi", endpoint="/raw/{channel}") == 1
    assert await raw.receive() == "hi"
    with pytest.raises(ValueError, match=r"'/nowhere' is not an endpoint: there is /raw/\{channel\}, /ws/\{channel\}"):
        hub.broadcast("cars", "hi", endpoint="/nowhere")


async def test_a_broadcast_is_targeted_on_every_endpoint(site, join):
    _, hub, _ = site
    ann, bob = await join("/raw/cars?user=ann"), await join("/ws/cars?user=bob")
    await join("/raw/cars?user=eve")
    assert hub.broadcast("cars", "hi", users=["ann", "bob"]) == 2
    assert hub.broadcast("cars", "hi", to=ids(hub, "ann"), users="bob") == 2
    assert hub.broadcast("cars", "hi", exclude=iter(ids(hub, "ann") + ids(hub, "bob"))) == 1
    for client in (ann, bob):
        await client.receive()
        await client.receive()


async def test_send_reaches_users_and_ids_once_each_wrapped_where_the_listener_wraps(site, join):
    _, hub, _ = site
    ann, device = await join("/raw/cars?user=ann"), await join("/ws/bikes?user=ann")
    assert hub.send("hi", users=iter(["ann"]), to=ids(hub, "ann")) == 2
    assert await ann.receive() == "hi"
    assert json.loads(await device.receive()) == {"direct": "hi"}
    assert hub.send("hi", users="ann", exclude=hub.user("ann")[0]) == 1
    assert hub.send("hi", to="nobody") == hub.send("hi", users="eve") == hub.send("hi") == 0


async def test_users_and_connections_are_subscribed_and_unsubscribed(site, join):
    _, hub, _ = site
    await join("/raw/cars?user=ann")
    await join("/ws/cars?user=ann")
    await join("/ws/cars?user=bob")
    assert hub.subscribe("bikes", users="ann", to=ids(hub, "bob")) == 3
    assert hub.subscribe("bikes", users=["ann", "eve"]) == 2
    assert hub.channels("bikes") == [("bikes", 3, 2)]
    assert hub.unsubscribe("bikes", users="ann") == 2
    assert hub.unsubscribe("bikes", users="ann", to=[*ids(hub, "bob"), "nobody"]) == 1
    assert hub.channel("bikes") is None


async def test_connections_are_closed_by_user_id_and_channel_once_each(site, join):
    _, hub, _ = site
    ann, bob, eve = await join("/raw/cars?user=ann"), await join("/ws/cars?user=bob"), await join("/ws/bikes?user=eve")
    assert hub.close(users="ann", to=[*ids(hub, "ann"), *ids(hub, "bob")], code=4100, reason="over") == 2
    assert await ann.closed() == await bob.closed() == (4100, "over")
    assert hub.close(channel="bikes") == 1
    assert await eve.closed() == (4001, "")
    assert hub.close(users="ann", session="none", channel="bikes") == 0


@pytest.mark.parametrize(("code", "reason"), [(1005, ""), (5000, ""), (4001, "x" * 124)])
async def test_what_may_not_be_sent_closes_nothing(site, join, code, reason):
    _, hub, _ = site
    await join("/raw/cars?user=ann")
    with pytest.raises(ValueError, match=r"close|reason"):
        hub.close(users="ann", code=code, reason=reason)
    assert hub.user("ann")[0].is_open


async def test_channels_come_in_order_and_in_pages(site, join):
    _, hub, _ = site
    await join("/raw/b?user=ann")
    await join("/ws/b?user=ann")
    await join("/ws/a")
    await join("/ws/b2?user=bob")
    assert hub.channels() == [("a", 1, 0), ("b", 2, 1), ("b2", 1, 1)]
    assert hub.channels("b", limit=1) == [("b", 2, 1)]
    assert hub.channels("b", after="b", limit=1) == [("b2", 1, 1)]
    assert hub.channels("b", after="b2") == []


async def test_a_channel_tells_who_is_there_on_all_endpoints(site, join):
    _, hub, _ = site
    await join("/raw/cars?user=ann")
    await join("/ws/cars?user=ann")
    await join("/ws/cars")
    state = hub.channel("cars")
    assert (state.name, len(state.connections)) == ("cars", 3)
    assert {user: there.devices for user, there in state.users.items()} == {"ann": 2}
    assert hub.channel("nothing") is None


async def test_a_connection_is_found_by_its_id(site, join):
    _, hub, _ = site
    await join("/ws/cars?user=ann")
    (ws,) = hub.user("ann")
    assert hub.connection(ws.id) is ws
    assert hub.connection("nobody") is None
    assert hub.user("eve") == []


async def test_endpoints_added_later_are_in_the_hub_and_one_with_several_paths_is_there_once(site):
    server, hub, _ = site
    manager = server.endpoint("/late", Plain())
    server.endpoints["/late/too"] = manager
    assert [manager.path for manager in hub.managers] == ["/raw/{channel}", "/ws/{channel}", "/late"]
    assert hub.manager("/late/too") is manager
