"""Deploy day: listening sockets that outlive the server, passed by a service manager or by hand."""

import asyncio
import contextlib
import os
import socket
import subprocess

import pytest
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from fastws import ConfigurationError, Server
from fastws.sockets import inherited
from fastws.testing import connect as connect_fastws

from ..lib.command import COMMAND, TIMEOUT, activated, port_of, serving
from ..lib.raw import request
from ..lib.support import Echo

pytestmark = pytest.mark.usefixtures("folder")


def pass_sockets(monkeypatch, count, names=None, pid=None):
    monkeypatch.setenv("LISTEN_PID", str(pid or os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", count)
    if names is not None:
        monkeypatch.setenv("LISTEN_FDNAMES", names)


def test_inherited_are_those_that_the_variables_count(monkeypatch):
    assert inherited() == []
    pass_sockets(monkeypatch, "3")
    assert inherited() == [3, 4, 5]
    assert inherited("unknown") == [3, 4, 5]  # the name used by sd_listen_fds_with_names(3)


def test_inherited_can_be_picked_by_name(monkeypatch):
    pass_sockets(monkeypatch, "3", "web:metrics:web")
    assert inherited("web") == [3, 5]
    assert inherited("metrics") == [4]
    assert inherited("nothing") == []


def test_what_was_passed_to_another_process_is_not_ours(monkeypatch):
    pass_sockets(monkeypatch, "1", pid=os.getpid() + 1)
    assert inherited() == []


@pytest.mark.parametrize(
    ("count", "names", "message"),
    [
        ("two", None, "LISTEN_FDS='two' must be a number: check the service manager"),
        ("-1", None, "LISTEN_FDS='-1' must be a number: check the service manager"),
        ("2", "web", "LISTEN_FDNAMES='web' must have 2 names, as LISTEN_FDS says"),
    ],
)
def test_variables_that_contradict_themselves_are_refused(monkeypatch, count, names, message):
    pass_sockets(monkeypatch, count, names)
    with pytest.raises(ConfigurationError) as refused:
        inherited()
    assert str(refused.value) == message


def test_the_command_serves_on_what_systemd_passes(listening):
    port = listening.getsockname()[1]
    with serving("app:create", command=activated(listening.fileno()), pass_fds=[listening.fileno()]) as (_, line):
        assert port_of(line) == port
        with connect(f"ws://127.0.0.1:{port}/echo") as client:
            client.send("hi")
            assert client.recv(TIMEOUT) == "hi"


def test_a_descriptor_given_by_hand_beats_what_systemd_passes(listening):
    with socket.create_server(("127.0.0.1", 0)) as other:
        fds = [listening.fileno(), other.fileno()]
        arguments = ("app:create", "--fd", str(other.fileno()))
        with serving(*arguments, command=activated(listening.fileno()), pass_fds=fds) as (_, line):
            assert port_of(line) == other.getsockname()[1]


async def test_a_descriptor_stays_the_callers(listening):
    server = Server(fd=[listening.fileno()])
    server.endpoint("/ws", Echo())
    for _ in range(2):
        async with server:
            assert (server.host, server.port) == listening.getsockname()
            async with connect_fastws(f"ws://127.0.0.1:{server.port}/ws") as client:
                await client.send("x")
                assert await client.receive() == "x"
    assert listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


async def test_several_descriptors_are_all_served(listening, tmp_path):
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("s")
        unix.listen()
        server = Server(fd=[listening.fileno(), unix.fileno()])
        server.endpoint("/ws", Echo())
        async with server, connect_fastws(f"ws://127.0.0.1:{server.port}/ws") as client:
            reader, writer = await asyncio.open_unix_connection("s")
            writer.write(request("/ws"))
            assert b" 101 " in await reader.readline()
            await client.ping()
            writer.transport.abort()
        assert tmp_path.joinpath("s").exists()  # its creator removes it


async def test_what_is_no_listening_socket_is_refused_in_one_sentence(tmp_path):
    left, right = socket.socketpair()
    datagram = socket.socket(type=socket.SOCK_DGRAM)
    with left, right, datagram, tmp_path.joinpath("file").open("w") as file:
        for fd, what in [
            (left.fileno(), "not a listening stream socket"),
            (datagram.fileno(), "not a listening stream socket"),
            (file.fileno(), "not a socket"),
            (12345, "not a socket"),
        ]:
            with pytest.raises(ConfigurationError, match=f"fd={fd} is {what}"):
                await Server(fd=[fd]).start()


@pytest.mark.parametrize("value", [3, "3", [-1], [True], ["3"], None])
def test_fd_takes_a_list_of_descriptors(value):
    with pytest.raises(ConfigurationError, match="fd="):
        Server(fd=value)


async def keep_connecting(port, answers, enough):
    """Connect repeatedly, and record what each connection got: an answer, or a close code."""
    while not enough.is_set():
        async with connect_async(f"ws://127.0.0.1:{port}/who", open_timeout=TIMEOUT * 2) as client:
            try:
                await client.send("who?")
                answers.append(await client.recv())
            except ConnectionClosed as closed:
                answers.append(closed.rcvd and closed.rcvd.code)


WHO = """
import os
from fastws import Listener, Server

class Who(Listener):
    def on_message(self, ws, message):
        return str(os.getpid())

server = Server()
server.endpoint("/who", Who())
"""


async def test_a_restart_refuses_nobody(folder, listening):
    folder.joinpath("who.py").write_text(WHO)
    port, fd = listening.getsockname()[1], str(listening.fileno())
    answers, enough = [], asyncio.Event()

    async def start():
        command = [*COMMAND, "serve", "who:server", "--fd", fd, "--restart"]
        return await asyncio.create_subprocess_exec(*command, pass_fds=[int(fd)], stdout=subprocess.PIPE)

    async def until_served_by(process):
        async with asyncio.timeout(TIMEOUT * 2):
            while answers.count(str(process.pid)) < 50:
                await asyncio.sleep(0.01)

    async with contextlib.AsyncExitStack() as ends:
        async with asyncio.TaskGroup() as clients:
            processes = [await start()]
            ends.callback(lambda: [process.kill() for process in processes if process.returncode is None])
            for _ in range(4):
                clients.create_task(keep_connecting(port, answers, enough))
            await until_served_by(processes[-1])
            for _ in range(2):
                processes[-1].terminate()
                assert await processes[-1].wait() == 0  # nobody is serving now
                processes.append(await start())
                await until_served_by(processes[-1])
            enough.set()
        processes[-1].terminate()
        assert await processes[-1].wait() == 0
    assert set(answers) <= {1012, *(str(process.pid) for process in processes)}  # served, or told to reconnect
