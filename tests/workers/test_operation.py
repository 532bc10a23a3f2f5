"""SIGHUP, what the service manager is told, and sockets that are shared: `fastws serve --workers` in production."""

import asyncio
import contextlib
import os
import signal
import socket
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fastws.testing import Closed, connect

from ..lib.command import COMMAND, TIMEOUT, activated
from ..lib.v1 import PROTOCOL
from .supervised import HERE, supervised, who

pytestmark = [
    pytest.mark.usefixtures("folder"),
    pytest.mark.skipif(sys.platform != "linux", reason="the kernel spreads connections on Linux"),
]
CHANNELS = """
[[channels]]
pattern = "{pattern}"
subscribe = "anyone"
"""


class Newcomers:
    """Clients that come one after the other while something else happens, and what became of them."""

    def __init__(self, url):
        self.url, self.failures, self.served = url, [], set()

    async def _come(self):
        while True:
            try:
                self.served.add((await who(self.url))[1])
            except Closed as closed:
                if closed.code != 1012:  # told to come back, just after it came
                    self.failures.append(closed)
            except Exception as error:
                self.failures.append(error)
            await asyncio.sleep(0.001)

    async def __aenter__(self):
        self._tasks = [asyncio.ensure_future(self._come()) for _ in range(4)]
        return self

    async def __aexit__(self, *exc_info):
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


# -- SIGHUP


async def test_sighup_replaces_the_workers_of_an_application_one_after_the_other_and_refuses_nobody():
    with supervised(*HERE, "--log-level", "info", workers=3) as site:
        before = set(site.workers.values())
        async with Newcomers(site.url) as newcomers, connect(site.url, timeout=TIMEOUT) as client:
            await client.receive()
            site.process.send_signal(signal.SIGHUP)
            with pytest.raises(Closed) as closed:
                await client.receive()
            assert closed.value.code == 1012
            await asyncio.to_thread(site.until, "all workers were replaced")
            newcomers.served.clear()
            async with asyncio.timeout(TIMEOUT):
                while len(newcomers.served) < 3:
                    await asyncio.sleep(0.01)
        assert newcomers.failures == []
        assert newcomers.served == set(site.workers.values())
        assert not before & newcomers.served


async def test_at_a_second_sighup_meanwhile_they_are_replaced_once_more():
    with supervised(*HERE, "--log-level", "info", workers=2) as site:
        site.process.send_signal(signal.SIGHUP)
        await asyncio.to_thread(site.until_workers, lambda now: len(now) == 2)
        site.process.send_signal(signal.SIGHUP)
        await asyncio.to_thread(site.until, "all workers were replaced")
        assert await who(site.url)
        site.process.terminate()
        assert site.ended() == 0


async def test_workers_stay_where_new_ones_cannot_start(folder):
    with supervised(*HERE, workers=2) as site:
        before = site.workers
        folder.joinpath("broken").touch()
        site.process.send_signal(signal.SIGHUP)
        await asyncio.to_thread(site.until, "worker 1 could not be replaced: it goes on, like those after it")
        assert site.until_workers(lambda now: now == before)
        assert (await who(site.url))[1] in before.values()


async def test_workers_stay_where_the_file_has_an_error(folder):
    with supervised(*HERE, workers=2) as site:
        before = site.workers
        folder.joinpath("fastws.toml").write_text("prot = 80\n")
        site.process.send_signal(signal.SIGHUP)
        await asyncio.to_thread(site.until, "the old settings stay: fastws.toml:1: 'prot' is not an option")
        assert site.workers == before


async def subscribed(client, channel):
    """What the server says of a channel of fastws.v1."""
    await client.send({"type": "subscribe", "channel": channel})
    while (said := await client.receive_json()).get("channel") != channel:
        pass
    return said["type"]


async def test_what_a_running_server_can_change_is_changed_in_all_workers_and_connections_stay(folder):
    file = folder.joinpath("fastws.toml")
    file.write_text(CHANNELS.format(pattern="old"))
    with supervised(*HERE, "--log-level", "info", target=None, workers=2) as site:
        before = site.workers
        async with contextlib.AsyncExitStack() as opened:
            clients = [
                await opened.enter_async_context(
                    connect(f"ws://127.0.0.1:{site.port}/ws", subprotocols=[PROTOCOL], timeout=TIMEOUT)
                )
                for _ in range(20)
            ]
            for client in clients:
                await client.send({"type": "hello", "version": 1})
                assert await subscribed(client, "new") != "subscribed"
            file.write_text(CHANNELS.format(pattern="new"))
            site.process.send_signal(signal.SIGHUP)
            await asyncio.to_thread(site.until, r"the configuration was read again: \[\[channels\]\] changed", 2)
            assert [await subscribed(client, "new") for client in clients] == ["subscribed"] * 20
        assert site.workers == before


