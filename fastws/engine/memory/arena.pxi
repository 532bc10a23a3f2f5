# Arena: outgoing frames are written once, into reference-counted blocks.
#
# All functions run on the loop's thread except block_release(), which flush threads call too. A block whose last
# reference goes is pushed on the `emptied` stack; arena_collect() takes it off again, on the loop's thread.

cdef enum:
    BLOCK_BYTES = 128 * 1024            # header included
    LARGE_FRAME_BYTES = 32 * 1024       # a frame larger than this has a block to itself
    POOL_BLOCKS = 32

# Lanes: what one connection gets lies side by side, and merges into one range.
cdef enum:
    PLAIN = 0
    DEFLATED = 1


cdef inline char* block_data(Block* block) noexcept nogil:
    return <char*>block + sizeof(Block)


cdef Block* block_new(Arena* arena, size_t size) noexcept nogil:
    """Returns a block with room for `size` bytes and one reference, the caller's; NULL when out of memory."""
    cdef Block* block
    cdef size_t total = size + sizeof(Block)
    if total <= BLOCK_BYTES and total > LARGE_FRAME_BYTES and arena.pool is not NULL:
        block = arena.pool
        arena.pool = block.emptied_next
        arena.pooled -= 1
    else:
        block = <Block*>malloc(total)
        if block is NULL:
            return NULL
        block.arena = arena
        block.size = <uint32_t>size
    arena.born += 1
    block.born = arena.born
    block.used = 0
    block.references = 1
    block.is_held = False
    block.next = NULL
    block.previous = arena.newest
    if arena.newest is NULL:
        arena.oldest = block
    else:
        arena.newest.next = block
    arena.newest = block
    arena.blocks += 1
    arena.bytes += block.size
    return block


cdef inline void block_release(Block* block, int count) noexcept nogil:
    """Give up `count` references. Any thread may call this."""
    cdef Block* top
    if atomic_subtract(&block.references, count) == 0:
        top = atomic_load_pointer(&block.arena.emptied)
        block.emptied_next = top
        while not atomic_swap_if(&block.arena.emptied, &top, block):
            block.emptied_next = top


cdef void arena_collect(Arena* arena) noexcept nogil:
    """Reuse or free the emptied blocks; start a current one afresh when nothing else refers to it."""
    cdef Block* block = arena.emptied
    cdef Block* following
    arena.emptied = NULL
    while block is not NULL:
        following = block.emptied_next
        block_retire(arena, block)
        block = following
    block = arena.current[PLAIN]
    if block is not NULL and block.references == 1:
        block.used = 0                  # the same few cache lines again
    block = arena.current[DEFLATED]
    if block is not NULL and block.references == 1:
        arena.current[DEFLATED] = NULL  # it may be long until somebody needs it again
        block_retire(arena, block)


cdef void block_retire(Arena* arena, Block* block) noexcept nogil:
    if block.previous is NULL:
        arena.oldest = block.next
    else:
        block.previous.next = block.next
    if block.next is NULL:
        arena.newest = block.previous
    else:
        block.next.previous = block.previous
    arena.blocks -= 1
    arena.bytes -= block.size
    if block.size + sizeof(Block) == BLOCK_BYTES and arena.pooled < POOL_BLOCKS:
        block.emptied_next = arena.pool
        arena.pool = block
        arena.pooled += 1
    else:
        free(block)


cdef inline void block_hold(Block* block, bint is_held) noexcept nogil:
    """Note that a Run has a reference to a block, or has none any more."""
    block.is_held = is_held
    if is_held:
        block.arena.held += block.size
    else:
        block.arena.held -= block.size


cdef inline uint64_t arena_owed(const Arena* arena) noexcept nogil:
    """Returns the bytes that are live for connections' sake."""
    return arena.bytes - arena.held


cdef Block* arena_room(Arena* arena, int lane, size_t size) noexcept nogil:
    """Returns a block with `size` bytes free after `used`, and one reference, the caller's; NULL when out of memory."""
    cdef Block* block = arena.current[lane]
    if size > LARGE_FRAME_BYTES:
        return block_new(arena, size)
    if block is NULL or block.size - block.used < size:
        if block is not NULL:
            arena.current[lane] = NULL
            block_release(block, 1)
        block = block_new(arena, BLOCK_BYTES - sizeof(Block))
        if block is NULL:
            return NULL
        arena.current[lane] = block
    atomic_add(&block.references, 1)
    return block


cdef uint64_t arena_ranges(const Arena* arena) noexcept:
    """Returns how many ranges name bytes of the arena."""
    cdef uint64_t references = 0
    cdef const Block* block = arena.oldest
    while block is not NULL:
        references += block.references
        block = block.next
    return references - (arena.current[PLAIN] is not NULL) - (arena.current[DEFLATED] is not NULL)


cdef void arena_free(Arena* arena) noexcept nogil:
    """The end. Every range has been released by now."""
    cdef Block* block
    cdef int lane
    for lane in range(LANES):
        block = arena.current[lane]
        if block is not NULL:
            arena.current[lane] = NULL
            block_release(block, 1)
    arena_collect(arena)
    while arena.pool is not NULL:
        block = arena.pool
        arena.pool = block.emptied_next
        free(block)
    arena.pooled = 0
