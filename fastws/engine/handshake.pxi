# Handshake: the request's head, read strictly (RFC 9112), and the checks of RFC 6455 section 4.2.

from base64 import b64decode, b64encode
from collections.abc import Mapping
from hashlib import sha1
from re import compile as compile_pattern
from sys import intern
from urllib.parse import parse_qsl, unquote_to_bytes

from fastws.errors import ProtocolError, Reject

# The header fields of a 426 (RFC 9110 15.5.22, RFC 6455 4.4).
UPGRADE_REQUIRED = {"Sec-WebSocket-Version": "13", "Upgrade": "websocket", "Connection": "Upgrade, close"}

cdef bytes KEY_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
cdef object HOST = compile_pattern(                 # RFC 3986 3.2.2
    r"(?:\[([0-9A-Fa-f:.]+)\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+)(?::[0-9]{0,5})?").fullmatch
cdef object ABSOLUTE_FORM = compile_pattern(r"https?://([^/?#]*)(/[^?#]*)?(\?[^#]*)?", 2).fullmatch
cdef object BAD_ESCAPE = compile_pattern(r"%(?![0-9A-Fa-f]{2})").search
cdef object CONTROL_CHARACTER = compile_pattern(r"[\x00-\x1f\x7f]").search
cdef object IS_TOKEN = compile_pattern(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
cdef object IS_EXTENSION = compile_pattern(         # RFC 6455 9.1; possessive: no input takes quadratic time
    r'{0}++(?:[ \t]*+;[ \t]*+{0}++(?:[ \t]*+=[ \t]*+(?:{0}++|"(?:\\?{0})++"))?+)*+'.format(
        r"[!#$%&'*+.^_`|~0-9A-Za-z-]")).fullmatch
cdef object COOKIE_ESCAPE = compile_pattern(r"\\(?:([0-3][0-7]{2})|(.))").sub
cdef object IS_VISIBLE = compile_pattern(rb"[\x21-\x7e]+").fullmatch
cdef object IS_FIELD_VALUE = compile_pattern(r"[\t\x20-\x7e\x80-\xff]*").fullmatch

cdef uint8_t[256] TOKEN_BYTES
for _byte in range(256):
    TOKEN_BYTES[_byte] = IS_TOKEN(chr(_byte)) is not None


cdef Py_ssize_t head_end(const uint8_t* p, size_t n, size_t start) noexcept nogil:
    """Where the blank line ends that ends a head; 0: not there yet; -1: a byte that no head may have.

    Bytes before `start` have been looked at already.
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


class Headers(Mapping):
    """Header fields by name, in any case. A field that came several times reads as one, joined by commas."""

    __slots__ = ("_fields",)

    def __init__(self, fields):
        self._fields = fields           # list of (lower-case name, value)

    def __getitem__(self, name):
        values = self.get_all(name)
        if not values:
            raise KeyError(name)
        return ("; " if name.lower() == "cookie" else ", ").join(values)

    def get_all(self, name):
        """Every value that came under ``name``, in order."""
        name = name.lower()
        return [value for key, value in self._fields if key == name]

    def __iter__(self):
        return iter(dict(self._fields))

    def __len__(self):
        return len(dict(self._fields))

    def __repr__(self):
        return f"Headers({self._fields!r})"


@cython.final
@cython.no_gc_clear
cdef class Request:
    """The request that asked for a WebSocket (RFC 6455 4.1), as `Listener.on_handshake` gets it.

    A handler may set ``user`` (any hashable value), ``subprotocol`` (one of those offered), ``data`` (a dict, later
    ``WebSocket.data``) and fill ``response_headers``. ``session`` is the visitor's HTTP session where the endpoint has
    `sessions` and the visitor one, ``claims`` what a JWT said where it has `auth`; else they are None.
    """

    def __cinit__(self, bytes head not None):
        self.kept_head = head

    cdef bytes head(self):
        """The request line and header, as received."""
        return unpack_head(self.kept_head) if self.is_packed else self.kept_head

    cdef int forget(self) except -1:
        """Drop what was only kept for the handshake and can be read from the head again, and pack that."""
        self._headers = None
        self._known_target = None
        packed = None if self.is_packed else pack_head(self.kept_head)
        if packed is not None:
            self.kept_head = packed
            self.is_packed = True
        return 0

    @property
    def headers(self):
        """Case-insensitive mapping of header fields."""
        if self._headers is None:
            self._headers = Headers(parse_fields(self.head()))
        return self._headers

    @property
    def cookies(self):
        """The cookies sent, by name; of several with one name the first counts (RFC 6265 5.4 puts the nearest first)."""
        return dict(reversed(parse_cookies(self.headers.get("cookie", ""))))

    def _cookie_values(self, name):
        """Every value that came under a cookie's name, in order."""
        return [value for key, value in parse_cookies(self.headers.get("cookie", "")) if key == name]

    @property
    def _target(self):
        """The request target in origin-form, as sent."""
        if self._known_target is None:
            self._known_target = request_target(self.head())
        return self._known_target

    @property
    def _raw_path(self):
        return self._target.partition("?")[0]

    @property
    def path(self):
        """The path, percent-decoded."""
        return decode_path(self._raw_path)

    @property
    def path_parameters(self):
        """What the endpoint's path template found, percent-decoded, by name."""
        return {} if self._template is None else self._template.parameters(self._raw_path)

    @property
    def query_string(self):
        """What stands behind the question mark, as sent."""
        return self._target.partition("?")[2]

    @property
    def query(self):
        """The query string's fields by name; of several with one name the last counts."""
        return dict(parse_qsl(self.query_string, keep_blank_values=True))

    @property
    def subprotocols(self):
        """The subprotocols that the client offers, in its order of preference (RFC 6455 4.1)."""
        return tokens(self.headers.get("sec-websocket-protocol", ""))

    @property
    def remote_address(self):
        """(host, port) of the peer."""
        if self._peer is not None:
            return self._peer
        return format_address(self.family, self.address, self.port)

    @property
    def data(self):
        """A dict for the application's own; the connection keeps it as ``WebSocket.data``."""
        if self._data is None:
            self._data = {}
        return self._data

    @data.setter
    def data(self, value):
        if not isinstance(value, dict):
            raise TypeError(f"data must be a dict, not {value!r}")
        self._data = value

    @property
    def response_headers(self):
        """Header fields to add to the answer: name to value, or to a list of values."""
        if self._response_headers is None:
            self._response_headers = {}
        return self._response_headers

    @response_headers.setter
    def response_headers(self, value):
        self._response_headers = dict(value)

    def __repr__(self):
        return f"<Request {self.method} {self._target!r}>"


cdef format_address(int family, const uint8_t* address, int port):
    import socket

    if family == AF_INET:
        return socket.inet_ntop(AF_INET, PyBytes_FromStringAndSize(<const char*>address, 4)), port
    if family == AF_INET6:
        return socket.inet_ntop(AF_INET6, PyBytes_FromStringAndSize(<const char*>address, 16)), port
    return "", 0


cdef Request parse_request(bytes head, bint is_secure):
    """A Request from a whole head; raises Reject(400) with a sentence that says what is wrong with it."""
    cdef Request request = Request(head)
    cdef list words = head[:head.index(b"\r\n")].split(b" ")
    if len(words) != 3 or IS_TOKEN(words[0].decode("latin-1")) is None or IS_VISIBLE(words[1]) is None:
        raise Reject(400, "the request line is malformed")
    if words[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise Reject(400, "only HTTP/1.1 is supported")
    request.method = intern(words[0].decode())
    request.is_secure = is_secure
    fields = parse_fields(head)
    request._headers = Headers(fields)
    hosts = request._headers.get_all("host")
    if len(hosts) > 1 or (not hosts and words[2] == b"HTTP/1.1"):
        raise Reject(400, "exactly one Host header field is required")
    if hosts and hosts[0] and not host_is_valid(hosts[0]):
        raise Reject(400, "the Host header field is malformed")
    decode_path(request._raw_path)
    return request


cdef str request_target(bytes head):
    """The request target in origin-form (RFC 9112 3.2); raises Reject(400)."""
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
    """Whether it is a host with or without a port (RFC 9110 7.2)."""
    cdef uint8_t[16] address
    match = HOST(value)
    return match is not None and (match[1] is None or inet_pton(AF_INET6, match[1].encode(), address) == 1)


cdef list parse_fields(bytes head):
    """[(lower-case name, value)] of a head that head_end() accepted (RFC 9112 5); raises Reject(400)."""
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
    """Percent-decode a path or a segment of one; raises Reject(400) where no text comes out (RFC 3986 2.1)."""
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


cdef list parse_cookies(str header):
    """(name, value) of every cookie, in the order sent."""
    cookies = []
    for pair in header.split(";"):
        name, equals, value = pair.partition("=")
        name = name.strip()
        if equals and name:
            cookies.append((name, unquote_cookie(value.strip())))
    return cookies


cdef str unquote_cookie(str value):
    """A cookie's value as it was before http.cookies quoted it, in linear time (CVE-2024-7592)."""
    if len(value) < 2 or not value.startswith('"') or not value.endswith('"'):
        return value
    return COOKIE_ESCAPE(lambda match: chr(int(match[1], 8)) if match[1] else match[2], value[1:len(value) - 1])


cdef list tokens(str value):
    """The members of a comma-separated list (RFC 9110 5.6.1)."""
    return [token for token in [part.strip(" \t") for part in value.split(",")] if token]


cdef bint has_token(headers, str name, str token):
    for value in tokens(headers.get(name, "")):
        if value.lower() == token:
            return True
    return False


def is_upgrade(headers not None):
    """Whether whoever sent these header fields asks for a WebSocket: anything else is plain HTTP."""
    return has_token(headers, "upgrade", "websocket")


def check_upgrade(Request request not None):
    """RFC 6455 4.2.1: raises Reject with the status and the reason where the upgrade is not in order."""
    headers = request.headers
    if request.method != "GET":
        raise Reject(405, "WebSocket handshakes must use GET", headers={"Allow": "GET"})
    if request.head().split(b"\r\n", 1)[0].endswith(b"HTTP/1.0"):
        raise Reject(400, "WebSocket handshakes must use HTTP/1.1")
    if not headers.get("host"):
        raise Reject(400, "the Host header field is empty")
    if not has_token(headers, "connection", "upgrade"):
        raise Reject(400, "the Connection header field must contain Upgrade")
    if headers.get_all("transfer-encoding") or any(length != "0" for length in headers.get_all("content-length")):
        raise Reject(400, "a WebSocket handshake must not have a body")
    versions = headers.get_all("sec-websocket-version")
    if len(versions) != 1:
        raise Reject(400, "exactly one Sec-WebSocket-Version header field is required",
                     headers={"Sec-WebSocket-Version": "13"})
    if versions[0] != "13":
        raise Reject(426, "unsupported WebSocket version; use 13", headers=UPGRADE_REQUIRED)
    keys = headers.get_all("sec-websocket-key")
    if len(keys) != 1 or not key_is_valid(keys[0]):
        raise Reject(400, "exactly one Sec-WebSocket-Key header field with 16 bytes in Base64 is required")
    if any(IS_TOKEN(name) is None for name in request.subprotocols):
        raise Reject(400, "the Sec-WebSocket-Protocol header field is malformed")
    if any(IS_EXTENSION(offer) is None for offer in tokens(headers.get("sec-websocket-extensions", ""))):
        raise Reject(400, "the Sec-WebSocket-Extensions header field is malformed")


cdef bint key_is_valid(str key):
    if len(key) != 24:
        return False
    try:
        return len(b64decode(key, validate=True)) == 16
    except ValueError:
        return False


def accept_response(Request request not None):
    """The 101 answer (RFC 6455 4.2.2); raises ValueError for a subprotocol or a header field that may not be sent."""
    key = request.headers["sec-websocket-key"].encode()
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Accept: " + b64encode(sha1(key + KEY_GUID).digest()).decode(),
    ]
    if request.subprotocol is not None:
        if request.subprotocol not in request.subprotocols:
            raise ValueError(f"subprotocol {request.subprotocol!r} was not offered: choose one of request.subprotocols")
        lines.append(f"Sec-WebSocket-Protocol: {request.subprotocol}")
    lines += field_lines(request._response_headers or {})
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def field_lines(fields):
    """Header field lines from {name: value or list of values}; raises ValueError for what could smuggle a line in."""
    lines = []
    for name, values in fields.items():
        for value in [values] if isinstance(values, str) else values:
            if IS_TOKEN(name) is None or IS_FIELD_VALUE(value) is None:
                raise ValueError(f"header field {name!r}: {value!r} cannot be sent: remove control characters")
            lines.append(f"{name}: {value}")
    return lines
