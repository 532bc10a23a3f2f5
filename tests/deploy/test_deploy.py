"""Deploy day: sockets that outlive the server, unix sockets, and `--reload`."""

import asyncio
import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import threading

import pytest
from starlette.responses import PlainTextResponse
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect, unix_connect

from fastws import ConfigurationError, Server
from fastws.sockets import inherited
from fastws.testing import connect as connect_fastws

from ..lib.command import APP, COMMAND, TIMEOUT, port_of, run, serving
from ..lib.raw import request
from ..lib.support import Echo, Holding, Recorder

# What a service manager does between fork and exec: the socket becomes descriptor 3, and the variables say so.
ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="web")
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Each test runs in a folder of its own, with an application in app.py and nothing in the environment."""
    tmp_path.joinpath("app.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("FASTWS_", "LISTEN_"))]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def listening():
    """A listening TCP socket that somebody else opened."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as sock:
        yield sock


def activated(fd):
    """The command as systemd would start it with that descriptor."""
    return [sys.executable, "-c", ACTIVATE, str(fd), *COMMAND[1:]]


# -- sockets passed by a service manager


def pass_sockets(monkeypatch, count, names=None, pid=None):
    monkeypatch.setenv("LISTEN_PID", str(pid or os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", count)
    if names is not None:
        monkeypatch.setenv("LISTEN_FDNAMES", names)


def test_inherited_are_those_that_the_variables_count(monkeypatch):
    assert inherited() == []
    pass_sockets(monkeypatch, "3")
    assert inherited() == [3, 4, 5]
    assert inherited("unknown") == [3, 4, 5]  # so sd_listen_fds_with_names(3) calls them


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
        ("two", None, "LISTEN_FDS='two': the service manager must give a number"),
        ("-1", None, "LISTEN_FDS='-1': the service manager must give a number"),
        ("2", "web", "LISTEN_FDNAMES='web': give 2 names, as LISTEN_FDS says"),
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
        assert tmp_path.joinpath("s").exists()  # whoever made it removes it


async def test_what_is_no_listening_socket_is_refused_in_one_sentence(tmp_path):
    left, right = socket.socketpair()
    datagram = socket.socket(type=socket.SOCK_DGRAM)
    with left, right, datagram, tmp_path.joinpath("file").open("w") as file:
        for fd, what in [
            (left.fileno(), "no listening stream socket"),
            (datagram.fileno(), "no listening stream socket"),
            (file.fileno(), "no socket"),
            (12345, "no socket"),
        ]:
            with pytest.raises(ConfigurationError, match=f"fd={fd} is {what}"):
                await Server(fd=[fd]).start()


@pytest.mark.parametrize("value", [3, "3", [-1], [True], ["3"], None])
def test_fd_takes_a_list_of_descriptors(value):
    with pytest.raises(ConfigurationError, match="fd="):
        Server(fd=value)


async def keep_connecting(port, answers, enough):
    """Connect again and again, and note what each connection got: an answer, or the code that closed it."""
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


@pytest.mark.timeout(60)
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
                assert await processes[-1].wait() == 0  # nobody serves now
                processes.append(await start())
                await until_served_by(processes[-1])
            enough.set()
        processes[-1].terminate()
        assert await processes[-1].wait() == 0
    assert set(answers) <= {1012, *(str(process.pid) for process in processes)}  # served, or told to come back


# -- unix sockets


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
    with pytest.raises(ConfigurationError, match="uds='s' is there and no socket: choose another path"):
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
        (["--uds", "nowhere/s"], "uds='nowhere/s' cannot be made: No such file or directory"),
        (["--uds", "x" * 200], f"uds='{'x' * 200}': give a path of 1 to 107 bytes"),
        (
            ["--uds", "s", "--uds-permissions", "990"],
            "Invalid value for '--uds-permissions': '990' is not an octal number.",
        ),
        (["--uds", "s", "--uds-permissions", "440"], "uds_permissions=0o440 does not work: 0o600 to 0o777 does"),
        (["--fd", "12345"], "fd=12345 is no socket: Bad file descriptor"),
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


# -- --reload

RELOADED = """
from fastws import Listener, Server

class Answer(Listener):
    def on_message(self, ws, message):
        return {answer!r}

server = Server(port={port})
server.endpoint("/", Answer())
"""


class Reloading:
    """`fastws serve --reload`: the lines it says on either stream, as they come."""

    def __init__(self, process, line, folder, port):
        self.process, self.folder, self.port = process, folder, port
        self.lines = [line]
        self._more = threading.Condition()
        streams = (process.stdout, process.stderr)
        self._readers = [threading.Thread(target=self._read, args=(stream,)) for stream in streams]
        for reader in self._readers:
            reader.start()

    def _read(self, stream):
        for line in stream:
            with self._more:
                self.lines.append(line)
                self._more.notify_all()

    def until(self, text, times=1):
        with self._more:
            found = self._more.wait_for(lambda: sum(text in line for line in self.lines) >= times, TIMEOUT)
        assert found, self.lines

    def write(self, answer, text=RELOADED):
        self.folder.joinpath("live.py").write_text(text.format(answer=answer, port=self.port))

    def answer(self):
        with connect(f"ws://127.0.0.1:{self.port}/") as client:
            client.send("?")
            return client.recv(TIMEOUT)

    def ended(self):
        assert self.process.wait(TIMEOUT) == 0
        for reader in self._readers:
            reader.join(TIMEOUT)  # nobody holds the streams: the server's process has ended, too


@pytest.fixture
def reloading(folder):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder.joinpath("live.py").write_text(RELOADED.format(answer="one", port=port))
    with serving("live:server", "--reload") as (process, line):
        site = Reloading(process, line, folder, port)
        yield site
        if process.poll() is None:
            process.terminate()
            site.ended()


def test_a_change_restarts_the_server_and_tells_clients_to_come_back(reloading):
    with connect(f"ws://127.0.0.1:{reloading.port}/") as client:
        assert reloading.answer() == "one"
        reloading.write("two")
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(TIMEOUT)
        assert closed.value.rcvd.code == 1012
    reloading.until("fastws listening", times=2)
    assert reloading.answer() == "two"


def test_a_syntax_error_is_a_log_line_and_the_old_code_serves_on(reloading):
    with connect(f"ws://127.0.0.1:{reloading.port}/") as client:
        reloading.write("two", "this is no Python\n")
        reloading.until("WARNING fastws.reload: still serving what was there before: invalid syntax (live.py, line 1)")
        reloading.folder.joinpath("other.py").write_text("number = 1\n")
        reloading.until("still serving what was there before", times=2)
        client.send("?")
        assert client.recv(TIMEOUT) == "one"
    reloading.write("two")
    reloading.until("fastws listening", times=2)
    assert reloading.answer() == "two"


def test_a_server_that_cannot_start_is_started_again_after_the_next_change(reloading):
    reloading.write("two", "import nothing_like_that\n")
    reloading.until("the server ended with status 1: it starts again when a file changes")
    reloading.write("three")
    reloading.until("fastws listening", times=2)
    assert reloading.answer() == "three"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_both_processes_cleanly(reloading, number):
    with connect(f"ws://127.0.0.1:{reloading.port}/") as client:
        reloading.process.send_signal(number)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(TIMEOUT)
        assert closed.value.rcvd.code == 1012
    reloading.ended()
    assert "Traceback" not in "".join(reloading.lines)


def test_a_ctrl_c_which_reaches_both_processes_ends_them_cleanly(folder):
    folder.joinpath("live.py").write_text(RELOADED.format(answer="one", port=0))
    with serving("live:server", "--reload", start_new_session=True) as (process, line):
        site = Reloading(process, line, folder, port_of(line))
        os.killpg(process.pid, signal.SIGINT)
        site.ended()
        assert "Traceback" not in "".join(site.lines)


@pytest.mark.parametrize("how", ["systemd", "option"])
def test_passed_sockets_are_passed_on_to_every_new_server(folder, listening, how):
    port, fd = listening.getsockname()[1], listening.fileno()
    folder.joinpath("live.py").write_text(RELOADED.format(answer="one", port=0))
    command, arguments = (activated(fd), []) if how == "systemd" else (COMMAND, ["--fd", str(fd)])
    with serving("live:server", "--reload", *arguments, command=command, pass_fds=[fd]) as (process, line):
        site = Reloading(process, line, folder, port)
        assert site.answer() == "one"
        site.write("two")
        site.until("fastws listening", times=2)
        assert site.answer() == "two"
        process.terminate()
        site.ended()


def test_a_bad_option_ends_it_at_once():
    ended = run("serve", "--reload", "--port", "70000")
    assert (ended.returncode, ended.stderr) == (2, "fastws: port=70000 is out of range: 0 to 65,535 works\n")


def test_without_watchfiles_it_says_what_to_install():
    code = "import sys; sys.modules['watchfiles'] = None; from fastws.cli import main; main()"
    ended = run("-c", code, "serve", "--reload", command=[sys.executable])
    assert (ended.returncode, ended.stderr) == (
        2,
        "fastws: --reload needs watchfiles: pip install 'fastws-server[reload]'\n",
    )
