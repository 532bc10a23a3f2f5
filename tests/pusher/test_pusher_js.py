"""pusher-js in Node, with a backend on Pusher's own library for Python."""

import json

from ..lib.support import eventually
from .conftest import KEY, USER, options_for

BOB = {"id": "bob", "user_info": {"name": "Bob"}}
MALLORY = {"id": "mallory", "user_info": {}}


async def test_events_of_the_backend_reach_all_but_the_socket_that_it_names(serve_pusher, node):
    app = await serve_pusher()
    for name in ("one", "two"):
        await node.ask("connect", name, KEY, options_for(app))
        await node.until(name, "", "state", "connected")
        await node.ask("subscribe", name, "cars")
        await node.until(name, "cars", "pusher:subscription_succeeded")
    await app.call("trigger", ["cars", "bikes"], "moved", {"to": "Ulm"}, await node.ask("socket", "one"))
    await node.until("two", "cars", "moved", {"to": "Ulm"})
    await app.call("trigger", "cars", "stopped", "at last")
    await node.until("one", "cars", "stopped", "at last")
    await node.until("two", "cars", "stopped", "at last")
    assert not [heard for heard in node.heard if heard[2] == "moved"]
    await node.ask("unsubscribe", "one", "cars")
    await eventually(lambda: app.manager.channels == {"cars": 1})
    await node.ask("disconnect", "two")
    await node.until("two", "", "state", "disconnected")


async def test_members_of_a_presence_channel_see_users_come_and_go_not_devices(serve_pusher, node, auth):
    app = await serve_pusher()
    for name, user in (("ann", None), ("ann2", None), ("bob", BOB)):
        await node.ask("connect", name, KEY, options_for(app, auth, user))
        await node.ask("subscribe", name, "presence-room")
        there = await node.until(name, "presence-room", "pusher:subscription_succeeded")
        assert there["me"] == ("bob" if user else "ann")
    assert there["members"] == {"ann": USER["user_info"], "bob": BOB["user_info"]}
    assert there["count"] == 2
    await node.ask("trigger", "bob", "presence-room", "client-typing", {"in": "room"})
    await node.until("ann", "presence-room", "client-typing", {"in": "room"})
    await node.ask("disconnect", "ann2")
    await node.ask("disconnect", "ann")
    await node.until("bob", "presence-room", "pusher:member_removed")
    told = [heard[2:] for heard in node.heard if heard[0] == "bob" and "member" in heard[2]]
    assert told == []
    assert (await node.ask("members", "bob", "presence-room"))["members"] == {"bob": BOB["user_info"]}


async def test_a_private_channel_is_for_those_whom_the_backend_lets_in(serve_pusher, node, auth):
    app = await serve_pusher()
    for name, user in (("ann", None), ("mallory", MALLORY)):
        await node.ask("connect", name, KEY, options_for(app, auth, user))
        await node.until(name, "", "state", "connected")
        await node.ask("subscribe", name, "private-room")
    error = await node.until("mallory", "private-room", "pusher:subscription_error")
    assert error["status"] == 403
    await eventually(lambda: app.manager.channels == {"private-room": 1})


async def test_only_clients_can_read_encrypted_events(serve_pusher, node, dial_pusher, auth):
    app = await serve_pusher()
    await node.ask("connect", "ann", KEY, options_for(app, auth))
    await node.ask("subscribe", "ann", "private-encrypted-room")
    await node.until("ann", "private-encrypted-room", "pusher:subscription_succeeded")
    wire = await dial_pusher(app)
    await wire.subscribe("private-encrypted-room")
    await app.call("trigger", "private-encrypted-room", "said", {"what": "a secret"})
    await node.until("ann", "private-encrypted-room", "said", {"what": "a secret"})
    _, _, data = await wire.receive()
    assert data.keys() == {"nonce", "ciphertext"}


async def test_a_cache_channel_begins_with_its_last_event(serve_pusher, node):
    app = await serve_pusher()
    await node.ask("connect", "ann", KEY, options_for(app))
    await node.until("ann", "", "state", "connected")
    await node.ask("subscribe", "ann", "cache-news")
    await node.until("ann", "cache-news", "pusher:cache_miss")
    await app.call("trigger", "cache-news", "headline", {"no": 1})
    await node.until("ann", "cache-news", "headline", {"no": 1})
    await node.ask("connect", "late", KEY, options_for(app))
    await node.ask("subscribe", "late", "cache-news")
    await node.until("late", "cache-news", "pusher:subscription_succeeded")
    await node.until("late", "cache-news", "headline", {"no": 1})


async def test_whoever_signs_in_is_reached_by_name_and_can_be_sent_away(serve_pusher, node, auth):
    app = await serve_pusher()
    await node.ask("connect", "ann", KEY, options_for(app, auth))
    await node.until("ann", "", "state", "connected")
    await node.ask("signin", "ann")
    await eventually(lambda: app.manager.channels == {"#server-to-user-ann": 1})
    await app.call("send_to_user", "ann", "greeting", {"hi": "Ann"})
    await node.until("ann", "#user", "greeting", {"hi": "Ann"})
    await app.call("terminate_user_connections", "ann")
    await node.until("ann", "", "state", "disconnected")  # and it does not come back


async def test_a_wrong_key_ends_it_and_a_stop_brings_clients_back_later(serve_pusher, node):
    app = await serve_pusher()
    await node.ask("connect", "wrong", "no-key", options_for(app))
    error = await node.until("wrong", "", "error")
    assert error["code"] == 4001
    await node.until("wrong", "", "state", "disconnected")
    await node.ask("connect", "ann", KEY, options_for(app))
    await node.until("ann", "", "state", "connected")
    await app.server.stop()
    await node.until("ann", "", "state", "connecting")


async def test_echo_listens_whispers_and_knows_who_is_there(serve_pusher, node, auth):
    app = await serve_pusher()
    for name, user in (("ann", USER), ("bob", BOB)):
        headers = {"x-user": json.dumps(user)}
        echo = {"key": KEY, "wsHost": "127.0.0.1", "wsPort": app.port, "authEndpoint": f"{auth.url}/auth"}
        await node.ask("echo", name, {**echo, "auth": {"headers": headers}})
        await node.ask("private", name, "orders.1", "OrderShipped", "typing")
        await node.until(name, "orders.1", "subscribed")
    await app.call("trigger", "private-orders.1", "App\\Events\\OrderShipped", {"order": 1})
    await node.until("ann", "orders.1", "OrderShipped", {"order": 1})
    await node.until("bob", "orders.1", "OrderShipped", {"order": 1})
    await node.ask("whisper", "ann", "orders.1", "typing", {"name": "Ann"})
    await node.until("bob", "orders.1", "whisper typing", {"name": "Ann"})
    await node.ask("join", "ann", "room")
    await node.until("ann", "room", "here", [USER["user_info"]])
    await node.ask("join", "bob", "room")
    await node.until("ann", "room", "joining", BOB["user_info"])
    await node.ask("leave", "bob", "room")
    await node.until("ann", "room", "leaving", BOB["user_info"])
