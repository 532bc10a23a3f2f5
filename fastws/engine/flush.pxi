# Flush: every connection with something pending gets one system call, without the GIL, on one or more threads.
#
# A connection waits on the `fresh` list since something was queued for it. What a flush could not reach within its
# time budget moves to the `rest` list, behind all that is fresh: a fan-out to 50,000 delays no echo.

cdef enum:
    FLUSH_BATCH = 128                   # connections and thread between two looks at the clock
    FLUSH_BUDGET = 2000000              # ns, for the fresh and for the rest
    GIL_FREE_FROM = 8                   # connections; fewer are done before the GIL would be back
    VECTORS = 64                        # ranges in one system call
    TRANSPORT_WRITE = 256 * 1024        # bytes

cdef enum:                              # Conn.outcome
    OUTCOME_DONE
    OUTCOME_EMPTY                       # nothing more to write, and the connection is to be shut down
    OUTCOME_LOST
    OUTCOME_TRANSPORT


cdef int list_reserve(ConnList* l, size_t capacity) except -1:
    """Make room. Copies what is on the list and nothing else: pages never used cost no memory."""
    cdef Conn** larger
    if capacity <= l.capacity:
        return 0
    larger = <Conn**>malloc(2 * capacity * sizeof(Conn*))
    if larger is NULL:
        raise MemoryError
    if l.count:
        memcpy(larger, l.items + l.start, l.count * sizeof(Conn*))
    free(l.items)
    l.items = larger
    l.start = 0
    l.capacity = 2 * capacity
    return 0


cdef inline void list_push(ConnList* l, Conn* c) noexcept nogil:
    """Lists have room for every connection of the reactor, and each stands at most once on one."""
    if l.start + l.count == l.capacity:
        memmove(l.items, l.items + l.start, l.count * sizeof(Conn*))
        l.start = 0
    l.items[l.start + l.count] = c
    l.count += 1


cdef inline void list_drop_first(ConnList* l, size_t n) noexcept nogil:
    l.count -= n
    l.start = l.start + n if l.count else 0


cdef inline Conn* list_pop(ConnList* l) noexcept nogil:
    l.count -= 1
    return l.items[l.start + l.count]


cdef void flush_span(Conn** batch, size_t count, bint fresh) noexcept nogil:
    cdef Releases releases = Releases(NULL, 0)
    cdef size_t i
    for i in range(count):
        if i + 2 < count:
            prefetch_for_write(batch[i + 2])
        if fresh:
            batch[i].fresh = False
        else:
            batch[i].rest = False
        flush_one(batch[i], &releases)
    release_now(&releases)


cdef void flush_one(Conn* c, Releases* releases) noexcept nogil:
    """Write all that is pending, as far as the socket takes it; `outcome` says what came of it."""
    cdef ssize_t sent
    cdef Range* first
    c.outcome = OUTCOME_DONE
    if c.state == CLOSED:
        return
    if c.fd < 0:
        c.outcome = OUTCOME_TRANSPORT
        return
    while c.count and not c.blocked:
        first = outbox_first(c)
        if c.count == 1:
            sent = send(c.fd, block_data(first.block) + first.offset, first.length, MSG_DONTWAIT | MSG_NOSIGNAL)
        else:
            sent = send_ranges(c.fd, first, c.count)
        if sent >= 0:
            outbox_consume(c, <size_t>sent, releases)
        elif errno == EAGAIN or errno == EWOULDBLOCK:
            c.blocked = True
        elif errno != EINTR:
            c.outcome = OUTCOME_LOST
            return
    if c.count == 0 and c.state == DRAINING:
        c.outcome = OUTCOME_EMPTY


cdef ssize_t send_ranges(int fd, const Range* ranges, uint32_t count) noexcept nogil:
    cdef iovec[VECTORS] vectors
    cdef msghdr message
    cdef uint32_t i
    count = min(count, <uint32_t>VECTORS)
    for i in range(count):
        vectors[i].iov_base = block_data(ranges[i].block) + ranges[i].offset
        vectors[i].iov_len = ranges[i].length
    memset(&message, 0, sizeof(message))
    message.msg_iov = vectors
    message.msg_iovlen = count
    return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL)


cdef void push_fresh(Reactor reactor, Conn* c) noexcept:
    c.fresh = True
    list_push(&reactor.fresh, c)


cdef int flush_soon(Reactor reactor, Conn* c) except -1:
    """Something was queued for one connection."""
    if not (c.fresh or c.blocked):
        push_fresh(reactor, c)
    return wake(reactor)


