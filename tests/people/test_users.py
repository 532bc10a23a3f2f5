"""docs/architecture.md#users: `on_handshake` sets the user, who may have many connections."""

import pytest

from fastws import Listener

from ..lib.support import Named, Recorder


class Login(Recorder):
    def on_handshake(self, request):
        request.user = request.query.get("user")


async def test_a_user_is_online_from_the_first_device_to_the_last(serve, join):
    site = await serve(login := Login())
    phone = await join(f"{site.url}/ws/cars?user=ann")
    laptop = await join(f"{site.url}/ws/bikes?user=ann")
    await login.until("on_subscribe", 2)
    assert login.of("on_user_online") == [("ann",)]
    await phone.close()
    await login.until("on_unsubscribe")
    await laptop.ping()
    assert login.of("on_user_offline") == []
    await laptop.close()
    assert await login.until("on_user_offline") == ("ann",)
    await join(f"{site.url}/ws/cars?user=ann")
    await login.until("on_user_online", 2)


async def test_the_users_mapping_gives_each_users_ids(serve, join):
    site = await serve(login := Login())
    for path in ("cars?user=ann", "bikes?user=ann", "cars?user=bob", "cars"):
        await join(f"{site.url}/ws/{path}")
    await login.until("on_subscribe", 4)
    ids = {}
    for ws in site.manager.connections.values():
        ids.setdefault(ws.user, set()).add(ws.id)
    assert set(site.manager.users) == {"ann", "bob"}
    assert set(site.manager.users["ann"]) == ids["ann"]
    assert set(site.manager.users["bob"]) == ids["bob"]
    assert len(ids["ann"]) == 2
    assert "eve" not in site.manager.users
    assert len(site.manager.users) == 2


async def test_who_has_left_is_in_no_users_mapping(serve, join):
    site = await serve(login := Login())
    ann = await join(f"{site.url}/ws/cars?user=ann")
    await login.until("on_subscribe")
    await ann.close()
    await login.until("on_user_offline")
    assert dict(site.manager.users) == {}
    assert dict(site.manager.connections) == {}


async def test_a_connection_without_a_user_brings_nobody_online(serve, join):
    site = await serve(login := Login())
    client = await join(f"{site.url}/ws/cars")
    await login.until("on_subscribe")
    await client.close()
    await login.until("on_channel_close")
    assert "on_user_online" not in login.names
    assert "on_user_offline" not in login.names


async def test_the_user_in_on_user_offline_is_gone_from_the_mappings(serve, join):
    seen = []

    class Look(Login):
        def on_user_online(self, user):
            seen.append(("online", user in site.manager.users))

        def on_user_offline(self, user):
            seen.append(("offline", user in site.manager.users))
            super().on_user_offline(user)

    site = await serve(look := Look())
    client = await join(f"{site.url}/ws/cars?user=ann")
    await look.until("on_subscribe")
    await client.close()
    await look.until("on_user_offline")
    assert seen == [("online", True), ("offline", False)]


@pytest.mark.parametrize("user", ["ann", 7, ("tenant", "ann")])
async def test_any_hashable_is_a_user(serve, join, user):
    class Fixed(Listener):
        def on_handshake(self, request):
            request.user = user

    site = await serve(Fixed())
    client = await join(f"{site.url}/ws/cars")
    await client.ping()
    assert set(site.manager.users) == {user}
    assert site.manager.send_to_user([user], "a") == 1
    assert site.manager.broadcast("cars", "b", users=[user]) == 1
    assert await client.received() == ["a", "b"]


async def test_presence_names_the_users_of_a_channel(serve, join):
    site = await serve(Named())
    for path in ("cars?user=ann", "cars?user=ann", "cars?user=bob", "cars", "bikes?user=dan"):
        await (await join(f"{site.url}/ws/{path}")).ping()
    assert set(site.manager.presence("cars")) == {"ann", "bob"}
    assert set(site.manager.presence("bikes")) == {"dan"}
    assert len(site.manager.presence("planes")) == 0


async def test_the_connections_mapping_is_by_id(serve, join):
    site = await serve(recorder := Recorder())
    for _ in range(3):
        await join(f"{site.url}/ws/cars")
    await recorder.until("on_subscribe", 3)
    connections = site.manager.connections
    assert {ws.id: ws for ws in recorder.sockets} == dict(connections)
    assert all(connections[ws.id] is ws for ws in recorder.sockets)
    assert connections.get("gone") is None
    with pytest.raises(KeyError):
        connections["gone"]


async def test_a_connection_may_say_later_whose_it_is(serve, join):
    """As clients of Pusher's do, who sign in after the handshake."""
    site = await serve(login := Login())
    site.manager.watch_presence("cars")
    ann, bob = await join(f"{site.url}/ws/cars"), await join(f"{site.url}/ws/cars?user=bob")
    await login.until("on_subscribe", 2)
    await bob.received()
    unnamed = next(ws for ws in site.manager.connections.values() if ws.user is None)
    site.manager.life.identify(unnamed, "ann")
    site.manager.life.identify(unnamed, "eve")  # it has a user by now
    assert login.of("on_user_online") == [("bob",), ("ann",)]
    assert (await bob.receive_json())["user"] == "ann"
    assert set(site.manager.presence("cars")) == {"ann", "bob"}
    assert site.manager.send_to_user("ann", "hi") == 1
    assert (await ann.received())[-1] == "hi"
    await ann.close()
    assert await login.until("on_user_offline") == ("ann",)
    assert (await bob.receive_json())["event"] == "leave"
    site.manager.life.identify(unnamed, "ann")  # it is over
    assert set(site.manager.users) == {"bob"}
