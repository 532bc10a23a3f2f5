# Deflate: permessage-deflate (RFC 7692) without context takeover, by the system's zlib.
#
# No connection has a stream: deflaters are their endpoint's, the inflater is its reactor's. Each begins afresh with
# each message, so that nothing of one is in another.

cdef enum:
    MIN_WINDOW_BITS = 9                 # zlib cannot write for a window of 8
    MAX_WINDOW_BITS = 15
    DEFLATE_MEMORY_LEVEL = 8
    MAX_OFFERS = 16                     # of extensions; with more, none is looked at
    SCRATCH_BYTES = 64 * 1024           # kept between messages
    TAIL_BYTES = 4
    STEP_BYTES = 1 << 30                # zlib counts in 32 bits
    AT_BLOCK_BOUNDARY = 128             # in z_stream.data_type

# What inflate_message() may find.
cdef enum:
    INFLATED = 0
    INFLATED_TOO_MUCH = 1
    INFLATED_DAMAGED = 2
    INFLATED_NO_MEMORY = 3

cdef const char* TAIL = b"\x00\x00\xff\xff"      # of a sync flush; not sent (RFC 7692 7.2.1)

cdef object IS_WINDOW = compile_pattern("[89]|1[0-5]").fullmatch


# -- negotiation


def negotiate_deflate(offered):
    """Returns (bits of the server's window, what is agreed on) for a Sec-WebSocket-Extensions header field.

    The first offer that can be accepted is (RFC 7692 5 and 7.1); where none can be, that is (0, "").
    """
    offers = tokens(offered)
    if len(offers) > MAX_OFFERS:
        return 0, ""
    for offer in offers:
        name, *parameters = [part.strip(" \t") for part in offer.split(";")]
        bits = accept_offer(parameters) if name == "permessage-deflate" else 0
        if bits:
            agreed = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
            asked = any(parameter.startswith("server_max_window_bits") for parameter in parameters)
            return bits, f"{agreed}; server_max_window_bits={bits}" if asked else agreed
    return 0, ""


cdef int accept_offer(list parameters) except -1:
    """Returns the bits of the window for our messages; 0 if the offer has to be declined (RFC 7692 7.1)."""
    cdef int bits = MAX_WINDOW_BITS
    seen = {}
    for parameter in parameters:
        name, equals, value = [part.strip(" \t") for part in parameter.partition("=")]
        if name in seen:
            return 0
        seen[name] = value
        if value.startswith('"'):
            value = value.strip('"').replace("\\", "")
        if name in ("server_no_context_takeover", "client_no_context_takeover"):
            if equals:
                return 0
        elif name == "server_max_window_bits":
            if IS_WINDOW(value) is None or int(value) < MIN_WINDOW_BITS:
                return 0
            bits = int(value)
        elif name != "client_max_window_bits" or (equals and IS_WINDOW(value) is None):
            return 0
    return bits


# -- memory


cdef bint scratch_reserve(Scratch* scratch, size_t size) noexcept nogil:
    """Make room for `size` bytes, and keep what is there. Returns False when out of memory."""
    cdef void* moved
    if size > scratch.capacity:
        moved = realloc(scratch.data, size)
        if moved is NULL:
            return False
        scratch.data = <uint8_t*>moved
        scratch.capacity = size
    return True


cdef void scratch_trim(Scratch* scratch) noexcept nogil:
    """After use: what a large message took goes back."""
    if scratch.capacity > SCRATCH_BYTES:
        scratch_free(scratch)


cdef void scratch_free(Scratch* scratch) noexcept nogil:
    free(scratch.data)
    scratch.data = NULL
    scratch.capacity = 0


cdef z_stream* deflater_begin(z_stream** deflater, int level, int bits) noexcept nogil:
    """Returns a deflater, made when first needed, for a new message; NULL when out of memory."""
    cdef z_stream* stream = deflater[0]
    if stream is not NULL:
        return stream if deflateReset(stream) == Z_OK else NULL
    stream = <z_stream*>calloc(1, sizeof(z_stream))
    if stream is NULL:
        return NULL
    if deflateInit2(stream, level, Z_DEFLATED, -bits, DEFLATE_MEMORY_LEVEL, Z_DEFAULT_STRATEGY) != Z_OK:
        free(stream)
        return NULL
    deflater[0] = stream
    return stream


