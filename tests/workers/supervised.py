"""`fastws serve --workers` in processes of its own, and clients that come back."""

import asyncio
import contextlib
import os
import re
import signal
import threading
import time
from pathlib import Path

from fastws.testing import connect

from ..lib.command import TIMEOUT, serving

APP = """
import os, time
from fastws import History, Listener, Server

if os.path.exists("broken"):
    os._exit(3)
while os.path.exists("hold"):
    time.sleep(0.01)

class Who(Listener):
    def on_open(self, ws):
        ws.send(f"{os.environ['FASTWS_WORKER']} {os.getpid()}")

    def on_message(self, ws, message):
        if message == "hang":
            time.sleep(60)
        return message

class Room(Listener):
    def on_open(self, ws):
        ws.send(os.environ["FASTWS_WORKER"])

    def on_message(self, ws, message):
        (channel,) = ws.channels
        ws.manager.broadcast(channel, message)

class People(Listener):
    def on_handshake(self, request):
        request.user = request.query["user"]

    def on_open(self, ws):
        ws.send(os.environ["FASTWS_WORKER"])

    def on_message(self, ws, message):
        what, _, user = message.partition(" ")
        if what == "echo":
            return message
        if what == "close":
            ws.manager.close_user(user)
        else:
            ws.manager.send_to_user(user, "hi")

    def on_user_online(self, user):
        note("online", user)

    def on_user_offline(self, user):
        note("offline", user)

def note(what, user):
    with open("events", "a") as file:
        file.write(f"{what} {user} {time.time()}\\n")

class Seats(Listener):
    def on_handshake(self, request):
        request.user = request.query["user"]

    def on_open(self, ws):
        ws.send(os.environ["FASTWS_WORKER"])

    def on_message(self, ws, message):
        return message

def create():
    server = Server(close_timeout=2)
    server.endpoint("/seats/{channel}", Seats()).watch_presence("cars")
    server.endpoint("/people", People())
    server.endpoint("/who", Who())
    server.endpoint("/room/{channel}", Room(), logs={"log-*": History()})
    return server
"""
HERE = ("--port", "0")


class Site:
    """A supervisor, its workers, and what it has logged."""

    def __init__(self, process, line):
        self.process, self.line = process, line
        self.is_secure = "https://" in line
        found = re.search(r"https?://127\.0\.0\.1:(\d+)", line)
        self.port = int(found[1]) if found else 0
        self.lines = []
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self.process.stderr:
            with self._more:
                self.lines.append(line)
                self._more.notify_all()

    def until(self, pattern, times=1):
        """Wait for so many lines of the log that have a match; returns the last one's."""
        with self._more:
            assert self._more.wait_for(lambda: len(self.found(pattern)) >= times, TIMEOUT), self.lines
            return self.found(pattern)[times - 1]

    def found(self, pattern):
        return [found for line in self.lines if (found := re.search(pattern, line))]

    @property
    def url(self):
        return f"wss://localhost:{self.port}/who" if self.is_secure else f"ws://127.0.0.1:{self.port}/who"

    def people(self, user):
        return f"ws://127.0.0.1:{self.port}/people?user={user}"

    def room(self, channel):
        return f"ws://127.0.0.1:{self.port}/room/{channel}"

    @property
    def workers(self):
        """The ids of the workers' processes, by their numbers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return dict(sorted((number_of(int(pid)), int(pid)) for pid in children if is_alive(int(pid))))

    def until_workers(self, are_right):
        """Wait for the workers that are meant."""
        return within(lambda: are_right(self.workers) and self.workers)

    def ended(self):
        """Wait for the end of the supervisor and of whoever holds its streams; returns its status."""
        status = self.process.wait(TIMEOUT)
        self._reader.join(TIMEOUT)
        assert not self._reader.is_alive()
        return status


@contextlib.contextmanager
def supervised(*arguments, workers=4, target="app:create", **options):
    """A supervisor that has said that it is ready; what is left of it after the test is killed."""
    words = [*([target] if target else []), "--workers", str(workers), *arguments]
    with serving(*words, **options) as (process, line):
        site = Site(process, line)
        workers = site.workers if process.poll() is None else {}
        try:
            yield site
        finally:
            left = {*workers.values(), *(site.workers.values() if process.poll() is None else ())}
            process.kill()
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            site.ended()


def number_of(pid):
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return 0
    found = re.search(rb"FASTWS_WORKER=(\d+)", variables)
    return int(found[1]) if found else 0


def is_alive(pid):
    """Whether a process is there, and not just waited for by nobody."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def within(true):
    """Poll until something is true; returns it."""
    end = time.monotonic() + TIMEOUT
    while not (found := true()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


async def who(url, **options):
    """Connect; returns the number and process id of the worker that is there."""
    async with connect(url, timeout=TIMEOUT, **options) as client:
        number, pid = (await client.receive()).split()
        return int(number), int(pid)


class Visitors:
    """Clients that come back whenever their connection ends."""

    def __init__(self, url, count):
        self.url, self.count = url, count
        self.refused = []
        self.there = {}  # visitor -> process id of the worker

    async def _visit(self, name):
        while True:
            try:
                async with connect(self.url, timeout=TIMEOUT) as client:
                    self.there[name] = int((await client.receive()).split()[-1])
                    with contextlib.suppress(TimeoutError):
                        while True:
                            await client.receive()
            except ConnectionRefusedError as error:
                self.refused.append(error)
            except Exception:
                await asyncio.sleep(0)  # the worker has ended meanwhile: come back
            finally:
                self.there.pop(name, None)

    async def __aenter__(self):
        self._tasks = [asyncio.ensure_future(self._visit(name)) for name in range(self.count)]
        return self

    async def __aexit__(self, *exc_info):
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def all_with(self, is_right):
        """Wait until every visitor is with a worker that is meant."""
        async with asyncio.timeout(TIMEOUT):
            while len(self.there) < self.count or not all(map(is_right, self.there.values())):
                await asyncio.sleep(0.01)
