"""The examples of each framework's documentation, unchanged, on `fastws serve`."""

import json
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from ..lib.command import TIMEOUT, port_of, serving

APPS = Path(__file__).parent / "apps"


class Site:
    """A framework's example in a process of its own."""

    def __init__(self, port):
        self.port = port
        self.origin = f"http://127.0.0.1:{port}"
        self._clients = ExitStack()

    def open(self, path, **options):
        return self._clients.enter_context(connect(f"ws://127.0.0.1:{self.port}{path}", **options))

    def refused(self, path, **options):
        with pytest.raises(InvalidStatus) as refused:
            self.open(path, **options)
        response = refused.value.response
        return response.status_code, response.body

    def get(self, path):
        with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=TIMEOUT) as answer:
            return answer.read()

    def leave(self):
        self._clients.close()


@contextmanager
def site_of(target):
    with serving(target, "--port", "0", cwd=APPS) as (process, line):
        assert line, process.stderr.read()
        yield Site(port_of(line))


def server_of(target):
    @pytest.fixture(scope="module")
    def site():
        with site_of(target) as running:
            yield running

    return site


fastapi_site = server_of("fastapi_chat:app")
starlette_site = server_of("starlette_sockets:app")
litestar_site = server_of("litestar_sockets:app")
quart_site = server_of("quart_chat:app")
django_site = server_of("django_chat:application")


@pytest.fixture
def at(request):
    """The site of the framework after which the test is named; clients leave after it."""
    site = request.getfixturevalue(request.function.__name__.split("_")[1] + "_site")
    yield site
    site.leave()


def closed(client):
    """How the server closed it, and what was sent before."""
    said = []
    try:
        while True:
            said.append(client.recv(TIMEOUT))
    except ConnectionClosed as end:
        return (end.rcvd.code, end.rcvd.reason), said


def texts(client, count):
    return [client.recv(TIMEOUT) for _ in range(count)]


# -- FastAPI


def test_fastapi_chat(at):
    assert b"WebSocket Chat" in at.get("/")
    one, two = at.open("/ws/1"), at.open("/ws/2")
    one.send("hello")
    assert texts(one, 2) == ["You wrote: hello", "Client #1 says: hello"]
    assert texts(two, 1) == ["Client #1 says: hello"]
    one.close()
    assert texts(two, 1) == ["Client #1 left the chat"]
    assert at.refused("/ws/not-a-number")[0] == 403


def test_fastapi_dependencies(at):
    assert at.refused("/items/foo/ws")[0] == 403
    client = at.open("/items/foo/ws?q=3", additional_headers={"Cookie": "session=fake"})
    client.send("text")
    assert texts(client, 3) == [
        "Session cookie or query token value is: fake",
        "Query parameter q is: 3",
        "Message text was: text, for item ID: foo",
    ]


# -- Starlette


def test_starlette_endpoints(at):
    client = at.open("/echo")
    client.send("hi")
    assert texts(client, 1) == ["Message text was: hi"]
    client = at.open("/json", subprotocols=["soap", "wamp"])
    assert (client.subprotocol, client.response.headers["x-hello"]) == ("soap", "world")
    client.send('{"a": 1}')
    assert texts(client, 1) == [b'{"got":{"a":1}}']
    client.send("not json")
    assert closed(client)[0][0] == 1003
    assert closed(at.open("/hello")) == ((1000, ""), ["Hello, world!"])


def test_starlette_scope(at):
    fields = {"X-Mine": "1", "Cookie": "a=b"}
    client = at.open("/mounted/about/a%20b?x=1", additional_headers=fields)
    end, (said,) = closed(client)
    assert end == (1001, "Going Away")
    url = f"ws://127.0.0.1:{at.port}/mounted/about/a b?x=1"
    assert json.loads(said) == {
        "url": url,
        "name": "a b",
        "query": {"x": "1"},
        "header": "1",
        "cookies": {"a": "b"},
    }


@pytest.mark.parametrize("path", ["/iterated", "/concurrent"])
def test_starlette_iteration(at, path):
    client = at.open(path)
    for number in range(10):
        client.send(str(number))
    prefix = "Message was: " if path == "/iterated" else ""
    assert texts(client, 10) == [f"{prefix}{number}" for number in range(10)]