cdef void deflater_free(z_stream* stream) noexcept nogil:
    if stream is not NULL:
        deflateEnd(stream)
        free(stream)


cdef z_stream* inflater_begin(z_stream** inflater) noexcept nogil:
    """Returns the inflater, made when first needed, for a new message; NULL when out of memory."""
    cdef z_stream* stream = inflater[0]
    if stream is not NULL:
        return stream if inflateReset(stream) == Z_OK else NULL
    stream = <z_stream*>calloc(1, sizeof(z_stream))
    if stream is NULL:
        return NULL
    if inflateInit2(stream, -MAX_WINDOW_BITS) != Z_OK:
        free(stream)
        return NULL
    inflater[0] = stream
    return stream


cdef void inflater_free(z_stream* stream) noexcept nogil:
    if stream is not NULL:
        inflateEnd(stream)
        free(stream)


# -- messages


cdef size_t deflate_message(z_stream* stream, Scratch* to, const uint8_t* p, size_t n) noexcept nogil:
    """Compress a message of at most MAX_MESSAGE_BYTES. Returns the size; 0 if that is not smaller, or fails."""
    cdef size_t room = n + TAIL_BYTES
    cdef size_t size
    if not scratch_reserve(to, max(room, <size_t>SCRATCH_BYTES)):
        return 0
    stream.next_in = <unsigned char*>p
    stream.avail_in = <unsigned int>n
    stream.next_out = to.data
    stream.avail_out = <unsigned int>room
    if deflate(stream, Z_SYNC_FLUSH) != Z_OK or stream.avail_in or stream.avail_out == 0:
        return 0                        # all room is taken, and perhaps there is more
    size = room - stream.avail_out
    if size <= TAIL_BYTES or memcmp(to.data + size - TAIL_BYTES, TAIL, TAIL_BYTES) != 0:
        return 0
    return size - TAIL_BYTES


cdef int inflate_message(z_stream* stream, Scratch* to, const uint8_t* p, size_t n, uint64_t limit,
                         size_t* size) noexcept nogil:
    """Expand a message of at most `limit` bytes: what is over that is not expanded."""
    cdef bint ended = False
    cdef int found
    size[0] = 0
    if not scratch_reserve(to, SCRATCH_BYTES):
        return INFLATED_NO_MEMORY
    found = inflate_part(stream, to, p, n, limit, size, &ended)
    if found != INFLATED or ended:
        return found                    # a sender may end the stream (RFC 7692 7.2.3.4)
    found = inflate_part(stream, to, <const uint8_t*>TAIL, TAIL_BYTES, limit, size, &ended)
    if found == INFLATED and not ended and not stream.data_type & AT_BLOCK_BOUNDARY:
        return INFLATED_DAMAGED         # it breaks off
    return found


cdef int inflate_part(z_stream* stream, Scratch* to, const uint8_t* p, size_t n, uint64_t limit, size_t* size,
                      bint* ended) noexcept nogil:
    """Expand the next bytes behind what is there; `ended`: with the last of them, the stream ended, too."""
    cdef size_t step, room
    cdef int result
    while n:
        step = min(n, <size_t>STEP_BYTES)
        stream.next_in = <unsigned char*>p
        stream.avail_in = <unsigned int>step
        p += step
        n -= step
        while True:
            if size[0] == to.capacity and not scratch_reserve(to, min(to.capacity * 2, <size_t>limit + 1)):
                return INFLATED_NO_MEMORY
            room = min(min(to.capacity, <size_t>limit + 1) - size[0], <size_t>STEP_BYTES)
            stream.next_out = to.data + size[0]
            stream.avail_out = <unsigned int>room
            result = inflate(stream, Z_SYNC_FLUSH)
            size[0] += room - stream.avail_out
            ended[0] = result == Z_STREAM_END
            if result == Z_STREAM_END:
                inflateReset(stream)
            elif result == Z_MEM_ERROR:
                return INFLATED_NO_MEMORY
            elif result != Z_OK and (result != Z_BUF_ERROR or stream.avail_in):
                return INFLATED_DAMAGED
            if size[0] > limit:
                return INFLATED_TOO_MUCH
            if stream.avail_in == 0 and (stream.avail_out or ended[0]):
                break
    return INFLATED
