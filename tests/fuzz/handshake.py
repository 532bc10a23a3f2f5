"""Heads: whatever a peer sends first gets a 101 (if h11 finds a request for it), a refusal, or silence.

Byte of options: 1, the wire is a transport; 2, the peer is a trusted proxy, which may send a PROXY header. There are no
letters.
"""

import base64
import re
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any
from urllib.parse import unquote

import h11

from fastws import Listener, Request, Server
from fastws.life.admission import Admission

from ..lib.proxy import BAD, MORE, model
from ..lib.raw import Response, accept_of
from .wires import Site, moves

MAX_HEADER_SIZE = 1024
SUBPROTOCOLS = ["chat", "superchat"]

# What must be accepted if the fields are valid: h11 also accepts what RFC 9112 allows a server to refuse.
PLAIN_HEAD = re.compile(rb"(GET (/ws/[\w.-]+(\?[\w=&.-]*)?) HTTP/1.1\r\n)([!-9;-~]+:[\t -~]*\r\n)*\r\n", re.ASCII)
PLAIN_HOST = re.compile(rb"[A-Za-z0-9.-]+(:[0-9]{1,5})?")
PLAIN_OFFER = re.compile(rb"[\w-]+(?:[ \t]*;[ \t]*[\w-]+(?:=[\w-]+)?)*")  # RFC 6455 9.1, without rare forms


class Reader(Listener):
    """Reads all attributes of a request."""

    request: Request | None = None

    def on_handshake(self, request: Request) -> None:
        self.request = request
        for name in ("cookies", "path_parameters", "query", "remote_address", "subprotocols"):
            getattr(request, name)
        repr(request)


class Target:
    """One server for all inputs, and another one that trusts its peers."""

    def __init__(self) -> None:
        self.plain = Half()
        self.trusting = Half(trusted_proxies=["unix", "192.0.2.1"], proxy_protocol="optional")

    def check(self, data: bytes) -> None:
        """Raises AssertionError for a wrong answer to the head."""
        half = self.trusting if data and data[0] & 2 else self.plain
        half.check(data)

    def close(self) -> None:
        self.plain.site.close()
        self.trusting.site.close()


class Half:
    """One server."""

    def __init__(self, **options: Any) -> None:
        self.reader = Reader()
        self.server = Server(max_header_size=MAX_HEADER_SIZE, subprotocols=SUBPROTOCOLS, ping_interval=0, **options)
        manager = self.server.endpoint("/ws/{channel}", self.reader)
        admission = Admission(self.server.options, self.server._router, self.server._runner, {}, ())
        self.site = Site(admission, self.server.options)
        self.server._reactor = self.site.reactor
        self.server._attach(manager)

    def check(self, data: bytes) -> None:
        """Raises AssertionError for a wrong answer to the head."""
        sent = bytearray()
        peer = self.site.connect(over_transport=bool(data and data[0] & 1))
        for move in moves(data[1:], b"|"):
            if move == b"~|":
                peer.turn()
            else:
                peer.send(move)
                sent += move
        answer, head = peer.end(), bytes(sent)
        request, self.reader.request = self.reader.request, None
        self.site.check()
        length, named = model(head) if self.server.options.trusted_proxies else (0, None)
        if self.server.options.trusted_proxies and length in (MORE, BAD):
            assert bool(answer) is (length == BAD)
            return
        head = head[max(length, 0) :]
        if length > 0 and request is not None and isinstance(named, tuple):
            assert (ip_address(request.remote_address[0]), request.remote_address[1]) == (
                ip_address(named[0]),
                named[1],
            )
        if answer.startswith(b"HTTP/1.1 101 "):
            assert request is not None
            check_accepted(request, head, answer)
        elif answer:
            assert not must_be_accepted(head)
            check_refused(head, answer)
        else:
            assert b"\r\n\r\n" not in head, "silence is for half a head"


