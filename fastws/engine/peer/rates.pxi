# Rates: how fast a peer may send (max_message_rate, max_byte_rate), and what happens to one that sends faster.

cdef enum:
    MAX_THROTTLE_SECONDS = 3600
    INFLATED_PER_TICK = 1 << 20         # bytes from one connection; with more, others have their turn


cdef int charge(Reactor reactor, Conn* c, uint32_t messages, size_t size) except -1:
    """Count what a peer sends. A second's worth may arrive at once; past that the endpoint's policy acts."""
    cdef Endpoint endpoint = (<WebSocket>c.ws).endpoint
    cdef float elapsed = (reactor.now - c.charged) * <float>TICK_SECONDS
    cdef float debt
    c.charged = reactor.now
    c.message_debt = max(c.message_debt - elapsed, <float>0) + messages * endpoint.seconds_per_message
    c.byte_debt = max(c.byte_debt - elapsed, <float>0) + size * endpoint.seconds_per_byte
    debt = min(max(c.message_debt, c.byte_debt), MAX_THROTTLE_SECONDS)
    if debt <= 1 or c.state != OPEN or c.throttled:
        return 0
    if endpoint.closes_over_rate:
        return fail_rate(reactor, c)
    # Half of the bucket is worked off before more is taken, so that kept input is not moved for each message.
    return throttle(reactor, c, <uint32_t>((debt - 0.5) * TICKS_PER_SECOND) + 1)


cdef int throttle(Reactor reactor, Conn* c, uint32_t wait) except -1:
    """Read no more of a peer for so many ticks."""
    c.throttled = True
    c.throttle_end = reactor.now + wait
    (<WebSocket>c.ws).endpoint.throttled += 1
    pause(reactor, c)
    arm_open(reactor, c)
    return 0


cdef int charge_inflated(Reactor reactor, Conn* c, size_t received, size_t inflated) except -1:
    """Count what the application gets of a compressed message, and what it took to expand it."""
    cdef size_t work = max(received, inflated)
    if (<WebSocket>c.ws).endpoint.is_rated and inflated > received:
        charge(reactor, c, 0, inflated - received)
    if c.inflated_at != reactor.now:
        c.inflated_at = reactor.now
        c.inflated = 0
    c.inflated += <uint32_t>min(work, <size_t>INFLATED_PER_TICK)
    if c.inflated >= INFLATED_PER_TICK and c.state == OPEN and not c.throttled:
        c.inflated = 0
        return throttle(reactor, c, 1)
    return 0
