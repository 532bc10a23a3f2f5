# Reactor: the epoll instance of one server, its connections, and what ties the rooms together.

from cpython.exc cimport PyErr_SetFromErrno
from logging import getLogger

cdef object logger = getLogger("fastws.connection")

cdef enum:
    SLAB = 256                          # connections allocated together
    BUFFER = 128 * 1024                 # bytes received at once
    EVENTS = 512                        # taken from epoll at once
    BATCHES = 4                         # of events, between two flushes
    READS = 4                           # of one connection, before others have their turn
    ACCEPTS = 256                       # of one listener, likewise
    LAST_ACCEPTS = 4096                 # of one listener that is to be closed

cdef double ACCEPT_PAUSE = 0.1          # seconds, when there are no descriptors


cdef inline int check_thread(Reactor reactor, str twin) except -1:
    """Everything runs on the loop's thread: while flush threads write, nothing else may touch the engine."""
    if reactor is not None and PyThread_get_thread_ident() != reactor.thread:
        raise RuntimeError(f"fastws is not thread-safe: call this on the loop's thread, or use {twin} from another")
    return 0


cdef uint64_t address_key(int family, const uint8_t* address) noexcept:
    """One number for whoever is behind an address: IPv4 by itself, also where it is mapped into IPv6, and IPv6 by its
    /64, which is what one subscriber gets (RFC 6177)."""
    cdef uint64_t key = 0
    cdef int i
    if family == AF_INET6 and memcmp(address, b"\0\0\0\0\0\0\0\0\0\0\xff\xff", 12) == 0:
        return address_key(AF_INET, address + 12)
    for i in range(4 if family == AF_INET else 8):
        key = key << 8 | address[i]
    return key | <uint64_t>1 << 32 if family == AF_INET else key or 1       # 0::/8 is nobody's (RFC 4291 2.4)


cdef void conn_clear(Conn* c, uint32_t slot) noexcept nogil:
    memset(c, 0, sizeof(Conn))
    c.fd = -1
    c.slot = slot
    c.state = CLOSED
    c.ranges = c.own_ranges
    c.capacity = OWN_RANGES
    c.memberships = c.own_memberships
    c.membership_capacity = 2