async def test_what_it_cannot_change_is_changed_by_new_workers(folder):
    file = folder.joinpath("fastws.toml")
    file.write_text(CHANNELS.format(pattern="*"))
    with supervised(*HERE, "--log-level", "info", target=None, workers=2) as site:
        before = set(site.workers.values())
        file.write_text('client_path = "/other.js"\nworkers = 3\n' + CHANNELS.format(pattern="*"))
        site.process.send_signal(signal.SIGHUP)
        await asyncio.to_thread(site.until, "all workers were replaced")
        assert not before & set(site.workers.values())
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(b"GET /other.js HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert b" 200 " in await reader.readline()
        writer.close()


# -- metrics


async def scrape(port):
    """The samples of /metrics: name and labels -> value."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    try:
        async with asyncio.timeout(TIMEOUT):
            head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    finally:
        writer.close()
    assert " 200 " in head
    families = text_string_to_metric_families(body)
    return {
        (name, tuple(sorted(labels.items()))): value
        for family in families
        for name, labels, value, *_ in family.samples
    }


async def test_whichever_worker_is_asked_for_metrics_has_those_of_all(folder):
    folder.joinpath("fastws.toml").write_text("[metrics]\npublic = true\n" + CHANNELS.format(pattern="*"))
    with supervised(*HERE, target=None, workers=3) as site:
        async with contextlib.AsyncExitStack() as opened:
            for _ in range(30):
                await opened.enter_async_context(connect(f"ws://127.0.0.1:{site.port}/ws", subprotocols=[PROTOCOL]))
            for _ in range(5):
                samples = await scrape(site.port)
                labels = [(("endpoint", "/ws"), ("worker", number)) for number in "123"]
                here = [samples["fastws_connections", each] for each in labels]
                assert sum(here) == 30
                assert all(here)
                memory = {samples["process_resident_memory_bytes", (("worker", number),)] for number in "123"}
                assert len(memory) == 3
            os.kill(site.workers[2], signal.SIGSTOP)
            scrapes = [asyncio.ensure_future(scrape(site.port)) for _ in range(20)]  # some of them at the stopped one
            done, rest = await asyncio.wait(scrapes, return_when=asyncio.FIRST_COMPLETED)
            for each in rest:
                each.cancel()
            await asyncio.gather(*rest, return_exceptions=True)
            os.kill(site.workers[2], signal.SIGCONT)
            assert {dict(labels)["worker"] for _, labels in done.pop().result()} == {"1", "3"}


# -- the service manager


@pytest.fixture
def manager(tmp_path, monkeypatch):
    """The service manager's end of NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(TIMEOUT)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield sock


def told(manager):
    return dict(line.split("=", 1) for line in manager.recv(4096).decode().split("\n"))


def test_the_service_manager_hears_of_the_supervisor_alone(manager):
    with supervised(*HERE, "--drain-timeout", "7", "--close-timeout", "1", workers=3) as site:
        assert told(manager) == {"READY": "1", "STATUS": f"listening on http://127.0.0.1:{site.port}"}
        assert len(site.workers) == 3  # ready when all were
        site.process.send_signal(signal.SIGHUP)
        assert int(told(manager)["MONOTONIC_USEC"]) > 0
        assert told(manager) == {"READY": "1", "STATUS": "the configuration was read again"}
        site.process.terminate()
        said = [told(manager) for _ in range(3)]
        assert said == [{"STOPPING": "1", "EXTEND_TIMEOUT_USEC": "20000000"}] * 3
        assert site.ended() == 0
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(4096)


@pytest.mark.parametrize("how", ["systemd", "option"])
async def test_a_passed_socket_is_shared_by_all_workers_and_stays_open(how):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        fd = sock.fileno()
        os.set_inheritable(fd, True)
        command, arguments = (activated(fd), []) if how == "systemd" else (COMMAND, ["--fd", str(fd)])
        with supervised(*arguments, command=command, pass_fds=[fd], workers=2) as site:
            assert site.port == sock.getsockname()[1]
            served = {(await who(site.url))[1] for _ in range(20)}
            assert served <= set(site.workers.values())
            os.kill(served.pop(), signal.SIGKILL)
            assert (await who(site.url))[0] in (1, 2)
            site.process.terminate()
            assert await asyncio.to_thread(site.ended) == 0
        with socket.create_connection(sock.getsockname()):  # it still listens
            pass


async def test_a_unix_socket_is_shared_by_all_workers_and_removed(folder):
    path = folder / "socket"
    with supervised("--uds", "socket", "--uds-permissions", "600", workers=2) as site:
        assert site.line.startswith("fastws listening on unix:socket  (/")
        assert path.stat().st_mode & 0o777 == 0o600
        os.kill(site.workers[1], signal.SIGKILL)
        for _ in range(20):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(
                b"GET /who HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            assert b" 101 " in await reader.readline()
            writer.close()
        site.process.terminate()
        assert await asyncio.to_thread(site.ended) == 0
    assert not path.exists()


def test_what_an_application_starts_is_no_worker(folder):
    text = folder.joinpath("app.py").read_text()
    folder.joinpath("app.py").write_text(text + "\nos.write(1, b'%d\\n' % ('FASTWS_SUPERVISOR' in os.environ))\n")
    with supervised(*HERE, workers=2) as site:
        assert site.line == "0\n"
