"""fastws.js at a server that a test has in its hand: who is in which channel, tokens, what waits for a connection."""

import asyncio
import time

import pytest

from .js import Refusal

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def quiet(there):
    """The types of the frames that a client sent until now."""
    await (await there.socket.ping())
    types = []
    while not there.frames.empty():
        types.append(there.frames.get_nowait().get("type"))
    return types


# Channels


async def test_a_channel_is_left_when_all_that_use_it_have_left(js, fake):
    await js.connect(fake.url)
    await js.channel("a", name="one")
    await js.channel("a", name="two")
    there = await fake.connection()
    await js.until("two", "subscribed")
    assert list((await there.next("hello"))["channels"]) in ([], ["a"])
    await quiet(there)
    await js.do("one", "leave")
    await js.do("one", "leave")
    assert await quiet(there) == []
    await there.send({"type": "message", "channel": "a", "message": 1, "from": None, "time": 1})
    await js.until("two", "message", 1)
    assert js.of("one", "message") == []
    await js.do("two", "close")
    assert await quiet(there) == ["unsubscribe"]
    await js.until("ws", "unsubscribed", channel="a", reason="asked")
    there.drop()
    await js.state("open")
    assert (await (await fake.connection()).next("hello"))["channels"] == {}


async def test_one_who_leaves_and_comes_in_the_same_moment_was_never_away(js, fake):
    await js.connect(fake.url)
    await js.channel("a", name="one")
    there = await fake.connection()
    await js.until("one", "subscribed")
    await quiet(there)
    await js.ask("all", [["do", "one", "leave"], ["channel", "two", "ws", "a"]])
    await js.until("two", "subscribed", reason="new")
    assert await quiet(there) == []


async def test_one_who_comes_again_before_the_answer_is_in(js, fake):
    fake.silent = {"unsubscribe", "subscribe"}
    await js.connect(fake.url)
    await js.state("open")
    there = await fake.connection()
    await js.channel("a", name="one")
    left = js.begin("do", "one", "leave")
    gone = await there.next("unsubscribe")
    await js.channel("a", name="two")
    await there.next("subscribe")
    # The answers to all three, in order.
    await there.send(
        fake.subscribed("a") | {"subscribers": 1},
        {"type": "unsubscribed", "id": gone["id"], "channel": "a", "reason": "asked"},
        fake.subscribed("a") | {"subscribers": 2},
    )
    assert (await js.until("two", "subscribed"))[0]["subscribers"] == 2
    await left
    assert await js.ask("get", "two", "state") == "joined"


async def test_one_who_leaves_before_the_welcome_is_taken_out(js, fake):
    fake.silent = {"hello"}
    await js.ask("all", [["connect", "ws", fake.url], ["channel", "a", "ws", "a"], ["channel", "b", "ws", "b"]])
    there = await fake.connection()
    hello = await there.next("hello")
    await js.do("a", "leave")
    await js.do("b", "leave")
    await js.channel("b", name="b again")
    assert await quiet(there) == []
    await there.answer(hello)
    assert (await there.next())["channel"] == "a"
    await js.until("b again", "subscribed")
    assert await quiet(there) == []


async def test_the_kicked_stay_out_until_they_ask_again(js, fake):
    await js.connect(fake.url)
    await js.channel("a")
    await js.until("a", "subscribed")
    there = await fake.connection()
    await there.send({"type": "unsubscribed", "channel": "a", "reason": "kicked"})
    await js.until("a", "unsubscribed", reason="kicked")
    assert await js.ask("get", "a", "state") == "left"
    there.drop()
    await js.state("open")
    again = await fake.connection()
    assert (await again.next("hello"))["channels"] == {}
    await js.channel("a", name="again")
    await js.until("again", "subscribed")


async def test_where_the_server_puts_one_one_is(js, fake):
    await js.connect(fake.url)
    await js.state("open")
    there = await fake.connection()
    await quiet(there)
    await there.send(fake.subscribed("a"))
    await js.until("ws", "subscribed", channel="a")
    await js.channel("a")
    await js.until("a", "subscribed")
    assert await quiet(there) == []
    await js.do("a", "leave")
    assert await quiet(there) == ["unsubscribe"]


