"""What a server listens on: TCP, a unix socket, or sockets that whoever started it had opened before."""

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections.abc import Sequence

from .config import Options
from .errors import ConfigurationError

__all__ = ["BACKLOG", "address_of", "inherited", "open_sockets"]

BACKLOG = 4096  # connections that the kernel may hold for us
FIRST_FD = 3  # of those that a service manager passes: SD_LISTEN_FDS_START


def inherited(name: str | None = None) -> list[int]:
    """The descriptors of the sockets that a service manager opened for this process: sd_listen_fds(3).

    With a ``name`` only those that ``FileDescriptorName=`` calls so. Empty where none were passed, or to another
    process. Raises ConfigurationError for variables that contradict themselves.
    """
    said = {variable: os.environ.get(variable, "") for variable in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")}
    if not said["LISTEN_FDS"] or said["LISTEN_PID"] != str(os.getpid()):
        return []
    count = said["LISTEN_FDS"]
    if not (count.isascii() and count.isdigit()):
        raise ConfigurationError(f"LISTEN_FDS={count!r}: the service manager must give a number")
    found = range(FIRST_FD, FIRST_FD + int(count))
    names = said["LISTEN_FDNAMES"].split(":") if said["LISTEN_FDNAMES"] else ["unknown"] * len(found)
    if len(names) != len(found):
        raise ConfigurationError(f"LISTEN_FDNAMES={said['LISTEN_FDNAMES']!r}: give {count} names, as LISTEN_FDS says")
    return [fd for fd, its_name in zip(found, names, strict=True) if name in (None, its_name)]


async def open_sockets(options: Options) -> list[socket.socket]:
    """Listening, non-blocking sockets as the options say; raises OSError for an address that is taken."""
    if options.fd:
        return _adopt(options.fd)
    if options.uds is not None:
        return [UnixSocket.open_at(options.uds, options.uds_permissions)]
    return await _bind(options.host, options.port)


def address_of(sock: socket.socket) -> tuple[str, int]:
    """Where a socket listens: host and port, or a unix socket's path and 0."""
    address = sock.getsockname()
    return (os.fsdecode(address), 0) if sock.family == socket.AF_UNIX else address[:2]


def _adopt(descriptors: Sequence[int]) -> list[socket.socket]:
    """Sockets of our own for descriptors that stay the caller's."""
    sockets: list[socket.socket] = []
    with contextlib.ExitStack() as opened:
        for fd in descriptors:
            try:
                sock = opened.enter_context(socket.socket(fileno=os.dup(fd)))
                is_listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            except OSError as error:
                raise ConfigurationError(f"fd={fd} is no socket: {error.strerror}") from None
            if sock.type != socket.SOCK_STREAM or not is_listening:
                raise ConfigurationError(f"fd={fd} is no listening stream socket: pass one (Accept=no)")
            sock.setblocking(False)
            sockets.append(sock)
        opened.pop_all()
    return sockets


class UnixSocket(socket.socket):
    """A listening unix socket that takes its file with it, as long as that is its own."""

    _file: tuple[str, os.stat_result] | None = None

    @classmethod
    def open_at(cls, path: str, permissions: int) -> "UnixSocket":
        """Listen at ``path``, in place of a file on which nobody does; raises OSError where somebody does."""
        _clear(path)
        sock = cls(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            try:
                sock.bind(path)
            except OSError as error:
                if error.errno in (errno.EADDRINUSE, errno.EACCES):
                    raise
                raise ConfigurationError(f"uds={path!r} cannot be made: {error.strerror}") from None
            sock._file = path, os.stat(path)
            os.chmod(path, permissions)  # before listen(): until then nobody gets in
            sock.listen(BACKLOG)
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
        return sock

    def close(self) -> None:
        """Close it, and remove its file."""
        file, self._file = self._file, None
        if file is not None:
            path, ours = file
            with contextlib.suppress(OSError):
                if os.path.samestat(os.lstat(path), ours):
                    os.unlink(path)
        super().close()


def _clear(path: str) -> None:
    """Remove a unix socket's file on which nobody listens."""
    try:
        is_socket = stat.S_ISSOCK(os.lstat(path).st_mode)
    except OSError:
        return  # bind() says what is wrong, if anything is
    if not is_socket:
        raise ConfigurationError(f"uds={path!r} is there and no socket: choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full backlog is somebody's, too
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        except OSError:
            pass  # taken, or not ours to tell: bind() fails


async def _bind(host: str, port: int) -> list[socket.socket]:
    """Sockets on every address of ``host``, all on one port."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise ConfigurationError(f"host={host!r} is no address of this machine: {error.strerror}") from None
    sockets: list[socket.socket] = []
    with contextlib.ExitStack() as opened:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            sock = opened.enter_context(socket.socket(family, kind, protocol))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                sock.bind((address[0], port, *address[2:]))
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL and len(found) > 1:
                    continue
                raise
            port = sock.getsockname()[1]
            sock.listen(BACKLOG)
            sock.setblocking(False)
            sockets.append(sock)
        if not sockets:
            raise OSError(errno.EADDRNOTAVAIL, f"no address of {host!r} can be listened on")
        opened.pop_all()
    return sockets
