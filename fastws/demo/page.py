"""The demo's HTTP side: the chat's page, and who is logged in.

| request      | body              | answer                                                       |
|--------------|-------------------|--------------------------------------------------------------|
| GET /        |                   | the page                                                     |
| GET /session |                   | `{"name": "ann"}`; null if nobody is logged in               |
| POST /login  | `{"name": "ann"}` | the same, and the cookie; 400 if the name is not allowed     |
| POST /logout |                   | `{"name": null}`; every tab of this browser closes with 4001 |

Requests to other hosts are refused with 421, those from other origins with 403 (`fastws.demo.hosts`).
"""

from __future__ import annotations

import secrets
import time
from importlib.resources import files
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from fastws.demo.chat import NAME_RULE, Chat, is_name
from fastws.demo.ended import LIFETIME_SECONDS
from fastws.demo.hosts import Hosts

COOKIE = "fastws-chat"
MAX_BODY_BYTES = 1024

# The page is a single file, so it may load nothing else. `connect-src 'self'` alone would suffice, but not every
# browser considers a WebSocket to the same host as 'self'.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HTML = files("fastws.demo").joinpath("chat.html").read_bytes()
HTML_HEADERS = {"content-security-policy": POLICY, "x-content-type-options": "nosniff", "cache-control": "no-cache"}


def create_app(chat: Chat, hosts: Hosts, secret: str, *, https_only: bool = False) -> Starlette:
    """Returns the application; set `state.manager` to the chat's manager before the first request.

    `secret` signs the sessions; with `https_only` their cookie is never sent unencrypted.
    """
    routes = [
        Route("/", page),
        Route("/session", session),
        Route("/login", log_in, methods=["POST"]),
        Route("/logout", log_out, methods=["POST"]),
    ]
    # SameSite=strict: requests from another site's page come without the cookie, whether a POST that would log somebody
    # out or the handshake of a WebSocket.
    sessions = Middleware(
        SessionMiddleware,
        secret,
        session_cookie=COOKIE,
        max_age=LIFETIME_SECONDS,
        same_site="strict",
        https_only=https_only,
    )
    app = Starlette(routes=routes, middleware=[Middleware(Guard, hosts), sessions])
    app.state.chat = chat
    return app


class Guard:
    """Refuses requests for other hosts or from other origins before anything else sees them."""

    def __init__(self, app: ASGIApp, hosts: Hosts) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            # A duplicate field does not match anything.
            host, origin = (", ".join(headers.getlist(name)) for name in ("host", "origin"))
            refusal = self._hosts.refusal(host, origin if "origin" in headers else None, scope["scheme"] == "https")
            if refusal is not None:
                app = PlainTextResponse(refusal.reason, refusal.status)
        await app(scope, receive, send)


async def page(request: Request) -> Response:
    return Response(HTML, media_type="text/html", headers=HTML_HEADERS)


async def session(request: Request) -> Response:
    return name_response(request.app.state.chat.name_in(request.session))


async def log_in(request: Request) -> Response:
    name = await name_asked_for(request)
    if request.app.state.chat.name_in(request.session) != name:
        end_session(request)
        request.session.update(name=name, id=secrets.token_urlsafe(16), since=time.time())
    return name_response(name)


async def log_out(request: Request) -> Response:
    end_session(request)
    return name_response(None)


def end_session(request: Request) -> None:
    """End the session, if there is one: it cannot be used again, and its connections are closed."""
    if "id" in request.session:
        request.app.state.chat.ended.add(request.session)
        request.app.state.manager.close_session(request.session["id"])
    request.session.clear()


def name_response(name: str | None) -> Response:
    return JSONResponse({"name": name}, headers={"cache-control": "no-store"})


async def name_asked_for(request: Request) -> str:
    # Another site's form can send JSON only as text/plain, and its scripts may send application/json only with
    # permission, which they do not get. So another site cannot choose the name somebody is logged in under.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "send application/json")
    try:
        asked: Any = orjson.loads(await body(request))
    except orjson.JSONDecodeError:
        asked = None
    name = asked.get("name") if isinstance(asked, dict) else None
    if not is_name(name):
        raise HTTPException(400, f"a name {NAME_RULE}")
    return str(name)


async def body(request: Request) -> bytes:
    received = b""
    async for part in request.stream():
        received += part
        if len(received) > MAX_BODY_BYTES:
            raise HTTPException(413, "the request body is too large")
    return received
