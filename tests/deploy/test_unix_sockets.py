"""Unix sockets: their permissions, their owner, and the removal of their files."""

import asyncio
import os
import signal
import socket
import stat

import pytest
from starlette.responses import PlainTextResponse
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import unix_connect

from fastws import ConfigurationError, Server

from ..lib.command import TIMEOUT, run, serving
from ..lib.raw import request
from ..lib.support import Echo, Holding, Recorder

pytestmark = pytest.mark.usefixtures("folder")


async def over_unix(path):
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(request("/ws"))
    assert b" 101 " in await reader.readline()
    writer.transport.abort()


def test_the_command_serves_on_a_unix_socket(folder):
    with serving("app:create", "--uds", "s", "--uds-permissions", "620") as (process, line):
        assert line == "fastws listening on unix:s  (/echo)\n"
        assert stat.S_IMODE(folder.joinpath("s").stat().st_mode) == 0o620
        with unix_connect("s", "ws://localhost/echo") as client:
            client.send("hi")
            assert client.recv(TIMEOUT) == "hi"
            process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed):
                client.recv(TIMEOUT)
        assert process.wait(TIMEOUT) == 0
        assert not folder.joinpath("s").exists()


@pytest.mark.parametrize("has_epoll", [True, False])
async def test_a_unix_socket_serves_websockets_and_http(monkeypatch, folder, has_epoll):
    if not has_epoll:
        monkeypatch.setattr("fastws.server.has_epoll", False)
    server = Server(uds="s", http=PlainTextResponse("the application"))
    server.endpoint("/ws", recorder := Recorder())
    async with server:
        assert (server.host, server.port) == ("s", 0)
        await over_unix("s")
        await recorder.until("on_open")
        assert recorder.sockets[0].remote_address == ("", 0)
        reader, writer = await asyncio.open_unix_connection("s")
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).endswith(b"the application")
        writer.close()
    assert not folder.joinpath("s").exists()


async def test_its_permissions_do_not_depend_on_the_umask():
    before = os.umask(0o077)
    try:
        async with Server(uds="s"):
            assert stat.S_IMODE(os.stat("s").st_mode) == 0o660
    finally:
        os.umask(before)


async def test_a_stale_file_is_replaced():
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind("s")
    server = Server(uds="s")
    server.endpoint("/ws", Echo())
    async with server:
        await over_unix("s")


async def test_a_path_on_which_somebody_listens_is_an_os_error():
    first, second = Server(uds="s"), Server(uds="s")
    first.endpoint("/ws", Echo())
    async with first:
        with pytest.raises(OSError, match="in use"):
            await second.start()
        await over_unix("s")


async def test_a_path_whose_backlog_is_full_is_taken_too():
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind("s")
        busy.listen(0)
        waiting.connect("s")
        with pytest.raises(OSError, match="in use"):
            await Server(uds="s").start()


async def test_what_is_no_socket_is_never_replaced(folder):
    folder.joinpath("s").write_text("precious")
    with pytest.raises(ConfigurationError, match="uds='s' exists and is not a socket: choose another path"):
        await Server(uds="s").start()
    assert folder.joinpath("s").read_text() == "precious"


async def test_a_stop_leaves_another_servers_file(folder):
    first, second = Server(uds="s"), Server(uds="s")
    second.endpoint("/ws", Echo())
    await first.start()
    folder.joinpath("s").unlink()
    async with second:
        await first.stop()
        await over_unix("s")


async def test_the_path_is_free_as_soon_as_the_stop_begins(folder):
    first, second = Server(uds="s"), Server(uds="s")
    first.endpoint("/ws", holding := Holding())
    second.endpoint("/ws", Echo())
    await first.start()
    stopping = asyncio.create_task(first.stop())
    await holding.draining.wait()
    async with second:
        holding.release.set()
        await stopping
        await over_unix("s")


async def test_a_start_that_fails_leaves_no_file(folder):
    async def broken(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": ""})

    with pytest.raises(Exception, match="failed to start"):
        await Server(uds="s", http=broken).start()
    assert not folder.joinpath("s").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--uds", "nowhere/s"], "uds='nowhere/s' cannot be created: No such file or directory"),
        (["--uds", "x" * 200], f"uds='{'x' * 200}' must be a path of 1 to 107 bytes"),
        (
            ["--uds", "s", "--uds-permissions", "990"],
            "Invalid value for '--uds-permissions': '990' is not an octal number.",
        ),
        (["--uds", "s", "--uds-permissions", "440"], "uds_permissions=0o440 is out of range: use 0o600 to 0o777"),
        (["--fd", "12345"], "fd=12345 is not a socket: Bad file descriptor"),
    ],
)
def test_what_cannot_be_listened_on_is_one_sentence_and_status_2(arguments, message):
    ended = run("serve", "app:create", *arguments)
    assert (ended.returncode, ended.stderr) == (2, f"fastws: {message}\n")


def test_permissions_in_the_file_are_octal_too(folder):
    folder.joinpath("fastws.toml").write_text('target = "app:create"\nuds = "s"\nuds_permissions = 600\n')
    with serving():
        assert stat.S_IMODE(folder.joinpath("s").stat().st_mode) == 0o600


def test_a_taken_path_is_one_sentence_and_status_1():
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind("s")
        taken.listen()
        ended = run("serve", "app:create", "--uds", "s")
    assert (ended.returncode, ended.stderr) == (1, "fastws: cannot listen on unix:s: Address already in use\n")
