# Frames: RFC 6455 section 5, without a socket in sight.

cdef enum:
    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA

cdef enum:
    MAX_HEADER_BYTES = 10               # of a frame that a server sends
    MAX_CONTROL_BYTES = 125             # of payload, RFC 6455 5.5
    RSV1 = 0x40                         # in the first byte: the message is deflated (RFC 7692 6)
    MAX_MESSAGE_BYTES = 1 << 30         # a frame is one range, and its length 32 bits

# What header_parse() may find instead of a header.
cdef enum:
    HEADER_SHORT = 0                    # more bytes are needed
    HEADER_OK = 1
    HEADER_RESERVED_BITS = -1
    HEADER_OPCODE = -2
    HEADER_UNMASKED = -3
    HEADER_CONTROL = -4
    HEADER_LENGTH = -5

cdef dict HEADER_ERRORS = {
    HEADER_RESERVED_BITS: "reserved bits are set",
    HEADER_OPCODE: "reserved opcode",
    HEADER_UNMASKED: "frame is not masked",
    HEADER_CONTROL: "control frame is fragmented or longer than 125 bytes",
    HEADER_LENGTH: "payload length is not in its shortest form or exceeds 2^63",
}


cdef inline uint32_t header_write(uint8_t* p, uint8_t opcode, size_t length) noexcept nogil:
    """Write the header of a final, unmasked frame; `opcode` may have RSV1. Returns its size in bytes."""
    cdef int i
    p[0] = 0x80 | opcode
    if length < 126:
        p[1] = <uint8_t>length
        return 2
    if length < 65536:
        p[1] = 126
        p[2] = <uint8_t>(length >> 8)
        p[3] = <uint8_t>length
        return 4
    p[1] = 127
    for i in range(8):
        p[2 + i] = <uint8_t>(length >> (56 - 8 * i))
    return 10


cdef inline uint32_t header_size(const uint8_t* p) noexcept nogil:
    """Returns the size of the header of a frame of our own."""
    if p[1] < 126:
        return 2
    return 4 if p[1] == 126 else MAX_HEADER_BYTES


cdef inline size_t frame_size(const uint8_t* p) noexcept nogil:
    """Returns the size of a frame of our own, header included."""
    cdef size_t length = p[1]
    cdef int i
    if length < 126:
        return 2 + length
    if length == 126:
        return 4 + ((<size_t>p[2] << 8) | p[3])
    length = 0
    for i in range(8):
        length = (length << 8) | p[2 + i]
    return 10 + length


cdef int header_parse(const uint8_t* p, size_t n, bint may_deflate, FrameHeader* h) noexcept nogil:
    """Read the header of a client's frame (RFC 6455 5.2). An error is found at the first byte that shows it."""
    cdef uint8_t length7
    cdef int i
    if n == 0:
        return HEADER_SHORT
    h.final = p[0] >> 7
    h.opcode = p[0] & 0x0f
    h.deflated = p[0] & 0x70 == RSV1 and may_deflate
    if p[0] & 0x70 and not (h.deflated and (h.opcode == TEXT or h.opcode == BINARY)):
        return HEADER_RESERVED_BITS
    if (h.opcode & 0x7) > 2:
        return HEADER_OPCODE
    if n == 1:
        return HEADER_SHORT
    if not p[1] & 0x80:
        return HEADER_UNMASKED
    length7 = p[1] & 0x7f
    if h.opcode & 0x8 and (not h.final or length7 > MAX_CONTROL_BYTES):
        return HEADER_CONTROL
    h.length = length7
    h.size = 6
    if length7 == 126:
        if n < 4:
            return HEADER_SHORT
        h.length = (<uint64_t>p[2] << 8) | p[3]
        h.size = 8
        if h.length < 126:
            return HEADER_LENGTH
    elif length7 == 127:
        if n < 10:
            return HEADER_SHORT
        h.length = 0
        for i in range(8):
            h.length = (h.length << 8) | p[2 + i]
        h.size = 14
        if h.length < 65536 or h.length >> 63:
            return HEADER_LENGTH
    if n < h.size:
        return HEADER_SHORT
    memcpy(&h.mask, p + h.size - 4, 4)
    return HEADER_OK


cdef inline void unmask(uint8_t* to, const uint8_t* source, size_t n, uint32_t mask, uint8_t phase) noexcept nogil:
    """XOR `n` bytes with the mask, whose byte `phase` (0 to 3) is due first; `to` may be `source` (RFC 6455 5.3)."""
    cdef uint8_t[8] key
    cdef uint64_t key8
    cdef uint64_t word
    cdef size_t i = 0
    cdef int k
    for k in range(8):
        key[k] = (<uint8_t*>&mask)[(phase + k) & 3]
    memcpy(&key8, key, 8)
    while i + 8 <= n:
        memcpy(&word, source + i, 8)
        word ^= key8
        memcpy(to + i, &word, 8)
        i += 8
    while i < n:
        to[i] = source[i] ^ key[i & 7]
        i += 1
