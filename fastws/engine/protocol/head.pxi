# Head: a request's line and header fields, read strictly (RFC 9112).

from re import compile as compile_pattern
from urllib.parse import unquote_to_bytes

from fastws.errors import Reject

cdef object HOST = compile_pattern(                 # RFC 3986 3.2.2
    r"(?:\[([0-9A-Fa-f:.]+)\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+)(?::[0-9]{0,5})?").fullmatch
cdef object ABSOLUTE_FORM = compile_pattern(r"https?://([^/?#]*)(/[^?#]*)?(\?[^#]*)?", 2).fullmatch
cdef object BAD_ESCAPE = compile_pattern(r"%(?![0-9A-Fa-f]{2})").search
cdef object CONTROL_CHARACTER = compile_pattern(r"[\x00-\x1f\x7f]").search
cdef object IS_TOKEN = compile_pattern(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch

cdef uint8_t[256] TOKEN_BYTES
for _byte in range(256):
    TOKEN_BYTES[_byte] = IS_TOKEN(chr(_byte)) is not None


cdef Py_ssize_t head_end(const uint8_t* p, size_t n, size_t start) noexcept nogil:
    """Returns where the blank line that closes a head ends; 0: not there yet; -1: a byte that a head may not have.

    Bytes before `start` have already been looked at.
    """
    cdef size_t i
    cdef uint8_t b
    if n and not TOKEN_BYTES[p[0]]:
        return -1
    for i in range(start, n):
        b = p[i]
        if b >= 0x20 and b != 0x7f:
            continue
        if b == 10:
            if p[i - 1] != 13:
                return -1               # a bare LF
            if i >= 3 and p[i - 2] == 10:
                return <Py_ssize_t>i + 1
        elif b == 13:
            if i + 1 < n and p[i + 1] != 10:
                return -1               # a bare CR
        elif b != 9:
            return -1
    return 0


cdef str request_target(bytes head):
    """Returns the request target in origin-form (RFC 9112 3.2). Raises Reject(400)."""
    target = head[:head.index(b"\r\n")].split(b" ")[1].decode()
    if not target.startswith("/"):
        match = ABSOLUTE_FORM(target)
        if match is not None and host_is_valid(match[1]):
            return (match[2] or "/") + (match[3] or "")
        if target != "*" or not head.startswith(b"OPTIONS "):
            raise Reject(400, "the request target is malformed")
    if "#" in target:
        raise Reject(400, "the request target is malformed")
    return target


cdef bint host_is_valid(str value):
    """Returns whether it is a host, with or without a port (RFC 9110 7.2)."""
    cdef uint8_t[16] address
    match = HOST(value)
    return match is not None and (match[1] is None or inet_pton(AF_INET6, match[1].encode(), address) == 1)


cdef list parse_fields(bytes head):
    """Returns [(lower-case name, value)] of a head that head_end() accepted (RFC 9112 5). Raises Reject(400)."""
    cdef const char* p = PyBytes_AS_STRING(head)
    cdef Py_ssize_t at = head.index(b"\r\n") + 2
    cdef Py_ssize_t end, colon, first, last
    cdef list fields = []
    while p[at] != 13:
        end = head.index(b"\r", at)
        colon = at
        while TOKEN_BYTES[<uint8_t>p[colon]]:
            colon += 1
        if colon == at or p[colon] != 58:
            raise Reject(400, "a header field is malformed")
        first = colon + 1
        last = end
        while first < last and (p[first] == 32 or p[first] == 9):
            first += 1
        while last > first and (p[last - 1] == 32 or p[last - 1] == 9):
            last -= 1
        fields.append((p[at:colon].decode("latin-1").lower(), p[first:last].decode("latin-1")))
        at = end + 2
    return fields


def decode_path(str raw not None):
    """Percent-decode a path or a segment of one. Raises Reject(400) if the result is not text (RFC 3986 2.1)."""
    if "%" not in raw:
        return raw
    if BAD_ESCAPE(raw) is not None:
        raise Reject(400, "the path has a malformed percent-escape")
    try:
        path = unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        raise Reject(400, "the path is not UTF-8") from None
    if CONTROL_CHARACTER(path) is not None:
        raise Reject(400, "the path contains control characters")
    return path


cdef list tokens(str value):
    """Returns the members of a comma-separated list (RFC 9110 5.6.1)."""
    return [token for token in [part.strip(" \t") for part in value.split(",")] if token]
