# Transport: the second kind of wire. TLS, and systems without epoll, go through an asyncio transport.

cdef enum:
    TRANSPORT_WRITE_BYTES = 256 * 1024  # handed over at once

cdef Wire TRANSPORT
TRANSPORT.write = transport_write
TRANSPORT.write_with_python = transport_write_with_python
TRANSPORT.pause = transport_pause
TRANSPORT.resume = transport_resume
TRANSPORT.describe = transport_describe
TRANSPORT.close = transport_close
TRANSPORT.give_away = transport_give_away


# -- the functions of the table


cdef inline object transport_of(Conn* c):
    return (<TransportWire>c.transport).transport


cdef void transport_write(Conn* c, Releases* releases) noexcept nogil:
    c.outcome = OUTCOME_PYTHON


cdef int transport_write_with_python(Reactor reactor, Conn* c) except -1:
    """Hand the outbox to the transport for as long as that wants more."""
    cdef Releases releases = Releases(NULL, 0, 0)
    cdef size_t n, size
    cdef Range* r
    cdef char* to
    while c.count and not c.blocked and c.state != CLOSED:
        size = min(<size_t>c.pending, <size_t>TRANSPORT_WRITE_BYTES)
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
        reactor.sent_bytes += size
        transport_of(c).write(data)     # may call pause_writing(), which sets `blocked`
    if c.count == 0 and c.state == FLUSHING_OUT:
        transport_end(reactor, c, transport_of(c))
    return 0


cdef int transport_end(Reactor reactor, Conn* c, transport) except -1:
    """All is written: half-close if the wire can, and wait for the peer. Otherwise what was written might be lost to a
    reset."""
    if c.fin_received or not transport.can_write_eof():
        transport.close()
    elif not c.fin_sent:
        note_fin_sent(reactor, c)
        transport.write_eof()
    return 0


cdef int transport_pause(Reactor reactor, Conn* c) except -1:
    transport_of(c).pause_reading()
    return 0


cdef int transport_resume(Reactor reactor, Conn* c) except -1:
    transport_of(c).resume_reading()
    return 0


cdef int transport_describe(Conn* c, Request request) except -1:
    cdef TransportWire wire = <TransportWire>c.transport
    peer = wire.transport.get_extra_info("peername") if wire.peer is None else wire.peer
    request._peer = tuple(peer[:2]) if isinstance(peer, tuple) else ("", 0)
    request.family = AF_UNIX if isinstance(peer, (str, bytes)) else 0
    request.is_secure = wire.is_secure
    return 0


cdef bint transport_meet(Reactor reactor, Conn* c) except -1:
    """Meet a new peer; or one of whom HTTP, which had the transport before, has said who it is."""
    cdef TransportWire wire = <TransportWire>c.transport
    cdef Request peer
    if wire.peer is None:
        return meet_peer(reactor, c)
    peer = Request(b"")
    transport_describe(c, peer)
    c.trusted = wire.is_trusted
    return c.trusted or claim_address(reactor, c, peer)


cdef int transport_close(Conn* c) except -1:
    transport_release(c).abort()
    return 0


cdef transport_give_away(Reactor reactor, Conn* c):
    given = transport_release(c)
    given.resume_reading()
    return given


cdef transport_release(Conn* c):
    """Part the connection from its transport. Returns the transport."""
    cdef TransportWire wire = <TransportWire>c.transport
    c.transport = NULL
    Py_DECREF(wire)
    wire.conn = NULL
    return wire.transport


# -- what the transport calls


@cython.no_gc_clear
cdef class TransportWire:
    """An asyncio protocol that feeds a connection; the connection writes to `transport`."""

    def __cinit__(self, Reactor reactor not None, bint is_secure=False, tuple peer=None, bint is_trusted=False):
        self.reactor = reactor
        self.is_secure = is_secure
        self.peer = peer
        self.is_trusted = is_trusted

    def connection_made(self, transport):
        cdef Conn* c
        self.transport = transport
        if self.reactor.closed:
            transport.abort()
            return
        transport.set_write_buffer_limits(high=64 * 1024)
        read_clock(self.reactor)
        c = conn_take(self.reactor, -1, &TRANSPORT)
        c.transport = <void*>self
        Py_INCREF(self)
        self.conn = c
        if not transport_meet(self.reactor, c):
            refuse_crowded(self.reactor, c)
        wake(self.reactor)

    def get_buffer(self, hint):
        """Returns the reactor's buffer, which is filled and used within one callback of the loop."""
        return <uint8_t[:BUFFER_BYTES]>self.reactor.buffer

    def buffer_updated(self, Py_ssize_t n):
        self.take(n)

    def data_received(self, data):
        """Bytes from whoever had the transport before."""
        cdef bytes chunk
        for start in range(0, len(data), BUFFER_BYTES):
            chunk = data[start:start + BUFFER_BYTES]
            memcpy(self.reactor.buffer, PyBytes_AS_STRING(chunk), len(chunk))
            self.take(len(chunk))

    cdef int take(self, size_t n) except -1:
        cdef Reactor reactor = self.reactor
        if self.conn is NULL:
            return 0
        read_clock(reactor)
        reactor.received_bytes += n
        note_received(reactor, self.conn)
        reactor.in_tick = True
        try:
            receive(reactor, self.conn, reactor.buffer, n)
        except BaseException as error:
            survive(reactor, self.conn, error)
        finally:
            reactor.in_tick = False
        return wake(reactor)

    def eof_received(self):
        """The peer shut its side down, and so do we, once everything pending has been handed over.

        Returns True if the transport has to wait for that, which one for TLS cannot.
        """
        if self.conn is not NULL:
            peer_shut_down(self.reactor, self.conn)
            flush(self.reactor)
        return self.conn is not NULL and self.conn.count > 0 and self.transport.can_write_eof()

    def connection_lost(self, error):
        if self.conn is not NULL:
            drop(self.reactor, self.conn)

    def pause_writing(self):
        if self.conn is not NULL:
            self.conn.blocked = True

    def resume_writing(self):
        if self.conn is not NULL:
            unblock(self.reactor, self.conn)