@cython.final
cdef class Reactor:
    """Accepts, reads, and writes every connection of one server, on the loop that it was made on.

    It calls ``server.on_request(ws)`` with each request, ``server.on_bad_request(ws, status, message)`` where there is
    none to speak of, ``server.on_overdue(ws)`` where a request got no answer within `handshake_timeout`,
    ``server.on_abandoned(ws)`` where its peer left before, ``server.on_accept_paused(errno)`` when descriptors run out,
    and ``server.on_idle()`` when it listens no more and `is_idle`. The `life` of an endpoint is told of the rest:
    ``closed``, ``protocol_failed``, ``handler_failed``, ``await_message``.
    """

    def __cinit__(self, loop, server, options, str id_prefix not None):
        self.epoll_fd = -1
        self._loop = loop
        self.server = server
        self.thread = PyThread_get_thread_ident()
        self.id_prefix = id_prefix
        self.flush_threads = options.flush_threads
        self.max_arena = options.max_arena
        self.max_inbound = options.max_inbound
        self.max_header_size = options.max_header_size
        self.max_connections_per_ip = options.max_connections_per_ip or 0
        self.per_address = {}
        self.handshake_ticks = ticks(options.handshake_timeout)
        self.close_ticks = ticks(options.close_timeout)
        self.listeners = []
        self.timer_due = NO_TIMER
        self.buffer = <uint8_t*>malloc(BUFFER)
        self.wheel = <Conn**>calloc(WHEEL_SLOTS, sizeof(Conn*))
        self.occupied = <uint64_t*>calloc(WHEEL_SLOTS // 64, sizeof(uint64_t))
        if self.buffer is NULL or self.wheel is NULL or self.occupied is NULL:
            raise MemoryError
        read_clock(self)
        self.epoch = wall_clock() - read_ticks() * TICK

    def __dealloc__(self):
        cdef uint32_t i
        arena_free(&self.arena)
        for i in range(self.slab_count):
            free(self.slabs[i])
        free(self.slabs)
        free(self.unused.items)
        free(self.fresh.items)
        free(self.rest.items)
        free(self.again_list.items)
        free(self.doomed.items)
        free(self.on_transport.items)
        free(self.graveyard.items)
        free(self.buffer)
        free(self.wheel)
        free(self.occupied)
        if self.epoll_fd >= 0:
            close(self.epoll_fd)

    # -- for the server

    @property
    def loop(self):
        """The loop that it was made on."""
        return self._loop

    @property
    def is_idle(self):
        """Whether nobody is connected whom anything is owed."""
        return self.connections == self.lingering

    @property
    def counters(self):
        """What returns to zero when nobody is connected, but for the one block being filled: for tests and metrics."""
        return {"connections": self.connections, "blocks": self.arena.blocks, "arena_bytes": self.arena.bytes,
                "ranges": arena_ranges(&self.arena), "fresh": self.fresh.count, "rest": self.rest.count,
                "again": self.again_list.count, "inbound_bytes": self.inbound_bytes,
                "graveyard": self.graveyard.count, "addresses": len(self.per_address)}

    def listen(self, sock):
        """Accept on a listening, non-blocking socket, which stays the caller's."""
        if self.epoll_fd < 0:
            self.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
            if self.epoll_fd < 0:
                PyErr_SetFromErrno(OSError)
            self._loop.add_reader(self.epoll_fd, self._on_readable)
        self.listeners.append(sock)
        if not self.watch_listener(len(self.listeners) - 1, EPOLL_CTL_ADD):
            PyErr_SetFromErrno(OSError)

    def stop_listening(self, bint for_good):
        """Accept no more, where it is `for_good` none but those whom the kernel let in already. The sockets may be closed
        afterwards."""
        cdef Py_ssize_t i
        cdef int turn
        for i in range(0 if self.accept_paused else len(self.listeners)):
            self.watch_listener(i, EPOLL_CTL_DEL)
        listeners = list(self.listeners)
        self.listeners.clear()
        if not for_good:
            return
        read_clock(self)
        for listener in listeners:
            for turn in range(LAST_ACCEPTS):
                if not self.accept_one(listener.fileno()):
                    break
        wake(self)

    def is_shaking_hands(self, seconds):
        """Whether somebody who came less than `seconds` ago still sends a request, or waits for its answer."""
        cdef uint32_t i
        cdef uint32_t recent = ticks(seconds)
        cdef Conn* c
        read_clock(self)
        for i in range(self.slab_count * SLAB):
            c = self.at(i)
            if c.state in (HEAD, PENDING) and not is_past(c.deadline - self.handshake_ticks + recent, self.now):
                return True
        return False

    def hang_up(self):
        """Drop those that have not asked for anything."""
        cdef uint32_t i
        for i in range(self.slab_count * SLAB):
            if self.at(i).state == HEAD:
                lost(self, self.at(i))

    def websockets(self):
        """Every connection that was accepted as a WebSocket and is not over yet."""
        cdef uint32_t i
        found = []
        for i in range(self.slab_count * SLAB):
            if OPENING <= self.at(i).state <= CLOSING:
                found.append(<WebSocket>self.at(i).ws)
        return found

    def shut(self):
        """The end: drop whatever is still connected, and watch nothing any more."""
        cdef uint32_t i
        self.stop_listening(False)
        for i in range(self.slab_count * SLAB):
            if self.at(i).state != CLOSED:
                lost(self, self.at(i))
        while self.fresh.count:                                 # no tick will come that takes them off
            list_pop(&self.fresh).fresh = False
        while self.rest.count:
            list_pop(&self.rest).rest = False
        while self.again_list.count:
            list_pop(&self.again_list).again = False
        self.closed = True
        flush(self)
        set_timer(self)
        if self.epoll_fd >= 0:
            self._loop.remove_reader(self.epoll_fd)
            close(self.epoll_fd)
            self.epoll_fd = -1

    def release_address(self, uint64_t claim):
        """Count one connection less from an address: its claim came from `WebSocket._detach`; 0 is none."""
        if claim == 0:
            return
        count = self.per_address.pop(claim)
        if count > 1:
            self.per_address[claim] = count - 1

    # -- connections

    cdef inline Conn* at(self, uint32_t slot) noexcept:
        return self.slabs[slot // SLAB] + slot % SLAB

    cdef Conn* connect(self, int fd) except NULL:
        """A connection for a new socket, its head awaited."""
        cdef Conn* c
        if self.unused.count == 0:
            self.grow()
        c = list_pop(&self.unused)
        c.fd = fd
        c.state = HEAD
        self.connections += 1
        c.deadline = self.now + self.handshake_ticks
        arm(self, c, c.deadline)
        return c

    cdef int grow(self) except -1:
        """One more slab, and room on every list for its connections."""
        cdef uint32_t i
        cdef size_t total = (self.slab_count + 1) * SLAB
        cdef Conn* slab
        cdef void* moved
        list_reserve(&self.unused, total)
        list_reserve(&self.fresh, total)
        list_reserve(&self.rest, total)
        list_reserve(&self.again_list, total)
        list_reserve(&self.doomed, total)
        list_reserve(&self.on_transport, total)
        list_reserve(&self.graveyard, total)
        moved = realloc(self.slabs, (self.slab_count + 1) * sizeof(Conn*))
        if moved is NULL:
            raise MemoryError
        self.slabs = <Conn**>moved
        slab = <Conn*>malloc(SLAB * sizeof(Conn))
        if slab is NULL:
            raise MemoryError
        self.slabs[self.slab_count] = slab
        for i in range(SLAB):
            conn_clear(slab + i, self.slab_count * SLAB + i)
        for i in range(SLAB):
            list_push(&self.unused, slab + (SLAB - 1 - i))      # the first one is taken first
        self.slab_count += 1
        return 0

    cdef WebSocket websocket(self, Conn* c):
        """The connection's WebSocket, made with its first request; the Conn holds a reference until it is recycled."""
        cdef WebSocket ws
        if c.ws is not NULL:
            return <WebSocket>c.ws
        ws = WebSocket.__new__(WebSocket, self)
        ws.conn = c
        ws.slot = c.slot
        ws.serial = self.next_serial
        self.next_serial += 1
        c.ws = <void*>ws
        Py_INCREF(ws)
        return ws

    cdef WebSocket find(self, str name):
        """The WebSocket with this id, or None."""
        cdef Conn* c
        cdef WebSocket ws
        if not name.startswith(self.id_prefix):
            return None
        slot, dash, serial = name[len(self.id_prefix):].partition("-")
        try:
            number = int(slot, 16)
        except ValueError:
            return None
        if not 0 <= number < self.slab_count * SLAB:
            return None
        c = self.at(number)
        if c.ws is NULL:
            return None
        ws = <WebSocket>c.ws
        return ws if f"{ws.slot:x}-{ws.serial:x}" == name[len(self.id_prefix):] else None

    cdef int set_peer(self, Conn* c, Request request) except -1:
        """Note where the peer is, while there is a socket to ask."""
        cdef sockaddr_storage address
        cdef socklen_t length = sizeof(address)
        if c.wire is not NULL:
            peer = (<TransportWire>c.wire).transport.get_extra_info("peername")
            request._peer = tuple(peer[:2]) if isinstance(peer, tuple) else ("", 0)
        elif getpeername(c.fd, <sockaddr*>&address, &length) == 0:
            request.family = <uint8_t>address.ss_family
            if address.ss_family == AF_INET:
                memcpy(request.address, &(<sockaddr_in*>&address).sin_addr, 4)
                request.port = ntohs((<sockaddr_in*>&address).sin_port)
            elif address.ss_family == AF_INET6:
                memcpy(request.address, &(<sockaddr_in6*>&address).sin6_addr, 16)
                request.port = ntohs((<sockaddr_in6*>&address).sin6_port)
        return 0

    cdef int count_address(self, Conn* c) except -1:
        """Count a new connection under its address, or refuse it there; a unix socket's has none."""
        cdef Request peer
        if self.max_connections_per_ip == 0:
            return 0
        peer = Request(b"")
        self.set_peer(c, peer)
        if peer._peer is not None and peer._peer[0]:
            peer.family = AF_INET6 if ":" in peer._peer[0] else AF_INET
            inet_pton(peer.family, peer._peer[0].partition("%")[0].encode(), peer.address)
        if peer.family != AF_INET and peer.family != AF_INET6:
            return 0
        address = address_key(peer.family, peer.address)
        count = self.per_address.get(address, 0)
        if count < self.max_connections_per_ip:
            self.per_address[address] = count + 1
            c.address = address
            return 0
        bad_request(self, c, 503, "too many connections from this address")
        if c.state == DRAINING:         # it has no claim to a descriptor for as long as others
            c.deadline = self.now + min(self.close_ticks, <uint32_t>TICKS_PER_SECOND)
            arm(self, c, c.deadline)
        return 0

    cdef int forget_address(self, Conn* c) except -1:
        """It counts no longer."""
        if c.address:
            self.release_address(c.address)
            c.address = 0
        return 0

    # -- events

    def _on_readable(self):
        """epoll has something for us."""
        self.tick()

    def _on_wake(self):
        """One turn for what other code queued, what a flush left, and what has more to read."""
        self.tick_scheduled = False
        if self.interruption is not None:
            interruption, self.interruption = self.interruption, None
            raise interruption
        self.tick()

    def _on_timer(self):
        """A deadline has come."""
        self.timer_handle = None
        self.busy = True
        try:
            turn_wheel(self)
        finally:
            self.busy = False
        flush(self)

    cdef int tick(self) except -1:
        """Take what came, let handlers run, and write all that they queued."""
        if self.closed:
            return 0
        read_clock(self)
        self.busy = True
        try:
            self.poll()
            self.read_waiting()
        finally:
            self.busy = False
        return flush(self)

    cdef int poll(self) except -1:
        cdef epoll_event[EVENTS] events
        cdef int batch, i, count
        if self.epoll_fd < 0:
            return 0
        for batch in range(BATCHES):
            count = epoll_wait(self.epoll_fd, events, EVENTS, 0)
            for i in range(count):
                try:
                    if events[i].data.u64 & 1:
                        self.accept(<int>(events[i].data.u64 >> 1))
                    else:
                        self.handle(<Conn*>events[i].data.ptr, events[i].events)
                except BaseException as error:
                    self.survive(NULL if events[i].data.u64 & 1 else <Conn*>events[i].data.ptr, error)
            if count < EVENTS:
                break
        return 0

    cdef int read_waiting(self) except -1:
        """Those that had more to read than their turn allowed."""
        cdef size_t n = self.again_list.count
        cdef Conn* c
        while n:
            n -= 1
            c = self.again_list.items[self.again_list.start]
            list_drop_first(&self.again_list, 1)
            c.again = False
            if c.state != CLOSED and not c.paused and not c.fin_received:
                try:
                    self.read(c, True)
                except BaseException as error:
                    self.survive(c, error)
        return 0

    cdef void read_again(self, Conn* c) noexcept:
        if not c.again:
            c.again = True
            list_push(&self.again_list, c)

    cdef int survive(self, Conn* c, error) except -1:
        """What came through every guard costs one connection, and not the rest of a batch, whose edges would not come
        again: a fault of ours, no memory, or a handler that ends the program, which is to happen once the tick is done."""
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            if self.interruption is None:
                self.interruption = error
        else:
            logger.error("dropping a connection because of a bug in fastws", exc_info=error)
        if c is not NULL:
            try:
                lost(self, c)
            except BaseException as another:            # it is CLOSED by now
                return self.survive(NULL, another)
        return wake(self)

    cdef int handle(self, Conn* c, uint32_t events) except -1:
        """An edge on one socket. A connection closed earlier in this tick is recycled only after it."""
        if c.state == CLOSED:
            return 0
        if events & EPOLLOUT and c.blocked:
            self.unblocked(c)
        if not events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR):
            return 0
        if c.fin_received:                  # the peer's end is told again with each edge for what it still reads
            return lost(self, c) if events & (EPOLLHUP | EPOLLERR) else 0
        if not c.paused:
            self.read(c, events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR) != 0)
        elif events & (EPOLLHUP | EPOLLERR):
            return lost(self, c)
        else:
            c.readable = True
        # Nobody is left to decide for.
        return lost(self, c) if c.state == PENDING and events & EPOLLRDHUP else 0

    cdef int unblocked(self, Conn* c) except -1:
        """The wire takes bytes again."""
        cdef Inbound* inbound = c.inbound
        c.blocked = False
        if inbound is not NULL and inbound.ping_due:
            inbound.ping_due = False
            if is_sendable(c):
                queue_control(self, c, PONG, inbound.ping, inbound.ping_length)
            inbound_rest(self, c)
        return flush_soon(self, c)

    cdef int read(self, Conn* c, bint to_the_end) except -1:
        """Receive until the socket is empty, by a short read or, where an end is announced, by that."""
        cdef ssize_t n
        cdef int turn
        for turn in range(READS):
            n = recv(c.fd, self.buffer, BUFFER, MSG_DONTWAIT)
            if n < 0 and errno == EINTR:
                continue
            if n < 0 and (errno == EAGAIN or errno == EWOULDBLOCK):
                return 0
            if n <= 0:
                return ended(self, c) if n == 0 else lost(self, c)
            self.came(c)
            received(self, c, self.buffer, <size_t>n)
            if c.state == CLOSED:
                return 0
            if c.paused:
                c.readable = True
                return 0
            if n < BUFFER and not to_the_end:
                return 0
        self.read_again(c)
        return 0

    cdef inline void came(self, Conn* c) noexcept:
        """Something was received: the peer lives."""
        c.last_received = self.now
        c.ping_sent = False

    cdef bint watch_listener(self, Py_ssize_t index, int operation) noexcept:
        cdef epoll_event event
        event.events = EPOLLIN
        event.data.u64 = (<uint64_t>index << 1) | 1
        return epoll_ctl(self.epoll_fd, operation, self.listeners[index].fileno(), &event) == 0

    cdef int accept(self, int listener) except -1:
        cdef int fd, turn
        if listener >= len(self.listeners):
            return 0
        fd = self.listeners[listener].fileno()
        for turn in range(ACCEPTS):
            if not self.accept_one(fd):
                break
        return 0

    cdef bint accept_one(self, int listener) except -1:
        """Accept one connection; whether there may be more."""
        cdef int one = 1
        cdef epoll_event event
        cdef Conn* c
        cdef int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
        if fd < 0:
            if errno == EMFILE or errno == ENFILE or errno == ENOBUFS or errno == ENOMEM:
                self.pause_accept(errno)
                return False
            return errno == ECONNABORTED or errno == EINTR
        self.accept_trouble = False
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))
        c = self.connect(fd)
        event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET
        event.data.ptr = c
        if epoll_ctl(self.epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0:
            lost(self, c)
        else:
            self.count_address(c)
        return True

    cdef int pause_accept(self, int error) except -1:
        """No descriptors (or memory): leave the backlog to the kernel for a moment; log it once."""
        cdef Py_ssize_t i
        if self.accept_paused:
            return 0
        self.accept_paused = True
        for i in range(len(self.listeners)):
            self.watch_listener(i, EPOLL_CTL_DEL)
        self._loop.call_later(ACCEPT_PAUSE, self._resume_accept)
        if not self.accept_trouble:
            self.accept_trouble = True
            self.server.on_accept_paused(error)
        return 0

    def _resume_accept(self):
        cdef Py_ssize_t i
        self.accept_paused = False
        if self.closed:
            return
        for i in range(len(self.listeners)):
            self.watch_listener(i, EPOLL_CTL_ADD)
