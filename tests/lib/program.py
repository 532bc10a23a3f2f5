"""Python source as a process of its own, which says what it does line by line."""

import asyncio
import subprocess
import sys
import textwrap
from contextlib import asynccontextmanager


@asynccontextmanager
async def program(source):
    """Run Python source as a process of its own."""
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
    async with asyncio.timeout(10):
        return (await process.stdout.readline()).decode().strip()
