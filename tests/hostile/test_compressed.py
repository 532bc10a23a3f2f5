"""Hostile compressed frames: they get the answer in the corpus, and nobody else is affected."""

import contextlib
import random

import pytest

from ..lib.deflate import compressing, deflated
from ..lib.raw import BINARY, frame
from ..lib.support import Echo, resident
from . import MAX_MESSAGE_SIZE, PATH
from .bombs import BOMB, LIMIT, both
from .compressed import COMPRESSED
from .strangers import splits


@pytest.fixture
async def site(serve, wire):
    """What it sends is never compressed, so that answers are known to the byte."""
    options = {"max_message_size": MAX_MESSAGE_SIZE, "compression": "shared", "compression_threshold": 1 << 20}
    return await serve(Echo(), PATH, ping_interval=0, **options)


@pytest.mark.parametrize("name", COMPRESSED)
async def test_hostile_compressed_frames_have_their_answer_however_they_come(site, name):
    data, answer = COMPRESSED[name]
    for pieces in splits(data):
        with contextlib.closing(await compressing(site.url)) as raw:
            await raw.send(b"", pieces=pieces)
            assert await raw.eof() == answer


@pytest.mark.parametrize("seed", range(20))
async def test_a_stream_with_a_few_bits_changed_harms_nobody(site, seed):
    source = random.Random(seed)
    for _ in range(10):
        data = bytearray(deflated(source.randbytes(40).hex().encode() * 5, level=source.randint(0, 9)))
        for _ in range(source.randint(1, 4)):
            data[source.randrange(len(data))] ^= 1 << source.randrange(8)
        with contextlib.closing(await compressing(site.url)) as raw:
            await raw.send(frame(BINARY, bytes(data), rsv=4))
            raw.half_close()
            await raw.eof()


async def test_bombs_are_cut_off_and_others_have_their_turn(site, serve, wire):
    large = await serve(Echo(), PATH, ping_interval=0, compression="shared", max_message_size=LIMIT)
    before = resident()
    codes, seconds = await both(large.url, 300, 4)
    assert codes == [1009] * 300
    assert len(seconds) > 300 / 4  # while a bomb of each peer is dealt with, there is an echo
    assert large.manager.stats["expanded"] == 300
    assert large.manager.stats["expanded_bytes"] == 300 * (LIMIT + 1)
    assert len(BOMB) < LIMIT / 1_000
    assert resident() - before < 64 * LIMIT  # a sanitizer keeps some of what is freed
