# Agenda: what has to be done before a tick ends, or in the next one: connections to write, to read again, to close.


cdef int wake(Reactor reactor) except -1:
    """Outside a tick, have the loop call back soon, to flush and to set the timer."""
    if not (reactor.in_tick or reactor.tick_scheduled):
        reactor.tick_scheduled = True
        reactor._loop.call_soon(reactor._on_wake)
    return 0


cdef void push_fresh(Reactor reactor, Conn* c) noexcept:
    c.fresh = True
    list_push(&reactor.fresh, c)


cdef int flush_soon(Reactor reactor, Conn* c) except -1:
    """Something was queued for one connection."""
    if not (c.fresh or c.blocked):
        push_fresh(reactor, c)
    return wake(reactor)


cdef void doom(Reactor reactor, Conn* c, int why) noexcept:
    """Have a connection closed at the end of the tick, because no handler may run now."""
    if c.doom == DOOM_NONE and c.state != CLOSED:
        c.doom = why
        list_push(&reactor.doomed, c)


cdef void read_again(Reactor reactor, Conn* c) noexcept:
    if not c.again:
        c.again = True
        list_push(&reactor.again_list, c)
