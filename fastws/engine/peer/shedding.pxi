# Shedding: which connections have to go when shared memory runs out: peers sent too much that is unfinished
# (max_inbound), or have too much left to read (max_arena).

cdef enum:
    MIN_SHED_BYTES = 1024               # a connection that holds less is not to blame


cdef int shed(Reactor reactor) except -1:
    """Over max_inbound: the connections whose unfinished input takes the most go, until a quarter is free."""
    cdef uint64_t goal = reactor.max_inbound // 4 * 3
    cdef uint32_t i
    cdef size_t largest
    while reactor.inbound_bytes > goal:
        largest = 0
        for i in range(reactor.slab_count * SLAB_CONNECTIONS):
            largest = max(largest, inbound_held(conn_at(reactor, i)))
        if largest < MIN_SHED_BYTES:
            break
        for i in range(reactor.slab_count * SLAB_CONNECTIONS):
            if inbound_held(conn_at(reactor, i)) * 2 >= largest and reactor.inbound_bytes > goal:
                close_unfinished(reactor, conn_at(reactor, i))
    return 0


cdef bint relieve(Reactor reactor) noexcept:
    """Over max_arena: small remainders move out of the blocks they pin; if that is not enough, the readers of the
    oldest blocks are doomed. Returns whether it was not enough."""
    cdef uint32_t i, j
    cdef Conn* c
    cdef uint64_t spared = 0
    cdef uint64_t born = 0
    cdef Block* block
    if arena_owed(&reactor.arena) <= reactor.max_arena:
        return False
    for i in range(reactor.slab_count * SLAB_CONNECTIONS):
        c = conn_at(reactor, i)
        if c.count:
            outbox_compact(c)
    arena_collect(&reactor.arena)
    if arena_owed(&reactor.arena) <= reactor.max_arena:
        return False
    block = reactor.arena.oldest
    while block is not NULL and arena_owed(&reactor.arena) - spared > reactor.max_arena // 4 * 3:
        if not block.is_held:
            spared += block.size
        born = block.born
        block = block.next
    for i in range(reactor.slab_count * SLAB_CONNECTIONS):
        c = conn_at(reactor, i)
        for j in range(c.count):
            block = outbox_first(c)[j].block
            if block.born <= born and not block.is_held:
                doom(reactor, c, DOOM_PINNING if is_sendable(c) else DOOM_LOST)
                break
    return True