async def test_a_refused_channel_says_why_and_is_not_asked_for_again(js, fake):
    fake.refused["a"] = {"code": "forbidden", "message": "not for you"}
    await js.connect(fake.url)
    await js.channel("a")
    await js.until("a", "state", state="refused", code="forbidden", reason="not for you")
    await js.until("a", "error", code="forbidden", channel="a", retry=False)
    await js.until("ws", "error", code="forbidden", message="not for you")
    (await fake.connection()).drop()
    await js.state("open")
    assert (await (await fake.connection()).next("hello"))["channels"] == {}


async def test_channels_that_are_too_many_for_a_hello_are_refused(js, fake):
    fake.silent = {"hello", "subscribe"}
    await js.connect(fake.url)
    await js.channel("a")
    there = await fake.connection()
    await there.next("hello")
    error = {"type": "error", "code": "too_many", "message": "full", "retry": False, "channels": ["a", "unknown"]}
    await there.send({"type": "welcome", "version": 1, "id": "fake", **fake.welcome}, error)
    await js.until("a", "state", state="refused", code="too_many", reason="full")


async def test_a_refusal_that_may_pass_is_tried_again(js, fake):
    fake.refused["a"] = {"code": "unavailable", "retry": True}
    await js.connect(fake.url)
    await js.channel("a")
    for _ in range(3):
        await js.until("a", "error", code="unavailable", retry=True)
    fake.refused.clear()
    await js.until("a", "subscribed")


async def test_positions_are_brought_back(js, fake):
    await js.connect(fake.url)
    await js.channel("a")
    await js.channel("b", position="5-5")
    there = await fake.connection()
    await js.until("b", "subscribed")
    await there.send({"type": "message", "channel": "a", "message": 1, "from": None, "time": 1, "position": "7-1"})
    await js.until("a", "message", 1)
    there.drop()
    there = await fake.connection()
    assert (await there.next("hello"))["channels"] == {"a": "7-1", "b": "5-5"}
    # What was missed has yet to come: with a connection that is lost before, it is still missing.
    recovered = {"recovered": True, "reason": None, "position": "9-1", "count": 2}
    await js.state("open")
    await there.send(fake.subscribed("a") | recovered)
    await js.until("a", "subscribed", recovered=True, count=2)
    assert await js.ask("get", "a", "position") == "7-1"
    await there.send({"type": "message", "channel": "a", "message": 2, "from": None, "time": 2, "position": "8-1"})
    await js.until("a", "message", 2)
    assert await js.ask("get", "a", "position") == "8-1"
    await there.send(fake.subscribed("a") | {"position": "12-1", "reason": "gap"})
    await js.until("a", "subscribed", recovered=False, reason="gap")
    assert await js.ask("get", "a", "position") == "12-1"


# Tokens


async def test_a_token_is_offered_as_a_subprotocol(js, fake):
    await js.connect(fake.url, token="t0k.en")
    assert (await fake.connection()).offered == ["fastws.v1", "bearer", "t0k.en"]


async def test_after_4001_a_fresh_token_is_tried_once(js, fake):
    fake.welcome["retry"] = [0.01, 60]  # whoever stays for less than a minute has proved nothing
    await js.connect(fake.url, tokens=["old", "new", "newest"])
    await js.state("open")
    first = await fake.connection()
    await first.close(4001, "the token is over")
    await js.until("ws", "token", {"refused": True})
    await js.state("open")
    second = await fake.connection()
    assert second.offered[-1] == "new"
    await second.close(4001, "this one too")
    await js.state("closed", code=4001, reason="this one too")
    assert js.of("ws", "token") == []


async def test_whoever_stayed_for_long_may_renew_again(js, fake):
    await js.connect(fake.url, tokens=["1", "2", "3"])
    for _ in range(2):
        await js.state("open")
        await asyncio.sleep(0.06)  # longer than retry[1], which is what proves a token
        await (await fake.connection()).close(4001)
    await js.state("open")
    assert (await fake.connection()).offered[-1] == "3"


@pytest.mark.parametrize("options", [{}, {"token": "fixed"}, {"tokens": ["one", None]}], ids=["none", "fixed", "fails"])
async def test_after_4001_without_a_fresh_token_it_stays_away(js, fake, options):
    await js.connect(fake.url, **options)
    await js.state("open")
    await (await fake.connection()).close(4001, "over")
    await js.state("closed", code=4001)
    assert len(fake.connections) == 1


async def test_a_token_that_cannot_be_had_is_asked_for_again(js, fake):
    await js.connect(fake.url, tokens=[None, None, "one"], retry=[0.01, 0.05])
    await js.state("waiting", code=1006, reason="no token: the shop is shut")
    await js.state("open")


