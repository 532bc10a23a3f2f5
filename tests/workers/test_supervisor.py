"""`fastws serve --workers`: who gets a connection, and what happens when a process ends."""

import asyncio
import os
import re
import signal
import ssl
import sys
import time
from collections import Counter

import pytest

from fastws.testing import Closed, connect

from ..lib.command import TIMEOUT, run
from ..lib.support import CERTIFICATE
from .supervised import HERE, Visitors, is_alive, supervised, who, within

pytestmark = [
    pytest.mark.usefixtures("folder"),
    pytest.mark.skipif(sys.platform != "linux", reason="the kernel spreads connections on Linux"),
]


async def test_connections_spread_evenly():
    with supervised(*HERE) as site:
        served = Counter()

        async def visit(times):
            for _ in range(times):
                served[(await who(site.url))[0]] += 1

        await asyncio.gather(*[visit(100) for _ in range(40)])
        assert set(served) == {1, 2, 3, 4}
        assert all(850 <= number <= 1150 for number in served.values()), served


def test_one_line_says_where_it_listens_and_one_that_modules_are_not_shared():
    with supervised(*HERE, workers=3) as site:
        where, endpoints, workers = site.line.rstrip("\n").split("  ")
        assert (where, workers) == (f"fastws listening on http://127.0.0.1:{site.port}", "with 3 workers")
        assert site.url in endpoints
        site.until("each of 3 workers has its own copy of what is in modules' variables")
        assert set(site.workers) == {1, 2, 3}


async def test_a_worker_that_is_killed_refuses_nobody_and_is_replaced():
    with supervised(*HERE) as site:
        async with Visitors(site.url, 100) as visitors:
            for number in (1, 2, 3, 4):
                await visitors.all_with(lambda pid: True)
                before = site.workers
                os.kill(before[number], signal.SIGKILL)
                await asyncio.to_thread(
                    site.until_workers, lambda now, number=number, old=before[number]: now.get(number, old) != old
                )
                await visitors.all_with(lambda pid, old=before[number]: pid != old)
            assert visitors.refused == []
        served, now = set(), set(site.workers.values())
        async with asyncio.timeout(TIMEOUT):
            while served != now:
                served.add((await who(site.url))[1])
        assert len(site.found("was killed by SIGKILL; another starts in")) == 4


@pytest.mark.parametrize("wire", ["socket", "tls"])
async def test_another_worker_serves_for_a_dead_one_until_that_is_replaced(folder, wire):
    options, tls = HERE, None
    if wire == "tls":
        options, tls = (*HERE, "--ssl-certfile", str(CERTIFICATE)), ssl.create_default_context(cafile=CERTIFICATE)
    with supervised(*options, workers=3) as site:
        folder.joinpath("hold").touch()
        for number in (1, 2):  # one after the other: also the place of one that serves for another
            os.kill(site.workers[number], signal.SIGKILL)
            within(lambda number=number: site.found(f"worker {number} .* was killed"))
        assert {(await who(site.url, ssl=tls))[0] for _ in range(60)} == {3}
        folder.joinpath("hold").unlink()
        async with asyncio.timeout(TIMEOUT):
            served = set()
            while served != {1, 2, 3}:
                served.add((await who(site.url, ssl=tls))[0])
        served = Counter([(await who(site.url, ssl=tls))[0] for _ in range(300)])
        assert all(60 <= number <= 140 for number in served.values()), served  # the third serves only for itself again


async def test_whoever_waits_for_a_dead_worker_is_served_by_the_next_one():
    with supervised(*HERE, workers=2) as site:
        old = set(site.workers.values())
        for pid in old:
            os.kill(pid, signal.SIGSTOP)  # they accept nobody any more
        waiting = [asyncio.ensure_future(who(site.url)) for _ in range(40)]
        await asyncio.sleep(0.2)
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        served = {pid for _, pid in await asyncio.gather(*waiting)}
        site.until_workers(lambda now: len(now) == 2 and served <= set(now.values()))
        assert not served & old


async def test_a_worker_that_dies_at_once_is_started_ever_more_slowly_and_the_others_get_its_share(folder):
    with supervised(*HERE, workers=2) as site:
        folder.joinpath("broken").touch()
        os.kill(site.workers[1], signal.SIGKILL)
        await asyncio.to_thread(site.until, "worker 1 does not come back: newcomers go to the others")
        pauses = [found[1] for found in site.found(r"worker 1 .*; another starts in (\S+) s")]
        assert pauses[:4] == ["0.1", "0.2", "0.4", "0.8"]
        assert {(await who(site.url))[0] for _ in range(60)} == {2}
        folder.joinpath("broken").unlink()
        within(lambda: 1 in site.workers)
        async with asyncio.timeout(TIMEOUT):
            while (await who(site.url))[0] != 1:
                await asyncio.sleep(0.05)


