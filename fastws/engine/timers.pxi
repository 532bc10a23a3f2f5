# Timers: one wheel for all deadlines, turned by one timer of the loop. Cost: the deadlines that pass.
#
# An open connection stands at the earliest of its deadlines and is looked at only then; traffic only notes the
# tick. Ticks count 10 ms and wrap after 497 days, so that they are compared by their difference.

from math import ceil
from time import time as wall_clock

cdef enum:
    TICKS_PER_SECOND = 100
    WHEEL_SLOTS = 4096                  # 41 s; what is further off is looked at on the way
    NO_TIMER = 0xffffffff

cdef double TICK = 1.0 / TICKS_PER_SECOND


cdef uint32_t ticks(object seconds) except? 0:
    """Whole ticks, rounded up; 0 means never. Raises ValueError for what is no duration."""
    if not seconds >= 0:
        raise ValueError(f"{seconds!r} is not a duration: use seconds, 0 for never")
    return <uint32_t>ceil(min(seconds * TICKS_PER_SECOND, 1 << 30))


cdef inline bint is_past(uint32_t deadline, uint32_t now) noexcept nogil:
    return <int>(now - deadline) >= 0


cdef inline uint32_t ticks_left(uint32_t deadline, uint32_t now) noexcept nogil:
    return <uint32_t>max(<int>(deadline - now), 0)


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


cdef inline uint64_t read_ticks() noexcept:
    cdef timespec t
    clock_gettime(FASTWS_COARSE_CLOCK, &t)
    return <uint64_t>t.tv_sec * TICKS_PER_SECOND + t.tv_nsec // (1000000000 // TICKS_PER_SECOND)


cdef void read_clock(Reactor reactor) noexcept:
    reactor.now = <uint32_t>read_ticks()


cdef double unix_time(Reactor reactor, uint32_t tick) noexcept:
    """Of a tick that is past, in seconds."""
    cdef uint64_t now = read_ticks()
    return reactor.epoch + (now - (<uint32_t>now - tick)) * TICK


cdef uint32_t tick_at(Reactor reactor, double time) noexcept:
    """The tick at a Unix time, which unix_time() gave."""
    return <uint32_t><uint64_t>((time - reactor.epoch) * TICKS_PER_SECOND + 0.5)


cdef void arm(Reactor reactor, Conn* c, uint32_t deadline) noexcept:
    """Look at the connection at `deadline`, or sooner."""
    cdef uint32_t due = deadline
    if c.linked:
        wheel_unlink(reactor.wheel, reactor.occupied, c)
    if reactor.timer_due == NO_TIMER:
        reactor.wheel_time = reactor.now                      # nothing stands anywhere: the wheel need not turn
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


cdef void arm_open(Reactor reactor, Conn* c) noexcept:
    """Stand at the earliest deadline of an open connection."""
    cdef Endpoint endpoint = (<WebSocket>c.ws).endpoint
    cdef uint32_t wait = NO_TIMER
    cdef uint32_t due
    if c.idle_timeout:
        wait = ticks_left(c.last_message + c.idle_timeout, reactor.now)
    if c.ping_sent:
        due = c.deadline
    else:
        due = c.last_received + endpoint.ping_interval_ticks
    if endpoint.ping_interval_ticks:
        wait = min(wait, ticks_left(due, reactor.now))
    if c.throttled:
        wait = min(wait, ticks_left(c.throttle_end, reactor.now))
    if wait == NO_TIMER:
        disarm(reactor, c)
    else:
        arm(reactor, c, reactor.now + wait)


cdef int set_timer(Reactor reactor) except -1:
    """Have the loop call when the first slot is due."""
    reactor.timer_stale = False
    if reactor.timer_handle is not None:
        reactor.timer_handle.cancel()
        reactor.timer_handle = None
    if reactor.timer_due != NO_TIMER and not reactor.closed:
        delay = <int>ticks_left(reactor.timer_due, reactor.now) + 1
        reactor.timer_handle = reactor._loop.call_later(delay * TICK, reactor._on_timer)
    return 0


cdef int turn_wheel(Reactor reactor) except -1:
    """Look at every connection whose deadline has passed."""
    cdef Conn** slot
    cdef Conn* c
    read_clock(reactor)
    if reactor.now - reactor.wheel_time > WHEEL_SLOTS:
        reactor.wheel_time = reactor.now - WHEEL_SLOTS          # the loop stood still for a whole turn
    while reactor.wheel_time != reactor.now:
        reactor.wheel_time += 1
        slot = reactor.wheel + (reactor.wheel_time & (WHEEL_SLOTS - 1))
        while slot[0] is not NULL:                              # arm() never links into the slot under the hand
            c = slot[0]
            disarm(reactor, c)
            try:
                expired(reactor, c)
            except BaseException as error:
                reactor.survive(c, error)
    reactor.timer_due = next_occupied(reactor)
    reactor.timer_stale = True
    return 0


cdef uint32_t next_occupied(Reactor reactor) noexcept:
    """The first tick after the hand at which something stands, or NO_TIMER."""
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


cdef int expired(Reactor reactor, Conn* c) except -1:
    if c.state == OPEN or c.state == OPENING:
        return expired_open(reactor, c)
    if not is_past(c.deadline, reactor.now):
        arm(reactor, c, c.deadline)
    elif c.state == HEAD:
        bad_request(reactor, c, 408, "no complete request within handshake_timeout")
    elif c.state == PENDING:
        reactor.server.on_overdue(<WebSocket>c.ws)
    elif c.state == CLOSING or c.state == DRAINING:
        lost(reactor, c)
    return 0


cdef int expired_open(Reactor reactor, Conn* c) except -1:
    """Idle for too long, due for a ping, dead, or none of it yet."""
    cdef Endpoint endpoint = (<WebSocket>c.ws).endpoint
    if c.doom != DOOM_NONE:
        return 0
    if c.idle_timeout and is_past(c.last_message + c.idle_timeout, reactor.now):
        return begin_close(reactor, c, 1001, b"idle timeout")
    if c.throttled and is_past(c.throttle_end, reactor.now):
        throttle_over(reactor, c)
        if c.state != OPEN:
            return 0
    if c.paused:
        c.last_received = reactor.now                      # its input waits for us, not we for it
        c.ping_sent = False
    if c.ping_sent and is_past(c.deadline, reactor.now):
        logger.info("no answer to a ping", extra={"connection": (<WebSocket>c.ws).id})
        return lost(reactor, c)
    if not c.ping_sent and endpoint.ping_interval_ticks and is_past(
            c.last_received + endpoint.ping_interval_ticks, reactor.now):
        queue_control(reactor, c, PING, NULL, 0)
        if endpoint.ping_timeout_ticks:
            c.ping_sent = True
            c.deadline = reactor.now + endpoint.ping_timeout_ticks
        else:
            c.last_received = reactor.now
    arm_open(reactor, c)
    return 0
