"""Python source in a separate process that prints its progress line by line."""

import asyncio
import subprocess
import sys
import textwrap
from contextlib import asynccontextmanager

from .raw import TIMEOUT


@asynccontextmanager
async def program(source):
    """Run Python source in a separate process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-X",
        "dev",
        "-c",
        textwrap.dedent(source),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line(process):
    async with asyncio.timeout(TIMEOUT):
        return (await process.stdout.readline()).decode().strip()
