"""Not a server: handshakes, then a bare C loop of `send` over all sockets for each message."""

import array
import select
import socket

from bench.peers.common import BACKLOG, arguments, ready
from bench.peers.send_loop import SendLoop

ANSWER = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"  # the load sends RFC 6455's sample key
)


def main(port):
    listener = socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    sockets, shaken, members, loop = {}, set(), array.array("i"), SendLoop()
    ready(port)
    while True:
        for fd, _ in poll.poll():
            if fd == listener.fileno():
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sockets[connection.fileno()] = connection
                poll.register(connection, select.EPOLLIN)
            elif fd not in shaken:
                sockets[fd].recv(4096)
                sockets[fd].send(ANSWER)
                shaken.add(fd)
                members.append(fd)
            elif not loop.relay(fd, members):
                poll.unregister(fd)


if __name__ == "__main__":
    main(arguments().port)
