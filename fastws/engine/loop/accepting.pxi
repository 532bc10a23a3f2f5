# Accepting: new sockets, as many as there are descriptors for.

cdef enum:
    ACCEPTS_PER_TURN = 256              # from one listener, before others have their turn

cdef double ACCEPT_PAUSE_SECONDS = 0.1     # when there are no descriptors


cdef bint watch_listener(Reactor reactor, Py_ssize_t index, int operation) noexcept:
    cdef epoll_event event
    event.events = EPOLLIN
    event.data.u64 = (<uint64_t>index << 1) | 1
    return epoll_ctl(reactor.epoll_fd, operation, reactor.listeners[index].fileno(), &event) == 0


cdef int pause_accept(Reactor reactor, int error) except -1:
    """There are no descriptors (or no memory): leave the backlog to the kernel for a moment. It is logged once."""
    cdef Py_ssize_t i
    if reactor.accept_paused:
        return 0
    reactor.accept_paused = True
    for i in range(len(reactor.listeners)):
        watch_listener(reactor, i, EPOLL_CTL_DEL)
    reactor._loop.call_later(ACCEPT_PAUSE_SECONDS, reactor._on_accept_due)
    if not reactor.accept_trouble:
        reactor.accept_trouble = True
        reactor.server.on_accept_paused(error)
    return 0


cdef bint accept_one(Reactor reactor, int listener) except -1:
    """Accept one connection. Returns whether there may be more."""
    cdef int one = 1
    cdef epoll_event event
    cdef Conn* c
    cdef int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
    if fd < 0:
        if errno == EMFILE or errno == ENFILE or errno == ENOBUFS or errno == ENOMEM:
            pause_accept(reactor, errno)
            return False
        return errno == ECONNABORTED or errno == EINTR
    reactor.accept_trouble = False
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))
    c = conn_take(reactor, fd, &SOCKET)
    event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET
    event.data.ptr = c
    if epoll_ctl(reactor.epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0:
        drop(reactor, c)
    elif not meet_peer(reactor, c):
        refuse_crowded(reactor, c)
    return True


cdef int accept_many(Reactor reactor, int listener) except -1:
    cdef int fd, turn
    if listener >= len(reactor.listeners):
        return 0
    fd = reactor.listeners[listener].fileno()
    for turn in range(ACCEPTS_PER_TURN):
        if not accept_one(reactor, fd):
            break
    return 0