def test_starlette_denials(at):
    assert at.refused("/rejected")[0] == 403
    assert at.refused("/nowhere")[0] == 403
    assert at.refused("/denied") == (404, b"foo")
    assert at.refused("/denied-in-parts") == (418, b"hardbody")
    assert at.refused("/http-exception") == (402, b"pay first")
    assert at.refused("/own-exception") == (409, b'{"said":"\'own\'"}')


def test_starlette_redirects(at):
    """The client follows, to where there is nothing."""
    assert at.refused("/redirected")[0] == 403


def test_starlette_closing(at):
    assert closed(at.open("/policy")) == ((1008, "out of policy"), [])
    assert closed(at.open("/sent-twice")) == ((1000, ""), [])
    client = at.open("/gone")
    assert texts(client, 3) == ["tick"] * 3
    client.close(4000, "enough")
    said = []
    while len(said) < 2:
        said = json.loads(at.get("/said"))
    assert said == ['Cannot call "send" once a close message has been sent.', "WebSocketDisconnect 1006"]


# -- Litestar


def test_litestar_handlers(at):
    client = at.open("/low-level/ann")
    client.send("[1, 2]")
    assert texts(client, 1) == ['{"ann":[1,2]}']
    client = at.open("/listener")
    client.send("hi")
    assert texts(client, 1) == ["heard hi"]
    client = at.open("/json")
    client.send('{"a": 1}')
    assert texts(client, 1) == [b'{"a":2}']
    client = at.open("/greeter")
    client.send("quiet")
    assert texts(client, 2) == ["welcome", "QUIET"]
    assert closed(at.open("/stream")) == ((1000, ""), ["0", "1", "2"])
    assert at.refused("/forbidden")[0] == 403
    assert at.refused("/nowhere")[0] in (403, 404)


def test_litestar_channels(at):
    members = [at.open("/background") for _ in range(3)]
    assert [texts(member, 1) for member in members] == [["subscribed"]] * 3
    members[0].send("to all")
    assert [texts(member, 1) for member in members] == [["to all"]] * 3


# -- Quart


def test_quart_chat(at):
    one, two = at.open("/ws"), at.open("/ws")
    while json.loads(at.get("/"))["members"] < 2:
        pass
    one.send("hello")
    assert texts(one, 1) == texts(two, 1) == ["hello"]
    one.close()
    while json.loads(at.get("/"))["members"] > 1:
        pass


def test_quart_both_ways(at):
    client = at.open("/both", subprotocols=["v1", "v2"])
    assert (client.subprotocol, client.response.headers["x-hello"]) == ("v2", "world")
    for number in range(3):
        client.send(str(number))
    end, said = closed(client)
    assert end == (4000, "enough")
    assert [json.loads(text) for text in said] == [*({"number": number} for number in range(3)), [0, 1, 2]]


def test_quart_refusals(at):
    status, body = at.refused("/private")
    assert (status, body) == (401, b"Authentication required")
    client = at.open("/private", additional_headers={"Authorization": "Basic YW5uOnNlY3JldA=="})
    assert texts(client, 1) == ["come in"]
    assert at.refused("/aborted")[0] == 403
    assert at.refused("/nowhere")[0] == 404


# -- Django


def test_django_consumers(at):
    """Where its validator finds no Origin, it refuses."""
    client = at.open("/ws/sync/", origin=at.origin)
    client.send('{"message": "hi"}')
    assert texts(client, 1) == ['{"message": "hi"}']
    client = at.open("/ws/json/", origin=at.origin)
    client.send("[1]")
    assert texts(client, 1) == ['{"echo": [1]}']
    client = at.open("/ws/chat/lobby/", subprotocols=["v2"], origin=at.origin)
    assert client.subprotocol == "v2"
    client.send(b"bytes")
    client.send("close")
    assert closed(client) == ((4123, "asked"), ["lobby", b"bytes"])


def test_django_refusals(at):
    assert at.refused("/ws/chat/private/", origin=at.origin)[0] == 403
    assert at.refused("/ws/sync/")[0] == 403
    assert at.refused("/ws/sync/", origin="https://evil.example")[0] == 403
    assert at.refused("/ws/nowhere/", origin=at.origin)[0] == 500


def test_django_rooms_without_a_layer(at):
    one, two = (at.open("/ws/room/", origin=at.origin) for _ in range(2))
    assert texts(one, 1) == texts(two, 1) == ["subscribed"]
    one.send("to the others")
    assert texts(two, 1) == ["to the others"]
    assert json.loads(at.get("/publish/")) == {"reached": 2}
    assert texts(one, 1) == texts(two, 1) == ["from a view"]
