"""`compress` in the HTTP API, and through the publisher: what goes out compressed, and what does not."""

import asyncio

import pytest

from fastws.publisher import Publisher
from tests.lib.deflate import compressing, was_compressed
from tests.lib.support import eventually
from tests.web.api.site import KEY

SHORT, LONG = "tick " * 20, "tick " * 1_000


@pytest.fixture
async def site(make_site):
    return await make_site(compression="shared")


@pytest.fixture
async def client(site):
    """A connection that has agreed on compression."""
    raw = await compressing(site.ws_url, "/raw/cars?user=ann")
    await eventually(lambda: site.raw.connection_count)
    yield raw
    raw.close()


@pytest.mark.parametrize(
    ("text", "compress", "is_compressed"),
    [(SHORT, None, False), (SHORT, True, True), (LONG, None, True), (LONG, False, False)],
)
async def test_it_goes_by_size_unless_the_request_says_so(client, call, text, compress, is_compressed):
    how = {"text": text, "compress": compress}
    assert await call("POST", "/broadcast", {"channel": "cars", **how}) == (200, {"connections": 1})
    assert await call("POST", "/send", {"users": "ann", **how}) == (200, {"connections": 1})
    commands = [{"broadcast": {"channels": ["cars"], **how}}, {"send": {"users": "ann", **how}}]
    assert (await call("POST", "/batch", {"commands": commands}))[0] == 200
    query = "" if compress is None else f"?compress={str(compress).lower()}"
    raw_body = {"data": text.encode(), "headers": {"Content-Type": "text/plain", "X-API-Key": KEY}}
    assert await call("POST", f"/channels/cars{query}", **raw_body) == (200, {"connections": 1})
    assert [await was_compressed(client, text) for _ in range(5)] == [is_compressed] * 5


async def test_the_publisher_says_it(site, client):
    def publish():
        with Publisher(site.url, KEY) as publisher:
            publisher.broadcast("cars", SHORT, compress=True)
            publisher.send(LONG, users="ann", compress=False)
            publisher.broadcast("cars", LONG)

    await asyncio.to_thread(publish)
    assert await was_compressed(client, SHORT)
    assert not await was_compressed(client, LONG)
    assert await was_compressed(client, LONG)


async def test_without_compression_it_changes_nothing(make_site, call):
    plain = await make_site()
    client = await plain.join("/raw/cars")
    with Publisher(plain.url, KEY) as publisher:
        await asyncio.to_thread(publisher.broadcast, "cars", SHORT, compress=True)
    assert await client.receive() == SHORT
