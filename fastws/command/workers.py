"""`fastws serve --workers`: a supervisor of several processes that serve one port, and the hub between them."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections import Counter
from collections.abc import Callable

import click
import uvloop

from ..backplane.hub_server import HubServer
from ..config import Options
from ..sockets import inherited, open_group
from ..supervised import ANSWERS, LEAVE, SERVE
from . import logs, notify
from .process import Process
from .rereading import LIVE, changes, failing_softly
from .running import LISTEN_ERRNOS, cannot_listen
from .settings import Settings

__all__ = ["serve_with_workers"]

logger = logging.getLogger("fastws.workers")

STEADY = 60.0  # seconds that a worker runs after which its end is taken for an accident
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0  # seconds before a worker that ended is replaced, the more often the longer
GRACE = 3.0  # seconds that clients wait in the queue of a worker that has ended, and whose successors end as well
LONG_GRACE = 10.0  # the same while one successor takes its time to start
START_LIMIT = 120.0  # seconds in which a worker that is to replace another must be ready
REPORT_SECONDS = 2.0  # for a worker to say what it has counted
# What only the supervisor goes by, which reads it once.
ITS_OWN = {"workers", "host", "port", "uds", "uds_permissions", "fd", "backplane"}


def serve_with_workers(settings: Settings, load: Callable[[], Settings]) -> None:
    """Serve until SIGINT or SIGTERM. ``load`` reads the settings again, at SIGHUP.

    Raises CannotListen, and SystemExit with the status of a worker that cannot start.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        status = runner.run(Supervisor(settings, load).run())
    if status:
        raise SystemExit(status)


class Supervisor:
    """All workers, and what they have in common: the hub, the settings, the signals."""

    def __init__(self, settings: Settings, load: Callable[[], Settings]) -> None:
        self.settings = settings
        self.hub = HubServer()
        self.processes: set[Process] = set()
        self.has_served = False
        """Whether any worker was ever ready. Until then one that cannot start ends them all."""
        self.stop = asyncio.Event()
        self.status = 0
        self.uses_hub = settings.options.get("backplane") is None
        self._load = load
        self._slots: list[Slot] = []
        self.descriptors: list[int] = []
        """Of all sockets; each worker has them, so that it can serve for another."""
        self._reloads = 0  # SIGHUPs that were not seen to yet
        self._reloading: asyncio.Task[None] | None = None
        self._gathering: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """Returns the exit status, once all workers have ended."""
        self._slots = await self._open()
        self.descriptors = sorted({fd for slot in self._slots for fd in slot.descriptors})
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_stop)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        notify.watchdog(loop)
        if self.settings.top.target is not None:
            logger.warning(
                "each of %d workers has its own copy of what is in modules' variables; all have server.shared(name)",
                len(self._slots),
            )
        tasks = [asyncio.create_task(slot.keep()) for slot in self._slots]
        tasks.append(asyncio.create_task(self._announce()))
        try:
            await self.stop.wait()
        finally:
            tasks += [] if self._reloading is None else [self._reloading]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._end()
        return self.status

    async def _open(self) -> "list[Slot]":
        top, options = self.settings.top, self.settings.options
        passed = options.get("fd") or inherited()
        if passed:
            return [Slot(self, number, passed, []) for number in range(1, top.workers + 1)]
        try:
            group = await open_group(Options(**options), top.workers)
        except OSError as error:
            if error.errno not in LISTEN_ERRNOS:
                raise
            found = Options(**options)
            raise cannot_listen(found.host, found.port, found.uds, error) from error
        is_shared = options.get("uds") is not None
        return [
            Slot(self, number, [sock.fileno() for sock in sockets], sockets, is_shared=is_shared)
            for number, sockets in enumerate(group, 1)
        ]

    async def _announce(self) -> None:
        said = await asyncio.gather(*(slot.served for slot in self._slots))
        click.echo(f"{said[0]}  with {len(self._slots)} workers")
        notify.ready(said[0].removeprefix("fastws ").partition("  ")[0])

    async def _end(self) -> None:
        """See all workers to their end."""
        for process in self.processes:
            process.terminate()
        while self.processes:
            await asyncio.wait([process.ended for process in self.processes])
        await self.hub.stop()
        for slot in self._slots:
            slot.close()

    # -- signals

    def _on_stop(self) -> None:
        """Have all workers stop; the second time, at once."""
        if self.stop.is_set():
            for process in self.processes:
                process.terminate()
        self.stop.set()

    def on_stopping(self, process: Process, seconds: float) -> None:
        """A worker has begun to stop: if all do, clients are not to wait in the queue of its socket."""
        if self.stop.is_set():
            notify.stopping(seconds)
            self._slots[process.number - 1].deafen()

    def cover(self) -> None:
        """Have the sockets of workers that are not there served by others; those with the fewest first."""
        if self.stop.is_set():
            return
        serving = self._serving()
        for slot in self._slots:
            guests = Counter(other.guest for other in self._slots)
            slot.be_covered_by(min(serving, key=lambda process: guests[process], default=None))

    def _serving(self) -> list[Process]:
        return [slot.process for slot in self._slots if slot.process is not None and slot.process.is_serving]

    def on_ask(self, process: Process) -> None:
        """A worker wants to know what all have counted."""
        task = asyncio.create_task(self._gather(process))
        self._gathering.add(task)
        task.add_done_callback(self._gathering.discard)

    async def _gather(self, asking: Process) -> None:
        serving = self._serving()
        reports = await asyncio.gather(*(process.report(REPORT_SECONDS) for process in serving))
        found = [f'"{process.number}":{report}' for process, report in zip(serving, reports, strict=True) if report]
        asking.say(ANSWERS, f"{{{','.join(found)}}}")

    def fail(self, status: int) -> None:
        """End, because a worker cannot start."""
        self.status = status
        self.stop.set()

    def _on_hangup(self) -> None:
        self._reloads += 1
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.create_task(self._reload())

    async def _reload(self) -> None:
        while self._reloads:
            self._reloads = 0
            notify.reloading()
            with failing_softly():
                await self._apply(self._load())
            notify.ready("the configuration was read again")

    async def _apply(self, settings: Settings) -> None:
        """Have the workers read the settings again, if that is enough; else replace them."""
        changed = set(changes(self.settings, settings))
        logs.set_levels(settings.log or logs.LogSettings())
        if fixed := sorted(changed & ITS_OWN):
            logger.warning("a restart is needed for %s", ", ".join(fixed))
        if settings.top.target is None and changed <= LIVE | ITS_OWN:
            for process in self.processes:
                process.reread()
        else:
            for slot in self._slots:
                if not await slot.replace():
                    logger.error("worker %d could not be replaced: it goes on, like those after it", slot.number)
                    return
            logger.info("all workers were replaced")
        self.settings = settings


