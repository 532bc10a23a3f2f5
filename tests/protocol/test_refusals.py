"""docs/architecture.md#refusals: a refused handshake says why, in status and JSON body, and the log has the same id."""

import asyncio
import logging

import pytest

from fastws import Listener, Reject
from fastws.testing import Refused

from ..lib.raw import request
from ..lib.support import Echo, Recorder, records_naming


async def refusal(raw, data):
    """The answer to `data`, its body checked."""
    await raw.send(data)
    response = await raw.response()
    assert response["Content-Type"].split(";")[0] == "application/json"
    assert "close" in response["Connection"].lower().split(", ")
    assert set(response.error) == {"code", "message", "request_id"}
    assert response.error["message"]
    assert response.error["request_id"]
    assert await raw.eof() == b""
    return response


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.DEBUG, logger="fastws")
    return caplog


class Answering(Listener):
    """Refuses in a given way."""

    def __init__(self, answer):
        self.answer = answer

    def on_handshake(self, request):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_no_credentials_are_401_by_reject(serve, dial):
    site = await serve(Answering(Reject(401, "token has expired")))
    response = await refusal(await dial(site.url), request("/ws/cars"))
    assert response.status == 401
    assert response.error["message"] == "token has expired"


async def test_a_status_without_a_name_needs_no_reason(serve, dial):
    site = await serve(Answering(Reject(499)))
    response = await refusal(await dial(site.url), request("/ws/cars"))
    assert (response.status, response.error["message"]) == (499, "Refused")


async def test_reject_may_be_raised_as_well_as_returned(serve, dial):
    class Raising(Listener):
        def on_handshake(self, request):
            raise Reject(429, "come back later")

    site = await serve(Raising())
    response = await refusal(await dial(site.url), request("/ws/cars"))
    assert (response.status, response.error["message"]) == (429, "come back later")


async def test_false_from_on_handshake_is_403(serve, dial):
    site = await serve(Answering(False))
    assert (await refusal(await dial(site.url), request("/ws/cars"))).status == 403


@pytest.mark.parametrize("answer", [None, True, "yes", 0, [], {}])
async def test_only_false_itself_refuses(serve, join, answer):
    site = await serve(Answering(answer))
    client = await join(f"{site.url}/ws/cars")
    assert await client.received() == []


async def test_false_from_authorize_is_403(serve, dial):
    class Guard(Recorder):
        def authorize(self, request, channel):
            return channel != "secret"

    site = await serve(guard := Guard())
    assert (await refusal(await dial(site.url), request("/ws/secret"))).status == 403
    assert (await (await dial(site.url)).upgrade("/ws/cars")).status == 101
    await guard.until("on_subscribe")
    assert "secret" not in site.manager.channels


async def test_async_refusals_work_the_same(serve, dial):
    class Async(Listener):
        async def on_handshake(self, request):
            await asyncio.sleep(0)
            return request.query.get("ok") == "1"

        async def authorize(self, request, channel):
            await asyncio.sleep(0)
            return channel != "secret"

    site = await serve(Async())
    assert (await refusal(await dial(site.url), request("/ws/cars"))).status == 403
    assert (await refusal(await dial(site.url), request("/ws/secret?ok=1"))).status == 403
    assert (await (await dial(site.url)).upgrade("/ws/cars?ok=1")).status == 101


@pytest.mark.parametrize("origin", ["https://evil.example", "https://example.org.evil.example", "null"])
async def test_an_origin_off_the_list_is_403(serve, dial, origin):
    site = await serve(recorder := Recorder(), origins=["https://example.org"])
    data = request("/ws/cars", extra=[("Origin", origin)])
    assert (await refusal(await dial(site.url), data)).status == 403
    assert recorder.calls == []


@pytest.mark.parametrize("target", ["/nowhere", "/", "/ws", "/ws/", "/ws/cars/x", "/WS/cars", "/%2e%2e/ws/cars"])
async def test_an_unknown_path_is_404(serve, dial, target):
    site = await serve()
    assert (await refusal(await dial(site.url), request(target))).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "HEAD", "DELETE", "OPTIONS", "get"])
async def test_another_method_is_405(serve, dial, method):
    site = await serve()
    raw = await dial(site.url)
    await raw.send(request("/ws/cars", method=method))
    head = await raw.eof()
    assert head.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nallow: get\r\n" in head.lower()


