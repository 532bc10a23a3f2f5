"""What a service manager is told, over a real datagram socket."""

import os
import signal
import socket
import sys

import pytest
from websockets.sync.client import connect

from fastws.command.notify import notify

from ..lib.command import TIMEOUT, port_of, serving

pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path, monkeypatch):
    """The service manager's end; `messages` reads what came, one variable an entry."""
    if request.param == "abstract" and sys.platform != "linux":
        pytest.skip("abstract addresses are Linux's")
    address = str(tmp_path / "notify") if request.param == "path" else f"@fastws-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address.replace("@", "\0"))
        sock.settimeout(TIMEOUT)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        yield sock


def until(sock, variable):
    """The variables of the first datagram that has one of that name."""
    while True:
        said = dict(line.split("=", 1) for line in sock.recv(4096).decode().split("\n"))
        if variable in said:
            return said


def test_it_says_when_it_listens_and_when_it_stops(manager):
    with serving("app:create", "--drain-timeout", "7", "--close-timeout", "1") as (process, line):
        said = until(manager, "READY")
        assert (said["READY"], said["STATUS"]) == ("1", f"listening on http://127.0.0.1:{port_of(line)}")
        with connect(f"ws://127.0.0.1:{port_of(line)}/echo"):
            process.send_signal(signal.SIGTERM)
            said = until(manager, "STOPPING")
        assert (said["STOPPING"], said["EXTEND_TIMEOUT_USEC"]) == ("1", "20000000")
        assert process.wait(TIMEOUT) == 0


def test_it_says_when_it_reads_its_file_again(manager):
    with serving("app:create") as (process, _):
        until(manager, "READY")
        process.send_signal(signal.SIGHUP)
        assert int(until(manager, "RELOADING")["MONOTONIC_USEC"]) > 0
        assert until(manager, "READY")["READY"] == "1"


def test_the_loop_says_that_it_turns(manager, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    with serving("app:create"):
        for _ in range(3):
            assert until(manager, "WATCHDOG") == {"WATCHDOG": "1"}


@pytest.mark.parametrize(
    "variables",
    [{}, {"WATCHDOG_USEC": "abc"}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"}],
)
def test_a_watchdog_that_is_not_ours_is_told_nothing(manager, monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with serving("app:create") as (process, _):
        until(manager, "READY")
        process.send_signal(signal.SIGHUP)
        while True:  # whatever a watchdog would have got comes before this
            message = manager.recv(4096)
            assert b"WATCHDOG" not in message
            if b"READY=1" in message:
                break


def test_nobody_who_listens_is_one_warning_and_no_harm(monkeypatch, caplog):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    assert caplog.messages == []
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/at/all")
    notify("READY=1")
    assert caplog.messages == ["NOTIFY_SOCKET='/nowhere/at/all' does not listen: No such file or directory"]
