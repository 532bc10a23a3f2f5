"""From a server's start to its end: what a backend is told, and that nothing of it is left behind."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import replace

import orjson
from joserfc import jwt
from joserfc.jwk import OctKey
from websockets.asyncio.client import connect

from fastws import Server
from fastws.access.rules import ChannelRule
from fastws.access.tokens import AuthSettings
from fastws.command.settings import Settings
from fastws.hooks import Hooks, HookSettings
from fastws.hub import Hub
from fastws.standalone import create_server
from fastws.v1.listener import ChannelListener
from fastws.v1.raw import RawSettings

from ..lib.support import eventually
from ..lib.v1 import rules, serving
from .conftest import answers, events, request_of

TOLD = ("connected", "disconnected", "online", "offline", "occupied", "vacated", "subscribed", "unsubscribed")


async def test_the_backend_is_told_who_comes_and_goes(backend, site):
    answers(backend, connect=lambda post: {"user": "ann", "data": {"id": 7}})
    async with site(tell=TOLD) as there:
        one, two = await there.join("x", "cars"), await there.join("x", "cars")
        await one.ws.close(4007, "bye")
        await backend.until(lambda: events(backend, "unsubscribed"))
        assert not events(backend, "offline", "vacated")
        two.ws.transport.abort()
        await backend.until(lambda: events(backend, "offline"))
    kinds = [event["type"] for event in backend.events]
    assert kinds == [
        *["started", "connected", "online", "occupied", "subscribed", "connected", "subscribed"],
        *["disconnected", "unsubscribed", "disconnected", "unsubscribed", "vacated", "offline"],
    ]
    first, second = events(backend, "disconnected")
    assert (first["code"], first["reason"], second["code"]) == (4007, "bye", 1006)
    assert 0 <= first["seconds"] < 60
    assert first["connection"]["user"] == "ann"
    assert first["connection"]["data"] == {"id": 7}
    assert first["connection"]["id"] != second["connection"]["id"]
    assert abs(first["time"] - time.time()) < 60
    assert [event["seq"] for event in backend.events] == [*range(1, 14)]
    assert events(backend, "occupied")[0]["channel"] == events(backend, "vacated")[0]["channel"] == "cars"


async def test_a_stop_tells_of_everybody(backend, site):
    answers(backend, connect=lambda post: {"user": post.json["connection"]["query"]["user"]})
    async with site(tell=("disconnected", "offline", "vacated")) as there:
        for number in range(30):
            await there.join(f"u{number}", f"c{number}")
        await there.server.stop()
        # delivered before the stop had ended
        assert len(events(backend, "disconnected")) == len(events(backend, "vacated")) == 30
        assert {event["user"] for event in events(backend, "offline")} == {f"u{number}" for number in range(30)}
        hooks = there.manager.listener.hooks
        assert (hooks.figures.dropped, hooks._teller.waiting, hooks._poster._session) == (0, 0, None)


async def test_a_stop_with_nobody_there_closes_too(backend, site):
    answers(backend, connect={"user": "ann"})
    async with site(tell=("online",)) as there:
        ann = await there.dial()
        await ann.hello()
        await ann.ws.close()
        await eventually(lambda: there.manager.connection_count == 0)
        await there.server.stop()
        assert there.manager.listener.hooks._poster._session is None
        assert [event["type"] for event in backend.events] == ["started", "online"]


async def test_a_stop_does_not_wait_long_for_a_backend_that_is_gone(backend, site, monkeypatch):
    answers(backend, connect={"user": "ann"})
    server = Server(port=0, close_timeout=0.3)
    async with site(tell=("offline",), options={"server": server}) as there:
        ann = await there.dial()
        await ann.hello()
        await backend.stop()
        async with asyncio.timeout(5):
            await there.server.stop()


async def test_the_heartbeat_counts(backend, site):
    answers(backend, connect=lambda post: {"user": post.json["connection"]["query"]["user"]})
    async with site(tell=("online",), heartbeat=0.1) as there:
        for user in ("ann", "ann", "bob"):
            await there.join(user)
        await backend.until(
            lambda: (2, 3) in [(event["users"], event["connections"]) for event in events(backend, "heartbeat")]
        )


async def test_hooks_may_be_started_and_ended_by_whoever_owns_them(backend):
    async with Hooks(HookSettings(url=backend.url, tell=("online",))) as hooks:
        await hooks.connect(request_of())
        hooks.tell({"type": "online", "user": "ann"})
    assert [event["type"] for event in backend.events] == ["started", "online"]
    assert hooks._poster._session is None


async def test_or_by_the_application_beside_the_server(backend):
    """As `fastws serve` has it: from before the first handshake until after the last farewell."""
    contexts = []

    async def web(scope, receive, send):
        assert scope["type"] == "lifespan"
        await receive()
        async with AsyncExitStack() as stack:
            for context in contexts:
                await stack.enter_async_context(context)
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    web.run_with = contexts.append
    answers(backend, connect={"user": "ann"})
    hooks = Hooks(HookSettings(url=backend.url, tell=("offline",), heartbeat=0.1))
    server = Server(port=0, http=web)
    hooks.add_to(web, Hub(server))
    async with serving(ChannelListener(rules("*"), backend=hooks), server=server) as there:
        await backend.until(lambda: events(backend, "started"))
        assert {post.json["event"] for post in backend.posts} == {"events"}
        for _ in range(3):
            await there.join()
        await backend.until(lambda: [beat for beat in events(backend, "heartbeat") if beat["connections"] == 3])
        await there.server.stop()
        assert backend.events[-1]["type"] == "offline"
    assert next(beat["users"] for beat in events(backend, "heartbeat") if beat["connections"] == 3) == 1
    assert hooks._poster._session is None


async def test_a_server_put_together_from_settings_has_them_too(backend):
    key = "k" * 32
    token = jwt.encode({"alg": "HS256"}, {"sub": "tom", "exp": int(time.time()) + 60}, OctKey.import_key(key))
    anything = ChannelRule(pattern="*", subscribe="hook", publish="member")
    hooks = HookSettings(url=backend.url, ask=["connect", "subscribe"], tell=("offline",), heartbeat=0)
    settings = Settings(
        options={"port": 0}, anonymous=False, channels=[anything], auth=AuthSettings(secret=key), raw=RawSettings()
    )
    server = create_server(replace(settings, hooks=hooks))
    assert server.options.offline_after == 5
    answers(backend, connect={"user": "ann"}, subscribe={"message": 1})
    async with server, AsyncExitStack() as clients:
        url = f"ws://127.0.0.1:{server.port}"
        for path, headers, user in (("/ws", {}, "ann"), ("/ws", {"Authorization": f"Bearer {token}"}, "tom")):
            ws = await clients.enter_async_context(connect(url + path, additional_headers=headers))
            await ws.send('{"type": "hello", "version": 1, "channels": {"cars": null}}')
            assert orjson.loads(await ws.recv())["user"] == user
            assert orjson.loads(await ws.recv())["message"] == 1
        raw = await clients.enter_async_context(connect(url + "/raw/cars"))
        assert await raw.recv() == "1"
    assert [post.json["event"] for post in backend.posts].count("connect") == 2  # the token needed none
    settings.options["offline_after"] = 7
    other = create_server(replace(settings, hooks=hooks))
    assert other.options.offline_after == 7
    assert server.endpoints["/ws"].listener.backend is server.endpoints["/raw/{channel}"].listener.backend
    await server.endpoints["/ws"].listener.backend.close()


async def test_a_stop_with_nothing_to_tell_posts_nothing(backend):
    hooks = Hooks(HookSettings(url=backend.url, tell=("online",), heartbeat=0))
    hooks.start()
    await backend.until(lambda: events(backend, "started"))
    await eventually(lambda: hooks.figures.requests["events", "ok"] == 1)
    await backend.stop()
    await hooks.close()
    assert hooks.figures.requests == {("events", "ok"): 1}
