# Rates: how fast a peer may send (max_message_rate, max_byte_rate), and what happens to one that sends faster.

cdef enum:
    MAX_THROTTLE_SECONDS = 3600


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
    c.throttled = True
    c.throttle_end = reactor.now + <uint32_t>((debt - 0.5) * TICKS_PER_SECOND) + 1
    endpoint.throttled += 1
    pause(reactor, c)
    arm_open(reactor, c)
    return 0
