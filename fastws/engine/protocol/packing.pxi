# Packing: the head of a request, kept small while its connection is open. Most of it is what every browser says, so it
# is kept as references to a fixed text of usual header lines, and the bytes between them. That is several times as fast
# as raw deflate with that text for a dictionary, at about the same size: what is left is names, keys and cookies, which
# nothing shortens.
#
# A packed head is a row of pieces. 0nnnnnnn: the n + 1 bytes that follow. 1ppppppp pppppppp llllllll: l + 4
# (MIN_REFERENCE_BYTES) bytes of USUAL from p on.

cdef enum:
    MIN_REFERENCE_BYTES = 4             # a reference takes three bytes, and the piece after it may take one more
    MAX_REFERENCE_BYTES = MIN_REFERENCE_BYTES + 255
    MAX_LITERAL_BYTES = 128
    MAX_USUAL_BYTES = 4096
    START_BITS = 14                     # with fewer, most unusual bytes would collide with usual ones
    STARTS = 1 << START_BITS

# In the order in which browsers send them: lines that are together here take one reference there.
cdef bytes USUAL = (
    # Chrome, Edge
    b" HTTP/1.1\r\nHost: localhost:8765\r\nConnection: Upgrade\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n"
    b"User-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 "
    b"Safari/537.36 Edg/142.0.0.0\r\nUpgrade: websocket\r\nOrigin: https://www.\r\nSec-WebSocket-Version: 13\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9\r\nCookie: session=\r\n"
    b"Sec-WebSocket-Key: ==\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    b"Sec-WebSocket-Protocol: \r\n\r\n"
    b".0.0.0 Safari/537.36\r\nUpgrade: websocket\r\nOrigin: http://127.0.0.1:"
    b" (Macintosh; Intel Mac OS X 10_15_7) (X11; Linux x86_64) (Linux; Android 10; K) Mobile Safari/537.36\r\nUpgrade: "
    # Firefox
    b" (Windows NT 10.0; Win64; x64; rv:145.0) (X11; Linux x86_64; rv:145.0)"
    b" (Macintosh; Intel Mac OS X 10.15; rv:145.0)"
    b" Gecko/20100101 Firefox/145.0\r\nAccept: */*\r\nAccept-Language: en-US,en;q=0.5\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\nSec-WebSocket-Version: 13\r\nOrigin: https://"
    b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Key: ==\r\nSec-GPC: 1\r\nDNT: 1\r\n"
    b"Connection: keep-alive, Upgrade\r\nCookie: sessionid=\r\nSec-Fetch-Dest: empty\r\nSec-Fetch-Mode: websocket\r\n"
    b"Sec-Fetch-Site: same-origin\r\nPragma: no-cache\r\nCache-Control: no-cache\r\nUpgrade: websocket\r\n\r\n"
    b"Sec-Fetch-Dest: websocket\r\nsame-sitecross-site"
    # Safari
    b" AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.1 Safari/605.1.15 (iPhone; CPU iPhone OS 18_7 like Mac OS X)"
    b" Mobile/15E148 Safari/604.1\r\nAccept-Encoding: gzip, deflate\r\nSec-WebSocket-Version: 13\r\n"
    # What proxies add
    b"X-Real-IP: X-Forwarded-For: \r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: X-Request-Id: Forwarded: for="
    # Languages, cookies, tokens
    b"de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7fr-FR,fr;q=0.9es-ES,es;q=0.9pt-BR,pt;q=0.9ja-JP,ja;q=0.9zh-CN,zh;q=0.9ru-RU,ru"
    b"; _ga=GA1.1.; _gid=GA1.2.; theme=dark; lang=en; csrftoken=; token=; connect.sid=s%3A; PHPSESSID=; JSESSIONID="
    b"Authorization: Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOi"
    # Other programs
    b" HTTP/1.1\r\nHost: 127.0.0.1:8765\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: ==\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    b"User-Agent: Python/3. websockets/15.0aiohttp/3.13Go-http-client/1.1okhttp/5Dart/3. (dart:io)\r\n\r\n"
    b"GET /ws/")
