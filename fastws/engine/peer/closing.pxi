# Closing: every way in which a connection ends, and the code that its peer or its listener is told.
#
# No other room names a code or a status: what happened is the name of a function here.

from fastws.errors import ProtocolError

cdef enum:                              # RFC 6455 7.4.1, and the IANA registry for 1012 to 1014
    CODE_NORMAL = 1000
    CODE_GOING_AWAY = 1001
    CODE_PROTOCOL_ERROR = 1002
    CODE_NONE = 1005                    # never sent: the peer's Close had no code
    CODE_ABNORMAL = 1006                # never sent: no Close came
    CODE_NOT_UTF8 = 1007
    CODE_POLICY = 1008
    CODE_TOO_BIG = 1009
    CODE_TRY_LATER = 1013


cdef inline bint close_code_is_valid(int64_t code) noexcept nogil:
    """Returns whether a Close frame may carry the code."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def check_close(code, reason):
    """Returns the reason as UTF-8. Raises ValueError if a Close may not carry it or the code (RFC 6455 5.5 and 7.4)."""
    if not isinstance(code, int) or not close_code_is_valid(code):
        raise ValueError(f"close code {code!r} cannot be sent: use 1000 to 1003, 1007 to 1014, or 3000 to 4999")
    encoded = reason.encode()
    if len(encoded) > MAX_CONTROL_BYTES - 2:
        raise ValueError(f"close reason of {len(encoded)} bytes {reason[:20]!r}...: use at most 123 bytes of UTF-8")
    return encoded


# -- the end of the wire


cdef int release_conn(Reactor reactor, Conn* c) except -1:
    """Give back all memory except the Conn itself, which is recycled at the end of the tick."""
    c.state = CLOSED
    reactor.connections -= 1
    reactor.lingering -= c.fin_sent
    forget_address(reactor, c)
    disarm(reactor, c)
    outbox_clear(c)
    inbound_free(reactor, c)
    list_push(&reactor.graveyard, c)
    return 0


cdef give_away(Reactor reactor, Conn* c):
    """Take the wire out of the engine. Returns a file descriptor or a transport, the caller's from now on."""
    given = c.wire.give_away(reactor, c)
    release_conn(reactor, c)
    wake(reactor)
    return given


cdef int tell_closed(Reactor reactor, Conn* c, int code, str reason) except -1:
    """Tell the endpoint, once, that the connection is over; it has left everything by then."""
    cdef WebSocket ws = <WebSocket>c.ws
    if c.closed_told:
        return 0
    c.closed_told = True
    forget_waiting(ws)
    leave_groups(c)
    ws.endpoint.life.closed(ws, code, reason)
    return 0


cdef int drop(Reactor reactor, Conn* c) except -1:
    """The wire is gone, or is dropped now, without a word to the peer."""
    cdef uint8_t state = c.state
    if state == CLOSED:
        return 0
    release_conn(reactor, c)
    c.wire.close(c)
    if state == PENDING:
        reactor.server.on_abandoned(<WebSocket>c.ws)
    elif OPENING <= state <= CLOSING:
        tell_closed(reactor, c, CODE_ABNORMAL, "")
    return wake(reactor)


cdef int flush_out(Reactor reactor, Conn* c) except -1:
    """Stop reading; write what is queued, then shut our side down and wait for the peer to do so (RFC 6455 7.1.1)."""
    c.state = FLUSHING_OUT
    c.when_empty = OUTCOME_EMPTY
    c.paused = False
    inbound_free(reactor, c)
    forget_address(reactor, c)
    read_clock(reactor)
    c.deadline = reactor.now + reactor.close_ticks
    arm(reactor, c, c.deadline)
    c.wire.resume(reactor, c)
    return flush_soon(reactor, c)


cdef inline void note_fin_sent(Reactor reactor, Conn* c) noexcept:
    """Our side is shut down: nothing is owed to the peer any longer."""
    c.fin_sent = True
    reactor.lingering += 1


