"""`fastws serve main:app`: what it takes, and what it says of anything else."""

import signal

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from ..lib.command import TIMEOUT, port_of, run, serving

pytestmark = pytest.mark.usefixtures("folder")

MAIN = """
import sys

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = (await receive())["type"]
            print(event, file=sys.stderr)
            await send({"type": event + ".complete"})
            if event == "lifespan.shutdown":
                return
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": scope["path"]})
    print((await receive())["code"], file=sys.stderr)

class Callable:
    async def __call__(self, scope, receive, send):
        await app(scope, receive, send)

    async def method(self, scope, receive, send):
        await app(scope, receive, send)

instance = Callable()

def create():
    return Callable()

def wsgi(environ, start_response): ...

class Django:
    def __call__(self, environ, start_response): ...

wsgi_instance = Django()
"""


@pytest.fixture(autouse=True)
def main(folder):
    folder.joinpath("main.py").write_text(MAIN)


@pytest.mark.parametrize("target", ["main:app", "main:instance.method", "main:create"])
def test_it_serves_an_asgi_application_with_its_lifespan(target):
    with serving(target, "--port", "0") as (process, line):
        assert line == f"fastws listening on http://127.0.0.1:{port_of(line)}\n"
        with connect(f"ws://127.0.0.1:{port_of(line)}/a/b") as client:
            assert client.recv(TIMEOUT) == "/a/b"
            process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(TIMEOUT)
            assert closed.value.rcvd.code == 1001
        assert process.wait(TIMEOUT) == 0
        assert process.stderr.read().split() == ["lifespan.startup", "1001", "lifespan.shutdown"]


def test_options_are_its_own():
    with (
        serving("main:instance", "--port", "0", "--no-http-websockets") as (_, line),
        pytest.raises(InvalidStatus, match="404"),
    ):
        connect(f"ws://127.0.0.1:{port_of(line)}/a/b")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("app:number", "it must be a fastws.Server, an ASGI application, or a function that returns one of them\n"),
        ("app:needs", "it must be a fastws.Server, an ASGI application, or a function that returns one of them\n"),
        ("main:wsgi", "; this may be a WSGI application, which asgiref.wsgi.WsgiToAsgi makes an ASGI application\n"),
        ("main:Django", "; this may be a WSGI application, which asgiref.wsgi.WsgiToAsgi makes an ASGI application\n"),
    ],
)
def test_what_is_no_application_is_one_sentence(target, said):
    ended = run("serve", target)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.endswith(said)
    assert ended.stderr.count("\n") == 1
