"""What is asked, what is answered, and how long anybody waits."""

import asyncio
import time

import pytest

from fastws import Reject
from fastws.hooks import Hooks, HookSettings
from fastws.hooks.posting import BUCKETS
from fastws.v1.decisions import Connect, Refused

from ..lib.support import eventually, records_naming
from .conftest import Somebody, ask, refused, reply, request_of


async def test_connect_is_asked_with_all_that_is_known(backend, hooks):
    asking = hooks()
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    request = request_of(
        "/ws/c%C3%A4rs?a=b&c",
        Cookie="session=1",
        Authorization="Bearer x",
        X_Other="no",
        Traceparent=trace,
        Sec_WebSocket_Protocol="fastws.v1, chat",
    )
    assert await asking.connect(request) == Connect()
    post = backend.posts[0]
    connection = post.json.pop("connection")
    assert connection.pop("remote_address") == ""  # it came over no socket
    assert connection == {
        "id": None,
        "path": "/ws/c\u00e4rs",
        "channel": None,
        "user": None,
        "data": None,
        "query": {"a": "b", "c": ""},
        "subprotocols": ["fastws.v1", "chat"],
        "headers": {"cookie": "session=1", "authorization": "Bearer x"},
    }
    assert post.json["event"] == "connect"
    assert "renew" not in post.json
    assert post.headers["cookie"] == "session=1"
    assert post.headers["authorization"] == "Bearer x"
    assert post.headers["traceparent"] == trace
    assert post.headers["user-agent"].startswith("fastws/")
    assert post.headers["content-type"] == "application/json"
    assert "x-other" not in post.headers
    assert "webhook-signature" not in post.headers  # there is no secret


async def test_what_the_backend_says_comes_back(backend, hooks):
    said = {
        "user": "ann",
        "data": {"id": 7},
        "channels": ["cars"],
        "welcome": [1],
        "expires": 2_000_000_000,
        "renew": True,
        "allow": {"subscribe": ["cars.*"]},
    }
    backend.says(reply(200, said))
    connect = await hooks().connect(request_of())
    assert {**connect._asdict(), "channels": [*connect.channels]} == {**said, "allow": {"subscribe": ("cars.*",)}}


async def test_a_later_ask_brings_what_connect_said(backend, hooks):
    backend.says(reply(200, {"user": "ann", "data": {"id": 7}}))
    asking, ws = hooks(), Somebody()
    ws.request.data["connect"] = await asking.connect(ws.request)
    backend.says(reply(200, {"result": 3}))
    assert await asking.call(ws, "add", [1, 2]) == {"result": 3}
    asked = backend.posts[1].json
    assert (asked["event"], asked["method"], asked["params"]) == ("call", "add", [1, 2])
    assert asked["connection"]["data"] == {"id": 7}
    assert (asked["connection"]["user"], asked["connection"]["id"]) == ("ann", "1-1")


async def test_renewal_is_an_ask_of_its_own(backend, hooks):
    ws = Somebody()
    await hooks().connect(ws.request, ws=ws)
    assert backend.posts[0].json["renew"] is True
    assert backend.posts[0].json["connection"]["user"] == "ann"


@pytest.mark.parametrize(
    ("event", "answer"),
    [
        ("subscribe", {}),
        ("subscribe", {"message": None}),
        ("subscribe", {"message": [1], "presence": True}),
        ("publish", {"message": {"text": "***"}, "to": ["bob"]}),
        ("publish", {"drop": True}),
        ("publish", {"close": {"code": 4000, "reason": "spam"}}),
        ("call", {"result": {"a": [None]}}),
    ],
)
async def test_answers_are_given_as_they_are(backend, hooks, event, answer):
    backend.says(reply(200, answer))
    given = dict(await ask(hooks(), event))
    if "to" in given:
        given["to"] = list(given["to"])
    if "close" in given:
        given["close"] = dict(given["close"])
    assert given == answer


@pytest.mark.parametrize("answer", [reply(204, body=b""), reply(200, {}), reply(200, [])])
@pytest.mark.parametrize("event", ["connect", "subscribe", "publish", "call"])
async def test_yes_may_be_as_short_as_that(backend, hooks, event, answer):
    backend.says(answer)
    said = await ask(hooks(), event)
    assert said == Connect() if event == "connect" else said in ({}, {"result": None})


