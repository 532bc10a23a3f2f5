# Slabs: the memory of all connections, never moved; taken by conn_take(), recycled by reap().

cdef enum:
    SLAB_CONNECTIONS = 256              # allocated together


cdef void conn_clear(Conn* c, uint32_t slot) noexcept nogil:
    memset(c, 0, sizeof(Conn))
    c.fd = -1
    c.slot = slot
    c.state = CLOSED
    c.ranges = c.own_ranges
    c.capacity = OWN_RANGES
    c.memberships = c.own_memberships
    c.membership_capacity = 2


cdef inline Conn* conn_at(Reactor reactor, uint32_t slot) noexcept:
    return reactor.slabs[slot // SLAB_CONNECTIONS] + slot % SLAB_CONNECTIONS


cdef Conn* conn_take(Reactor reactor, int fd, const Wire* wire) except NULL:
    """Returns a connection for a new socket; the request's head is awaited."""
    cdef Conn* c
    if reactor.unused.count == 0:
        grow(reactor)
    c = list_pop(&reactor.unused)
    c.fd = fd
    c.wire = wire
    c.state = HEAD
    reactor.connections += 1
    c.deadline = reactor.now + reactor.handshake_ticks
    arm(reactor, c, c.deadline)
    return c


cdef int grow(Reactor reactor) except -1:
    """Allocate one more slab, and room on every list for its connections."""
    cdef uint32_t i
    cdef size_t total = (reactor.slab_count + 1) * SLAB_CONNECTIONS
    cdef Conn* slab
    cdef void* moved
    list_reserve(&reactor.unused, total)
    list_reserve(&reactor.fresh, total)
    list_reserve(&reactor.overdue, total)
    list_reserve(&reactor.again_list, total)
    list_reserve(&reactor.doomed, total)
    list_reserve(&reactor.for_python, total)
    list_reserve(&reactor.graveyard, total)
    moved = realloc(reactor.slabs, (reactor.slab_count + 1) * sizeof(Conn*))
    if moved is NULL:
        raise MemoryError
    reactor.slabs = <Conn**>moved
    slab = <Conn*>malloc(SLAB_CONNECTIONS * sizeof(Conn))
    if slab is NULL:
        raise MemoryError
    reactor.slabs[reactor.slab_count] = slab
    for i in range(SLAB_CONNECTIONS):
        conn_clear(slab + i, reactor.slab_count * SLAB_CONNECTIONS + i)
    for i in range(SLAB_CONNECTIONS):
        list_push(&reactor.unused, slab + (SLAB_CONNECTIONS - 1 - i))      # the first one is taken first
    reactor.slab_count += 1
    return 0


cdef WebSocket websocket_of(Reactor reactor, Conn* c):
    """Returns the connection's WebSocket, made when first needed; the Conn holds a reference until it is recycled."""
    cdef WebSocket ws
    if c.ws is not NULL:
        return <WebSocket>c.ws
    ws = WebSocket.__new__(WebSocket, reactor)
    ws.conn = c
    ws.slot = c.slot
    ws.serial = reactor.next_serial
    reactor.next_serial += 1
    c.ws = <void*>ws
    Py_INCREF(ws)
    return ws


cdef WebSocket find_websocket(Reactor reactor, str name):
    """Returns the WebSocket with this id, or None."""
    cdef Conn* c
    cdef WebSocket ws
    if not name.startswith(reactor.id_prefix):
        return None
    slot, dash, serial = name[len(reactor.id_prefix):].partition("-")
    try:
        number = int(slot, 16)
    except ValueError:
        return None
    if not 0 <= number < reactor.slab_count * SLAB_CONNECTIONS:
        return None
    c = conn_at(reactor, number)
    if c.ws is NULL:
        return None
    ws = <WebSocket>c.ws
    return ws if f"{ws.slot:x}-{ws.serial:x}" == name[len(reactor.id_prefix):] else None


cdef int reap(Reactor reactor) except -1:
    """Recycle connections that are closed and no longer on any list."""
    cdef size_t i
    cdef size_t kept = 0
    cdef Conn* c
    cdef uint32_t slot
    cdef WebSocket ws
    for i in range(reactor.graveyard.count):
        c = reactor.graveyard.items[i]
        if c.fresh or c.overdue or c.again:
            reactor.graveyard.items[kept] = c
            kept += 1
            continue
        slot = c.slot
        if c.ws is not NULL:
            ws = <WebSocket>c.ws
            ws.conn = NULL
            Py_DECREF(ws)
            ws = None
        conn_clear(c, slot)
        list_push(&reactor.unused, c)
    reactor.graveyard.count = kept
    return 0
