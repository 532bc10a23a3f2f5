"""docs/django.md: a project made of its blocks does what the page says."""

import asyncio
import json
import os
import re
import subprocess
import sys

import pytest

from fastws.django import DjangoSessions
from fastws.testing import Refused

from ..lib.command import port_of, serving
from ..lib.raw import TIMEOUT
from ..lib.support import unused_port
from .test_processes import ROOT, django

PAGE = (ROOT / "docs/django.md").read_text()
BLOCKS = dict(re.findall(r"^```python\n# (\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))

SETTINGS = """
from tests.django.project.settings import *

INSTALLED_APPS = [*INSTALLED_APPS, "shop"]
ROOT_URLCONF = "shop.urls"
FASTWS_KEY = "a-key-of-sixteen-characters-or-more"
FASTWS_URL = "http://127.0.0.1:8765/api"
CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
"""
PAGES = """
from django.urls import path
from shop import views
from tests.django.project.urls import urlpatterns

urlpatterns = [*urlpatterns, path("order/<int:number>", views.order), path("hurry/<int:number>", views.hurry)]
"""
PAGES_ELSEWHERE = "from tests.django.project.urls import urlpatterns"


@pytest.fixture
def project(shop, tmp_path, monkeypatch):
    """`project(names...)` writes a package `shop` of these blocks; returns the folder that it is in."""

    def write(*names, urls, **settings):
        tmp_path.joinpath("shop").mkdir()
        lines = "\n".join(f"{name} = {value!r}" for name, value in settings.items())
        files = {"shop/__init__.py": "", "shop/settings.py": SETTINGS + lines, "shop/urls.py": urls}
        for name, content in (files | {name: BLOCKS[name] for name in names}).items():
            tmp_path.joinpath(name).write_text(content)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
        monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "shop.settings")
        return tmp_path

    return write


def test_every_block_of_python_is_used_here_and_every_command_is_one():
    assert len(re.findall(r"^```python$", PAGE, re.MULTILINE)) == len(BLOCKS)
    assert set(BLOCKS) == {
        f"shop/{name}.py"
        for name in ("live", "asgi", "views", "live_server", "apps", "tasks", "consumers", "listeners")
    }
    commands = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert [command.split()[:3] for command in commands[1:]] == [
        ["fastws", "serve", "shop.asgi:server"],
        ["fastws", "serve", "shop.live_server:server"],
    ]


async def test_on_the_same_port(project, visit):
    folder = project("shop/live.py", "shop/asgi.py", "shop/views.py", urls=PAGES)
    with serving("shop.asgi:server", "--port", "0", cwd=folder) as (_, first):
        port = port_of(first)
        front, url = f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}"
        ann, stranger = await visit(front, url), await visit(front, url)
        with pytest.raises(Refused) as refused:
            await stranger.connect(path="/ws/chat/orders")
        assert refused.value.status == 403
        with pytest.raises(Refused) as refused:
            await stranger.connect(path="/elsewhere")
        assert refused.value.status == 404
        await ann.log_in("ann")
        client = await ann.connect(path="/ws/chat/orders")
        await client.send("hi")
        assert await client.receive_json() == {"from": "ann", "text": "hi"}
        for page, message in (("order", {"order": 7}), ("hurry", {"hurry": 7})):
            assert json.loads(await ann.get(f"/{page}/7")) == {"connections": 1}
            assert await client.receive_json() == message
        await ann.log_out()
        assert await client.closed() == (4001, "logged out")


async def test_django_in_another_process(project, visit):
    names = ("live", "live_server", "apps", "tasks")
    folder = project(*(f"shop/{name}.py" for name in names), urls=PAGES_ELSEWHERE)
    with serving("shop.live_server:server", "--port", "0", cwd=folder) as (_, first):
        port = port_of(first)
        with folder.joinpath("shop/settings.py").open("a") as settings:
            settings.write(f"\nFASTWS_URL = 'http://127.0.0.1:{port}/api'\n")
        with unused_port() as elsewhere:
            async with django(elsewhere):
                ann = await visit(f"http://127.0.0.1:{elsewhere}", f"ws://127.0.0.1:{port}")
                await ann.log_in("ann")
                client = await ann.connect(path="/ws/chat/orders")
                task = "import django; django.setup(); from shop.tasks import shipped; print(shipped(7, 'ann'))"
                done = await asyncio.to_thread(
                    subprocess.run, [sys.executable, "-c", task], capture_output=True, text=True, check=False
                )
                assert done.stdout == "1\n", done.stderr
                assert await client.receive_json() == {"shipped": 7}
                await ann.log_out()
                assert await client.closed() == (4001, "logged out")


