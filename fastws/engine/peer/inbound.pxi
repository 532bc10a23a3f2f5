# Inbound: what is unfinished of a peer's input, and its memory.


cdef inline Inbound* inbound_of(Conn* c) except NULL:
    if c.inbound is NULL:
        c.inbound = <Inbound*>calloc(1, sizeof(Inbound))
        if c.inbound is NULL:
            raise MemoryError
    return c.inbound


cdef void inbound_free(Reactor reactor, Conn* c) noexcept:
    if c.inbound is not NULL:
        reactor.inbound_bytes -= c.inbound.raw_capacity + c.inbound.message_capacity
        free(c.inbound.raw)
        free(c.inbound.message)
        free(c.inbound)
        c.inbound = NULL


cdef inline char* take_message(Reactor reactor, Inbound* inbound) noexcept:
    """Returns the payload received so far; the caller owns it from now on."""
    cdef char* message = inbound.message
    reactor.inbound_bytes -= inbound.message_capacity
    inbound.message = NULL
    inbound.message_capacity = 0
    return message


cdef inline void forget_waiting(WebSocket ws) noexcept:
    """Drop the messages that wait for a handler to end."""
    if ws.waiting is not None:
        ws.reactor.inbound_bytes -= ws.waiting_bytes
        ws.waiting_bytes = 0
        ws.waiting = None


cdef inline size_t inbound_held(const Conn* c) noexcept:
    """Returns how many bytes of memory the connection's input takes."""
    cdef size_t held = 0 if c.ws is NULL else (<WebSocket>c.ws).waiting_bytes
    return held if c.inbound is NULL else held + c.inbound.raw_capacity + c.inbound.message_capacity


cdef inline void inbound_release_memory(Reactor reactor, Conn* c) noexcept:
    """Give the memory back when nothing is unfinished."""
    cdef Inbound* inbound = c.inbound
    if (inbound is not NULL and not inbound.in_frame and inbound.message_opcode == 0 and inbound.raw_length == 0
            and not inbound.ping_due):
        inbound_free(reactor, c)


cdef int bytes_append(Reactor reactor, char** data, size_t* length, size_t* capacity, const uint8_t* p,
                      size_t n) except -1:
    """Append to a malloc'ed array that grows with what has arrived, never with what was announced.

    If `p` is NULL, room for `n` bytes is made, and the caller fills it.
    """
    cdef size_t larger
    cdef char* moved
    if length[0] + n > capacity[0]:
        larger = max(length[0] + n, min(capacity[0] * 2, capacity[0] + (4 << 20)))
        moved = <char*>realloc(data[0], larger)
        if moved is NULL:
            raise MemoryError
        data[0] = moved
        reactor.inbound_bytes += larger - capacity[0]
        capacity[0] = larger
    if p is not NULL:
        memcpy(data[0] + length[0], p, n)
        length[0] += n
    return 0


cdef inline int keep_raw(Reactor reactor, Conn* c, const uint8_t* p, size_t n) except -1:
    """Keep input that cannot be parsed yet."""
    cdef Inbound* inbound = inbound_of(c)
    return bytes_append(reactor, &inbound.raw, &inbound.raw_length, &inbound.raw_capacity, p, n)


cdef int pause(Reactor reactor, Conn* c) except -1:
    """Stop reading until resume()."""
    c.paused = True
    return c.wire.pause(reactor, c)


cdef inline void note_received(Reactor reactor, Conn* c) noexcept:
    """Something was received, so the peer is alive."""
    c.last_received = reactor.now
    c.ping_sent = False
