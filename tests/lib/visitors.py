"""Visitors with a session: what HTTP applications give them, and a listener that reports what it sees."""

import asyncio
import json

import flask
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import JSONResponse
from starlette.routing import Route
from starsessions import SessionAutoloadMiddleware, get_session_id
from starsessions import SessionMiddleware as StoreMiddleware

from fastws import Listener

from .support import signed_cookie

DAY = 24 * 3600
SECRET = "a secret of the HTTP application"


# -- the HTTP side


async def show(request):
    return JSONResponse(dict(request.session))


async def change(request):
    request.session.update(await request.json())
    return JSONResponse(dict(request.session))


async def log_out(request):
    request.session.clear()
    return JSONResponse({})


async def log_out_everywhere(request):
    request.session.clear()
    return JSONResponse(request.app.state.manager.close_session(get_session_id(request)))


def application(*middleware):
    routes = [
        Route("/", show),
        Route("/", change, methods=["POST"]),
        Route("/logout", log_out, methods=["POST"]),
        Route("/everywhere", log_out_everywhere, methods=["POST"]),
    ]
    return Starlette(routes=routes, middleware=list(middleware))


def signing(secret=SECRET):
    return application(Middleware(SessionMiddleware, secret))


def storing(store, **options):
    options = {"lifetime": 3600, "cookie_https_only": False} | options
    return application(Middleware(StoreMiddleware, store, **options), Middleware(SessionAutoloadMiddleware))


def flask_app(secret=SECRET):
    app = flask.Flask("shop")
    app.secret_key = secret

    @app.post("/")
    def change():
        flask.session.update(flask.request.get_json())
        return ""

    return app


def flask_cookie(values, secret=SECRET):
    """The cookie that a real Flask sends for a session."""
    return cookie_in(flask_app(secret).test_client().post("/", json=values).headers["Set-Cookie"])


def starlette_cookie(values, secret=SECRET):
    return signed_cookie(values, secret)


def cookie_in(set_cookie):
    return set_cookie.partition(";")[0].partition("=")[2]


class Browser:
    """One visitor, who keeps the cookies that HTTP sets."""

    def __init__(self, site, http, join):
        self.http = http
        self.join = join
        self.front = site.url.replace("ws:", "http:")
        self.url = site.url

    async def get(self, path="/"):
        async with self.http.get(self.front + path) as response:
            return await response.json()

    async def post(self, path="/", body=None):
        async with self.http.post(self.front + path, json=body) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    @property
    def cookies(self):
        return [cookie.value for cookie in self.http.cookie_jar]

    async def connect(self, path="/ws/cars"):
        return await self.join(self.url + path, headers=cookies(*self.cookies))


def cookies(*values):
    return [("Cookie", "; ".join(f"session={value}" for value in values))] if values else []


# -- the socket side


class Session(Listener):
    """Reports what it sees: {"set": {...}}, {"remove": [...]}, {"append": [name, value]} change it first."""

    def on_open(self, ws):
        ws.send(seen(ws))

    def on_message(self, ws, message):
        apply(ws.session, json.loads(message))
        return seen(ws)


class SlowSession(Session):
    """The same, but async."""

    async def on_message(self, ws, message):
        await asyncio.sleep(0)
        apply(ws.session, json.loads(message))
        await asyncio.sleep(0)
        return seen(ws)


def seen(ws):
    return None if ws.session is None else {"id": ws.session.id, **ws.session}


def apply(session, command):
    session.update(command.get("set", {}))
    for name in command.get("remove", ()):
        del session[name]
    if "append" in command:
        name, value = command["append"]
        session[name].append(value)


async def ask(client, **command):
    await client.send(command)
    return await client.receive_json()


async def values(client, **command):
    """What the handler sees, without the id."""
    answer = await ask(client, **command)
    del answer["id"]
    return answer


async def first(join, url, *values):
    """What a connection with these cookies finds."""
    return await (await join(url, headers=cookies(*values))).receive_json()


async def log_in(browse, site, **values):
    """A visitor with a session, and one of their sockets."""
    visitor = await browse(site)
    await visitor.post(body=values)
    client = await visitor.connect()
    await client.receive_json()
    return visitor, client


class Cookies:
    """A request of which only the cookies matter."""

    def __init__(self, *values):
        self._values = list(values)

    def _cookie_values(self, name):
        assert name == "session"
        return self._values


DEEP = b"[" * 9000
