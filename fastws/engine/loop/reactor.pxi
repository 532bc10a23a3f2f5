# Reactor: the epoll instance of one server, and its tick.

from cpython.exc cimport PyErr_SetFromErrno

cdef enum:
    EVENTS_PER_BATCH = 512              # taken from epoll at once
    BATCHES_PER_TICK = 4                # of events, between two flushes
    ACCEPTS_AT_STOP = 4096              # from one listener that is about to be closed


@cython.final
cdef class Reactor:
    """Accepts, reads, and writes every connection of one server, on the loop that it was made on.

    It asks ``server.trusts(host)`` whether a peer is a trusted proxy, if any are; "unix" stands for unix sockets. It
    calls ``server.on_request(ws)`` with each request, ``server.on_bad_request(ws, status, message)`` for anything
    else that a peer sends first, ``server.on_overdue(ws)`` if a request got no answer within `handshake_timeout`,
    ``server.on_abandoned(ws)`` if its peer left before that, ``server.on_accept_paused(errno)`` when descriptors run
    out, and ``server.on_idle()`` when it no longer listens and `is_idle`. It tells the `life` of an endpoint
    everything else: ``closed``, ``protocol_failed``, ``handler_failed``, ``await_message``, ``drained``.
    """

    def __cinit__(self, loop, server, options, str id_prefix not None):
        self.epoll_fd = -1
        self._loop = loop
        self.server = server
        self.thread = PyThread_get_thread_ident()
        self.id_prefix = id_prefix
        self.flush_threads = threads_here(options.flush_threads)
        self.max_arena = options.max_arena
        self.max_inbound = options.max_inbound
        self.max_header_size = options.max_header_size
        self.max_connections_per_ip = options.max_connections_per_ip or 0
        self.per_address = {}
        self.trusts_proxies = bool(options.trusted_proxies)
        self.proxy_protocol = {"off": PROXY_OFF, "optional": PROXY_OPTIONAL, "required": PROXY_REQUIRED}[
            options.proxy_protocol]
        self.handshake_ticks = ticks(options.handshake_timeout)
        self.close_ticks = ticks(options.close_timeout)
        self.listeners = []
        self.timer_due = NO_TIMER
        self.buffer = <uint8_t*>malloc(BUFFER_BYTES)
        self.wheel = <Conn**>calloc(WHEEL_SLOTS, sizeof(Conn*))
        self.occupied = <uint64_t*>calloc(WHEEL_SLOTS // 64, sizeof(uint64_t))
        if self.buffer is NULL or self.wheel is NULL or self.occupied is NULL:
            raise MemoryError
        read_clock(self)
        self.epoch = wall_clock() - read_ticks() * TICK_SECONDS

    def __dealloc__(self):
        cdef uint32_t i
        arena_free(&self.arena)
        for i in range(self.slab_count):
            free(self.slabs[i])
        free(self.slabs)
        free(self.unused.items)
        free(self.fresh.items)
        free(self.overdue.items)
        free(self.again_list.items)
        free(self.doomed.items)
        free(self.for_python.items)
        free(self.graveyard.items)
        free(self.buffer)
        inflater_free(self.inflater)
        scratch_free(&self.inflated)
        scratch_free(&self.deflated)
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
        """True when no peer still has data coming."""
        return self.connections == self.lingering

    @property
    def counters(self):
        """Counts that return to zero when nobody is connected, except for the one block being filled, and runs."""
        return {"connections": self.connections, "blocks": self.arena.blocks, "arena_bytes": self.arena.bytes,
                "ranges": arena_ranges(&self.arena), "fresh": self.fresh.count, "overdue": self.overdue.count,
                "again": self.again_list.count, "inbound_bytes": self.inbound_bytes,
                "graveyard": self.graveyard.count, "addresses": len(self.per_address)}

    @property
    def figures(self):
        """What went through since the start, and what waits to be sent now.

        ``flushes`` counts the flushes that wrote anything, in buckets by how long they took: up to each of
        `FLUSH_BOUNDS`, and longer; ``pings`` likewise, with `PING_BOUNDS`, how long pongs took, of one ping at a time.
        Looks at every connection.
        """
        cdef uint32_t i
        cdef uint64_t backlog = 0
        for i in range(self.slab_count * SLAB_CONNECTIONS):
            backlog += conn_at(self, i).pending
        return {"received_bytes": self.received_bytes, "sent_bytes": self.sent_bytes, "backlog_bytes": backlog,
                "flushes": [self.flushes[i] for i in range(FLUSH_BUCKETS)],
                "flush_seconds": self.flush_nanoseconds / 1e9,
                "pings": [self.pings[i] for i in range(PING_BUCKETS)],
                "ping_seconds": self.ping_nanoseconds / 1e9}

    def listen(self, sock):
        """Accept on a listening, non-blocking socket, which the caller still owns."""
        if self.epoll_fd < 0:
            self.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
            if self.epoll_fd < 0:
                PyErr_SetFromErrno(OSError)
            self._loop.add_reader(self.epoll_fd, self._on_readable)
        self.listeners.append(sock)
        if not watch_listener(self, len(self.listeners) - 1, EPOLL_CTL_ADD):
            PyErr_SetFromErrno(OSError)

    def stop_listening(self, bint for_good):
        """Stop accepting; if `for_good`, first take the connections that the kernel has already let in.

        The sockets may be closed afterwards.
        """
        cdef Py_ssize_t i
        cdef int turn
        for i in range(0 if self.accept_paused else len(self.listeners)):
            watch_listener(self, i, EPOLL_CTL_DEL)
        listeners = list(self.listeners)
        self.listeners.clear()
        if not for_good:
            return
        read_clock(self)
        for listener in listeners:
            for turn in range(ACCEPTS_AT_STOP):
                if not accept_one(self, listener.fileno()):
                    break
        wake(self)

    def is_shaking_hands(self, seconds):
        """Returns whether a peer that connected less than `seconds` ago still has no answer to its request."""
        cdef uint32_t i
        cdef uint32_t recent = ticks(seconds)
        cdef Conn* c
        read_clock(self)
        for i in range(self.slab_count * SLAB_CONNECTIONS):
            c = conn_at(self, i)
            if c.state in (HEAD, PENDING) and not is_past(c.deadline - self.handshake_ticks + recent, self.now):
                return True
        return False

    def hang_up(self):
        """Drop the connections that have not sent a whole request."""
        cdef uint32_t i
        for i in range(self.slab_count * SLAB_CONNECTIONS):
            if conn_at(self, i).state == HEAD:
                drop(self, conn_at(self, i))

    def websockets(self):
        """Returns every connection that was accepted as a WebSocket and is not over yet."""
        cdef uint32_t i
        found = []
        for i in range(self.slab_count * SLAB_CONNECTIONS):
            if OPENING <= conn_at(self, i).state <= CLOSING:
                found.append(<WebSocket>conn_at(self, i).ws)
        return found

    def shut(self):
        """The end: drop whatever is still connected, and watch nothing any more."""
        cdef uint32_t i
        self.stop_listening(False)
        for i in range(self.slab_count * SLAB_CONNECTIONS):
            if conn_at(self, i).state != CLOSED:
                drop(self, conn_at(self, i))
        while self.fresh.count:                                 # no tick will come that takes them off
            list_pop(&self.fresh).fresh = False
        while self.overdue.count:
            list_pop(&self.overdue).overdue = False
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
        """Count one connection fewer from an address. The claim came from `WebSocket._give_away`; 0 stands for none."""
        unclaim_address(self, claim)

    # -- events

    def _on_readable(self):
        """epoll has something for us."""
        self.tick()

    def _on_wake(self):
        """Do what other code queued, what a flush left, and what has more to read."""
        self.tick_scheduled = False
        if self.interruption is not None:
            interruption, self.interruption = self.interruption, None
            raise interruption
        self.tick()

    def _on_timer(self):
        """A deadline has come."""
        self.timer_handle = None
        self.in_tick = True
        try:
            turn_wheel(self)
        finally:
            self.in_tick = False
        flush(self)

    cdef int tick(self) except -1:
        """Take what came, let handlers run, and write all that they queued."""
        if self.closed:
            return 0
        read_clock(self)
        self.in_tick = True
        try:
            self.poll()
            read_waiting(self)
        finally:
            self.in_tick = False
        return flush(self)

    cdef int poll(self) except -1:
        cdef epoll_event[EVENTS_PER_BATCH] events
        cdef int batch, i, count
        if self.epoll_fd < 0:
            return 0
        for batch in range(BATCHES_PER_TICK):
            count = epoll_wait(self.epoll_fd, events, EVENTS_PER_BATCH, 0)
            for i in range(count):
                try:
                    if events[i].data.u64 & 1:
                        accept_many(self, <int>(events[i].data.u64 >> 1))
                    else:
                        socket_event(self, <Conn*>events[i].data.ptr, events[i].events)
                except BaseException as error:
                    survive(self, NULL if events[i].data.u64 & 1 else <Conn*>events[i].data.ptr, error)
            if count < EVENTS_PER_BATCH:
                break
        return 0

    def _on_accept_due(self):
        cdef Py_ssize_t i
        self.accept_paused = False
        if self.closed:
            return
        for i in range(len(self.listeners)):
            watch_listener(self, i, EPOLL_CTL_ADD)

    # -- for the room `closing`

    cdef int read_on(self, Conn* c) except -1:
        return resume(self, c)
