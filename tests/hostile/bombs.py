"""Bombs beside an echo: compressed messages of one kilobyte that would expand to more than max_message_size.

Each comes on a connection of its own, which has to end with 1009. `python -m bench.bombs` measures with this.
"""

import asyncio
import contextlib
import time

from ..lib.deflate import compressing, deflated_frame
from ..lib.raw import BINARY, TEXT, frame

LIMIT = 1 << 20  # bytes; the default of max_message_size
BOMB = deflated_frame(bytes(LIMIT + 1), BINARY, level=9)


async def throw(url: str, bombs: int, peers: int, data: bytes = BOMB) -> list[int]:
    """Throw bombs, each peer one after the other. Returns the codes with which the connections ended."""
    codes, left = [], iter(range(bombs))

    async def peer() -> None:
        for _ in left:
            with contextlib.closing(await compressing(url)) as raw:
                await raw.send(data)
                codes.append(await raw.close_code())

    await asyncio.gather(*[peer() for _ in range(peers)])
    return codes


async def echoes(url: str, until: asyncio.Future) -> list[float]:
    """Have one message after the other echoed until that is done. Returns the seconds that each took, in order."""
    seconds = []
    with contextlib.closing(await compressing(url, "/ws/echo")) as raw:
        while not until.done():
            begun = time.perf_counter()
            await raw.send(frame(TEXT, b"%d" % len(seconds)))
            assert await raw.text() == str(len(seconds))
            seconds.append(time.perf_counter() - begun)
    return sorted(seconds)


async def both(url: str, bombs: int, peers: int, data: bytes = BOMB) -> tuple[list[int], list[float]]:
    """Throw bombs beside an echo. Returns the codes, and the seconds of the echoes in order."""
    thrown = asyncio.ensure_future(throw(url, bombs, peers, data))
    seconds = await echoes(url, thrown)
    return await thrown, seconds
