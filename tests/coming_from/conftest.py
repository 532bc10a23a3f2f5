"""Fixtures: `started` runs a program of a page; `join` opens a connection to it."""

import re
from contextlib import AsyncExitStack
from typing import Any

import pytest

from fastws import Server
from fastws.testing import Client, Refused, connect, running

from ..lib import pages
from ..lib.raw import TIMEOUT
from ..lib.support import eventually
from .cfml import Application

COMING_FROM = pages.DOCS / "coming-from"


class Site:
    """A program that runs, and its clients."""

    def __init__(self, names: dict[str, Any], url: str, stack: AsyncExitStack) -> None:
        self.names, self.url = names, url
        self.server: Server = names["server"]
        self._stack = stack

    async def open(self, path: str, **options: Any) -> Client:
        """A client that has got a 101; it may be turned away yet."""
        return await self._stack.enter_async_context(connect(self.url + path, **{"timeout": TIMEOUT, **options}))

    async def join(self, path: str, **options: Any) -> Client:
        """A client whose connection is open, and in the channel of its path."""
        before = self.count()
        client = await self.open(path, **options)
        await eventually(lambda: self.count() > before)
        return client

    def count(self) -> int:
        """How many connections are where their path says."""
        managers = dict.fromkeys(self.server.endpoints.values())
        return sum(
            "channel" not in ws.path_parameters or ws.path_parameters["channel"] in ws.channels
            for manager in managers
            for ws in manager.connections.values()
        )

    async def refused(self, path: str, **options: Any) -> dict[str, Any]:
        """The error that a handshake is refused with."""
        with pytest.raises(Refused) as caught:
            async with connect(self.url + path, **{"timeout": TIMEOUT, **options}):
                pass
        return caught.value.error


@pytest.fixture
async def applications():
    """`await applications(secret)` is a CFML application. Name it first: it is there until the server has told all."""
    async with AsyncExitStack() as stack:

        async def start(secret: str = "", kind: type[Application] = Application) -> Application:
            return await stack.enter_async_context(kind(secret))

        yield start


@pytest.fixture
async def started():
    """`await started("lucee", "Clean JSON")` is the site of that part's program; `number` is for one of several."""
    async with AsyncExitStack() as stack:

        async def start(page: str, part: str, number: int = 0, instead: dict[str, str] | None = None) -> Site:
            program = pages.block(COMING_FROM / f"{page}.md", part, "python", number)
            names = pages.run(program, instead)
            url = await stack.enter_async_context(running(names["server"]))
            return Site(names, url, stack)

        yield start


@pytest.fixture
async def configured(tmp_path):
    """`await configured("lucee", "Your application stays", {...})` is the site of that part's fastws.toml."""
    from fastws.command.settings import load
    from fastws.standalone import create_server

    async with AsyncExitStack() as stack:

        async def start(page: str, part: str, instead: dict[str, str] | None = None) -> Site:
            text = re.sub(r"^port = \d+", "port = 0", pages.block(COMING_FROM / f"{page}.md", part, "toml"))
            for old, new in (instead or {}).items():
                assert old in text, old
                text = text.replace(old, new)
            file = tmp_path / "fastws.toml"
            file.write_text(text)
            server = create_server(load(file, {}, {}))
            url = await stack.enter_async_context(running(server))
            return Site({"server": server}, url, stack)

        yield start
