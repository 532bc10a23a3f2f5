# Wheel: every deadline of every connection, turned by one timer of the loop. Cost: the deadlines that pass.
#
# A connection is linked into the slot of its earliest deadline and is looked at only then; traffic only notes the tick.

cdef enum:
    WHEEL_SLOTS = 4096                  # 41 s; connections with later deadlines are looked at on the way


cdef inline void wheel_unlink(Conn** wheel, uint64_t* occupied, Conn* c) noexcept nogil:
    if c.timer_previous is NULL:
        wheel[c.timer_slot] = c.timer_next
        if c.timer_next is NULL:
            occupied[c.timer_slot >> 6] &= ~(<uint64_t>1 << (c.timer_slot & 63))
    else:
        c.timer_previous.timer_next = c.timer_next
    if c.timer_next is not NULL:
        c.timer_next.timer_previous = c.timer_previous
    c.linked = False


cdef inline void wheel_link(Conn** wheel, uint64_t* occupied, Conn* c, uint32_t slot) noexcept nogil:
    c.timer_slot = slot
    c.timer_previous = NULL
    c.timer_next = wheel[slot]
    if c.timer_next is not NULL:
        c.timer_next.timer_previous = c
    wheel[slot] = c
    occupied[slot >> 6] |= <uint64_t>1 << (slot & 63)
    c.linked = True


cdef void arm(Reactor reactor, Conn* c, uint32_t deadline) noexcept:
    """Look at the connection at `deadline`, or sooner."""
    cdef uint32_t due = deadline
    if c.linked:
        wheel_unlink(reactor.wheel, reactor.occupied, c)
    if reactor.timer_due == NO_TIMER:
        reactor.wheel_time = reactor.now                      # the wheel is empty and need not turn
    if is_past(due, reactor.wheel_time):
        due = reactor.wheel_time + 1
    elif due - reactor.wheel_time >= WHEEL_SLOTS:
        due = reactor.wheel_time + WHEEL_SLOTS - 1
    wheel_link(reactor.wheel, reactor.occupied, c, due & (WHEEL_SLOTS - 1))
    if reactor.timer_due == NO_TIMER or is_past(due, reactor.timer_due - 1):
        reactor.timer_due = due
        reactor.timer_stale = True


cdef void disarm(Reactor reactor, Conn* c) noexcept:
    if c.linked:
        wheel_unlink(reactor.wheel, reactor.occupied, c)


cdef uint32_t next_occupied(Reactor reactor) noexcept:
    """Returns the first tick after the hand whose slot is occupied, or NO_TIMER."""
    cdef uint32_t i = 1
    cdef uint32_t slot
    while i < WHEEL_SLOTS:
        slot = (reactor.wheel_time + i) & (WHEEL_SLOTS - 1)
        if slot & 63 == 0 and reactor.occupied[slot >> 6] == 0:
            i += 64
        elif reactor.occupied[slot >> 6] >> (slot & 63) & 1:
            return reactor.wheel_time + i
        else:
            i += 1
    return NO_TIMER


cdef int set_timer(Reactor reactor) except -1:
    """Have the loop call back when the first slot is due."""
    reactor.timer_stale = False
    if reactor.timer_handle is not None:
        reactor.timer_handle.cancel()
        reactor.timer_handle = None
    if reactor.timer_due != NO_TIMER and not reactor.closed:
        delay = <int>ticks_left(reactor.timer_due, reactor.now) + 1
        reactor.timer_handle = reactor._loop.call_later(delay * TICK_SECONDS, reactor._on_timer)
    return 0
