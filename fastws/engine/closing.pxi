# Closing: every way in which a connection ends.

cdef enum:
    LEAST_SHED = 1024                   # bytes; whoever holds less is not to blame

cdef int begin_close(Reactor reactor, Conn* c, int code, bytes reason) except -1:
    """Queue our Close behind all that is pending, and leave everything at once."""
    cdef WebSocket ws = <WebSocket>c.ws
    queue_close(reactor, c, code, reason)
    read_clock(reactor)
    ws.endpoint.detach(c)
    forget_waiting(ws)
    if c.inbound is not NULL:           # what is missing of it will be dropped
        free(take_message(reactor, c.inbound))
    c.deadline = reactor.now + ws.endpoint.close_ticks
    arm(reactor, c, c.deadline)
    if c.state == OPENING:
        c.state = CLOSING           # its input waits until on_open has ended
        return 0
    c.state = CLOSING
    return resume(reactor, c)


cdef int drain(Reactor reactor, Conn* c) except -1:
    """Read no more; write what is queued, then shut the socket down and wait for the peer to do so (RFC 6455 7.1.1)."""
    c.state = DRAINING
    c.paused = False
    inbound_free(reactor, c)
    reactor.forget_address(c)
    read_clock(reactor)
    c.deadline = reactor.now + reactor.close_ticks
    arm(reactor, c, c.deadline)
    if c.readable and not c.fin_received:
        c.readable = False
        reactor.read_again(c)
    if c.wire is not NULL:
        (<TransportWire>c.wire).transport.resume_reading()
    return flush_soon(reactor, c)


cdef int ended(Reactor reactor, Conn* c) except -1:
    """The peer shut its side down. It may still read: what is pending goes out first."""
    cdef uint8_t state = c.state
    if state < OPENING or c.fin_received or (c.wire is NULL and c.count == 0):
        return lost(reactor, c)
    c.fin_received = True
    if state == DRAINING:
        return flush_soon(reactor, c)
    drain(reactor, c)
    return finish(reactor, c, 1006, "")


cdef int lost(Reactor reactor, Conn* c) except -1:
    """The wire is gone, or is dropped now: no word to the peer."""
    cdef uint8_t state = c.state
    if state == CLOSED:
        return 0
    release_wire(reactor, c)
    if state == PENDING:
        reactor.server.on_abandoned(<WebSocket>c.ws)
    elif OPENING <= state <= CLOSING:
        finish(reactor, c, 1006, "")
    return wake(reactor)


cdef int release_wire(Reactor reactor, Conn* c) except -1:
    """Close the socket and give back all memory; the Conn itself is recycled at the end of the tick."""
    cdef TransportWire wire
    c.state = CLOSED
    reactor.connections -= 1
    reactor.lingering -= c.fin_sent
    reactor.forget_address(c)
    disarm(reactor, c)
    outbox_clear(c)
    inbound_free(reactor, c)
    list_push(&reactor.graveyard, c)
    if c.fd >= 0:
        close(c.fd)
        c.fd = -1
    if c.wire is not NULL:
        wire = <TransportWire>c.wire
        c.wire = NULL
        Py_DECREF(wire)
        wire.conn = NULL
        wire.transport.abort()
    return 0


cdef give_away(Reactor reactor, Conn* c):
    """Take the wire out of the engine: a file descriptor or a transport, the caller's from now on."""
    cdef epoll_event event
    cdef TransportWire wire
    if c.wire is not NULL:
        wire = <TransportWire>c.wire
        given = wire.transport
        c.wire = NULL
        Py_DECREF(wire)
        wire.conn = NULL
        given.resume_reading()
    else:
        epoll_ctl(reactor.epoll_fd, EPOLL_CTL_DEL, c.fd, &event)
        given = c.fd
        c.fd = -1
    release_wire(reactor, c)
    wake(reactor)
    return given


cdef int finish(Reactor reactor, Conn* c, int code, str reason) except -1:
    """Tell the endpoint, once, that the connection is over; it has left everything by then."""
    cdef WebSocket ws = <WebSocket>c.ws
    if c.finished:
        return 0
    c.finished = True
    forget_waiting(ws)
    ws.endpoint.detach(c)
    ws.endpoint.life.closed(ws, code, reason)
    return 0


cdef int shed(Reactor reactor) except -1:
    """Over max_inbound: those whose unfinished input takes the most go, until a quarter is free."""
    cdef uint64_t goal = reactor.max_inbound // 4 * 3
    cdef uint32_t i
    cdef size_t largest
    while reactor.inbound_bytes > goal:
        largest = 0
        for i in range(reactor.slab_count * SLAB):
            largest = max(largest, inbound_held(reactor.at(i)))
        if largest < LEAST_SHED:
            break
        for i in range(reactor.slab_count * SLAB):
            if inbound_held(reactor.at(i)) * 2 >= largest and reactor.inbound_bytes > goal:
                give_up(reactor, reactor.at(i))
    return 0


cdef int give_up(Reactor reactor, Conn* c) except -1:
    """Drop what a peer has sent so far, and the connection with it."""
    cdef WebSocket ws
    if c.state == HEAD:
        return bad_request(reactor, c, 503, "too many unfinished requests on this server")
    if c.state != OPEN:
        logger.warning("dropping a connection: max_inbound exceeded, its input takes %d bytes", inbound_held(c))
        return lost(reactor, c)
    ws = <WebSocket>c.ws
    ws.endpoint.closed_unfinished += 1
    logger.warning("closing connection %s: max_inbound exceeded, its unfinished messages take %d bytes", ws.id,
                   inbound_held(c), extra={"connection": ws.id, "bytes": inbound_held(c)})
    return begin_close(reactor, c, 1013, b"too much unfinished input")