cdef int wake(Reactor reactor) except -1:
    """Outside of a tick: flush, and set the timer, when the loop comes round."""
    if not (reactor.busy or reactor.tick_scheduled):
        reactor.tick_scheduled = True
        reactor._loop.call_soon(reactor._on_wake)
    return 0


cdef void doom(Reactor reactor, Conn* c, int why) noexcept:
    """Have it closed at the end of the tick: no handler may run now."""
    if c.doom == DOOM_NONE and c.state != CLOSED:
        c.doom = why
        list_push(&reactor.doomed, c)


cdef void flush_now(Reactor reactor, Conn* c) noexcept:
    """Write one connection at once."""
    cdef Releases releases = Releases(NULL, 0)
    flush_one(c, &releases)
    release_now(&releases)
    if c.outcome == OUTCOME_LOST:
        doom(reactor, c, DOOM_LOST)
    elif c.outcome == OUTCOME_TRANSPORT:
        try:
            write_transport(reactor, c)
        except Exception:
            doom(reactor, c, DOOM_LOST)


cdef int flush(Reactor reactor) except -1:
    """Write the fresh, then the rest, each within a budget; what that does not reach waits for the loop's next turn."""
    cdef Conn* c
    if reactor.busy:
        return 0
    reactor.busy = True
    try:
        flush_list(reactor, &reactor.fresh, True)
        while reactor.fresh.count:
            c = reactor.fresh.items[reactor.fresh.start]
            list_drop_first(&reactor.fresh, 1)
            c.fresh = False
            if not c.rest:
                c.rest = True
                list_push(&reactor.rest, c)
        flush_list(reactor, &reactor.rest, False)
    finally:
        reactor.busy = False
    arena_collect(&reactor.arena)
    if reactor.arena.bytes > reactor.max_arena:
        relieve(reactor)
    reap(reactor)
    if reactor.is_idle and not reactor.listeners:
        reactor.server.on_idle()
    if reactor.timer_stale:
        set_timer(reactor)
    if (reactor.fresh.count or reactor.rest.count or reactor.again_list.count or reactor.doomed.count
            or reactor.interruption is not None):
        wake(reactor)
    return 0


cdef int flush_list(Reactor reactor, ConnList* waiting, bint fresh) except -1:
    """Write connections from the front of a list until it is empty or the budget is spent."""
    cdef int64_t deadline = nanoseconds() + FLUSH_BUDGET
    cdef Conn** batch
    cdef size_t count
    settle(reactor)
    while waiting.count:
        batch = waiting.items + waiting.start
        count = min(waiting.count, <size_t>(FLUSH_BATCH * reactor.flush_threads))
        if count < GIL_FREE_FROM:
            flush_batch(reactor, batch, count, fresh)
        else:
            with nogil:
                flush_batch(reactor, batch, count, fresh)
        note_outcomes(reactor, batch, count)
        list_drop_first(waiting, count)
        settle(reactor)
        if nanoseconds() > deadline:
            break
    return 0