# The same conversation with the consumer, under Channels' router, and with the listener.
CONSUMER = """
import asyncio, json, django
django.setup()
from asgiref.testing import ApplicationCommunicator
from channels.routing import URLRouter
from django.contrib.auth.models import AnonymousUser, User
from django.urls import path
from shop.consumers import ChatConsumer

app = URLRouter([path("ws/<room>", ChatConsumer.as_asgi())])

async def dial(user):
    scope = {"type": "websocket", "path": "/ws/cars", "user": user, "headers": [], "query_string": b""}
    client = ApplicationCommunicator(app, scope)
    await client.send_input({"type": "websocket.connect"})
    return client, (await client.receive_output(20))["type"]

async def main():
    said = [(await dial(AnonymousUser()))[1]]
    (ann, first), (bob, _) = await dial(User(username="ann")), await dial(User(username="bob"))
    said.append(first)
    await ann.send_input({"type": "websocket.receive", "text": json.dumps({"text": "hi"})})
    said += [json.loads((await client.receive_output(20))["text"]) for client in (ann, bob)]
    for client in (ann, bob):
        await client.send_input({"type": "websocket.disconnect", "code": 1000})
        await client.wait(20)
    print(json.dumps(said))

asyncio.run(main())
"""
HEARD = {"from": "ann", "text": "hi"}


async def test_the_consumer_and_the_listener_say_the_same(project, serve, join):
    folder = project("shop/consumers.py", "shop/listeners.py", urls=PAGES_ELSEWHERE)
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", CONSUMER], capture_output=True, text=True, check=False, timeout=TIMEOUT
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["websocket.close", "websocket.accept", HEARD, HEARD]

    names = {}
    exec(folder.joinpath("shop/listeners.py").read_text(), names)

    class Named(names["Chat"]):
        def on_handshake(self, request):
            request.user = request.query.get("user")
            return super().on_handshake(request)

    site = await serve(Named(), path="/ws/{channel}")
    with pytest.raises(Refused):
        await join(f"{site.url}/ws/cars")
    ann, bob = [await join(f"{site.url}/ws/cars?user={user}") for user in ("ann", "bob")]
    await ann.send({"text": "hi"})
    assert [await ann.receive_json(), await bob.receive_json()] == [HEARD, HEARD]


async def test_a_logout_is_heard_by_every_worker(project, visit):
    folder = project("shop/live.py", "shop/asgi.py", "shop/views.py", urls=PAGES)
    with serving("shop.asgi:server", "--port", "0", "--workers", "2", cwd=folder) as (_, first):
        port = port_of(first)
        ann = await visit(f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}")
        await ann.log_in("ann")
        tabs = [await ann.connect(path="/ws/chat/orders") for _ in range(8)]  # not all of them at one worker
        await ann.log_out()
        assert [await tab.closed() for tab in tabs] == [(4001, "logged out")] * 8


async def test_a_consumer_and_an_endpoint_on_one_port(shop, serve, visit):
    from channels.auth import AuthMiddlewareStack
    from channels.routing import ProtocolTypeRouter, URLRouter
    from django.core.asgi import get_asgi_application
    from django.test import override_settings
    from django.urls import path

    consumers, listeners = {}, {}
    exec(BLOCKS["shop/consumers.py"], consumers)
    exec(BLOCKS["shop/listeners.py"], listeners)
    layers = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    with override_settings(CHANNEL_LAYERS=layers):
        routes = URLRouter([path("old/<room>", consumers["ChatConsumer"].as_asgi())])
        app = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": AuthMiddlewareStack(routes)})
        sessions = DjangoSessions(user_field="username")
        site = await serve(listeners["Chat"](), "/ws/{channel}", sessions=sessions, http=app)
        ann = await visit(site.url.replace("ws:", "http:"), site.url)
        for room in ("/old/cars", "/ws/cars"):
            with pytest.raises(Refused) as refused:
                await ann.connect(path=room)
            assert refused.value.status == 403
        await ann.log_in("ann")
        for room in ("/old/cars", "/ws/cars"):
            client = await ann.connect(path=room)
            await client.send({"text": "hi"})
            assert await client.receive_json() == HEARD