assert len(USUAL) <= MAX_USUAL_BYTES

# By the hash of four bytes: where USUAL has them last, plus one; 0: nowhere.
cdef uint16_t[STARTS] last_start
# By a place in USUAL: where that hash is met before it, likewise.
cdef uint16_t[MAX_USUAL_BYTES] start_before


cdef inline uint32_t start_hash(const uint8_t* p) noexcept nogil:
    cdef uint32_t four
    memcpy(&four, p, MIN_REFERENCE_BYTES)
    return four * <uint32_t>2654435761 >> (32 - START_BITS)


cdef void index_usual(const uint8_t* usual, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t at
    cdef uint32_t start
    for at in range(n - MIN_REFERENCE_BYTES + 1):
        start = start_hash(usual + at)
        start_before[at] = last_start[start]
        last_start[start] = <uint16_t>(at + 1)


index_usual(USUAL, len(USUAL))


cdef inline Py_ssize_t find_usual(const uint8_t* usual, Py_ssize_t size, const uint8_t* p, Py_ssize_t n,
                                  Py_ssize_t* place) noexcept nogil:
    """Returns the most of these bytes that USUAL has in a row, and sets where; 0: fewer than MIN_REFERENCE_BYTES."""
    cdef Py_ssize_t best = MIN_REFERENCE_BYTES - 1
    cdef Py_ssize_t at, most, length
    if n < MIN_REFERENCE_BYTES:
        return 0
    at = last_start[start_hash(p)]
    while at:
        most = min(min(n, size - at + 1), <Py_ssize_t>MAX_REFERENCE_BYTES)
        length = 0
        while length < most and p[length] == usual[at - 1 + length]:
            length += 1
        if length > best:
            best = length
            place[0] = at - 1
        at = start_before[at - 1]
    return best if best >= MIN_REFERENCE_BYTES else 0


def pack_head(bytes head not None):
    """Returns a head in fewer bytes, for `unpack_head`; None when it would not take fewer."""
    cdef const uint8_t* p = head
    cdef const uint8_t* usual = USUAL
    cdef Py_ssize_t n = len(head), size = len(USUAL)
    # No reference is longer than what it stands for together with the first byte of the next piece.
    cdef bytes packed = PyBytes_FromStringAndSize(NULL, n + n // MAX_LITERAL_BYTES + 1)
    cdef uint8_t* out = packed
    cdef Py_ssize_t at = 0, end = 0, literal = 0, length, place = 0
    while at < n:
        length = find_usual(usual, size, p + at, n - at, &place)
        if length:
            out[end] = <uint8_t>(0x80 | place >> 8)
            out[end + 1] = <uint8_t>(place & 0xff)
            out[end + 2] = <uint8_t>(length - MIN_REFERENCE_BYTES)
            end += 3
            at += length
            literal = 0
            continue
        if literal == 0 or literal == MAX_LITERAL_BYTES:
            end += 1
            literal = 0
        out[end - literal - 1] = <uint8_t>literal
        out[end] = p[at]
        end += 1
        at += 1
        literal += 1
    return packed[:end] if end < n else None


@cython.boundscheck(True)
def unpack_head(bytes packed not None):
    """Returns the head that `pack_head` was given."""
    cdef Py_ssize_t at = 0, place
    cdef uint8_t first
    cdef list pieces = []
    while at < len(packed):
        first = packed[at]
        if first < 0x80:
            pieces.append(packed[at + 1:at + 2 + first])
            at += 2 + first
        else:
            place = (first & 0x7f) << 8 | <uint8_t>packed[at + 1]
            pieces.append(USUAL[place:place + MIN_REFERENCE_BYTES + <uint8_t>packed[at + 2]])
            at += 3
    return b"".join(pieces)
