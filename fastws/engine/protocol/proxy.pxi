# Proxy: the header of the PROXY protocol, versions 1 and 2, by which a proxy says for whom it connected. The sections
# are those of haproxy's proxy-protocol.txt. Nothing here allocates; `found` is the caller's.

cdef enum:
    PROXY_LINE_BYTES = 107              # of version 1, CRLF included (2.1)
    PROXY_FIXED_BYTES = 16              # of version 2, before its addresses (2.2)
    PROXY_MOST_BYTES = 4096             # of version 2, after those; its length field could say 65,535

cdef enum:                              # Reactor.proxy_protocol
    PROXY_OFF
    PROXY_OPTIONAL
    PROXY_REQUIRED

# What proxy_parse() may find instead of a header.
cdef enum:
    PROXY_SHORT = 0                     # more bytes are needed
    PROXY_NONE = -1                     # these are the beginning of something else
    PROXY_BAD = -2

cdef const char* PROXY_WORD = b"PROXY "
cdef const char* PROXY_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


cdef Py_ssize_t proxy_parse(const uint8_t* p, size_t n, ProxyHeader* found) noexcept nogil:
    """Returns how many bytes the PROXY header takes with which these begin, and sets `found`; otherwise why there is
    none."""
    memset(found, 0, sizeof(ProxyHeader))
    if memcmp(p, PROXY_WORD, min(n, <size_t>6)) == 0:
        return proxy_parse_line(p, n, found) if n > 6 else PROXY_SHORT
    if memcmp(p, PROXY_SIGNATURE, min(n, <size_t>12)) == 0:
        return proxy_parse_binary(p, n, found) if n > 12 else PROXY_SHORT
    return PROXY_NONE


cdef Py_ssize_t proxy_parse_line(const uint8_t* p, size_t n, ProxyHeader* found) noexcept nogil:
    """Version 1: "PROXY TCP4 192.0.2.1 192.0.2.2 4711 80" and CRLF, or "PROXY UNKNOWN", anything, and CRLF."""
    cdef size_t end = 6
    cdef size_t most = min(n, <size_t>PROXY_LINE_BYTES)
    cdef size_t at
    cdef uint8_t[16] ours
    cdef int family
    while end < most and p[end] != 13:
        end += 1
    if end == PROXY_LINE_BYTES or (end + 1 == PROXY_LINE_BYTES and n > end):
        return PROXY_BAD                # no CR in time for its LF
    if end + 1 >= n:
        return PROXY_SHORT
    if p[end + 1] != 10:
        return PROXY_BAD
    if end >= 13 and memcmp(p + 6, b"UNKNOWN", 7) == 0 and (end == 13 or p[13] == 32):
        return <Py_ssize_t>end + 2
    if end < 11 or memcmp(p + 6, b"TCP", 3) != 0 or p[10] != 32 or (p[9] != 52 and p[9] != 54):
        return PROXY_BAD
    family = AF_INET if p[9] == 52 else AF_INET6
    at = proxy_take_address(p, 11, end, family, found.address)
    if at:
        at = proxy_take_address(p, at, end, family, ours)
    if at:
        at = proxy_take_port(p, at, end, 32, &found.port)
    if at:
        at = proxy_take_port(p, at, end, 13, NULL)
    if at != end + 1:
        return PROXY_BAD
    found.family = <uint8_t>family
    return <Py_ssize_t>end + 2


cdef size_t proxy_take_address(const uint8_t* p, size_t at, size_t end, int family, uint8_t* to) noexcept nogil:
    """Returns where what follows an address and its space begins; 0: it is none. `to` has room for 16 bytes."""
    cdef char[PROXY_LINE_BYTES] text
    cdef size_t n = 0
    while at + n < end and p[at + n] > 32:          # so no NUL either, at which inet_pton() would stop
        text[n] = <char>p[at + n]
        n += 1
    text[n] = 0
    if n == 0 or at + n == end or p[at + n] != 32 or inet_pton(family, text, to) != 1:
        return 0
    return at + n + 1


cdef size_t proxy_take_port(const uint8_t* p, size_t at, size_t end, uint8_t stop, uint16_t* to) noexcept nogil:
    """Returns where what follows a port and `stop` begins; 0: it is none. `end` is where the line's CR is."""
    cdef size_t start = at
    cdef uint32_t port = 0
    while at < end and 48 <= p[at] <= 57 and port <= 0xffff:
        port = port * 10 + p[at] - 48
        at += 1
    if at == start or port > 0xffff or p[at] != stop or (p[start] == 48 and at != start + 1):
        return 0
    if to is not NULL:
        to[0] = <uint16_t>port
    return at + 1


cdef Py_ssize_t proxy_parse_binary(const uint8_t* p, size_t n, ProxyHeader* found) noexcept nogil:
    """Version 2. What follows the addresses (2.2.1 to 2.2.7, such as the proxy's own TLS facts) is skipped."""
    cdef uint8_t family, kind
    cdef size_t length, least
    if p[12] != 0x20 and p[12] != 0x21:             # version and command
        return PROXY_BAD
    if n < PROXY_FIXED_BYTES:
        return PROXY_SHORT
    family = p[13] >> 4
    kind = p[13] & 0xf
    length = <size_t>p[14] << 8 | p[15]
    found.is_local = p[12] == 0x20                  # then its addresses mean nothing
    if length > PROXY_MOST_BYTES or (not found.is_local and (family > 3 or kind > 2)):
        return PROXY_BAD
    least = 0
    if not found.is_local and family == 1:
        least = 12
    elif not found.is_local and family == 2:
        least = 36
    elif not found.is_local and family == 3:
        least = 216
    if length < least:
        return PROXY_BAD
    if n < PROXY_FIXED_BYTES + length:
        return PROXY_SHORT
    if least == 12 and kind == 1:                   # two addresses, two ports
        found.family = AF_INET
        memcpy(found.address, p + 16, 4)
        found.port = <uint16_t>(p[24] << 8 | p[25])
    elif least == 36 and kind == 1:
        found.family = AF_INET6
        memcpy(found.address, p + 16, 16)
        found.port = <uint16_t>(p[48] << 8 | p[49])
    return <Py_ssize_t>(PROXY_FIXED_BYTES + length)


def parse_proxy_header(bytes data not None):
    """Returns (length, (host, port)) of the PROXY header with which these bytes begin.

    Instead of the peer: "local" where the proxy speaks for itself, None where it does not say for whom. The length is
    0 if more bytes are needed, -1 if they begin something else, -2 if they are malformed; there is no peer then.
    """
    cdef ProxyHeader found
    cdef Py_ssize_t length = proxy_parse(data, len(data), &found)
    if length <= 0 or (found.family == 0 and not found.is_local):
        return length, None
    return length, "local" if found.is_local else format_address(found.family, found.address, found.port)
