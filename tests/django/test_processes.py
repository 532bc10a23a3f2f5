"""Django in another process than the WebSockets: what both share is the store of sessions."""

import asyncio
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from fastws import Server
from fastws.access.keys import KeySettings
from fastws.django import DjangoSessions, close_on_logout
from fastws.hub import Hub
from fastws.publisher import Publisher
from fastws.testing import running
from fastws.web.api import ApiSettings, add_to
from fastws.web.app import Web

from ..lib.raw import TIMEOUT
from ..lib.support import unused_port
from .test_sessions import LOGGED_OUT, Who, log_in

ROOT = Path(__file__).parent.parent.parent
KEY = "a-key-of-sixteen-characters-or-more"

# What `manage.py runserver` does, with an application whose AppConfig.ready would call close_on_logout.
DJANGO = """
import sys
import django
django.setup()
if sys.argv[2:]:
    from fastws.django import close_on_logout
    from fastws.publisher import Publisher
    close_on_logout(Publisher(*sys.argv[2:]))
from django.core.management import call_command
call_command("runserver", f"127.0.0.1:{sys.argv[1]}", "--noreload", "--skip-checks")
"""


@asynccontextmanager
async def django(port, *api):
    """A process with Django's own server at a port."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DJANGO, str(port), *api, cwd=ROOT, stderr=asyncio.subprocess.PIPE, env={**os.environ}
    )
    try:
        async with aiohttp.ClientSession() as http, asyncio.timeout(TIMEOUT):
            while True:
                try:
                    await (await http.get(f"http://127.0.0.1:{port}/session")).read()
                    break
                except aiohttp.ClientConnectionError:
                    assert process.returncode is None, (await process.communicate())[1].decode()
                    await asyncio.sleep(0.05)
        yield
    finally:
        process.terminate()
        await process.communicate()


@pytest.mark.parametrize("tells", [True, False])
async def test_a_logout_in_another_process_closes_the_sockets_here(shop, visit, tells):
    """At once if it is told through the API, otherwise within `recheck`."""
    web = Web()
    server = Server(port=0, http=web)
    server.endpoint("/ws/{channel}", Who(), sessions=DjangoSessions(recheck=None if tells else 0.05))
    add_to(web, Hub(server), ApiSettings(keys=(KeySettings(name="django", key=KEY, allow=("close",)),)))
    async with running(server) as url:
        api = (url.replace("ws:", "http:") + "/api", KEY) if tells else ()
        with unused_port() as port:
            async with django(port, *api):
                ann = await visit(f"http://127.0.0.1:{port}", url)
                client, who = await log_in(ann)
                assert who["user"] is not None
                await ann.log_out()
                assert await client.closed() == LOGGED_OUT
                assert await (await ann.connect()).receive_json() == {"user": None}


async def test_a_server_that_cannot_be_told_keeps_nobody_from_logging_out(shop, serve, visit, caplog):
    from django.contrib.auth.signals import user_logged_out
    from django.core.asgi import get_asgi_application

    site = await serve(Who(), http=get_asgi_application(), sessions=DjangoSessions())
    with unused_port() as port:
        close_on_logout(Publisher(f"http://127.0.0.1:{port}/api", KEY))
        try:
            ann = await visit(site.url.replace("ws:", "http:"), site.url)
            client, _ = await log_in(ann)
            await ann.log_out()
            assert await client.closed() == LOGGED_OUT
        finally:
            assert user_logged_out.disconnect(dispatch_uid="fastws.django.close_on_logout")
    assert "a logout did not reach the server: no answer" in caplog.text


def test_without_set_up_it_says_what_to_do():
    code = "from fastws.django import DjangoSessions; DjangoSessions()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "ConfigurationError: Django is not set up: call django.setup() or get_asgi_application()" in done.stderr