class Slot:
    """The place of one worker: its sockets, and whoever serves them now."""

    def __init__(
        self,
        supervisor: Supervisor,
        number: int,
        descriptors: list[int],
        sockets: list[socket.socket],
        *,
        is_shared: bool = False,
    ) -> None:
        self.number = number
        self.served: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """What its first worker said when it was ready."""
        self._supervisor = supervisor
        self.descriptors = descriptors
        self._sockets = sockets
        self._is_shared = is_shared
        self.process: Process | None = None
        self.guest: Process | None = None
        """A worker of another place that serves this one's socket, while there is nobody here."""
        self._lock = asyncio.Lock()  # of whoever starts a process
        self._pause = 0.0
        self._failing_since: float | None = None
        self._is_deaf = False
        self._grace: asyncio.TimerHandle | None = None

    async def keep(self) -> None:
        """Have a worker here, always."""
        while True:
            async with self._lock:
                if self.process is None or self.process.leaving.done():
                    self.process = await self._start()
                process = self.process
            if process is None:
                await asyncio.sleep(LONGEST_PAUSE)
                continue
            status = await asyncio.shield(process.leaving)
            if process is self.process:
                await self._recover(process, status)

    async def replace(self) -> bool:
        """Start another worker, and stop this one once that is ready. Returns whether it is."""
        async with self._lock:
            new = await self._start()
            if new is None:
                return False
            if not await new.becomes_ready(START_LIMIT):
                new.signal(signal.SIGKILL)
                return False
            old, self.process = self.process, new
        if old is not None:
            old.retire()
            await asyncio.shield(old.ended)
        return True

    async def _start(self) -> Process | None:
        """Returns a new process; None where the system has no descriptors, memory or processes left."""
        supervisor = self._supervisor
        process = Process(self.number, self._on_ready, supervisor.on_stopping, supervisor.on_ask)
        try:
            await process.start(self.descriptors, supervisor.descriptors, supervisor.hub, uses_hub=supervisor.uses_hub)
        except OSError as error:
            logger.error("worker %d cannot be started: %s", self.number, error.strerror)
            return None
        supervisor.processes.add(process)
        process.leaving.add_done_callback(lambda _: supervisor.cover())
        process.ended.add_done_callback(lambda _: supervisor.processes.discard(process))
        return process

    def _on_ready(self, said: str) -> None:
        self._supervisor.has_served = True
        if not self.served.done():
            self.served.set_result(said)
        self._failing_since, self._is_deaf = None, False
        if self._grace is not None:
            self._grace.cancel()
        asyncio.get_running_loop().call_soon(self._supervisor.cover)  # once it is known to be ready

    def be_covered_by(self, other: Process | None) -> None:
        """Have another worker serve here, if that is needed, and no longer than it is."""
        is_needed = self.served.done() and self._sockets and not (self._is_shared or self._is_deaf)
        has_worker = self.process is not None and self.process.is_serving
        if self.guest is not None and (has_worker or not is_needed or not self.guest.is_serving):
            self.guest.say(LEAVE, " ".join(map(str, self.descriptors)))
            self.guest = None
        if is_needed and not has_worker and self.guest is None and other is not None:
            other.say(SERVE, " ".join(map(str, self.descriptors)))
            self.guest = other

    async def _recover(self, process: Process, status: int) -> None:
        """The worker has ended, or stops: let some time pass, the more the less it has run."""
        if not self._supervisor.has_served and status > 0:
            self._supervisor.fail(status)
            return
        if process.seconds >= STEADY:
            self._pause = 0.0
        self._pause = min(max(2 * self._pause, FIRST_PAUSE), LONGEST_PAUSE)
        logger.warning("worker %d %s; another starts in %g s", self.number, process.how_it_ended, self._pause)
        loop = asyncio.get_running_loop()
        if self._failing_since is None:
            self._failing_since = loop.time()
            self._grace = loop.call_later(LONG_GRACE, self._give_up)
        elif loop.time() - self._failing_since >= GRACE:
            self._give_up()
        await asyncio.sleep(self._pause)

    def _give_up(self) -> None:
        if not self._is_shared and self._sockets and not self._is_deaf:
            self._is_deaf = True
            self._supervisor.cover()
            self.deafen()
            logger.warning("worker %d does not come back: newcomers go to the others", self.number)

    def deafen(self) -> None:
        """Have no more connections come here, until a worker listens again."""
        for sock in self._sockets:
            with contextlib.suppress(OSError):  # nobody listened, or this system cannot do it
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the sockets, and remove the file of one that is not the service manager's."""
        for sock in self._sockets:
            sock.close()
