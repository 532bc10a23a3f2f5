# Handshake: the checks of RFC 6455 section 4.2, and the answer.

from base64 import b64decode, b64encode
from hashlib import sha1

# The header fields of a 426 (RFC 9110 15.5.22, RFC 6455 4.4).
UPGRADE_REQUIRED = {"Sec-WebSocket-Version": "13", "Upgrade": "websocket", "Connection": "Upgrade, close"}

cdef bytes KEY_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
cdef object IS_EXTENSION = compile_pattern(         # RFC 6455 9.1; possessive: no input takes quadratic time
    r'{0}++(?:[ \t]*+;[ \t]*+{0}++(?:[ \t]*+=[ \t]*+(?:{0}++|"(?:\\?{0})++"))?+)*+'.format(
        r"[!#$%&'*+.^_`|~0-9A-Za-z-]")).fullmatch
cdef object IS_FIELD_VALUE = compile_pattern(r"[\t\x20-\x7e\x80-\xff]*").fullmatch


cdef bint has_token(headers, str name, str token):
    for value in tokens(headers.get(name, "")):
        if value.lower() == token:
            return True
    return False


def is_upgrade(headers not None):
    """Returns whether these header fields ask for a WebSocket; anything else is plain HTTP."""
    return has_token(headers, "upgrade", "websocket")


def check_upgrade(Request request not None):
    """RFC 6455 4.2.1. Raises Reject with the status and the reason if the upgrade is not in order."""
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


def accept_response(Request request not None, bint may_deflate=False):
    """Returns the 101 answer (RFC 6455 4.2.2), which may agree on compression.

    Raises ValueError for a subprotocol or a header field that may not be sent.
    """
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
    if may_deflate:
        request.deflate, agreed = negotiate_deflate(request.headers.get("sec-websocket-extensions", ""))
        if agreed:
            lines.append(f"Sec-WebSocket-Extensions: {agreed}")
    fields = request._response_headers or {}
    if any(name.lower() == "sec-websocket-extensions" for name in fields):
        raise ValueError("response_headers must not have Sec-WebSocket-Extensions: use the option compression")
    lines += field_lines(fields)
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def field_lines(fields):
    """Returns header field lines made from {name: value or list of values}.

    Raises ValueError for anything that could smuggle a line in.
    """
    lines = []
    for name, values in fields.items():
        for value in [values] if isinstance(values, str) else values:
            if IS_TOKEN(name) is None or IS_FIELD_VALUE(value) is None:
                raise ValueError(f"header field {name!r}: {value!r} cannot be sent: remove control characters")
            lines.append(f"{name}: {value}")
    return lines
