"""Admission: turns each request into a WebSocket, a refusal, or a request to the HTTP application."""

import asyncio
import logging
import os
import socket
from collections import Counter
from collections.abc import Callable, Container, Mapping
from functools import partial
from typing import Any

from .._core import (
    UPGRADE_REQUIRED,
    Reactor,
    Request,
    WebSocket,
    accept_response,
    check_upgrade,
    is_upgrade,
)
from ..answers import RETRY_HEADERS, Answer, Answered, facts, phrase, refusal
from ..config import Options
from ..errors import Reject
from ..proxies import Peer, Proxies, request_id
from ..routing import Router
from . import access
from .connection import Life
from .steps import HANDLER_ERRORS, Runner, Steps, call

__all__ = ["Admission"]

logger = logging.getLogger("fastws.server")

FULL = "the server is full"
STOPPING = "the server is stopping"
SPARE = 4  # connections beyond max_connections that are for the paths in Server.spared


class Admission:
    """Decides on each request that the engine reports, for one run of the server.

    The server sets ``is_ready``, ``is_draining`` and ``http``, its HTTP application. ``idle`` is set when the engine no
    longer listens and nobody is connected.
    """

    def __init__(
        self,
        options: Options,
        router: Router[Life],
        runner: Runner,
        pages: Mapping[str, Callable[[], Answer]],
        spared: Container[str],
    ) -> None:
        self.is_ready = False
        self.is_draining = False
        self.idle = asyncio.Event()
        self.http: Any = None
        self.reactor: Reactor | None = None  # the engine that reports here
        self._options = options
        self._router = router
        self._runner = runner
        self._pages = pages
        self._spared = spared
        self._proxies = Proxies(options.trusted_proxies)
        self._deciding: dict[WebSocket, asyncio.Task[None]] = {}
        #: Handshakes by the endpoint's path ("" where the request may not know of one) and status.
        self.handshakes: Counter[tuple[str, int]] = Counter()

    # -- calls from the engine

    def on_request(self, ws: WebSocket) -> None:
        """A complete request head arrived."""
        request = ws.request
        peer = Peer(request.remote_address, request._from_proxy)
        if request._from_proxy:
            request._forward(*self._proxies.origin(request.headers, peer.address, request.is_secure))
            if not ws._claim_address():
                return
        if is_upgrade(request.headers):
            self._begin(ws)
        elif (answer := self.page(request.method, request.path)) is not None:
            ws._refuse(answer.as_http(request.method))
        elif self.is_draining:
            self._refuse(ws, 503, STOPPING, RETRY_HEADERS)
        elif self.http is not None:
            self._hand_over(ws, peer)
        elif self._is_for_websockets(request.method, request._raw_path):
            self._refuse(ws, 426, "this path only accepts WebSocket connections", UPGRADE_REQUIRED)
        else:
            self._refuse(ws, 404, "not found")

    def trusts(self, host: str) -> bool:
        """Returns whether a new peer is a trusted proxy."""
        return self._proxies.trusts(host)

    def on_bad_request(self, ws: WebSocket, status: int, message: str) -> None:
        """The input was not a valid request."""
        self._refuse(ws, status, message, RETRY_HEADERS if status == 503 else None)

    def on_abandoned(self, ws: WebSocket) -> None:
        """The peer left during its handshake, which need not be decided any more."""
        logger.info("handshake abandoned by %s", ws.request.remote_address[0])
        self._stop_deciding(ws)

    def on_overdue(self, ws: WebSocket) -> None:
        """A handshake was not decided within `handshake_timeout`."""
        life = next((each for each in self._router.targets if each.is_deciding(ws.request)), None)
        self._refuse(ws, 503, "the handshake exceeded handshake_timeout", RETRY_HEADERS, life=life)
        self._stop_deciding(ws)

    def on_accept_paused(self, number: int) -> None:
        """There are no file descriptors left, or there is no memory."""
        logger.error("accepting paused: %s", os.strerror(number), extra={"errno": number})

    def on_idle(self) -> None:
        """Nobody is connected any more."""
        self.idle.set()

    # -- plain HTTP

    def page(self, method: str, path: str) -> Answer | None:
        """Returns the server's own answer to a plain request, which takes precedence over the application's."""
        if method not in ("GET", "HEAD"):
            return None
        if path == self._options.ready_path:
            return Answer.readiness(self.is_ready)
        find = self._pages.get(path)
        return None if find is None else find()

    def instead_of_404(self, method: str, raw_path: str, peer: tuple[str, int] | None) -> Answer | None:
        """Returns the answer to a plain request at an endpoint's path, if the HTTP application does not know it."""
        if self._is_for_websockets(method, raw_path):
            message = "this path only accepts WebSocket connections"
            return refusal(peer, 426, message, UPGRADE_REQUIRED, about={"path": raw_path})
        return None

    def refuse_http(self, peer: tuple[str, int] | None, status: int, message: str) -> bytes:
        """Returns the answer to invalid input on an HTTP connection."""
        return refusal(peer, status, message).as_http()

    def _is_for_websockets(self, method: str, raw_path: str) -> bool:
        try:
            return method == "GET" and self._router.find(raw_path) is not None
        except Reject:  # a malformed percent-escape
            return False

    def _hand_over(self, ws: WebSocket, peer: Peer) -> None:
        """Hand a plain request and its connection over to the HTTP application."""
        if self._is_full(SPARE if ws.request.path in self._spared else 0):
            self._refuse(ws, 503, FULL, RETRY_HEADERS)
            return
        detached = ws._give_away()
        if detached is None:
            return
        wire, data, claim = detached
        assert self.reactor is not None
        release = partial(self.reactor.release_address, claim)
        met = peer if self._proxies else None
        if isinstance(wire, int):
            self.http.adopt(socket.socket(fileno=wire), data, release, met)
        else:
            self.http.adopt_transport(wire, data, release, met)

    # -- handshakes

    def _begin(self, ws: WebSocket) -> None:
        """Decide on a handshake. While a handler is awaited, the peer may leave or the time may run out."""
        task = self._runner.run(self._handshake(ws))
        if task is not None:
            self._deciding[ws] = task
            task.add_done_callback(lambda _: self._deciding.pop(ws, None))

    def _stop_deciding(self, ws: WebSocket) -> None:
        task = self._deciding.get(ws)
        if task is not None:
            task.get_loop().call_soon(task.cancel)  # not before its first step, which awaits a handler

    def _handshake(self, ws: WebSocket) -> Steps:
        request = ws.request
        life = None  # until the request may know that the endpoint exists
        try:
            life, channel = self._admit(request)
            self._check_room(life)
            with life.deciding(request):
                yield from self._decide(life, request, channel)
            response = accept_response(request, life.options.compression != "off")
        except Reject as reject:
            extra = {**(request.response_headers or {}), **reject.headers}
            reason = reject.reason or phrase(reject.status)
            self._refuse(ws, reject.status, reason, extra, life=life, in_frame=reject.is_for_scripts)
        except Answered as given:
            reason = "answered by the application"
            self._refuse(ws, given.answer.status, reason, life=life, in_frame=False, instead=given.answer)
        except HANDLER_ERRORS as error:
            self._refuse(ws, 500, "internal server error", error=error, life=life)
        else:
            if ws._accept(life.endpoint, response):
                self.handshakes[life.template.path, 101] += 1
                yield from life.open(ws, channel)

    def _admit(self, request: Request) -> tuple[Life, str | None]:
        """Check a handshake before its endpoint is asked. Returns the endpoint's life and the channel."""
        check_upgrade(request)
        found = self._router.find(request._raw_path) or self._router.otherwise
        if found is None:
            raise Reject(404, "no WebSocket endpoint at this path")
        template, life = found
        request._template = template
        origins = life.options.origins
        if origins is not None and request.headers.get("origin") not in origins:
            raise Reject(403, "origin not allowed", is_for_scripts=False)
        request.subprotocol = next((p for p in life.options.subprotocols if p in request.subprotocols), None)
        return life, request.path_parameters.get("channel")

    def _decide(self, life: Life, request: Request, channel: str | None) -> Steps:
        """Identify and authorize a client by sessions, auth and the listener; raises Reject."""
        sessions, auth = life.options.sessions, life.options.auth
        not_allowed = "not allowed in this channel" if channel is not None else "not allowed"
        if sessions is not None:
            request.session = yield call(sessions.find, request)
        if auth is not None:
            yield call(auth.authenticate, request)
        verdict = yield life.ask("on_handshake", request)
        check_verdict(verdict, "handshake refused")
        if auth is not None:
            check_verdict(auth.allows(request, channel), not_allowed)
        verdict = yield life.ask("authorize", request, channel)
        check_verdict(verdict, not_allowed)
        self._check_room(life)
        hash(request.user)  # an unhashable user fails here, rather than when looked up
        life.elsewhere.check(request.user)

    def _check_room(self, life: Life) -> None:
        if self.is_draining:
            raise Reject(503, STOPPING, headers=RETRY_HEADERS)
        most = life.options.max_connections
        if self._is_full() or (most is not None and life.endpoint.connection_count >= most):
            raise Reject(503, FULL, headers=RETRY_HEADERS)

    def _is_full(self, spare: int = 0) -> bool:
        """Returns whether there are `max_connections`, counting WebSockets and the HTTP application's connections, and
        ``spare`` beyond that."""
        most = self._options.max_connections
        if most is None:
            return False
        plain = 0 if self.http is None else self.http.connection_count
        return plain + sum(life.endpoint.connection_count for life in self._router.targets) >= most + spare

    def _refuse(
        self,
        ws: WebSocket,
        status: int,
        message: str,
        headers: Mapping[str, Any] | None = None,
        error: BaseException | None = None,
        life: Life | None = None,
        in_frame: bool = True,
        instead: Answer | None = None,
    ) -> None:
        """Say why by a status and a JSON body, or by a Close frame where that can be read; log it with the same id.

        ``life`` is that of the endpoint, if the request may know that it exists; ``in_frame``: whether a Close frame
        may say it; ``instead``: what is sent instead.
        """
        request = ws.request
        about = facts(request._raw_path, request.headers) if request.method else None  # there may have been no request
        given = request_id(request.headers) if request._from_proxy else None
        answer = refusal(request.remote_address, status, message, headers, error, about=about, request_id=given)
        path = None if life is None else life.template.path
        if not request.method or is_upgrade(request.headers):  # else it is a page that was asked for
            self.handshakes[path or "", status] += 1
        access.refused(request, status, path)
        if in_frame and life is not None and life.turn_away(ws, 4000 + status, answer.as_reason()):
            return
        try:
            response = (instead or answer).as_http(request.method)
        except ValueError as bad_header:
            message = "internal server error"
            answer = refusal(request.remote_address, 500, message, error=bad_header, about=about, request_id=given)
            response = answer.as_http(request.method)
        ws._refuse(response)


def check_verdict(verdict: Any, reason: str) -> None:
    """Raise the Reject that a verdict is or, if False, implies."""
    if isinstance(verdict, Reject):
        raise verdict
    if verdict is False:
        raise Reject(403, reason)