def read(head: bytes) -> h11.Request | None:
    """The request as parsed by h11, or None."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(head)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError:
        return None
    return event if isinstance(event, h11.Request) else None


def read_answer(answer: bytes) -> Response:
    head, _, body = answer.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    version, status, reason = status_line.split(" ", 2)
    assert version == "HTTP/1.1"
    return Response(int(status), reason, [tuple(line.split(": ", 1)) for line in lines], body)


def values(request: h11.Request, name: bytes) -> list[bytes]:
    return [value for key, value in request.headers if key == name]


def members(request: h11.Request, name: bytes) -> list[bytes]:
    """The items of a comma-separated list (RFC 9110 5.6.1)."""
    parts = [part.strip(b" \t") for value in values(request, name) for part in value.split(b",")]
    return [part for part in parts if part]


def asks_for_websocket(request: h11.Request) -> bool:
    """Checks the fields according to RFC 6455 4.2.1."""
    try:
        (key,) = values(request, b"sec-websocket-key")
        nonce = base64.b64decode(key, validate=True)
    except ValueError:
        return False
    return (
        (request.method, request.http_version, len(nonce)) == (b"GET", b"1.1", 16)
        and len(values(request, b"host")) == 1
        and b"websocket" in lower(members(request, b"upgrade"))
        and b"upgrade" in lower(members(request, b"connection"))
        and values(request, b"sec-websocket-version") == [b"13"]
        and values(request, b"transfer-encoding") == []
        and values(request, b"content-length") in ([], [b"0"])
    )


def lower(tokens: Iterable[bytes]) -> list[bytes]:
    return [token.lower() for token in tokens]


def must_be_accepted(head: bytes) -> bool:
    """Whether there is no reason at all to refuse it."""
    match = PLAIN_HEAD.match(head)
    request = read(head)
    return (
        match is not None
        and request is not None
        and match.end() <= MAX_HEADER_SIZE
        and asks_for_websocket(request)
        and PLAIN_HOST.fullmatch(values(request, b"host")[0]) is not None
        and values(request, b"sec-websocket-protocol") == []
        and all(map(PLAIN_OFFER.fullmatch, members(request, b"sec-websocket-extensions")))
    )


def check_accepted(request: Request, head: bytes, answer: bytes) -> None:
    """Checks RFC 6455 4.2.2, and that the listener saw what h11 sees."""
    asked = read(head)
    assert asked is not None
    assert asks_for_websocket(asked)
    for name, value in asked.headers:
        if name not in (b"content-length", b"transfer-encoding"):  # h11 normalizes these
            assert value.decode("latin-1") in request.headers.get_all(name.decode())
    assert len(asked.headers) == len(request.headers._fields)
    if asked.target.startswith(b"/"):
        path, _, query = asked.target.decode().partition("?")
        assert (request.path, request.query_string) == (unquote(path, errors="strict"), query)
    (key,) = values(asked, b"sec-websocket-key")
    chosen = [name for name in SUBPROTOCOLS if name.encode() in members(asked, b"sec-websocket-protocol")][:1]
    response = read_answer(answer)  # followed by frames, which the parser's target checks
    assert response.status == 101
    assert sorted(response.fields) == [
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", accept_of(key.decode())),
        *(("Sec-WebSocket-Protocol", name) for name in chosen),
        ("Upgrade", "websocket"),
    ]


def check_refused(head: bytes, answer: bytes) -> None:
    """Checks for a status that blames the peer, and a JSON body that says why."""
    response = read_answer(answer)
    assert response.status in (400, 404, 405, 426, 431)
    assert response["Content-Type"] == "application/json"
    assert response["Connection"].endswith("close")
    assert response["Sec-WebSocket-Version"] == "13" or response.status != 426
    assert response["Allow"] == "GET" or response.status != 405
    if not response.body and head.startswith(b"HEAD "):
        return
    assert response["Content-Length"] == str(len(response.body))
    assert response.error["code"] == response.status
    assert response.error["message"]
    assert re.fullmatch("[0-9A-Za-z._~+/=-]{1,64}", response.error["request_id"])
