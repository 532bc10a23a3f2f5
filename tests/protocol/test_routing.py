"""Path templates: whole segments, percent-decoded, the most literal wins."""

import pytest

from fastws import Listener, Server
from fastws.testing import Refused, connect, running

from ..lib.raw import request
from ..lib.support import Recorder


class Tell(Listener):
    """Sends its own name and the path parameters to each connection."""

    def __init__(self, name):
        self.name = name

    def on_open(self, ws):
        ws.send([self.name, dict(ws.request.path_parameters)])


async def reached(url, target):
    async with connect(url + target) as client:
        return await client.receive_json()


@pytest.fixture
async def url():
    server = Server(port=0)
    for template in (
        "/ws/{channel}",
        "/ws/{kind}/{room}",
        "/ws/news/{room}",
        "/ws/{kind}/today",
        "/ws/news/today",
        "/ws/news",
        "/",
    ):
        server.endpoint(template, Tell(template))
    async with running(server) as url:
        yield url


@pytest.mark.parametrize(
    ("target", "template", "parameters"),
    [
        ("/", "/", {}),
        ("/?a=1", "/", {}),
        ("/ws/cars", "/ws/{channel}", {"channel": "cars"}),
        ("/ws/news", "/ws/news", {}),
        ("/ws/newsy", "/ws/{channel}", {"channel": "newsy"}),
        ("/ws/a/b", "/ws/{kind}/{room}", {"kind": "a", "room": "b"}),
        ("/ws/news/b", "/ws/news/{room}", {"room": "b"}),
        ("/ws/a/today", "/ws/{kind}/today", {"kind": "a"}),
        ("/ws/news/today", "/ws/news/today", {}),
        ("/ws/new%73/today", "/ws/news/today", {}),
    ],
)
async def test_the_most_literal_template_wins(url, target, template, parameters):
    assert await reached(url, target) == [template, parameters]


@pytest.mark.parametrize(
    ("segment", "decoded"),
    [
        ("fast%20cars", "fast cars"),
        ("a%2Fb", "a/b"),
        ("caf%C3%A9", "café"),
        ("%F0%9F%9A%97", "🚗"),
        ("a+b", "a+b"),
        ("100%25", "100%"),
        ("%2e%2e", ".."),
        ("a%3Fb", "a?b"),
        ("~a-b_c.d!$&'()*,=:@", "~a-b_c.d!$&'()*,=:@"),
    ],
)
async def test_parameters_are_percent_decoded_once(url, segment, decoded):
    assert await reached(url, f"/ws/{segment}") == ["/ws/{channel}", {"channel": decoded}]


async def test_a_semicolon_belongs_to_its_segment(serve, dial):
    site = await serve(recorder := Recorder())
    await (await dial(site.url)).upgrade("/ws/a;b=1")
    assert await recorder.until("authorize") == ("a;b=1",)


@pytest.mark.parametrize("target", ["/ws/", "/ws//", "/ws/a/", "//ws/a", "/ws/a/b/c", "/w", "/wss/a"])
async def test_templates_match_whole_segments_only(url, target):
    with pytest.raises(Refused) as refused:
        await reached(url, target)
    assert refused.value.status == 404


async def test_the_channel_parameter_subscribes_and_others_do_not(serve, join):
    site = await serve(recorder := Recorder(), "/ws/{room}/{channel}")
    await join(f"{site.url}/ws/blue/cars")
    await recorder.until("on_subscribe")
    assert set(site.manager.channels) == {"cars"}


async def test_a_path_without_a_channel_subscribes_to_nothing(serve, join):
    site = await serve(recorder := Recorder(), "/ws/chat")
    client = await join(f"{site.url}/ws/chat")
    assert await client.received() == []
    assert recorder.names == ["on_handshake", "authorize", "on_open"]
    assert recorder.of("authorize") == [(None,)]
    assert len(site.manager.channels) == 0


@pytest.mark.parametrize(
    "template",
    [
        "/ws/{a}/{a}",
        "/ws/{}",
        "/ws/{a",
        "/ws/a}",
        "/ws/{a}{b}",
        "/ws/x{a}",
        "/ws/{a}x",
        "/ws/{ }",
        "/ws/{a b}",
        "ws/a",
        "",
        "/ws?x=1",
        "/ws#x",
    ],
)
def test_a_bad_template_is_a_value_error_at_once(template):
    with pytest.raises(ValueError, match=r"."):
        Server(port=0).endpoint(template, Listener())


@pytest.mark.parametrize(
    ("first", "second"),
    [("/ws/chat", "/ws/chat"), ("/ws/{channel}", "/ws/{channel}"), ("/ws/{a}", "/ws/{b}")],
)
def test_a_second_endpoint_for_one_path_is_a_value_error(first, second):
    server = Server(port=0)
    server.endpoint(first, Listener())
    with pytest.raises(ValueError, match="/ws/"):
        server.endpoint(second, Listener())


def test_endpoint_returns_the_manager():
    server = Server(port=0)
    listener = Listener()
    manager = server.endpoint("/ws/{channel}", listener)
    assert manager.path == "/ws/{channel}"
    assert manager.listener is listener
    assert manager.server is server


async def test_a_path_is_decoded_but_its_dots_are_not_resolved(serve, dial):
    site = await serve(path="/ws/{channel}")
    raw = await dial(site.url)
    await raw.send(request("/other/../ws/cars"))
    assert (await raw.response()).status == 404
