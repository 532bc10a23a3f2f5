# Outbox: what a connection has still to write, as ranges of arena blocks, in order.
#
# A frame lies whole within one range, so only the first range can begin inside a frame: its first `frame_left` bytes
# complete a frame that is already on the wire.

cdef enum:
    OWN_RANGES = 2
    COMPACT_FROM_RANGES = 1024          # with more, small ones move into private blocks before the array grows
    SMALL_RANGE_BYTES = 4096


cdef inline Range* outbox_first(Conn* c) noexcept nogil:
    return c.ranges + c.head


cdef inline int outbox_append(Conn* c, Block* block, uint32_t offset, uint32_t length) noexcept nogil:
    """Queue bytes. Returns 1: a new range, whose reference the caller must count; 0: merged; -1: out of memory."""
    cdef Range* last
    if c.count:
        last = c.ranges + c.head + c.count - 1
        if last.block is block and last.offset + last.length == offset:
            last.length += length
            c.pending += length
            return 0
        if c.head + c.count == c.capacity and not outbox_grow(c):
            return -1
    last = c.ranges + c.head + c.count
    last.block = block
    last.offset = offset
    last.length = length
    c.count += 1
    c.pending += length
    return 1


cdef bint outbox_grow(Conn* c) noexcept nogil:
    """Make room for one more range: by moving to the front, by compaction, or by a larger array."""
    cdef uint32_t capacity
    cdef Range* larger
    if c.count >= COMPACT_FROM_RANGES:
        outbox_compact(c)
    if c.head:
        memmove(c.ranges, outbox_first(c), c.count * sizeof(Range))
        c.head = 0
    if c.count * 4 <= c.capacity * 3 and c.count < c.capacity:
        return True
    capacity = c.capacity * 2
    larger = <Range*>malloc(capacity * sizeof(Range))
    if larger is NULL:
        return c.count < c.capacity
    memcpy(larger, c.ranges, c.count * sizeof(Range))
    if c.ranges is not c.own_ranges:
        free(c.ranges)
    c.ranges = larger
    c.capacity = capacity
    return True


cdef void outbox_compact(Conn* c) noexcept nogil:
    """Move runs of neighbouring small ranges out of shared blocks into private ones."""
    cdef Range* ranges = outbox_first(c)
    cdef uint32_t i = 0
    cdef uint32_t kept = 0
    cdef uint32_t end
    cdef size_t bytes
    cdef Block* block
    while i < c.count:
        bytes = 0
        end = i
        while end < c.count and ranges[end].length < SMALL_RANGE_BYTES and not range_is_private(&ranges[end]):
            bytes += ranges[end].length
            end += 1
        if end == i:
            ranges[kept] = ranges[i]
            kept += 1
            i += 1
            continue
        block = block_new(ranges[i].block.arena, bytes)
        if block is NULL:
            break
        while i < end:
            memcpy(block_data(block) + block.used, block_data(ranges[i].block) + ranges[i].offset, ranges[i].length)
            block.used += ranges[i].length
            block_release(ranges[i].block, 1)
            i += 1
        ranges[kept].block = block      # the new block's one reference is this range's
        ranges[kept].offset = 0
        ranges[kept].length = <uint32_t>bytes
        kept += 1
    if i < c.count:
        memmove(ranges + kept, ranges + i, (c.count - i) * sizeof(Range))
    c.count = kept + (c.count - i)


cdef inline bint range_is_private(Range* r) noexcept nogil:
    """Returns whether nothing else refers to the block and the range fills most of it."""
    return r.block.references == 1 and r.length * 2 >= r.block.size


cdef void outbox_consume(Conn* c, size_t sent, Releases* releases) noexcept nogil:
    """Drop from the front the `sent` bytes that a socket took. Any flush thread may call this."""
    cdef Range* first
    if sent < c.pending:
        outbox_advance_frame(c, sent)
    else:
        c.frame_left = 0
    c.pending -= <uint32_t>sent
    while sent:
        first = outbox_first(c)
        if sent < first.length:
            first.offset += <uint32_t>sent
            first.length -= <uint32_t>sent
            return
        sent -= first.length
        release_later(releases, first.block)
        c.head += 1
        c.count -= 1
    if c.count == 0:
        outbox_release_memory(c)


cdef inline void release_later(Releases* releases, Block* block) noexcept nogil:
    if releases.block is not block:
        release_now(releases)
        releases.block = block
    releases.count += 1