async def test_a_token_that_no_header_can_hold_is_said(js, fake):
    await js.connect(fake.url, token="a b")
    closed = await js.state("closed")
    assert closed["reason"]


async def test_a_token_is_renewed_before_it_is_over(js, fake):
    began = time.time()
    fake.welcome["expires"] = began + 6
    await js.connect(fake.url, tokens=["one", None, "two"])
    await js.state("open")
    there = await fake.connection()
    fake.welcome["expires"] = began + 3600
    renewal = await there.next("authenticate")
    assert renewal["token"] == "two"
    assert 2 < time.time() - began < 6
    assert len(fake.connections) == 1


async def test_a_renewal_that_is_refused_is_not_tried_again(js, fake):
    fake.welcome["expires"] = time.time() + 4
    fake.silent = {"authenticate"}
    await js.connect(fake.url, tokens=["one", "two"])
    await js.state("open")
    there = await fake.connection()
    renewal = await there.next("authenticate")
    await there.send({"type": "error", "id": renewal["id"], "code": "refused", "message": "no", "retry": False})
    await js.do("ws", "call", "x")
    await asyncio.sleep(0.2)  # four times what is waited before something is tried again
    assert "authenticate" not in await quiet(there)


# What waits


async def test_a_publish_without_a_connection_is_refused_or_waits(js, fake):
    fake.welcome["retry"] = [600, 600]
    await js.connect(fake.url)
    await js.channel("a")
    await js.until("a", "subscribed")
    (await fake.connection()).drop()
    await js.state("waiting")
    with pytest.raises(Refusal) as refusal:
        await js.do("a", "publish", "not this")
    assert (refusal.value.code, refusal.value.retry) == ("unavailable", True)
    waiting = [js.begin("do", "a", "publish", number, {"queue": True}) for number in range(100)]
    fake.closes_at_once = (4503, "full")
    await js.do("ws", "retry")
    await js.state("waiting", code=4503)  # and they still wait
    fake.closes_at_once = None
    await fake.connection()
    await js.do("ws", "retry")
    assert await asyncio.gather(*waiting) == [{"connections": 1}] * 100
    there = await fake.connection()
    assert [(await there.next("publish"))["message"] for _ in range(100)] == list(range(100))


async def test_at_most_a_hundred_wait(js, unused_tcp_port):
    await js.connect(f"ws://127.0.0.1:{unused_tcp_port}", retry=[60, 60], queue=True)
    await js.channel("a")
    await js.state("waiting")
    waiting = [js.begin("do", "a", "publish", number) for number in range(100)]
    with pytest.raises(Refusal, match="100 are waiting") as refusal:
        await js.do("a", "publish", "one more")
    assert refusal.value.code == "unavailable"
    await js.do("ws", "close")
    for each in waiting:
        with pytest.raises(Refusal) as refusal:
            await each
        assert refusal.value.code == "closed"


async def test_the_first_publish_waits_for_the_first_connection(js, fake, unused_tcp_port):
    await js.connect(fake.url)
    await js.channel("a")
    assert await js.do("a", "publish", 1) == {"connections": 1}
    await js.connect(f"ws://127.0.0.1:{unused_tcp_port}", name="nowhere", retry=[60, 60])
    await js.channel("a", name="of nowhere", connection="nowhere")
    with pytest.raises(Refusal) as refusal:
        await js.do("of nowhere", "publish", 1)
    assert refusal.value.code == "unavailable"


# At once


async def test_it_is_tried_at_once_when_asked(js, fake):
    await js.connect(fake.url, retry=[60, 60])
    await js.state("open")
    fake.welcome["retry"] = [60, 60]
    fake.closes_at_once = (4503, "full")
    (await fake.connection()).drop()
    await js.state("waiting")
    fake.closes_at_once = None
    began = time.monotonic()
    await js.do("ws", "retry")
    await js.state("open")
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("event", ["online", "visibilitychange"])
async def test_a_page_that_comes_online_or_is_looked_at_tries_at_once(browser, open_page, fake, event):
    if browser is None:
        pytest.skip("chromium is not installed")
    client = await open_page()
    fake.welcome["retry"] = [600, 600]
    fake.closes_at_once = (4503, "full")
    await client.connect(fake.url, retry=[600, 600])
    await client.state("waiting", code=4503)
    fake.closes_at_once = None
    if event == "online":
        await client.page.context.set_offline(True)
        await client.page.context.set_offline(False)
    else:
        await client.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    await client.state("open")
