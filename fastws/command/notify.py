"""What a service manager is told: sd_notify(3), with `Type=notify` and `WatchdogSec=` in the unit."""

import asyncio
import logging
import os
import socket
import time

__all__ = ["notify", "ready", "reloading", "stopping", "watchdog"]

logger = logging.getLogger("fastws.command")


def notify(*lines: str) -> None:
    """Send variables such as READY=1; does nothing where no service manager listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]  # an abstract one
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | getattr(socket, "SOCK_CLOEXEC", 0)) as sock:
            sock.setblocking(False)  # the loop waits for nobody
            sock.sendto("\n".join(lines).encode(), address)
    except OSError as error:
        logger.warning("NOTIFY_SOCKET=%r does not listen: %s", os.environ["NOTIFY_SOCKET"], error.strerror)


def ready(status: str) -> None:
    notify("READY=1", f"STATUS={status}")


def reloading() -> None:
    """Settings are read again; `ready` ends it."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stopping(seconds: float) -> None:
    """The server stops, which may take so long."""
    notify("STOPPING=1", f"EXTEND_TIMEOUT_USEC={round(seconds * 1_000_000)}")


def watchdog(loop: asyncio.AbstractEventLoop) -> None:
    """Say, twice as often as the service manager wants it, that the loop turns."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not (microseconds.isascii() and microseconds.isdigit()) or int(microseconds) == 0:
        return
    interval = int(microseconds) / 1_000_000 / 2

    def turn() -> None:
        notify("WATCHDOG=1")
        loop.call_later(interval, turn)

    turn()
