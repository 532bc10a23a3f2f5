"""Webhooks: in Pusher's form, signed, in order, and until they arrive."""

import pytest

from fastws.hooks import outbox
from fastws.pusher.settings import Webhook

from ..hooks.conftest import reply
from ..lib.support import eventually


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Tries that follow each other faster."""
    monkeypatch.setattr(outbox, "LINGER", 0.01)
    monkeypatch.setattr(outbox, "FIRST_DELAY", 0.01)


async def test_what_happens_in_channels_is_posted_in_order(backend, told, serve_pusher, dial_pusher):
    everything = Webhook.__args__
    app = await serve_pusher(webhook_url=backend.url, webhook_events=everything)
    ann, phone = await dial_pusher(app), await dial_pusher(app)
    await ann.join("presence-a", "ann")
    await phone.join("presence-a", "ann")
    await ann.send("client-hi", {"a": 1}, channel="presence-a")
    await ann.send("client-hi", "text", channel="presence-a")
    await ann.subscribe("cache-a")
    await ann.client.close()
    await eventually(lambda: app.manager.connection_count == 1)
    await phone.client.close()
    channel = {"channel": "presence-a"}
    sent = {**channel, "name": "client_event", "event": "client-hi", "socket_id": ann.socket_id, "user_id": "ann"}
    assert await told(9) == [
        {"name": "member_added", **channel, "user_id": "ann"},
        {"name": "channel_occupied", **channel},
        {**sent, "data": '{"a":1}'},
        {**sent, "data": "text"},
        {"name": "channel_occupied", "channel": "cache-a"},
        {"name": "cache_miss", "channel": "cache-a"},
        {"name": "channel_vacated", "channel": "cache-a"},
        {"name": "member_removed", **channel, "user_id": "ann"},
        {"name": "channel_vacated", **channel},
    ]


async def test_only_what_is_wanted_is_posted_until_it_arrives(backend, told, serve_pusher, dial_pusher):
    backend.says(reply(503), None, reply(500), reply(200))
    app = await serve_pusher(webhook_url=backend.url, webhook_events=("channel_vacated",))
    wire = await dial_pusher(app)
    await wire.subscribe("cars")
    await app.server.stop()  # which waits until it is told
    assert (await told(1))[-1] == {"name": "channel_vacated", "channel": "cars"}
    assert len(backend.posts) == 4
    assert all(post.body == backend.posts[0].body for post in backend.posts)
    webhooks = app.listener.webhooks
    assert (webhooks.pending, webhooks.figures.dropped) == (0, 0)
    assert webhooks.figures.requests == {("events", "error"): 3, ("events", "ok"): 1}