async def test_a_worker_that_is_told_to_stop_is_replaced_while_it_drains():
    with supervised(*HERE, workers=2) as site:
        async with connect(site.url, timeout=TIMEOUT) as client:
            number, pid = map(int, (await client.receive()).split())
            os.kill(pid, signal.SIGTERM)
            with pytest.raises(Closed):
                await client.receive()
        site.until_workers(lambda now: set(now) == {1, 2} and now[number] != pid)
        assert (await who(site.url))[1] in site.workers.values()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_all_workers_and_ends_with_status_0(number):
    with supervised(*HERE) as site:
        clients = [connect(site.url, timeout=TIMEOUT) for _ in range(20)]
        opened = [await client.__aenter__() for client in clients]
        for client in opened:
            await client.receive()
        site.process.send_signal(number)
        for client in opened:
            with pytest.raises(Closed) as closed:
                await client.receive()
            assert closed.value.code == 1001
        assert await asyncio.to_thread(site.ended) == 0
        assert len(site.lines) == 1  # about modules
        with pytest.raises(ConnectionRefusedError):
            await who(site.url)


async def test_while_it_stops_nobody_waits_for_a_worker_that_will_not_come():
    with supervised(*HERE, "--close-timeout", "60", workers=2) as site:
        _, writer = await silent(site.port)
        site.process.terminate()
        async with asyncio.timeout(TIMEOUT):
            while True:
                try:
                    async with connect(site.url, timeout=TIMEOUT):
                        pass
                except ConnectionRefusedError:
                    break
                except Exception:
                    await asyncio.sleep(0.01)  # it has not begun to stop, or is about to
        assert site.process.poll() is None
        site.process.terminate()
        assert await asyncio.to_thread(site.ended) == 0
        writer.close()


async def test_a_second_signal_hurries():
    with supervised(*HERE, "--close-timeout", "60", "--drain-timeout", "60", workers=2) as site:
        reader, writer = await silent(site.port)
        site.process.terminate()
        await reader.readuntil(b"\x88")  # a Close, which this client will not answer
        began = time.monotonic()
        site.process.terminate()
        assert await asyncio.to_thread(site.ended) == 0
        assert time.monotonic() - began < 15
        writer.close()


async def silent(port):
    """A client that opens a WebSocket and says nothing more."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"GET /who HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def test_workers_end_with_their_supervisor_however_it_ends():
    with supervised(*HERE) as site:
        workers = site.workers
        async with connect(site.url, timeout=TIMEOUT) as client:
            await client.receive()
            site.process.kill()
            with pytest.raises(Closed) as closed:
                await client.receive()
            assert closed.value.code == 1001
        within(lambda: not any(map(is_alive, workers.values())))
        site.ended()
        assert "Traceback" not in "".join(site.lines)


def test_a_ctrl_c_of_the_terminal_stops_them_once():
    with supervised(*HERE, workers=2, start_new_session=True) as site:
        os.killpg(site.process.pid, signal.SIGINT)
        assert site.ended() == 0
        assert len(site.lines) == 1


def test_a_worker_that_hangs_is_killed_where_the_service_manager_wants_a_watchdog(monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "2000000")
    with supervised(*HERE, workers=2) as site:

        async def hang():
            async with connect(site.url, timeout=TIMEOUT) as client:
                await client.receive()
                await client.send("hang")
                with pytest.raises(Closed):
                    await client.receive()

        asyncio.run(hang())
        number = site.until(r"worker (\d) hangs")[1]
        site.until(f"worker {number} .* was killed by SIGABRT")


# -- what cannot work


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (("app:create", "--workers", "0"), 2, "workers=0 is out of range: use 1 to 1,024"),
        (("app:create", "--workers", "2", "--reload"), 2, "reload and workers exclude each other: take one of them"),
        (("nothing:create", "--workers", "2", "--port", "0"), 2, "no module 'nothing' here or on Python's path"),
    ],
)
def test_what_cannot_work_is_a_sentence(arguments, status, sentence):
    ended = run("serve", *arguments)
    assert ended.returncode == status
    assert f"fastws: {sentence}" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_application_that_cannot_start_ends_all(folder):
    folder.joinpath("broken").touch()
    assert run("serve", "app:create", "--workers", "2", "--port", "0").returncode == 3


@pytest.mark.parametrize("holder", ["1", "2"])
def test_a_port_that_is_taken_is_an_error_and_not_shared(holder):
    """Whoever has it, also other workers of the same user."""
    with supervised(*HERE, workers=int(holder)) as site:
        ended = run("serve", "app:create", "--workers", "2", "--port", str(site.port))
        assert (ended.returncode, ended.stderr) == (
            1,
            f"fastws: cannot listen on 127.0.0.1:{site.port}: Address already in use\n",
        )


def test_a_port_in_code_is_warned_about(folder):
    text = folder.joinpath("app.py").read_text()
    folder.joinpath("app.py").write_text(text.replace("Server(", "Server(port=9000, "))
    with supervised(*HERE, workers=2) as site:
        assert not site.found("in code does nothing")
    with supervised("--uds", "socket", workers=2) as site:
        site.until("port=9000 in code does nothing with workers")
        assert re.match("fastws listening on unix:socket  ", site.line)