cdef inline void release_now(Releases* releases) noexcept nogil:
    if releases.count:
        block_release(releases.block, releases.count)
    releases.block = NULL
    releases.count = 0


cdef inline void outbox_release_memory(Conn* c) noexcept nogil:
    """An empty outbox keeps no memory except its own two ranges."""
    c.head = 0
    if c.ranges is not c.own_ranges:
        free(c.ranges)
        c.ranges = c.own_ranges
        c.capacity = OWN_RANGES


cdef void outbox_clear(Conn* c) noexcept nogil:
    cdef Releases releases = Releases(NULL, 0, 0)
    if c.count:
        outbox_consume(c, c.pending, &releases)
        release_now(&releases)


cdef void outbox_advance_frame(Conn* c, size_t sent) noexcept nogil:
    """Set `frame_left` for the outbox as it will be without its first `sent` bytes, fewer than are pending."""
    cdef Range* r = outbox_first(c)
    cdef size_t offset = r.offset
    cdef size_t left = c.frame_left
    cdef size_t step
    while True:
        if left == 0:
            if sent == 0:
                break
            left = frame_size(<const uint8_t*>block_data(r.block) + offset)
        step = min(left, sent)
        left -= step
        sent -= step
        offset += step
        if sent == 0:
            break
        if offset == r.offset + r.length:
            r += 1
            offset = r.offset
    c.frame_left = <uint32_t>left


cdef bint outbox_drop_oldest(Conn* c) noexcept nogil:
    """Drop the oldest whole data frame; control frames move to the end. Returns False when there is none."""
    cdef uint32_t rotations
    cdef Range* r
    cdef uint32_t size
    cdef uint8_t opcode
    cdef uint32_t skip
    cdef Block* block
    cdef int appended
    for rotations in range(4):
        skip = outbox_split_begun_frame(c)
        if skip > 1 or skip >= c.count:
            return False
        r = outbox_first(c) + skip
        opcode = <uint8_t>(block_data(r.block)[r.offset]) & 0x0f
        size = <uint32_t>frame_size(<const uint8_t*>block_data(r.block) + r.offset)
        if opcode & 0x8:
            block = r.block
            appended = outbox_append(c, block, r.offset, size)
            if appended < 0:
                return False
            atomic_add(&block.references, appended)
            skip = outbox_split_begun_frame(c)      # growing may have merged the two again
            if skip > 1:
                return False
        outbox_cut(c, skip, size)
        if not opcode & 0x8:
            return True
    return False


cdef uint32_t outbox_split_begun_frame(Conn* c) noexcept nogil:
    """Give what is left of a begun frame a range of its own. Returns how many ranges it is (0, 1; 2: out of memory)."""
    cdef Range* r
    cdef Range* begun
    if c.frame_left == 0:
        return 0
    r = outbox_first(c)
    if c.count == 0 or r.length == c.frame_left:
        return 1
    if c.head == 0:
        if c.count == c.capacity and not outbox_grow(c):
            return 2
        memmove(c.ranges + 1, c.ranges, c.count * sizeof(Range))
        c.head = 1
        r = c.ranges + 1
    c.head -= 1
    c.count += 1
    begun = r - 1
    begun.block = r.block
    begun.offset = r.offset
    begun.length = c.frame_left
    r.offset += c.frame_left
    r.length -= c.frame_left
    atomic_add(&r.block.references, 1)
    return 1


cdef void outbox_cut(Conn* c, uint32_t index, uint32_t size) noexcept nogil:
    """Remove `size` bytes at the front of range `index` (0 or 1)."""
    cdef Range* r = outbox_first(c) + index
    c.pending -= size
    r.offset += size
    r.length -= size
    if r.length == 0:
        block_release(r.block, 1)
        if index:
            r[0] = outbox_first(c)[0]
        c.head += 1
        c.count -= 1
        if c.count == 0:
            outbox_release_memory(c)


cdef void outbox_keep_begun_frame(Conn* c) noexcept nogil:
    """Drop everything except what is left of a frame already begun on the wire."""
    cdef Range* r
    if c.count == 0:
        return
    if c.frame_left == 0:
        outbox_clear(c)
        return
    r = outbox_first(c)
    r.length = c.frame_left
    c.pending = c.frame_left
    while c.count > 1:
        c.count -= 1
        block_release(r[c.count].block, 1)