cdef int peer_shut_down(Reactor reactor, Conn* c) except -1:
    """The peer shut its side down. It may still read, so what is pending goes out first."""
    cdef uint8_t state = c.state
    if state < OPENING or c.fin_received:
        return drop(reactor, c)
    c.fin_received = True
    if state == FLUSHING_OUT:
        return flush_soon(reactor, c)
    flush_out(reactor, c)
    return tell_closed(reactor, c, CODE_ABNORMAL, "")


cdef int survive(Reactor reactor, Conn* c, error) except -1:
    """An exception that nothing else caught costs one connection, and not the rest of a batch, whose edges would not
    come again. It is a fault of ours, a lack of memory, or a handler that ends the program, which happens after the
    tick."""
    if isinstance(error, (KeyboardInterrupt, SystemExit)):
        if reactor.interruption is None:
            reactor.interruption = error
    else:
        logger.error("dropping a connection because of a bug in fastws", exc_info=error)
    if c is not NULL:
        try:
            drop(reactor, c)
        except BaseException as another:            # it is CLOSED by now
            return survive(reactor, NULL, another)
    return wake(reactor)


# -- we close


cdef int begin_close(Reactor reactor, Conn* c, int code, bytes reason) except -1:
    """Queue our Close after everything pending, and leave all groups at once."""
    cdef WebSocket ws = <WebSocket>c.ws
    queue_close(reactor, c, code, reason)
    ws.close_code = <uint16_t>code
    read_clock(reactor)
    leave_groups(c)
    forget_waiting(ws)
    if c.inbound is not NULL:           # the rest of its message will be dropped
        free(take_message(reactor, c.inbound))
    c.deadline = reactor.now + ws.endpoint.close_ticks
    arm(reactor, c, c.deadline)
    if c.state == OPENING:
        c.state = CLOSING               # its input waits until on_open has ended
        return 0
    c.state = CLOSING
    return reactor.read_on(c)


cdef int close_idle(Reactor reactor, Conn* c) except -1:
    return begin_close(reactor, c, CODE_GOING_AWAY, b"idle timeout")


cdef int close_silent(Reactor reactor, Conn* c) except -1:
    """It has not answered a ping within ping_timeout, so nobody is there to be told a code."""
    logger.info("no answer to a ping", extra={"connection": (<WebSocket>c.ws).id})
    return drop(reactor, c)


cdef int close_slow(Reactor reactor, Conn* c) except -1:
    """Its peer does not read: max_backlog is exceeded, or what is pending for it fills the arena."""
    cdef WebSocket ws = <WebSocket>c.ws
    ws.endpoint.closed_slow += 1
    logger.warning("connection %s is too slow: %s with %d bytes pending", ws.id,
                   "max_backlog exceeded" if c.doom == DOOM_SLOW else "max_arena exceeded", c.pending,
                   extra={"connection": ws.id, "pending": c.pending})
    outbox_keep_begun_frame(c)
    c.doom = DOOM_NONE
    return begin_close(reactor, c, CODE_TRY_LATER, b"too slow")


cdef int meet_doom(Reactor reactor, Conn* c) except -1:
    """Do now what doom() had to put off."""
    if c.state == CLOSED:
        return 0
    return drop(reactor, c) if c.doom == DOOM_LOST else close_slow(reactor, c)


cdef int close_unfinished(Reactor reactor, Conn* c) except -1:
    """max_inbound is exceeded: drop what a peer has sent so far, and the connection with it."""
    cdef WebSocket ws
    if c.state == HEAD:
        return refuse(reactor, c, 503, "too many unfinished requests on this server")
    if c.state != OPEN:
        logger.warning("dropping a connection: max_inbound exceeded, its input takes %d bytes", inbound_held(c))
        return drop(reactor, c)
    ws = <WebSocket>c.ws
    ws.endpoint.closed_unfinished += 1
    logger.warning("closing connection %s: max_inbound exceeded, its unfinished messages take %d bytes", ws.id,
                   inbound_held(c), extra={"connection": ws.id, "bytes": inbound_held(c)})
    return begin_close(reactor, c, CODE_TRY_LATER, b"too much unfinished input")


