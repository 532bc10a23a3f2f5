"""Helpers of the tests for strangers."""

import contextlib
import itertools
import random

from ..lib.raw import Raw

MIB = 1 << 20


@contextlib.asynccontextmanager
async def stranger(site, target=None):
    """A raw socket, closed at the end; with `target` it opens a WebSocket at that path."""
    raw = await Raw.open(site.url)
    with contextlib.closing(raw):
        if target is not None:
            await raw.upgrade(target)
        yield raw


def splits(data):
    """Ways to send the bytes: at once, one by one (the first 300), and split at random."""
    yield [data]
    yield [*(data[i : i + 1] for i in range(min(len(data), 300))), data[300:]]
    source = random.Random(data)
    for _ in range(2):
        cuts = [0, *sorted(source.choices(range(len(data) + 1), k=4)), len(data)]
        yield [data[start:end] for start, end in itertools.pairwise(cuts)]