@pytest.mark.parametrize(
    ("status", "code", "retry"),
    [
        (400, "refused", False),
        (401, "unauthenticated", False),
        (403, "forbidden", False),
        (404, "unknown_channel", False),
        (409, "conflict", False),
        (413, "too_large", False),
        (422, "refused", False),
        (429, "too_fast", True),
        (499, "refused", False),
    ],
)
async def test_no_has_a_status_and_a_sentence(backend, hooks, status, code, retry):
    backend.says(reply(status, {"error": {"message": "not today"}}))
    asking = hooks()
    with pytest.raises(Reject, match=f"{status} not today") as caught:
        await ask(asking, "connect")
    assert caught.value.status == status
    for event in ("subscribe", "publish", "call"):
        with pytest.raises(Refused) as caught:
            await ask(asking, event)
        assert (caught.value.code, caught.value.message, caught.value.retry) == (code, "not today", retry)
        assert asking.figures.requests[event, "refused"] == 1


@pytest.mark.parametrize(
    "body", [b"", b"<b>no</b>", b"null", b'{"error": "no"}', b'{"error": {"message": 5}}', b"\xff"]
)
async def test_no_without_a_sentence_says_what_the_status_says(backend, hooks, body):
    backend.says(reply(403, body=body))
    with pytest.raises(Reject) as caught:
        await ask(hooks(), "connect")
    assert (caught.value.status, caught.value.reason) == (403, "Forbidden")


async def test_a_sentence_is_cut_and_has_no_line_breaks(backend, hooks):
    backend.says(reply(403, {"error": {"message": "a\r\nb" + "x" * 10_000}}))
    with pytest.raises(Reject) as caught:
        await ask(hooks(), "connect")
    assert caught.value.reason.startswith("a  bxxx")
    assert len(caught.value.reason) == 500


async def test_a_hanging_backend_is_waited_for_as_long_as_timeout_says(backend, hooks, caplog):
    backend.answer = lambda post: asyncio.Event().wait()
    asking = hooks(timeout=0.05)
    await refused(asking)
    await refused(asking, "call")
    assert asking.figures.requests == {("connect", "timeout"): 1, ("call", "timeout"): 1}
    assert len(records_naming(caplog, "no answer within 0.05 s")) == 2
    assert asking.figures.pending == 0


async def test_nobody_there_is_tried_once_more_at_once(backend, hooks, monkeypatch):
    asking = hooks()
    await backend.stop()
    tries = 0
    post = asking._poster._post

    async def counting(*arguments):
        nonlocal tries
        tries += 1
        return await post(*arguments)

    monkeypatch.setattr(asking._poster, "_post", counting)
    await refused(asking)
    assert tries == 2

    async def up_by_then(*arguments):
        if backend._server is None:
            try:
                return await post(*arguments)
            finally:
                await backend.start()
        return await post(*arguments)

    monkeypatch.setattr(asking._poster, "_post", up_by_then)
    await ask(asking, "connect")
    assert len(backend.posts) == 1


async def test_a_backend_whose_certificate_nobody_knows_is_not_asked(hooks, caplog, server_side):
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=server_side)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await refused(hooks(url=f"https://127.0.0.1:{port}/"))
    assert records_naming(caplog, "certificate verify failed")


async def test_a_backend_that_was_killed_and_is_back_is_asked_again(backend, hooks):
    asking = hooks()
    await ask(asking, "connect")
    await backend.stop()
    await refused(asking)
    await backend.start()
    await ask(asking, "connect")


async def test_a_slow_ask_delays_no_other(backend, hooks):
    released = asyncio.Event()

    async def answer(post):
        if post.json["channel"] == "slow":
            await released.wait()
        return reply()

    backend.answer = answer
    asking = hooks()
    slow = asyncio.ensure_future(asking.subscribe(Somebody(), "slow"))
    await backend.until(lambda: backend.posts)
    for _ in range(100):
        await asking.subscribe(Somebody(), "fast")
    assert not slow.done()
    assert asking.figures.pending == 1
    released.set()
    await slow


async def test_so_many_are_asked_at_a_time_so_many_wait_and_no_more(backend, hooks, caplog):
    released, at_once = asyncio.Event(), []

    async def answer(post):
        at_once.append(post)
        await released.wait()
        return reply()

    backend.answer = answer
    asking = hooks(concurrency=3, max_pending=2)
    five = [asyncio.ensure_future(ask(asking, "call")) for _ in range(5)]
    await eventually(lambda: len(at_once) == 3)
    await refused(asking)
    assert records_naming(caplog, "max_pending")
    assert (len(at_once), asking.figures.pending) == (3, 5)
    five[4].cancel()
    await asyncio.wait(five[4:])
    released.set()
    await asyncio.gather(*five[:4])
    assert (len(backend.posts), asking.figures.pending) == (4, 0)
    await ask(asking, "connect")


