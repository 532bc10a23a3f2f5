"""Fixtures: a server with the limits of the corpus, which must not be harmed."""

import pytest

from ..lib.raw import TEXT, Raw, frame
from ..lib.support import Echo, eventually, nothing_left
from . import MAX_HEADER_SIZE, MAX_MESSAGE_SIZE, PATH


@pytest.fixture
async def site(serve, wire):
    limits = {"max_message_size": MAX_MESSAGE_SIZE, "max_header_size": MAX_HEADER_SIZE}
    return await serve(Echo(), PATH, ping_interval=0, **limits)


@pytest.fixture(autouse=True)
async def unharmed(site):
    """Afterwards another connection still works, and when that is closed, too, the engine holds nothing."""
    witness = await Raw.open(site.url)
    await witness.upgrade("/ws/witness")
    yield
    await witness.send(frame(TEXT, b"fine"))
    assert await witness.text() == "fine"
    witness.close()
    await eventually(lambda: nothing_left(site))
