"""The synchronous publisher, by a real server."""

import asyncio
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fastws import ConfigurationError
from fastws.publisher import Publisher, PublisherError
from tests.web.api.site import KEY, READER


def in_thread(call, *args, **options):
    return asyncio.get_running_loop().run_in_executor(None, lambda: call(*args, **options))


@pytest.fixture
def publisher(site):
    with Publisher(site.url, KEY) as publisher:
        yield publisher


@pytest.mark.parametrize(
    ("message", "sent"),
    [
        ("hi", "hi"),
        (b"\0\xff", b"\0\xff"),
        ({"a": "\u00e9"}, '{"a":"\u00e9"}'),
        (None, "null"),
        ([1], "[1]"),
        ({}, "{}"),
    ],
)
async def test_a_message_arrives_as_what_it_is(site, publisher, message, sent):
    client = await site.join("/raw/cars")
    assert await in_thread(publisher.broadcast, "cars", message) == 1
    assert await client.receive() == sent


async def test_every_command_is_there(site, publisher):
    ann = await site.join("/raw/cars?user=ann")
    (ws,) = site.hub.user("ann")
    assert await in_thread(publisher.broadcast, "cars", 1, users={"ann"}, exclude=["x"], endpoint="/raw/{channel}") == 1
    assert await in_thread(publisher.broadcast, ["cars", "none"], 2) == {"cars": 1, "none": 0}
    assert await in_thread(publisher.send, "hi", users="ann", to=ws.id) == 1
    assert await in_thread(publisher.subscribe, "bikes", users="ann") == 1
    assert await in_thread(publisher.unsubscribe, "bikes", to=(ws.id,)) == 1
    assert [await ann.receive() for _ in range(3)] == ["1", "2", "hi"]
    assert await in_thread(publisher.close, users="ann", code=4100, reason="over") == 1
    assert await ann.closed() == (4100, "over")


async def test_a_batch_tells_of_each_command(site):
    await site.join("/raw/cars")
    commands = [{"broadcast": {"channel": "cars", "message": 1}}, {"broadcast": {"channels": ["cars"], "text": "x"}}]
    with Publisher(site.url, KEY) as publisher:
        assert await in_thread(publisher.batch, commands) == [1, {"cars": 1}]
    with Publisher(site.url, READER) as publisher:
        first, _ = await in_thread(publisher.batch, commands)
    assert (type(first), first.status, len(first.request_id)) == (PublisherError, 403, 16)


async def test_a_refusal_says_why_and_has_the_id_of_the_log(site, publisher, caplog):
    with pytest.raises(PublisherError) as caught:
        await in_thread(publisher.close, users="ann", code=1005)
    assert (caught.value.status, "$.code" in caught.value.message) == (400, True)
    assert caught.value.request_id in caplog.text
    with Publisher(site.url, "wrong-wrong-wrong-wrong") as wrong, pytest.raises(PublisherError, match="401"):
        await in_thread(wrong.send, "hi", users="ann")


async def test_an_application_that_is_not_the_api_is_told(site):
    with Publisher(site.url.replace("/api", "/other"), KEY) as publisher, pytest.raises(PublisherError, match="404"):
        await in_thread(publisher.send, "hi", users="ann")


def test_nobody_there_is_no_answer(unused_tcp_port):
    with pytest.raises(PublisherError, match="no answer") as caught:
        Publisher(f"http://127.0.0.1:{unused_tcp_port}", KEY).send("hi", users="ann")
    assert caught.value.status is None


@pytest.mark.parametrize("url", ["", "127.0.0.1:80", "ftp://x/", "http://", "http://x/api?key=1"])
def test_a_url_that_cannot_work_is_told(url):
    with pytest.raises(ConfigurationError, match="not the API's"):
        Publisher(url, KEY)


async def test_a_key_is_not_shown(publisher):
    assert KEY not in repr(publisher)


async def test_connections_are_kept(site, publisher):
    for _ in range(5):
        await in_thread(publisher.broadcast, "cars", 1)
    assert len(publisher._idle) == 1
    await in_thread(publisher.disconnect)
    assert await in_thread(publisher.broadcast, "cars", 1) == 0


async def test_threads_publish_at_once(site, publisher):
    client = await site.join("/raw/cars")
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(publisher.broadcast, "cars", n) for n in range(200)]
        assert await asyncio.gather(*map(asyncio.wrap_future, futures)) == [1] * 200
    assert sorted([int(await client.receive()) for _ in range(200)]) == list(range(200))
    assert 1 <= len(publisher._idle) <= 8


async def test_a_forked_process_has_connections_of_its_own(site, publisher):
    client = await site.join("/raw/cars")
    await in_thread(publisher.broadcast, "cars", "parent")
    kept = publisher._idle[0][0]
    publisher._pid = -1  # as if it had been made by another process
    assert await in_thread(publisher.broadcast, "cars", "child") == 1
    assert publisher._idle[0][0] is not kept
    kept.close()
    assert (publisher._pid, await client.receive(), await client.receive()) == (os.getpid(), "parent", "child")


async def test_it_speaks_tls(make_site, server_side, client_side):
    site = await make_site(ssl=server_side)
    with Publisher(f"https://localhost:{site.server.port}/api", KEY, context=client_side) as publisher:
        assert await in_thread(publisher.broadcast, "cars", 1) == 0


class LosingProxy:
    """Passes requests to a server, and drops the answer to the first after the server has done its work."""

    def __init__(self, port):
        self.port, self.requests = port, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}/api"

    def serve(self):
        for is_lost in (True, False):
            client, _ = self.listener.accept()
            with client, socket.create_connection(("127.0.0.1", self.port)) as server:
                request = b""
                while b"}" not in request:
                    request += client.recv(65536)
                self.requests.append(request)
                server.sendall(request)
                answer = b""
                while b"}" not in answer:
                    answer += server.recv(65536)
                if not is_lost:
                    client.sendall(answer)
                    client.recv(1)  # until it is done

    def close(self):
        self.thread.join(5)
        self.listener.close()


async def test_a_lost_connection_is_tried_once_more_and_nothing_is_sent_twice(site):
    client = await site.join("/raw/cars")
    proxy = LosingProxy(site.server.port)
    with Publisher(proxy.url, KEY) as publisher:
        assert await in_thread(publisher.broadcast, "cars", "once") == 1
    with Publisher(site.url, KEY) as publisher:
        assert await in_thread(publisher.broadcast, "cars", "after") == 1
    await in_thread(proxy.close)
    assert len(proxy.requests) == 2
    assert proxy.requests[0] == proxy.requests[1]
    assert [await client.receive(), await client.receive()] == ["once", "after"]
