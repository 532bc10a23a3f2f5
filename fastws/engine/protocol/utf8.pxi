# UTF-8: text is validated as it arrives (RFC 6455 8.1), even where a character is split between two pieces.

cdef inline void utf8_start(Utf8* s) noexcept nogil:
    s.due = 0
    s.low = 0x80
    s.high = 0xBF


cdef bint utf8_feed(Utf8* s, const uint8_t* p, size_t n) noexcept nogil:
    """Validate the next `n` bytes (RFC 3629 4). Returns False at the first byte that valid text cannot have."""
    cdef size_t i = 0
    cdef uint64_t word
    cdef uint8_t b
    while i < n:
        if s.due == 0:
            while i + 8 <= n:
                memcpy(&word, p + i, 8)
                if word & <uint64_t>0x8080808080808080:
                    break
                i += 8
            if i == n:
                break
            b = p[i]
            if b >= 0x80 and not utf8_lead(s, b):
                return False
        else:
            b = p[i]
            if b < s.low or b > s.high:
                return False
            s.due -= 1
            s.low = 0x80
            s.high = 0xBF
        i += 1
    return True


cdef inline bint utf8_lead(Utf8* s, uint8_t b) noexcept nogil:
    if b < 0xC2 or b > 0xF4:
        return False
    if b < 0xE0:
        s.due = 1
    elif b < 0xF0:
        s.due = 2
        if b == 0xE0:
            s.low = 0xA0                # no overlong form
        elif b == 0xED:
            s.high = 0x9F               # no surrogate
    else:
        s.due = 3
        if b == 0xF0:
            s.low = 0x90                # no overlong form
        elif b == 0xF4:
            s.high = 0x8F               # nothing over U+10FFFF
    return True
