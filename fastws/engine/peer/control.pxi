# Control: the peer's Close and pings, and ours (RFC 6455 5.5).

cdef enum:
    TIMED_NS = 10000000000              # as long as the pong of a timed ping is waited for

# The upper bounds of the buckets of Reactor.pings.
cdef int64_t[PING_BUCKETS] ping_bounds          # nanoseconds
ping_bounds[:] = [1000000, 2500000, 5000000, 10000000, 25000000, 50000000, 100000000, 250000000, 500000000, 1000000000,
                  2500000000, 5000000000, 10000000000, INT64_MAX]
PING_BOUNDS = tuple([bound / 1e9 for bound in ping_bounds[:PING_BUCKETS - 1]])         # seconds; the last has none


cdef int send_ping(Reactor reactor, Conn* c) except -1:
    """Ask whether the peer is there. One ping at a time is timed, so that no connection has to keep its time."""
    cdef int64_t now = nanoseconds()
    if reactor.timed_since == 0 or now - reactor.timed_since > TIMED_NS:
        reactor.timed_since = now
        reactor.timed_serial = (<WebSocket>c.ws).serial
    return queue_control(reactor, c, PING, NULL, 0)


cdef void note_pong(Reactor reactor, Conn* c) noexcept:
    cdef int64_t took
    if reactor.timed_since == 0 or reactor.timed_serial != (<WebSocket>c.ws).serial:
        return
    took = nanoseconds() - reactor.timed_since
    reactor.timed_since = 0
    reactor.pings[bucket_of(ping_bounds, took)] += 1
    reactor.ping_nanoseconds += <uint64_t>took


cdef int handle_control(Reactor reactor, Conn* c, uint8_t opcode, const uint8_t* p, size_t n) except -1:
    cdef Inbound* inbound
    if opcode == CLOSE:
        return handle_close(reactor, c, p, n)
    if opcode == PONG:
        note_pong(reactor, c)
    if opcode == PING and is_sendable(c):
        if not c.blocked:
            return queue_control(reactor, c, PONG, p, n)
        inbound = inbound_of(c)         # a peer that does not read gets one pong, for its last ping (RFC 6455 5.5.3)
        memcpy(inbound.ping, p, n)
        inbound.ping_length = <uint8_t>n
        inbound.ping_due = True
    return 0


cdef int handle_close(Reactor reactor, Conn* c, const uint8_t* p, size_t n) except -1:
    """The peer's Close (RFC 6455 5.5.1): answer it, unless it is itself the answer, and be done."""
    cdef int code = CODE_NONE
    cdef str reason = ""
    if n == 1:
        return fail_protocol(reactor, c, "Close frame with an incomplete code")
    if n:
        code = (p[0] << 8) | p[1]
        if not close_code_is_valid(code):
            return fail_protocol(reactor, c, f"close code {code} must not be sent")
        try:
            reason = PyUnicode_DecodeUTF8(<const char*>p + 2, n - 2, NULL)
        except UnicodeDecodeError:
            return fail_encoding(reactor, c, "close reason is not UTF-8")
    if c.state == OPEN:
        queue_control(reactor, c, CLOSE, p, min(n, <size_t>2))
    flush_out(reactor, c)
    return tell_closed(reactor, c, code, reason)


cdef int unblock(Reactor reactor, Conn* c) except -1:
    """The wire takes bytes again."""
    cdef Inbound* inbound = c.inbound
    c.blocked = False
    if inbound is not NULL and inbound.ping_due:
        inbound.ping_due = False
        if is_sendable(c):
            queue_control(reactor, c, PONG, inbound.ping, inbound.ping_length)
        inbound_release_memory(reactor, c)
    return flush_soon(reactor, c)
