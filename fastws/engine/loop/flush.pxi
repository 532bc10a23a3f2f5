# Flush: every connection with something pending gets one system call, without the GIL, on one or more threads.
#
# A connection is on the `fresh` list from when something is queued for it until a flush writes it. Connections that a
# flush could not reach within its time budget move to the `overdue` list, after all fresh ones, so that a fan-out to
# 50,000 delays no echo.

cdef enum:
    BATCH_PER_THREAD = 128              # connections between two looks at the clock
    FLUSH_BUDGET_NS = 2000000           # for the fresh and for the overdue
    MIN_BATCH_WITHOUT_GIL = 8           # connections; fewer are written before the GIL would be back


# The upper bounds of the buckets of Reactor.flushes.
cdef int64_t[FLUSH_BUCKETS] flush_bounds        # nanoseconds
flush_bounds[:] = [50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000, 25000000, 50000000, 100000000,
                   250000000, 500000000, 1000000000, INT64_MAX]
FLUSH_BOUNDS = tuple([bound / 1e9 for bound in flush_bounds[:FLUSH_BUCKETS - 1]])      # seconds; the last has none


cdef int threads_of = 0                 # the process that may have flush threads


cdef int threads_here(int wanted) except -1:
    """Returns how many threads may write in this process. libgomp's do not survive a fork, and it would wait for them
    forever: what was forked from a process that may have had some writes with one."""
    global threads_of
    if wanted == 1:
        return 1
    if threads_of == 0:
        threads_of = getpid()
    if threads_of == getpid():
        return wanted
    logger.warning("flush_threads: 1 instead of %d, since a server ran before this process was forked", wanted)
    return 1


cdef void flush_span(Conn** batch, size_t count, bint fresh, uint64_t* sent) noexcept nogil:
    cdef Releases releases = Releases(NULL, 0, 0)
    cdef size_t i
    for i in range(count):
        if i + 2 < count:
            prefetch_for_write(batch[i + 2])
        if fresh:
            batch[i].fresh = False
        else:
            batch[i].overdue = False
        write_pending(batch[i], &releases)
    release_now(&releases)
    atomic_add_wide(sent, releases.sent)


cdef void flush_batch(Reactor reactor, Conn** batch, size_t count, bint fresh) noexcept nogil:
    cdef int spans = <int>((count + FASTWS_FLUSH_SPAN - 1) // FASTWS_FLUSH_SPAN)
    cdef int i
    if reactor.flush_threads == 1 or count < FASTWS_THREADS_FROM:
        flush_span(batch, count, fresh, &reactor.sent_bytes)
    else:
        for i in prange(spans, num_threads=reactor.flush_threads, schedule="dynamic"):
            flush_span(batch + i * FASTWS_FLUSH_SPAN,
                       min(count - i * FASTWS_FLUSH_SPAN, <size_t>FASTWS_FLUSH_SPAN), fresh, &reactor.sent_bytes)


cdef void note_outcomes(Reactor reactor, Conn** batch, size_t count) noexcept:
    """Sort out what needs more than a write. No Python runs here, because it might queue and so move `batch`."""
    cdef size_t i
    cdef Conn* c
    for i in range(count):
        c = batch[i]
        if c.outcome == OUTCOME_LOST:
            doom(reactor, c, DOOM_LOST)
        elif c.outcome == OUTCOME_PYTHON:
            list_push(&reactor.for_python, c)
        elif c.outcome == OUTCOME_EMPTY:
            socket_end(reactor, c)


cdef int tell_drained(Reactor reactor, Conn* c) except -1:
    """All is written, unless something was queued since, or the wire keeps more than it likes: then there is more to
    come."""
    cdef WebSocket ws
    if c.count or c.blocked or not is_sendable(c):
        return 0
    c.when_empty = OUTCOME_DONE
    ws = <WebSocket>c.ws
    ws.endpoint.life.drained(ws)
    return 0


cdef int settle(Reactor reactor) except -1:
    """Close the doomed, write what takes the GIL, and tell what is written. Handlers run in here."""
    cdef Conn* c
    while reactor.for_python.count:
        c = list_pop(&reactor.for_python)
        try:
            c.wire.write_with_python(reactor, c)
            if c.when_empty == OUTCOME_PYTHON:
                tell_drained(reactor, c)
        except BaseException as error:
            survive(reactor, c, error)
    while reactor.doomed.count:
        c = list_pop(&reactor.doomed)
        try:
            meet_doom(reactor, c)
        except BaseException as error:
            survive(reactor, c, error)
    return 0


cdef int64_t flush_list(Reactor reactor, ConnList* waiting, bint fresh, int64_t now) except -1:
    """Write connections from the front of a list until it is empty or the budget is spent. Returns the time then."""
    cdef int64_t deadline = now + FLUSH_BUDGET_NS
    cdef Conn** batch
    cdef size_t count
    settle(reactor)
    while waiting.count:
        batch = waiting.items + waiting.start
        count = min(waiting.count, <size_t>(BATCH_PER_THREAD * reactor.flush_threads))
        if count < MIN_BATCH_WITHOUT_GIL:
            flush_batch(reactor, batch, count, fresh)
        else:
            with nogil:
                flush_batch(reactor, batch, count, fresh)
        note_outcomes(reactor, batch, count)
        list_drop_first(waiting, count)
        settle(reactor)
        now = nanoseconds()
        if now > deadline:
            break
    return now


cdef void note_flush(Reactor reactor, int64_t took) noexcept:
    reactor.flushes[bucket_of(flush_bounds, took)] += 1
    reactor.flush_nanoseconds += <uint64_t>took


cdef int flush(Reactor reactor) except -1:
    """Write the fresh, then the overdue, each within a budget; what remains waits for the next turn of the loop."""
    cdef Conn* c
    cdef int64_t begin, end
    if reactor.in_tick:
        return 0
    reactor.in_tick = True
    try:
        begin = nanoseconds()
        end = flush_list(reactor, &reactor.fresh, True, begin)
        while reactor.fresh.count:
            c = reactor.fresh.items[reactor.fresh.start]
            list_drop_first(&reactor.fresh, 1)
            c.fresh = False
            if not c.overdue:
                c.overdue = True
                list_push(&reactor.overdue, c)
        end = flush_list(reactor, &reactor.overdue, False, end)
    finally:
        reactor.in_tick = False
    if end != begin:                    # the clock was read again: something was written
        note_flush(reactor, end - begin)
    arena_collect(&reactor.arena)
    if reactor.arena.bytes > reactor.max_arena and relieve(reactor):
        settle(reactor)
        arena_collect(&reactor.arena)
    reap(reactor)
    if reactor.is_idle and not reactor.listeners:
        reactor.server.on_idle()
    if reactor.timer_stale:
        set_timer(reactor)
    if (reactor.fresh.count or reactor.overdue.count or reactor.again_list.count or reactor.doomed.count
            or reactor.interruption is not None):
        wake(reactor)
    return 0