# -- the peer is at fault


cdef int fail(Reactor reactor, Conn* c, int code, reason) except -1:
    """Fail the connection (RFC 6455 7.1.7): say why, read no more, tell the listener."""
    cdef WebSocket ws = <WebSocket>c.ws
    if c.state == OPEN:
        queue_close(reactor, c, code, reason.encode())
        ws.close_code = <uint16_t>code
    flush_out(reactor, c)
    ws.endpoint.life.protocol_failed(ws, ProtocolError(code, reason))
    return tell_closed(reactor, c, CODE_ABNORMAL, "")


cdef int fail_protocol(Reactor reactor, Conn* c, reason) except -1:
    return fail(reactor, c, CODE_PROTOCOL_ERROR, reason)


cdef int fail_encoding(Reactor reactor, Conn* c, reason) except -1:
    return fail(reactor, c, CODE_NOT_UTF8, reason)


cdef int fail_inflating(Reactor reactor, Conn* c, int found) except -1:
    if found == INFLATED_TOO_MUCH:
        return fail_size(reactor, c)
    if found == INFLATED_DAMAGED:
        return fail_encoding(reactor, c, "the compressed data are damaged")
    raise MemoryError


cdef int fail_size(Reactor reactor, Conn* c) except -1:
    return fail(reactor, c, CODE_TOO_BIG, f"message exceeds {(<WebSocket>c.ws).endpoint.max_message_size} bytes")


cdef int fail_fragments(Reactor reactor, Conn* c) except -1:
    return fail(reactor, c, CODE_TOO_BIG, f"message has more than {(<WebSocket>c.ws).endpoint.max_fragments} fragments")


cdef int fail_rate(Reactor reactor, Conn* c) except -1:
    return fail(reactor, c, CODE_POLICY, "rate limit exceeded")


# -- no WebSocket yet: statuses of HTTP


cdef int refuse(Reactor reactor, Conn* c, int status, message) except -1:
    """Refuse what is not a valid request: the server makes the answer, and logs it."""
    cdef WebSocket ws = websocket_of(reactor, c)
    inbound_free(reactor, c)
    if ws.request is None:
        ws.request = Request(b"")       # for its address
        c.wire.describe(c, ws.request)
    reactor.server.on_bad_request(ws, status, message)
    return 0


cdef int refuse_malformed(Reactor reactor, Conn* c) except -1:
    return refuse(reactor, c, 400, "this is not an HTTP/1.1 request")


cdef int refuse_stranger(Reactor reactor, Conn* c) except -1:
    return refuse(reactor, c, 400, "a PROXY header is only taken from trusted_proxies")


cdef int refuse_proxy(Reactor reactor, Conn* c) except -1:
    return refuse(reactor, c, 400, "the PROXY header is malformed")


cdef int refuse_without_proxy(Reactor reactor, Conn* c) except -1:
    return refuse(reactor, c, 400, "a PROXY header has to come first, from a proxy")


cdef int refuse_large_head(Reactor reactor, Conn* c) except -1:
    return refuse(reactor, c, 431, f"the request head exceeds {reactor.max_header_size} bytes")


cdef int refuse_late(Reactor reactor, Conn* c) except -1:
    return refuse(reactor, c, 408, "no complete request within handshake_timeout")


cdef int refuse_crowded(Reactor reactor, Conn* c) except -1:
    """max_connections_per_ip is exceeded."""
    refuse(reactor, c, 503, "too many connections from this address")
    if c.state == FLUSHING_OUT:         # it may not hold a descriptor for as long as others
        c.deadline = reactor.now + min(reactor.close_ticks, <uint32_t>TICKS_PER_SECOND)
        arm(reactor, c, c.deadline)
    return 0
