"""`fastws serve --reload`: the effect of good and bad changes, and how it ends."""

import os
import signal
import sys
import threading

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from ..lib.command import COMMAND, TIMEOUT, activated, port_of, run, serving

pytestmark = pytest.mark.usefixtures("folder")


RELOADED = """
from fastws import Listener, Server

class Answer(Listener):
    def on_message(self, ws, message):
        return {answer!r}

server = Server(port={port})
server.endpoint("/", Answer())
"""


class Reloading:
    """`fastws serve --reload`: the lines it prints on both streams, in order."""

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
            reader.join(TIMEOUT)  # nobody holds the streams: the server's process has ended as well


@pytest.fixture
def reloading(folder, unused_tcp_port):
    folder.joinpath("live.py").write_text(RELOADED.format(answer="one", port=unused_tcp_port))
    with serving("live:server", "--reload") as (process, line):
        site = Reloading(process, line, folder, unused_tcp_port)
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
        reloading.until("WARNING fastws.reload: keeping the previous version running: invalid syntax (live.py, line 1)")
        reloading.folder.joinpath("other.py").write_text("number = 1\n")
        reloading.until("keeping the previous version running", times=2)
        client.send("?")
        assert client.recv(TIMEOUT) == "one"
    reloading.write("two")
    reloading.until("fastws listening", times=2)
    assert reloading.answer() == "two"


def test_a_server_that_cannot_start_is_started_again_after_the_next_change(reloading):
    reloading.write("two", "import nothing_like_that\n")
    reloading.until("the server exited with status 1; it restarts when a file changes")
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
    ended = run("serve", "app:create", "--reload", "--port", "70000")
    assert (ended.returncode, ended.stderr) == (2, "fastws: port=70000 is out of range: use 0 to 65,535\n")


def test_without_watchfiles_it_says_what_to_install():
    code = "import sys; sys.modules['watchfiles'] = None; from fastws.command.main import main; main()"
    ended = run("-c", code, "serve", "app:create", "--reload", command=[sys.executable])
    assert (ended.returncode, ended.stderr) == (
        2,
        "fastws: --reload needs watchfiles: pip install 'fastws-server[reload]'\n",
    )