async def test_a_slow_handshake_delays_nobody(serve, dial, join):
    site = await serve(Echo(), handshake_timeout=2)
    slow = [await dial(site.url) for _ in range(100)]
    for raw in slow:
        await raw.send(b"GET /ws/cars HTTP/1.1\r\n")
    client = await join(f"{site.url}/ws/cars")
    await client.send("hi")
    assert await client.receive() == "hi"
    for raw in slow:
        assert (await raw.response()).status == 408


@pytest.mark.parametrize(
    "data",
    [
        request("/ws/cars", extra=[("X-Big", "x" * 5000)]),
        request("/ws/cars", extra=[(f"X-{i}", "1") for i in range(1000)]),
        request("/ws/" + "x" * 5000),
        b"x" * 5000,
        b"GET /ws/cars HTTP/1.1\r\nX-Big: " + b"x" * 5000,
    ],
    ids=["one field", "many fields", "target", "no line end", "unfinished"],
)
async def test_a_header_over_max_header_size_is_431(serve, dial, data):
    site = await serve(max_header_size=4096)
    raw = await dial(site.url)
    assert (await refusal(raw, data)).status == 431


async def test_a_header_under_max_header_size_is_fine(serve, dial):
    site = await serve(max_header_size=4096)
    raw = await dial(site.url)
    assert (await raw.upgrade("/ws/cars", extra=[("X-Big", "x" * 3500)])).status == 101


async def test_one_connection_over_max_connections_is_503(serve, dial, join):
    site = await serve(recorder := Recorder(), max_connections=2)
    first = await join(f"{site.url}/ws/cars")
    await join(f"{site.url}/ws/cars")
    assert (await refusal(await dial(site.url), request("/ws/cars"))).status == 503
    await first.close()
    await recorder.until("on_close")
    third = await join(f"{site.url}/ws/cars")
    assert await third.received() == []


async def test_an_exception_in_on_handshake_is_500_and_leaks_nothing(serve, dial, log):
    site = await serve(Answering(ValueError("password is hunter2")))
    raw = await dial(site.url)
    response = await refusal(raw, request("/ws/cars"))
    assert response.status == 500
    everything = response.body.decode() + str(response.fields)
    for secret in ("hunter2", "ValueError", "Traceback", __file__):
        assert secret not in everything
    (record,) = records_naming(log, response.error["request_id"])
    assert record.levelno >= logging.ERROR
    assert "hunter2" in str(record.exc_info[1])


@pytest.mark.parametrize("handler", ["authorize", "on_handshake"])
async def test_an_exception_never_lets_the_client_in(serve, dial, handler):
    async def fail(self, *arguments):
        raise RuntimeError("no")

    listener = type("Failing", (Recorder,), {handler: fail})()
    site = await serve(listener)
    assert (await refusal(await dial(site.url), request("/ws/cars"))).status == 500
    assert "on_open" not in listener.names
    assert len(site.manager.connections) == 0


@pytest.mark.parametrize("target", ["/nowhere", "/ws/%zz", "/ws/cars"])
async def test_the_request_id_is_in_the_log(serve, dial, log, target):
    site = await serve(Answering(False))
    response = await refusal(await dial(site.url), request(target))
    assert len(records_naming(log, response.error["request_id"])) == 1


async def test_request_ids_differ(serve, dial):
    site = await serve(Answering(False))
    ids = set()
    for _ in range(3):
        response = await refusal(await dial(site.url), request("/ws/cars"))
        ids.add(response.error["request_id"])
    assert len(ids) == 3


async def test_a_refusal_on_the_client_is_an_exception_with_status_and_body(serve, join):
    site = await serve(Answering(Reject(402, "pay first")))
    with pytest.raises(Refused) as refused:
        await join(f"{site.url}/ws/cars")
    assert refused.value.status == 402
    assert refused.value.error["message"] == "pay first"


@pytest.mark.parametrize("status", [0, 101, 200, 302, 399, 600, 1000])
def test_reject_takes_error_statuses_only(status):
    with pytest.raises(ValueError, match=str(status)):
        Reject(status, "no")


async def test_a_client_that_leaves_while_on_handshake_runs_is_forgotten(serve, dial):
    entered, leave = asyncio.Event(), asyncio.Event()

    class Slow(Recorder):
        async def on_handshake(self, request):
            entered.set()
            await leave.wait()

    site = await serve(slow := Slow())
    raw = await dial(site.url)
    await raw.send(request("/ws/cars"))
    await entered.wait()
    raw.reset()
    leave.set()
    other = await dial(site.url)
    await other.upgrade("/ws/cars")
    await slow.until("on_subscribe")
    assert [ws.remote_address for ws in site.manager.connections.values()] == [other.address]