cdef void flush_batch(Reactor reactor, Conn** batch, size_t count, bint fresh) noexcept nogil:
    cdef int spans = <int>((count + FASTWS_FLUSH_SPAN - 1) // FASTWS_FLUSH_SPAN)
    cdef int i
    if reactor.flush_threads == 1 or count < FASTWS_THREADS_FROM:
        flush_span(batch, count, fresh)
    else:
        for i in prange(spans, num_threads=reactor.flush_threads, schedule="dynamic"):
            flush_span(batch + i * FASTWS_FLUSH_SPAN, min(count - i * FASTWS_FLUSH_SPAN, <size_t>FASTWS_FLUSH_SPAN), fresh)


cdef void note_outcomes(Reactor reactor, Conn** batch, size_t count) noexcept:
    """Sort out what needs more than a write; no Python runs here, for it might queue and so move `batch`."""
    cdef size_t i
    cdef Conn* c
    for i in range(count):
        c = batch[i]
        if c.outcome == OUTCOME_LOST:
            doom(reactor, c, DOOM_LOST)
        elif c.outcome == OUTCOME_TRANSPORT:
            list_push(&reactor.on_transport, c)
        elif c.outcome == OUTCOME_EMPTY and c.fin_received:
            doom(reactor, c, DOOM_LOST)
        elif c.outcome == OUTCOME_EMPTY and not c.fin_sent:
            sent_fin(reactor, c)
            shutdown(c.fd, SHUT_WR)


cdef inline void sent_fin(Reactor reactor, Conn* c) noexcept:
    c.fin_sent = True
    reactor.lingering += 1


cdef int settle(Reactor reactor) except -1:
    """Close what is doomed and write what goes over transports; handlers run in here."""
    cdef Conn* c
    while reactor.on_transport.count:
        c = list_pop(&reactor.on_transport)
        try:
            write_transport(reactor, c)
        except BaseException as error:
            reactor.survive(c, error)
    while reactor.doomed.count:
        c = list_pop(&reactor.doomed)
        try:
            meet_doom(reactor, c)
        except BaseException as error:
            reactor.survive(c, error)
    return 0


cdef int meet_doom(Reactor reactor, Conn* c) except -1:
    cdef WebSocket ws
    if c.state == CLOSED:
        return 0
    if c.doom == DOOM_LOST:
        return lost(reactor, c)
    ws = <WebSocket>c.ws
    ws.endpoint.closed_slow += 1
    logger.warning("connection %s is too slow: %s with %d bytes pending", ws.id,
                   "max_backlog exceeded" if c.doom == DOOM_SLOW else "max_arena exceeded", c.pending,
                   extra={"connection": ws.id, "pending": c.pending})
    outbox_keep_begun_frame(c)
    c.doom = DOOM_NONE
    return begin_close(reactor, c, 1013, b"too slow")


cdef int write_transport(Reactor reactor, Conn* c) except -1:
    """Hand the outbox to an asyncio transport, as far as that wants more."""
    cdef Releases releases = Releases(NULL, 0)
    cdef size_t n, size
    cdef Range* r
    cdef char* to
    while c.count and not c.blocked and c.wire is not NULL:
        size = min(<size_t>c.pending, <size_t>TRANSPORT_WRITE)
        data = PyBytes_FromStringAndSize(NULL, size)
        to = PyBytes_AS_STRING(data)
        r = outbox_first(c)
        n = 0
        while n < size:
            memcpy(to + n, block_data(r.block) + r.offset, min(<size_t>r.length, size - n))
            n += min(<size_t>r.length, size - n)
            r += 1
        outbox_consume(c, size, &releases)
        release_now(&releases)
        (<TransportWire>c.wire).transport.write(data)       # may call pause_writing(), which sets `blocked`
    if c.count == 0 and c.state == DRAINING and c.wire is not NULL:
        transport_end(reactor, c, (<TransportWire>c.wire).transport)
    return 0


cdef int transport_end(Reactor reactor, Conn* c, transport) except -1:
    """All is written. Half-close where the wire can, and wait for the peer; what it had to say might else be reset."""
    if c.fin_received or not transport.can_write_eof():
        transport.close()
    elif not c.fin_sent:
        sent_fin(reactor, c)
        transport.write_eof()
    return 0


cdef int relieve(Reactor reactor) except -1:
    """Over max_arena: small remainders move out of the blocks they pin; if that is not enough, the readers of the
    oldest blocks are closed."""
    cdef uint32_t i, j
    cdef Conn* c
    cdef uint64_t spared = 0
    cdef uint64_t born = 0
    cdef Block* block
    for i in range(reactor.slab_count * SLAB):
        c = reactor.at(i)
        if c.count:
            outbox_compact(c)
    arena_collect(&reactor.arena)
    if reactor.arena.bytes <= reactor.max_arena:
        return 0
    block = reactor.arena.oldest
    while block is not NULL and reactor.arena.bytes - spared > reactor.max_arena // 4 * 3:
        spared += block.size
        born = block.born
        block = block.next
    for i in range(reactor.slab_count * SLAB):
        c = reactor.at(i)
        for j in range(c.count):
            if outbox_first(c)[j].block.born <= born:
                doom(reactor, c, DOOM_PINNING if is_sendable(c) else DOOM_LOST)
                break
    settle(reactor)
    arena_collect(&reactor.arena)
    return 0


cdef int reap(Reactor reactor) except -1:
    """Recycle connections that are closed and stand on no list any more."""
    cdef size_t i
    cdef size_t kept = 0
    cdef Conn* c
    cdef uint32_t slot
    cdef WebSocket ws
    for i in range(reactor.graveyard.count):
        c = reactor.graveyard.items[i]
        if c.fresh or c.rest or c.again:
            reactor.graveyard.items[kept] = c
            kept += 1
            continue
        slot = c.slot
        if c.ws is not NULL:
            ws = <WebSocket>c.ws
            ws.conn = NULL
            Py_DECREF(ws)
            ws = None
        conn_clear(c, slot)
        list_push(&reactor.unused, c)
    reactor.graveyard.count = kept
    return 0
