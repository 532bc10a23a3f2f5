"""Plain sockets: no envelope, the same rules, the same channels."""

import json

import pytest
from websockets.exceptions import InvalidStatus

from fastws import ConfigurationError
from fastws.v1.decisions import Connect, Refused
from fastws.v1.raw import RawListener, RawSettings

from ..lib.v1 import OPEN, Named, NamedRaw, rules
from .test_backend import Backend


async def both(serve, *of, **options):
    """A site with both kinds of socket, and the same rules for them."""
    shared = rules(*of or ("*",))
    return await serve(Named(shared), NamedRaw(shared, **options))


async def silence(client) -> bool:
    """Whether nothing was sent to a plain socket before its own next message came back."""
    await client.ws.send("so far")
    return await client.text() == "so far"


async def test_what_a_member_sends_goes_to_all_members_as_it_is(serve):
    site = await both(serve)
    one, two, other = [await site.dial(f"/raw/{name}", subprotocols=None) for name in ("cars", "cars", "boats")]
    for message in ("text", "", '{"a": 1}', b"\x00\xff", b"", "é\u2028"):
        await one.ws.send(message)
        assert await one.text() == await two.text() == message
    assert await silence(other)


async def test_both_kinds_are_in_one_channel(serve):
    site = await both(serve)
    plain, client = await site.dial("/raw/cars?user=ann"), await site.join("bob", "cars")
    assert (await client.ask({"type": "publish", "id": 1, "channel": "cars", "message": {"a": [1]}}))[
        "type"
    ] == "message"
    assert (await client.receive())["connections"] == 2
    assert json.loads(await plain.text()) == {"a": [1]}
    await client.ask({"type": "publish", "channel": "cars", "message": "a \u00e9 string"})
    assert await plain.text() == "a é string"
    await plain.ws.send("hi")
    message = await client.receive()
    assert (message["message"], message["from"]["user"]) == ("hi", "ann")
    assert message["from"]["id"] in site.server.endpoints["/raw/{channel}"].connections
    await plain.ws.send(b"\x01")
    assert (await client.receive())["base64"] == "AQ=="


async def test_whispers_typing_and_presence_reach_no_plain_socket(serve):
    site = await both(serve, {"pattern": "*", **OPEN, "presence": True})
    plain, ann, bob = (
        await site.dial("/raw/cars?user=bob"),
        await site.join("ann", "cars"),
        await site.join("bob", "cars"),
    )
    await ann.send({"type": "whisper", "channel": "cars", "to": ["bob"], "message": 1})
    await ann.send({"type": "typing", "channel": "cars"})
    assert {frame["type"] for frame in await ann.so_far()} <= {"presence"}
    assert [frame["type"] for frame in await bob.so_far() if frame["type"] != "presence"] == ["whisper", "typing"]
    assert await silence(plain)


async def test_excluding_oneself_leaves_plain_sockets_in(serve):
    site = await both(serve)
    plain, client = await site.dial("/raw/cars"), await site.join(None, "cars")
    ack = await client.ask({"type": "publish", "id": 1, "channel": "cars", "message": 1, "exclude": "self"})
    assert ack["connections"] == 1
    assert await plain.text() == "1"


async def test_a_channel_is_full_whatever_its_members_speak(serve):
    site = await both(serve, {"pattern": "*", "subscribe": "anyone", "max_subscribers": 2})
    client = await site.join(None, "cars")
    await site.dial("/raw/cars")
    with pytest.raises(InvalidStatus) as refused:
        await site.dial("/raw/cars")
    assert refused.value.response.status_code == 503
    other = await site.join()
    assert (await other.ask({"type": "subscribe", "channel": "cars"}))["code"] == "too_many"
    assert (await client.ask({"type": "subscribe", "channel": "cars"}))["subscribers"] == 2


@pytest.mark.parametrize(
    ("path", "status"),
    [("none", 404), ("shut", 403), ("users", 401), ("x" * 256, 400), ("%00", 400), ("", 404)],
)
async def test_the_rules_decide_who_is_a_member(serve, path, status):
    site = await both(serve, {"pattern": "shut"}, {"pattern": "users", "subscribe": "user"}, "cars")
    with pytest.raises(InvalidStatus) as refused:
        await site.dial(f"/raw/{path}")
    assert refused.value.response.status_code == status
    await site.dial("/raw/users?user=ann")


async def test_and_who_may_publish(serve):
    site = await both(serve, {"pattern": "news", "subscribe": "anyone", "publish": "user"})
    reader, writer = await site.dial("/raw/news"), await site.dial("/raw/news?user=ann")
    await writer.ws.send("hi")
    assert await reader.text() == await writer.text() == "hi"
    await reader.ws.send("hello")
    assert await reader.closed() == (1008, "this needs a user")
    assert await silence(writer)


async def test_nobody_anonymous_where_that_is_so(serve):
    site = await both(serve, anonymous=False)
    with pytest.raises(InvalidStatus) as refused:
        await site.dial("/raw/cars")
    assert refused.value.response.status_code == 401


# -- a backend


async def with_backend(serve, **answers):
    backend = Backend(connect=lambda request, ws: Connect(user=request.query.get("user")), **answers)
    return await serve(Named(rules("*")), RawListener(rules("*"), backend=backend)), backend


async def test_the_backend_decides_on_subscriptions(serve):
    site, backend = await with_backend(serve, subscribe={"message": "first"})
    client = await site.dial("/raw/cars?user=ann")
    assert await client.text() == "first"
    assert await silence(client)
    assert backend.asked[-1] == ("subscribe", "ann", "cars")
    backend.answers["subscribe"] = Refused("forbidden", "not here")
    client = await site.dial("/raw/cars?user=bob")
    assert await client.closed() == (4403, "not here")
    assert site.server.endpoints["/raw/{channel}"].channels == {"cars": 1}


async def test_the_backend_decides_on_messages(serve):
    site, backend = await with_backend(serve, publish={})
    ann, bob = await site.dial("/raw/cars?user=ann"), await site.dial("/raw/cars?user=bob")
    await ann.ws.send(b"\xff")
    assert await bob.text() == await ann.text() == b"\xff"
    assert backend.asked[-1] == ("publish", "cars", {"base64": "/w=="}, None)
    backend.answers["publish"] = {"message": "HI", "to": ["bob"]}
    await ann.ws.send("hi")
    assert await bob.text() == "HI"
    assert backend.asked[-1] == ("publish", "cars", "hi", None)
    backend.answers["publish"] = {"drop": True, "close": {"code": 4000, "reason": "bye"}}
    await bob.ws.send("hi")
    assert await bob.closed() == (4000, "bye")
    backend.answers["publish"] = Refused("forbidden", "no")
    await ann.ws.send("hi")
    assert await ann.closed() == (1008, "no")


async def test_a_silent_backend_is_worth_another_try(serve):
    site, _ = await with_backend(serve, publish=Refused("unavailable", "silence", retry=True))
    client = await site.dial("/raw/cars")
    await client.ws.send("hi")
    assert await client.closed() == (1013, "silence")


@pytest.mark.parametrize("path", ["/raw", "/raw/{room}", "/raw/{channel}/{more}", "raw/{channel}", "/{channel"])
def test_a_path_without_a_channel_is_refused(path):
    with pytest.raises(ConfigurationError):
        RawSettings(path=path)
