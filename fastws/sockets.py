"""The sockets a server listens on: TCP, a unix socket, or sockets inherited from its parent process."""

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections.abc import Sequence

from .config import Options
from .errors import ConfigurationError
from .supervised import BACKLOG, worker_number

__all__ = ["BACKLOG", "address_of", "inherited", "open_group", "open_sockets"]

FIRST_FD = 3  # SD_LISTEN_FDS_START, the first that a service manager passes


def inherited(name: str | None = None) -> list[int]:
    """Returns the descriptors of the sockets that a service manager opened for this process: see sd_listen_fds(3).

    With a ``name``, only those whose ``FileDescriptorName=`` it is. The list is empty if none were passed to this
    process. Raises ConfigurationError if the environment variables contradict each other.
    """
    said = {variable: os.environ.get(variable, "") for variable in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")}
    if not said["LISTEN_FDS"] or said["LISTEN_PID"] != str(os.getpid()):
        return []
    count = said["LISTEN_FDS"]
    if not (count.isascii() and count.isdigit()):
        raise ConfigurationError(f"LISTEN_FDS={count!r} must be a number: check the service manager")
    found = range(FIRST_FD, FIRST_FD + int(count))
    names = said["LISTEN_FDNAMES"].split(":") if said["LISTEN_FDNAMES"] else ["unknown"] * len(found)
    if len(names) != len(found):
        raise ConfigurationError(
            f"LISTEN_FDNAMES={said['LISTEN_FDNAMES']!r} must have {count} names, as LISTEN_FDS says"
        )
    return [fd for fd, its_name in zip(found, names, strict=True) if name in (None, its_name)]


async def open_sockets(options: Options) -> list[socket.socket]:
    """Returns listening, non-blocking sockets for the options; raises OSError if an address is taken."""
    if options.fd:
        return _adopt(options.fd)
    if options.uds is not None:
        return [UnixSocket.open_at(options.uds, options.uds_permissions)]
    # Further ports of workers, such as that of [api] listen, have a socket in each of them.
    return await _bind(options.host, options.port, is_group=worker_number() is not None)


async def open_group(options: Options, size: int) -> list[list[socket.socket]]:
    """Returns sockets for each of several workers, which do not listen yet: on one port, among which the kernel spreads
    connections, or all the same unix socket. Raises OSError if an address is taken.
    """
    if options.uds is not None:
        return [[UnixSocket.open_at(options.uds, options.uds_permissions)]] * size
    host, port = options.host, options.port
    # A probe, since a group lets further ones of this user's in, unseen; and a port that was not asked for by number
    # would be lost by a socket that no longer listens.
    probes = await _bind(host, port, is_group=port == 0, listens=False)
    port = probes[0].getsockname()[1]
    if options.port:
        _close(probes)
    group = [await _bind(host, port, is_group=True, listens=False) for _ in range(size)]
    _close(probes)
    return group


def _close(sockets: Sequence[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def address_of(sock: socket.socket) -> tuple[str, int]:
    """Returns where a socket listens: host and port, or the path of a unix socket and 0."""
    address = sock.getsockname()
    return (os.fsdecode(address), 0) if sock.family == socket.AF_UNIX else address[:2]


def _adopt(descriptors: Sequence[int]) -> list[socket.socket]:
    """Returns sockets for duplicates of descriptors, which stay the caller's."""
    sockets: list[socket.socket] = []
    with contextlib.ExitStack() as opened:
        for fd in descriptors:
            try:
                sock = opened.enter_context(socket.socket(fileno=os.dup(fd)))
                is_listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            except OSError as error:
                raise ConfigurationError(f"fd={fd} is not a socket: {error.strerror}") from None
            if sock.type != socket.SOCK_STREAM or not is_listening:
                raise ConfigurationError(f"fd={fd} is not a listening stream socket: pass one (in systemd, Accept=no)")
            sock.setblocking(False)
            sockets.append(sock)
        opened.pop_all()
    return sockets


class UnixSocket(socket.socket):
    """A listening unix socket that removes its file when closed, unless another socket has replaced it."""

    _file: tuple[str, os.stat_result] | None = None

    @classmethod
    def open_at(cls, path: str, permissions: int) -> "UnixSocket":
        """Listen at ``path``, replacing a file that nobody listens on; raises OSError if somebody does."""
        _clear(path)
        sock = cls(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            try:
                sock.bind(path)
            except OSError as error:
                if error.errno in (errno.EADDRINUSE, errno.EACCES):
                    raise
                raise ConfigurationError(f"uds={path!r} cannot be created: {error.strerror}") from None
            sock._file = path, os.stat(path)
            os.chmod(path, permissions)  # before listen(): until then nobody can connect
            sock.listen(BACKLOG)
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
        return sock

    def close(self) -> None:
        """Close the socket and remove its file."""
        file, self._file = self._file, None
        if file is not None:
            path, ours = file
            with contextlib.suppress(OSError):
                if os.path.samestat(os.lstat(path), ours):
                    os.unlink(path)
        super().close()


def _clear(path: str) -> None:
    """Remove the file of a unix socket that nobody listens on."""
    try:
        is_socket = stat.S_ISSOCK(os.lstat(path).st_mode)
    except OSError:
        return  # if anything is wrong, bind() says so
    if not is_socket:
        raise ConfigurationError(f"uds={path!r} exists and is not a socket: choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # with a full backlog, somebody listens
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        except OSError:
            pass  # taken, or not accessible: bind() fails


async def _bind(host: str, port: int, *, is_group: bool = False, listens: bool = True) -> list[socket.socket]:
    """Returns sockets on every address of ``host``, all on one port; those of a group do not exclude each other."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise ConfigurationError(f"host={host!r} is not an address of this machine: {error.strerror}") from None
    sockets: list[socket.socket] = []
    with contextlib.ExitStack() as opened:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            sock = opened.enter_context(socket.socket(family, kind, protocol))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if is_group:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                sock.bind((address[0], port, *address[2:]))
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL and len(found) > 1:
                    continue
                raise
            port = sock.getsockname()[1]
            if listens:
                sock.listen(BACKLOG)
            sock.setblocking(False)
            sockets.append(sock)
        if not sockets:
            raise OSError(errno.EADDRNOTAVAIL, f"cannot listen on any address of {host!r}")
        opened.pop_all()
    return sockets
