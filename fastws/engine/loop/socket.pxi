# Socket: the first kind of wire, a socket that epoll watches. It is written without the GIL, on any thread.

cdef enum:
    RANGES_PER_WRITE = 64               # in one system call
    READS_PER_TURN = 4                  # of one connection, before others have their turn
    BUFFER_BYTES = 128 * 1024           # received at once

cdef Wire SOCKET
SOCKET.write = socket_write
SOCKET.write_with_python = socket_write_with_python
SOCKET.pause = socket_pause
SOCKET.resume = socket_resume
SOCKET.describe = socket_describe
SOCKET.close = socket_close
SOCKET.give_away = socket_give_away


# -- the functions of the table


cdef void socket_write(Conn* c, Releases* releases) noexcept nogil:
    cdef ssize_t sent
    cdef Range* first
    while c.count and not c.blocked:
        first = outbox_first(c)
        if c.count == 1:
            sent = send(c.fd, block_data(first.block) + first.offset, first.length, MSG_DONTWAIT | MSG_NOSIGNAL)
        else:
            sent = send_ranges(c.fd, first, c.count)
        if sent >= 0:
            releases.sent += <uint64_t>sent
            outbox_consume(c, <size_t>sent, releases)
        elif errno == EAGAIN or errno == EWOULDBLOCK:
            c.blocked = True
        elif errno != EINTR:
            c.outcome = OUTCOME_LOST
            return
    if c.count == 0:
        c.outcome = c.when_empty


cdef int socket_write_with_python(Reactor reactor, Conn* c) except -1:
    return 0                            # all is written: somebody is to be told


cdef ssize_t send_ranges(int fd, const Range* ranges, uint32_t count) noexcept nogil:
    cdef iovec[RANGES_PER_WRITE] vectors
    cdef msghdr message
    cdef uint32_t i
    count = min(count, <uint32_t>RANGES_PER_WRITE)
    for i in range(count):
        vectors[i].iov_base = block_data(ranges[i].block) + ranges[i].offset
        vectors[i].iov_len = ranges[i].length
    memset(&message, 0, sizeof(message))
    message.msg_iov = vectors
    message.msg_iovlen = count
    return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL)


cdef int socket_pause(Reactor reactor, Conn* c) except -1:
    return 0                            # socket_event() notes further edges: c.readable


cdef int socket_resume(Reactor reactor, Conn* c) except -1:
    if c.readable and not c.fin_received:
        c.readable = False
        read_again(reactor, c)
    return 0


cdef int socket_describe(Conn* c, Request request) except -1:
    cdef sockaddr_storage address
    cdef socklen_t length = sizeof(address)
    if getpeername(c.fd, <sockaddr*>&address, &length) == 0:
        request.family = <uint8_t>address.ss_family
        if address.ss_family == AF_INET:
            memcpy(request.address, &(<sockaddr_in*>&address).sin_addr, 4)
            request.port = ntohs((<sockaddr_in*>&address).sin_port)
        elif address.ss_family == AF_INET6:
            memcpy(request.address, &(<sockaddr_in6*>&address).sin6_addr, 16)
            request.port = ntohs((<sockaddr_in6*>&address).sin6_port)
    return 0


cdef int socket_close(Conn* c) except -1:
    close(c.fd)
    c.fd = -1
    return 0


cdef socket_give_away(Reactor reactor, Conn* c):
    cdef epoll_event event
    epoll_ctl(reactor.epoll_fd, EPOLL_CTL_DEL, c.fd, &event)
    given = c.fd
    c.fd = -1
    return given


cdef inline void socket_end(Reactor reactor, Conn* c) noexcept:
    """All is written: half-close, and wait for the peer. Otherwise what was written might be lost to a reset."""
    if c.fin_received:
        doom(reactor, c, DOOM_LOST)
    elif not c.fin_sent:
        note_fin_sent(reactor, c)
        shutdown(c.fd, SHUT_WR)


# -- what epoll tells


cdef int socket_event(Reactor reactor, Conn* c, uint32_t events) except -1:
    """An edge on one socket. A connection closed earlier in this tick is recycled only after it."""
    if c.state == CLOSED:
        return 0
    if events & EPOLLOUT and c.blocked:
        unblock(reactor, c)
    if not events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR):
        return 0
    if c.fin_received:                  # each edge for what the peer still reads tells its end again
        return drop(reactor, c) if events & (EPOLLHUP | EPOLLERR) else 0
    if not c.paused:
        socket_read(reactor, c, events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR) != 0)
    elif events & (EPOLLHUP | EPOLLERR):
        return drop(reactor, c)
    else:
        c.readable = True
    if c.state == PENDING and events & EPOLLRDHUP:
        return drop(reactor, c)         # its handshake need not be decided any more
    return 0


cdef int socket_read(Reactor reactor, Conn* c, bint to_the_end) except -1:
    """Receive until the socket is empty, which a short read shows; if its end is announced, until that."""
    cdef ssize_t n
    cdef int turn
    for turn in range(READS_PER_TURN):
        n = recv(c.fd, reactor.buffer, BUFFER_BYTES, MSG_DONTWAIT)
        if n < 0 and errno == EINTR:
            continue
        if n < 0 and (errno == EAGAIN or errno == EWOULDBLOCK):
            return 0
        if n <= 0:                      # with nothing pending there is nothing to wait for
            return peer_shut_down(reactor, c) if n == 0 and c.count else drop(reactor, c)
        reactor.received_bytes += <uint64_t>n
        note_received(reactor, c)
        receive(reactor, c, reactor.buffer, <size_t>n)
        if c.state == CLOSED:
            return 0
        if c.paused:
            c.readable = True
            return 0
        if n < BUFFER_BYTES and not to_the_end:
            return 0
    read_again(reactor, c)
    return 0


cdef int read_waiting(Reactor reactor) except -1:
    """Read the connections that had more than their last turn allowed."""
    cdef size_t n = reactor.again_list.count
    cdef Conn* c
    while n:
        n -= 1
        c = reactor.again_list.items[reactor.again_list.start]
        list_drop_first(&reactor.again_list, 1)
        c.again = False
        if c.state != CLOSED and not c.paused and not c.fin_received:
            try:
                socket_read(reactor, c, True)
            except BaseException as error:
                survive(reactor, c, error)
    return 0
