# Request: what asked for a WebSocket, as handlers get it.

from collections.abc import Mapping
from sys import intern
from urllib.parse import parse_qsl

cdef object IS_VISIBLE = compile_pattern(rb"[\x21-\x7e]+").fullmatch


class Headers(Mapping):
    """Header fields by name, in any case. A field that was sent several times reads as one, joined by commas."""

    __slots__ = ("_fields",)

    def __init__(self, fields):
        self._fields = fields           # list of (lower-case name, value)

    def __getitem__(self, name):
        values = self.get_all(name)
        if not values:
            raise KeyError(name)
        return ("; " if name.lower() == "cookie" else ", ").join(values)

    def get_all(self, name):
        """Returns every value that was sent as ``name``, in order."""
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
    ``WebSocket.data``) and fill ``response_headers``. ``session`` is the visitor's HTTP session, if the endpoint has
    `sessions` and the visitor has one; ``claims`` holds the claims of a JWT, if the endpoint has `auth`. Otherwise
    they are None.
    """

    def __cinit__(self, bytes head not None):
        self.kept_head = head

    cdef bytes head(self):
        """The request line and header, as received."""
        return unpack_head(self.kept_head) if self.is_packed else self.kept_head

    cdef int forget(self) except -1:
        """Drop what was only kept for the handshake and can be read from the head again; pack the head."""
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
        """The cookies by name; of several with one name the first counts (RFC 6265 5.4 puts the nearest first)."""
        return dict(reversed(parse_cookies(self.headers.get("cookie", ""))))

    def _cookie_values(self, name):
        """Returns every value that was sent under a cookie's name, in order."""
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
        """What follows the question mark, as sent."""
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
        """(host, port) of the peer, or of whoever a trusted proxy names; the port is 0 where that does not say."""
        if self._peer is not None:
            return self._peer
        return format_address(self.family, self.address, self.port)

    def _forward(self, host, int port, bint is_secure):
        """A trusted proxy says who asks, and whether over TLS."""
        if (host, port) != self.remote_address:
            place_address(self, host, port)
        self.is_secure = is_secure

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


cdef int place_address(Request request, host, int port) except -1:
    """Have a request come from this host, in text; nothing changes where that is no address."""
    cdef uint8_t[16] address
    cdef int family = AF_INET6 if ":" in host else AF_INET
    if inet_pton(family, host.partition("%")[0].encode(), address) == 1:
        memcpy(request.address, address, 16 if family == AF_INET6 else 4)
        request.family = <uint8_t>family
        request.port = <uint16_t>port
        request._peer = None
    return 0


cdef int take_address(Request request, Request other) except -1:
    """Have a request come from where another one does."""
    request._peer = other._peer
    request.family = other.family
    request.port = other.port
    memcpy(request.address, other.address, 16)
    request.is_secure = other.is_secure
    return 0


cdef format_address(int family, const uint8_t* address, int port):
    import socket

    if family == AF_INET:
        return socket.inet_ntop(AF_INET, PyBytes_FromStringAndSize(<const char*>address, 4)), port
    if family == AF_INET6:
        return socket.inet_ntop(AF_INET6, PyBytes_FromStringAndSize(<const char*>address, 16)), port
    return "", 0


cdef Request parse_request(bytes head):
    """Returns a Request made from a whole head. Raises Reject(400) with a sentence that says what is wrong with it."""
    cdef Request request = Request(head)
    cdef list words = head[:head.index(b"\r\n")].split(b" ")
    if len(words) != 3 or IS_TOKEN(words[0].decode("latin-1")) is None or IS_VISIBLE(words[1]) is None:
        raise Reject(400, "the request line is malformed")
    if words[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise Reject(400, "only HTTP/1.1 is supported")
    request.method = intern(words[0].decode())
    fields = parse_fields(head)
    request._headers = Headers(fields)
    hosts = request._headers.get_all("host")
    if len(hosts) > 1 or (not hosts and words[2] == b"HTTP/1.1"):
        raise Reject(400, "exactly one Host header field is required")
    if hosts and hosts[0] and not host_is_valid(hosts[0]):
        raise Reject(400, "the Host header field is malformed")
    decode_path(request._raw_path)
    return request