async def test_waiting_for_a_turn_counts_as_waiting(backend, hooks):
    backend.answer = lambda post: asyncio.Event().wait()
    asking = hooks(concurrency=1, timeout=0.5)
    begin = time.monotonic()
    await asyncio.gather(*(refused(asking, "call") for _ in range(20)))
    assert time.monotonic() - begin < 20 * 0.5
    assert asking.figures.requests["call", "timeout"] == 20


async def test_who_gave_up_leaves_nothing_behind(backend, hooks):
    backend.answer = lambda post: asyncio.Event().wait()
    asking = hooks(concurrency=1)
    task = asyncio.ensure_future(ask(asking, "connect"))
    await backend.until(lambda: backend.posts)
    task.cancel()
    await asyncio.wait([task])
    backend.answer = backend.yes
    await ask(asking, "connect")
    assert asking.figures.requests == {("connect", "ok"): 1}
    await eventually(lambda: len(backend._writers) == 1)  # whose answer nobody waits for was hung up on


async def test_connections_are_kept_while_they_are_busy(backend, hooks):
    asking = hooks()
    for _ in range(50):
        await ask(asking, "connect")
    assert backend.connections == 1


async def test_what_happened_is_counted(backend, hooks):
    asking = hooks()
    await ask(asking, "connect")
    backend.says(reply(403))
    with pytest.raises(Refused):
        await ask(asking, "call")
    figures = asking.figures
    assert figures.requests == {("connect", "ok"): 1, ("call", "refused"): 1}
    assert [sum(figures.seconds[event]) for event in ("connect", "call")] == [1, 1]
    assert len(figures.seconds["call"]) == len(BUCKETS) + 1
    assert 0 < figures.seconds_sum["call"] < 5
    assert figures.is_reachable
    backend.says(reply(500))
    await refused(asking)
    assert not figures.is_reachable
    backend.says(reply())
    await ask(asking, "connect")
    assert figures.is_reachable


@pytest.mark.parametrize(
    "names", [("cookie", "x-mine"), ("Cookie", "X-Mine"), ("host", "content-length", "webhook-id", "te")]
)
async def test_only_the_fields_named_are_forwarded_and_none_of_the_requests_own(backend, hooks, names):
    request = request_of(Cookie="a", X_Mine="b", Content_Length="0", Webhook_Id="c", TE="trailers", Authorization="d")
    await hooks(headers=names, secret="whsec_" + "c2VjcmV0" * 5).connect(request)
    post = backend.posts[0]
    assert "authorization" not in post.headers
    assert post.headers["host"] == f"127.0.0.1:{backend.port}"
    assert post.headers["webhook-id"].startswith("msg_")
    assert post.headers["content-length"] == str(len(post.body))
    assert "te" not in post.headers
    assert set(post.json["connection"]["headers"]) <= {name.lower() for name in names}
    assert (post.headers.get("x-mine") == "b") == ("x-mine" in [name.lower() for name in names])


async def test_a_field_goes_on_byte_for_byte(backend, hooks):
    request = request_of(Cookie="a=\u00e4")  # UTF-8, as it was sent
    await hooks().connect(request)
    assert backend.posts[0].headers["cookie"].encode("latin-1").decode() == "a=\u00e4"


async def test_an_event_may_have_a_path_of_its_own(backend, hooks):
    asking = hooks(url=f"http://127.0.0.1:{backend.port}/hooks/{{event}}?a=b")
    await ask(asking, "connect")
    await ask(asking, "call")
    assert [post.path for post in backend.posts] == ["/hooks/connect?a=b", "/hooks/call?a=b"]


async def test_what_cannot_be_json_is_not_asked(backend, hooks, caplog):
    asking = hooks()
    with pytest.raises(Refused) as caught:
        await asking.call(Somebody(), "x", ["\ud800"])
    assert caught.value.code == "unavailable"
    assert records_naming(caplog, "cannot be sent as JSON")
    assert backend.posts == []


def test_one_may_ask_on_one_loop_after_the_other(unused_tcp_port):
    asking = Hooks(HookSettings(url=f"http://127.0.0.1:{unused_tcp_port}/", concurrency=1, tell=()))

    async def run():
        await asyncio.gather(*(refused(asking) for _ in range(5)))
        await asking.close()

    for _ in range(2):
        asyncio.run(run())
    assert asking.figures.requests == {("connect", "error"): 10}
