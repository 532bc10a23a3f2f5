"""Refused handshakes: a client of fastws.v1 can read why from the Close, everybody else from the HTTP answer."""

import asyncio
import json
import logging

import pytest
from websockets.exceptions import InvalidStatus

from fastws import Listener, Reject, Server

from ..lib.support import eventually
from ..lib.v1 import Client, Named, rules, serving


class Refusing(Named):
    """Refuses as it is told, and writes down whatever else happens."""

    def __init__(self, answer, **options):
        super().__init__(rules("*"), **options)
        self.answer = answer
        self.told = []

    def on_handshake(self, request):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def on_open(self, ws):
        self.told.append("open")
        super().on_open(ws)

    def on_close(self, ws, code, reason):
        self.told.append("close")
        super().on_close(ws, code, reason)

    def on_error(self, ws, error):
        self.told.append("error")


def logged(caplog):
    """The records of refusals."""
    return [record for record in caplog.records if hasattr(record, "request_id")]


@pytest.mark.parametrize(
    ("answer", "status", "message"),
    [
        (False, 403, "handshake refused"),
        (Reject(401, "the token has expired"), 401, "the token has expired"),
        (Reject(429), 429, "Too Many Requests"),
        (Reject(503, "later", headers={"Retry-After": "5"}), 503, "later"),
        (RuntimeError("secret"), 500, "internal server error"),
    ],
    ids=str,
)
async def test_the_reason_stands_in_the_close_and_in_the_http_answer(wire, serve, caplog, answer, status, message):
    caplog.set_level(logging.WARNING, logger="fastws")
    site = await serve(Refusing(answer))
    client = await site.dial()
    code, reason = await client.closed()
    [record] = logged(caplog)
    assert (code, reason) == (4000 + status, f"{message} ({record.request_id})")
    assert client.ws.subprotocol == "fastws.v1"
    assert record.status == status
    for offered in (None, ["other.v1"]):
        caplog.clear()
        with pytest.raises(InvalidStatus) as refused:
            await site.dial(subprotocols=offered)
        error = json.loads(refused.value.response.body)["error"]
        assert (error["code"], error["message"]) == (status, message)
        assert [record.request_id for record in logged(caplog)] == [error["request_id"]]
    assert site.manager.listener.told == []
    await eventually(lambda: not site.manager.life._turned_away)
    assert site.manager.connection_count == 0


@pytest.mark.parametrize("message", ["x" * 300, "é" * 300, "😀" * 300, "half \ud800" + "x" * 200])
async def test_a_reason_is_cut_between_characters_and_keeps_the_id(serve, caplog, message):
    site = await serve(Refusing(Reject(403, message)))
    _, reason = await (await site.dial()).closed()
    [record] = logged(caplog)
    assert reason.endswith(f" ({record.request_id})")
    assert 118 <= len(reason.encode()) <= 123


async def test_a_channel_of_the_path_that_the_rules_do_not_open_is_refused(serve):
    site = await serve(Named(rules("cars", {"pattern": "shut"}, {"pattern": "users", "subscribe": "user"})))
    for path, code in [("/ws/shut", 4403), ("/ws/none", 4404), ("/ws/users", 4401), (f"/ws/{'x' * 256}", 4400)]:
        assert (await (await site.dial(path)).closed())[0] == code
    assert (await (await site.dial("/ws/cars")).hello()) == []
    assert (await (await site.dial("/ws/users?user=ann")).hello()) == []


async def test_whoever_has_no_user_is_refused_where_nobody_may_be_anonymous(serve):
    site = await serve(Named(rules("*"), anonymous=False))
    code, reason = await (await site.dial()).closed()
    assert code == 4401
    assert reason.startswith("this needs a user")
    assert (await site.join("ann", "cars")).welcome["user"] == "ann"


async def test_a_wrong_origin_always_gets_http(serve):
    site = await serve(origins=["https://shop.example"])
    with pytest.raises(InvalidStatus) as refused:
        await site.dial(origin="https://evil.example")
    assert refused.value.response.status_code == 403
    await (await site.dial(origin="https://shop.example")).hello()


async def test_what_is_no_endpoint_gets_http(serve):
    site = await serve()
    with pytest.raises(InvalidStatus) as refused:
        await site.dial("/other")
    assert refused.value.response.status_code == 404


async def test_other_listeners_refuse_by_http_whatever_is_offered(serve):
    class Plain(Listener):
        def on_handshake(self, request):
            return False

    site = await serve()
    site.server.endpoint("/plain", Plain(), subprotocols=["fastws.v1"])
    with pytest.raises(InvalidStatus) as refused:
        await site.dial("/plain")
    assert refused.value.response.status_code == 403


async def test_a_full_endpoint_says_so(serve):
    site = await serve(max_connections=1)
    await site.join()
    assert (await (await site.dial()).closed())[0] == 4503


async def test_a_decision_that_takes_too_long_is_told():
    class Slow(Named):
        async def on_handshake(self, request):
            await asyncio.sleep(60)

    async with serving(Slow(rules("*")), server=Server(port=0, handshake_timeout=1)) as site:
        code, reason = await (await site.dial()).closed()
    assert code == 4503
    assert reason.startswith("the handshake exceeded")


async def test_a_header_field_that_cannot_be_sent_is_a_500_as_ever(serve):
    class Splitting(Named):
        def on_handshake(self, request):
            request.response_headers["X"] = "a\r\nb"
            return False

    site = await serve(Splitting(rules("*")))
    with pytest.raises(InvalidStatus) as refused:
        await site.dial()
    assert refused.value.response.status_code == 500


async def test_whoever_answers_a_refusal_with_rubbish_is_nobodys_business(serve, dial):
    site = await serve(Refusing(False))
    raw = await dial(site.url)
    head = (
        "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: fastws.v1\r\n\r\n"
    )
    await raw.send(head.encode() + b"\xff" * 64)
    await eventually(lambda: not site.manager.life._turned_away and not site.server._reactor.websockets())
    assert site.manager.listener.told == []


async def test_refused_clients_leave_nothing_behind_when_they_vanish(serve):
    site = await serve(Refusing(False), close_timeout=0.2)
    clients: list[Client] = [await site.dial() for _ in range(20)]
    for client in clients:
        client.ws.transport.abort()
    await eventually(lambda: not site.manager.life._turned_away and not site.server._reactor.websockets())
    assert site.manager.stats["connections"] == 0
    assert site.manager.listener.told == []
