# Transport: the second kind of wire. TLS, and systems without epoll, go through an asyncio transport.

@cython.no_gc_clear
cdef class TransportWire:
    """An asyncio protocol that feeds a connection; the connection writes to `transport` (flush.pxi)."""

    def __cinit__(self, Reactor reactor not None, bint is_secure=False):
        self.reactor = reactor
        self.is_secure = is_secure

    def connection_made(self, transport):
        cdef Conn* c
        self.transport = transport
        if self.reactor.closed:
            transport.abort()
            return
        transport.set_write_buffer_limits(high=64 * 1024)
        read_clock(self.reactor)
        c = self.reactor.connect(-1)
        c.wire = <void*>self
        Py_INCREF(self)
        self.conn = c
        self.reactor.count_address(c)
        wake(self.reactor)

    def get_buffer(self, hint):
        """The reactor's buffer: filled and used within one callback of the loop."""
        return <uint8_t[:BUFFER]>self.reactor.buffer

    def buffer_updated(self, Py_ssize_t n):
        self.take(n)

    def data_received(self, data):
        """Bytes from whoever had the transport before."""
        cdef bytes chunk
        for start in range(0, len(data), BUFFER):
            chunk = data[start:start + BUFFER]
            memcpy(self.reactor.buffer, PyBytes_AS_STRING(chunk), len(chunk))
            self.take(len(chunk))

    cdef int take(self, size_t n) except -1:
        cdef Reactor reactor = self.reactor
        if self.conn is NULL:
            return 0
        read_clock(reactor)
        reactor.came(self.conn)
        reactor.busy = True
        try:
            received(reactor, self.conn, reactor.buffer, n)
        except BaseException as error:
            reactor.survive(self.conn, error)
        finally:
            reactor.busy = False
        return wake(reactor)

    def eof_received(self):
        """The peer ended its side: so do we, once what is pending was handed over. True: the transport has to wait for
        that, which one for TLS cannot."""
        if self.conn is not NULL:
            ended(self.reactor, self.conn)
            flush(self.reactor)
        return self.conn is not NULL and self.conn.count > 0 and self.transport.can_write_eof()

    def connection_lost(self, error):
        if self.conn is not NULL:
            lost(self.reactor, self.conn)

    def pause_writing(self):
        if self.conn is not NULL:
            self.conn.blocked = True

    def resume_writing(self):
        if self.conn is not NULL:
            self.reactor.unblocked(self.conn)
