"""Fixtures: `shop` is a Django project with the users ann and bob, `visit` makes people who browse a server of it."""

import os
from contextlib import AsyncExitStack

import aiohttp
import pytest

from ..lib.raw import TIMEOUT

PASSWORD = "correct horse"


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    """The project, in this process, with its database in a folder that is returned."""
    folder = tmp_path_factory.mktemp("shop")
    os.environ["SHOP"] = str(folder)
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.django.project.settings"
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    from django.contrib.auth.models import User
    from django.db import connection

    for name in ("ann", "bob"):
        User.objects.create_user(name, password=PASSWORD)
    connection.close()
    yield folder
    del os.environ["SHOP"], os.environ["DJANGO_SETTINGS_MODULE"]


@pytest.fixture
async def visit(join):
    """`await visit("http://...", ws_url)` is somebody who browses the shop, and keeps its cookies."""
    async with AsyncExitStack() as stack:

        async def enter(front, url) -> Person:
            jar, timeout = aiohttp.CookieJar(unsafe=True), aiohttp.ClientTimeout(TIMEOUT)
            http = aiohttp.ClientSession(cookie_jar=jar, timeout=timeout)
            return Person(front, url, await stack.enter_async_context(http), join)

        yield enter


class Person:
    """Somebody with a browser."""

    def __init__(self, front, url, http, join):
        self.front = front  # of Django
        self.url = url  # of the WebSocket
        self.http = http
        self._join = join

    async def log_in(self, name, password=PASSWORD):
        """By Django's own form. Returns what /session shows."""
        await self.get("/accounts/login/")
        return await self.post("/accounts/login/", data={"username": name, "password": password})

    async def log_out(self):
        return await self.post("/accounts/logout/")

    async def get(self, path):
        async with self.http.get(self.front + path) as response:
            assert response.status == 200, await response.text()
            return await response.read()

    async def post(self, path, **content):
        headers = {"X-CSRFToken": self.cookies["csrftoken"]}
        async with self.http.post(self.front + path, headers=headers, **content) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def change(self, **values):
        """Change the session over HTTP. Returns what it has then."""
        return await self.post("/session", json=values)

    @property
    def cookies(self):
        return {cookie.key: cookie.value for cookie in self.http.cookie_jar}

    async def connect(self, *more, path="/ws/cars"):
        """A WebSocket with the browser's cookies, and others after them."""
        pairs = [*(f"{name}={value}" for name, value in self.cookies.items()), *more]
        return await self._join(self.url + path, headers=[("Cookie", "; ".join(pairs))] if pairs else [])
