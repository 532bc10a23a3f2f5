"""Hostile handshakes, according to RFC 9112 (the message), RFC 9110 (its fields) and RFC 6455 4 (the upgrade)."""

from ..lib.raw import KEY, TEXT, frame, request
from . import MAX_HEADER_SIZE


def instead(name: str, *values: str) -> bytes:
    """A handshake with these values of the field `name`."""
    return request("/ws/cars", without=[name], extra=[(name, value) for value in values])


def without(*names: str) -> bytes:
    """A handshake without these fields."""
    return request("/ws/cars", without=names)


def field(line: str) -> bytes:
    """A handshake with an additional line among its fields."""
    return request("/ws/cars")[:-2] + line.encode("latin-1") + b"\r\n\r\n"


NO_HTTP = "this is not an HTTP/1.1 request"
REQUEST_LINE = "the request line is malformed"
VERSION = "only HTTP/1.1 is supported"
TARGET = "the request target is malformed"
ESCAPE = "the path has a malformed percent-escape"
NOT_UTF8 = "the path is not UTF-8"
CONTROLS = "the path contains control characters"
NO_ENDPOINT = "no WebSocket endpoint at this path"
NOTHING_HERE = "not found"
ONE_HOST = "exactly one Host header field is required"
BAD_HOST = "the Host header field is malformed"
EMPTY_HOST = "the Host header field is empty"
BAD_FIELD = "a header field is malformed"
NO_WEBSOCKET = "this path only accepts WebSocket connections"
NO_CONNECTION = "the Connection header field must contain Upgrade"
NO_BODY = "a WebSocket handshake must not have a body"
ONE_VERSION = "exactly one Sec-WebSocket-Version header field is required"
OTHER_VERSION = "unsupported WebSocket version; use 13"
ONE_KEY = "exactly one Sec-WebSocket-Key header field with 16 bytes in Base64 is required"
BAD_SUBPROTOCOL = "the Sec-WebSocket-Protocol header field is malformed"
BAD_EXTENSION = "the Sec-WebSocket-Extensions header field is malformed"
NO_GET = "WebSocket handshakes must use GET"
OLD_HTTP = "WebSocket handshakes must use HTTP/1.1"
TOO_LARGE = f"the request head exceeds {MAX_HEADER_SIZE} bytes"

# name: (bytes, status, message of the JSON error). The listener is never called.
REFUSED = {
    # other protocols
    "HTTP/2's preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, VERSION),
    "a TLS ClientHello": (b"\x16\x03\x01\x00\xf4\x01\x00\x00\xf0\x03\x03" + bytes(range(240)), 400, NO_HTTP),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", 400, REQUEST_LINE),
    "SMTP": (b"EHLO example.org\r\n\r\n", 400, REQUEST_LINE),
    "SOCKS": (b"\x05\x01\x00", 400, NO_HTTP),
    "Redis": (b"*1\r\n$4\r\nPING\r\n\r\n", 400, REQUEST_LINE),
    "PostgreSQL": (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", 400, NO_HTTP),
    "the PROXY protocol": (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + request("/ws/cars"), 400, REQUEST_LINE),
    "the PROXY protocol's second version": (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12), 400, NO_HTTP),
    "HTTP/0.9": (b"GET /ws/cars\r\n\r\n", 400, REQUEST_LINE),
    "a response": (b"HTTP/1.1 200 OK\r\n\r\n", 400, REQUEST_LINE),
    "a frame": (frame(TEXT, b"hello"), 400, NO_HTTP),
    "zeros": (bytes(1000), 400, NO_HTTP),
    "nothing but line ends": (b"\r\n" * 100, 400, NO_HTTP),
    "hello there": (b"hello there\r\n\r\n", 400, REQUEST_LINE),
    # the request line (RFC 9112 3)
    "HTTP/1.0": (request("/ws/cars", version="HTTP/1.0"), 400, OLD_HTTP),
    "HTTP/1.0 without Host": (request("/ws/cars", version="HTTP/1.0", without=["Host"]), 400, OLD_HTTP),
    "HTTP/2.0": (request("/ws/cars", version="HTTP/2.0"), 400, VERSION),
    "HTTP/9.9": (request("/ws/cars", version="HTTP/9.9"), 400, VERSION),
    "a version in lower case": (request("/ws/cars", version="http/1.1"), 400, VERSION),
    "a version with a tail": (request("/ws/cars", version="HTTP/1.1x"), 400, VERSION),
    "no version": (request("/ws/cars", version=""), 400, VERSION),
    "two blanks before the target": (request(" /ws/cars"), 400, REQUEST_LINE),
    "a blank in the target": (request("/ws/fast cars"), 400, REQUEST_LINE),
    "a blank behind the version": (request("/ws/cars", version="HTTP/1.1 "), 400, REQUEST_LINE),
    "tabs for blanks": (request("/ws/cars").replace(b" ", b"\t", 2), 400, REQUEST_LINE),
    "a tab in the target": (request("/ws/ca\trs"), 400, REQUEST_LINE),
    "no target": (request(""), 400, REQUEST_LINE),
    "no method": (request("/ws/cars", method=""), 400, NO_HTTP),
    "a method that is no token": (request("/ws/cars", method="G@T"), 400, REQUEST_LINE),
    "a blank line first": (b"\r\n" + request("/ws/cars"), 400, NO_HTTP),
    "a blank first": (b" " + request("/ws/cars"), 400, NO_HTTP),
    "a byte order mark first": (b"\xef\xbb\xbf" + request("/ws/cars"), 400, NO_HTTP),
    "a lower-case method": (request("/ws/cars", method="get"), 405, NO_GET),
    "POST": (request("/ws/cars", method="POST"), 405, NO_GET),
    "OPTIONS of everything": (request("*", method="OPTIONS"), 405, NO_GET),
    "CONNECT": (request("127.0.0.1:80", method="CONNECT"), 400, TARGET),
    # the target (RFC 9112 3.2) and its path (RFC 3986 2.1)
    "GET of everything": (request("*"), 400, TARGET),
    "a target that is no path": (request("ws/cars"), 400, TARGET),
    "a fragment": (request("/ws/cars#x"), 400, TARGET),
    "absolute form with a fragment": (request("http://127.0.0.1/ws/cars?a#x"), 400, TARGET),
    "absolute form without a host": (request("http:///ws/cars"), 400, TARGET),
    "absolute form with a user": (request("http://ann:secret@127.0.0.1/ws/cars"), 400, TARGET),
    "absolute form of another scheme": (request("file:///etc/passwd"), 400, TARGET),
    "absolute form of a WebSocket": (request("ws://127.0.0.1/ws/cars"), 400, TARGET),
    "absolute form of somebody's path": (request("http://127.0.0.1/admin"), 404, NO_ENDPOINT),
    "a control byte in the target": (request("/ws/ca\x01rs"), 400, NO_HTTP),
    "a NUL in the target": (request("/ws/ca\0rs"), 400, NO_HTTP),
    "DEL in the target": (request("/ws/ca\x7frs"), 400, NO_HTTP),
    "raw UTF-8 in the target": (request("/ws/caf\xc3\xa9"), 400, REQUEST_LINE),
    "raw Latin-1 in the target": (request("/ws/caf\xe9"), 400, REQUEST_LINE),
    "an escape that is no hexadecimal": (request("/ws/%zz"), 400, ESCAPE),
    "an escape cut short": (request("/ws/%4"), 400, ESCAPE),
    "an escape of nothing": (request("/ws/%"), 400, ESCAPE),
    "an escape in the manner of %u": (request("/ws/%u0041"), 400, ESCAPE),
    "an escape with a sign": (request("/ws/%+1"), 400, ESCAPE),
    "an encoded NUL": (request("/ws/a%00b"), 400, CONTROLS),
    "an encoded line break": (request("/ws/a%0d%0aX-Evil:%201"), 400, CONTROLS),
    "an encoded DEL": (request("/ws/a%7fb"), 400, CONTROLS),
    "an overlong slash": (request("/ws/%c0%af"), 400, NOT_UTF8),
    "an overlong dot": (request("/ws/%c0%ae%c0%ae/x"), 400, NOT_UTF8),
    "an overlong NUL": (request("/ws/%c0%80"), 400, NOT_UTF8),
    "an overlong slash of three bytes": (request("/ws/%e0%80%af"), 400, NOT_UTF8),
    "an overlong slash of four bytes": (request("/ws/%f0%80%80%af"), 400, NOT_UTF8),
    "an encoded surrogate": (request("/ws/%ed%a0%80"), 400, NOT_UTF8),
    "half an encoded character": (request("/ws/%e2%82"), 400, NOT_UTF8),
    "Latin-1, encoded": (request("/ws/caf%e9"), 400, NOT_UTF8),
    "up and out": (request("/../ws/cars"), 404, NO_ENDPOINT),
    "up and out, encoded": (request("/%2e%2e/ws/cars"), 404, NO_ENDPOINT),
    "up and out, encoded with its slash": (request("/%2e%2e%2fws/cars"), 404, NO_ENDPOINT),
    "up and down again": (request("/ws/../ws/cars"), 404, NO_ENDPOINT),
    "a separator, encoded": (request("/ws%2fcars"), 404, NO_ENDPOINT),
    "a backslash for a slash": (request("/ws\\cars"), 404, NO_ENDPOINT),
    "two slashes": (request("//ws/cars"), 404, NO_ENDPOINT),
    "somebody's host as a path": (request("//evil.example/ws/cars"), 404, NO_ENDPOINT),
    "a semicolon's parameters": (request("/ws;/cars"), 404, NO_ENDPOINT),
    # Host (RFC 9112 3.2)
    "no Host": (without("Host"), 400, ONE_HOST),
    "no Host, absolute form": (request("http://127.0.0.1/ws/cars", without=["Host"]), 400, ONE_HOST),
    "two Hosts": (instead("Host", "127.0.0.1", "127.0.0.1"), 400, ONE_HOST),
    "two Hosts that differ": (instead("Host", "127.0.0.1", "evil.example"), 400, ONE_HOST),
    "two Hosts in one": (instead("Host", "127.0.0.1, evil.example"), 400, BAD_HOST),
    "an empty Host": (instead("Host", ""), 400, EMPTY_HOST),
    "a Host with a blank": (instead("Host", "127.0.0.1 evil.example"), 400, BAD_HOST),
    "a Host with a path": (instead("Host", "127.0.0.1/ws"), 400, BAD_HOST),
    "a Host with a user": (instead("Host", "ann@127.0.0.1"), 400, BAD_HOST),
    "a Host with a scheme": (instead("Host", "http://127.0.0.1"), 400, BAD_HOST),
    "a Host that is only a port": (instead("Host", ":80"), 400, BAD_HOST),
    "a Host whose port is a name": (instead("Host", "127.0.0.1:http"), 400, BAD_HOST),
    "a Host with two ports": (instead("Host", "127.0.0.1:80:80"), 400, BAD_HOST),
    "a Host with brackets left open": (instead("Host", "[::1"), 400, BAD_HOST),
    "a Host of IPv6 without brackets": (instead("Host", "::1"), 400, BAD_HOST),
    "a Host of IPv6 that is none": (instead("Host", "[1::2::3]:80"), 400, BAD_HOST),
    "a Host of IPv4 in brackets": (instead("Host", "[127.0.0.1]"), 400, BAD_HOST),
    "a Host with empty brackets": (instead("Host", "[]"), 400, BAD_HOST),
    "a Host with a zone": (instead("Host", "[fe80::1%25eth0]"), 400, BAD_HOST),
    "a Host with a bad escape": (instead("Host", "a%zz.example"), 400, BAD_HOST),
    "a Host with half an escape": (instead("Host", "example%2"), 400, BAD_HOST),
    "absolute form of IPv6 that is none": (request("http://[::1::]/ws/cars"), 400, TARGET),
    "a Host with quotes": (instead("Host", '"127.0.0.1"'), 400, BAD_HOST),
    "a Host that is no ASCII": (instead("Host", "caf\xe9.example"), 400, BAD_HOST),
    # fields in general (RFC 9112 5)
    "bare line feeds": (request("/ws/cars").replace(b"\r\n", b"\n"), 400, NO_HTTP),
    "one bare line feed": (field("X-A: 1\nX-B: 2"), 400, NO_HTTP),
    "a bare line feed at the end": (request("/ws/cars")[:-2] + b"\n", 400, NO_HTTP),
    "a bare carriage return": (field("X-A: 1\rX-B: 2"), 400, NO_HTTP),
    "two carriage returns": (request("/ws/cars").replace(b"\r\n", b"\r\r\n"), 400, NO_HTTP),
    "a folded field": (field("X-A: 1\r\n 2"), 400, BAD_FIELD),
    "a field folded with a tab": (field("X-A: 1\r\n\t2"), 400, BAD_FIELD),
    "a folded Connection": (instead("Connection", "keep-alive,\r\n Upgrade"), 400, BAD_FIELD),
    "a blank before the first field": (request("/ws/cars").replace(b"\r\nHost", b"\r\n Host"), 400, BAD_FIELD),
    "a NUL in a value": (field("X-A: 1\0"), 400, NO_HTTP),
    "a NUL in a name": (field("X\0A: 1"), 400, NO_HTTP),
    "a control byte in a value": (field("X-A: \x08"), 400, NO_HTTP),
    "an escape sequence in a value": (field("User-Agent: \x1b[2J"), 400, NO_HTTP),
    "DEL in a value": (field("X-A: \x7f"), 400, NO_HTTP),
    "a control byte in a name": (field("X\x01A: 1"), 400, NO_HTTP),
    "a blank before the colon": (field("X-A : 1"), 400, BAD_FIELD),
    "a tab before the colon": (field("X-A\t: 1"), 400, BAD_FIELD),
    "Host with a blank before the colon": (request("/ws/cars").replace(b"Host:", b"Host :"), 400, BAD_FIELD),
    "a blank in a name": (field("X A: 1"), 400, BAD_FIELD),
    "a name that is no ASCII": (field("X-\xe9: 1"), 400, BAD_FIELD),
    "no name": (field(": 1"), 400, BAD_FIELD),
    "no colon": (field("X-A"), 400, BAD_FIELD),
    "a name in quotes": (field('"X-A": 1'), 400, BAD_FIELD),
    # Upgrade and Connection (RFC 9110 7.8, RFC 6455 4.2.1)
    "no Upgrade": (without("Upgrade"), 426, NO_WEBSOCKET),
    "an empty Upgrade": (instead("Upgrade", ""), 426, NO_WEBSOCKET),
    "another Upgrade": (instead("Upgrade", "h2c"), 426, NO_WEBSOCKET),
    "an Upgrade with a tail": (instead("Upgrade", "websockets"), 426, NO_WEBSOCKET),
    "an Upgrade in quotes": (instead("Upgrade", '"websocket"'), 426, NO_WEBSOCKET),
    "no Connection": (without("Connection"), 400, NO_CONNECTION),
    "an empty Connection": (instead("Connection", ""), 400, NO_CONNECTION),
    "Connection: close": (instead("Connection", "close"), 400, NO_CONNECTION),
    "Connection: keep-alive": (instead("Connection", "keep-alive"), 400, NO_CONNECTION),
    "Connection: keep-alive Upgrade": (instead("Connection", "keep-alive Upgrade"), 400, NO_CONNECTION),
    "neither Upgrade nor Connection": (without("Upgrade", "Connection"), 426, NO_WEBSOCKET),
    "neither, on a path where nothing is": (request("/x", without=["Upgrade", "Connection"]), 404, NOTHING_HERE),
    # a body (RFC 9112 6)
    "a body": (field("Content-Length: 5") + b"hello", 400, NO_BODY),
    "a body that never comes": (field("Content-Length: 5"), 400, NO_BODY),
    "a chunked body": (field("Transfer-Encoding: chunked") + b"0\r\n\r\n", 400, NO_BODY),
    "an encoding nobody knows": (field("Transfer-Encoding: xchunked"), 400, NO_BODY),
    "an identical encoding": (field("Transfer-Encoding: identity"), 400, NO_BODY),
    "two lengths": (field("Content-Length: 0\r\nContent-Length: 5") + b"hello", 400, NO_BODY),
    "two lengths in one": (field("Content-Length: 0, 0"), 400, NO_BODY),
    "a negative length": (field("Content-Length: -1"), 400, NO_BODY),
    "a length with a sign": (field("Content-Length: +0"), 400, NO_BODY),
    "a length in hexadecimal": (field("Content-Length: 0x0"), 400, NO_BODY),
    "a length of nothing": (field("Content-Length:"), 400, NO_BODY),
    "a length without end": (field("Content-Length: " + "9" * 1000), 400, NO_BODY),
    "length and chunks": (field("Content-Length: 5\r\nTransfer-Encoding: chunked") + b"0\r\n\r\n", 400, NO_BODY),
    # Sec-WebSocket-Key
    "no key": (without("Sec-WebSocket-Key"), 400, ONE_KEY),
    "an empty key": (instead("Sec-WebSocket-Key", ""), 400, ONE_KEY),
    "two keys": (instead("Sec-WebSocket-Key", KEY, KEY), 400, ONE_KEY),
    "two keys in one": (instead("Sec-WebSocket-Key", f"{KEY}, {KEY}"), 400, ONE_KEY),
    "a key of 15 bytes": (instead("Sec-WebSocket-Key", "A" * 20), 400, ONE_KEY),
    "a key of 17 bytes": (instead("Sec-WebSocket-Key", "A" * 23 + "="), 400, ONE_KEY),
    "a key of 18 bytes": (instead("Sec-WebSocket-Key", "A" * 24), 400, ONE_KEY),
    "a key that is no Base64": (instead("Sec-WebSocket-Key", "!" * 22 + "=="), 400, ONE_KEY),
    "a key in the URL's Base64": (instead("Sec-WebSocket-Key", "_" * 21 + "w=="), 400, ONE_KEY),
    "a key without its padding": (instead("Sec-WebSocket-Key", "A" * 22), 400, ONE_KEY),
    "a key with a blank in it": (instead("Sec-WebSocket-Key", "A" * 11 + " " + "A" * 10 + "=="), 400, ONE_KEY),
    "a key of a kilobyte": (instead("Sec-WebSocket-Key", "A" * 1024), 400, ONE_KEY),
    "a key that is no ASCII": (instead("Sec-WebSocket-Key", "\xe9" * 22 + "=="), 400, ONE_KEY),
    # Sec-WebSocket-Version (RFC 6455 4.4: the answer says 13)
    "no version of the protocol": (without("Sec-WebSocket-Version"), 400, ONE_VERSION),
    "two versions of the protocol": (instead("Sec-WebSocket-Version", "13", "13"), 400, ONE_VERSION),
    "two versions that differ": (instead("Sec-WebSocket-Version", "13", "8"), 400, ONE_VERSION),
    "two versions in one": (instead("Sec-WebSocket-Version", "13, 8"), 426, OTHER_VERSION),
    "version 8": (instead("Sec-WebSocket-Version", "8"), 426, OTHER_VERSION),
    "version 0": (instead("Sec-WebSocket-Version", "0"), 426, OTHER_VERSION),
    "version 14": (instead("Sec-WebSocket-Version", "14"), 426, OTHER_VERSION),
    "version 013": (instead("Sec-WebSocket-Version", "013"), 426, OTHER_VERSION),
    "version 13.0": (instead("Sec-WebSocket-Version", "13.0"), 426, OTHER_VERSION),
    "version -13": (instead("Sec-WebSocket-Version", "-13"), 426, OTHER_VERSION),
    "an empty version": (instead("Sec-WebSocket-Version", ""), 426, OTHER_VERSION),
    "a version in superscript": (instead("Sec-WebSocket-Version", "\xb9\xb3"), 426, OTHER_VERSION),
    # Sec-WebSocket-Protocol and -Extensions (RFC 6455 4.1, 9.1)
    "a subprotocol with a blank": (field("Sec-WebSocket-Protocol: a, b c"), 400, BAD_SUBPROTOCOL),
    "a subprotocol with a field in it": (field("Sec-WebSocket-Protocol: a\rX-Evil: 1"), 400, NO_HTTP),
    "a subprotocol in quotes": (field('Sec-WebSocket-Protocol: "a"'), 400, BAD_SUBPROTOCOL),
    "a subprotocol that is no ASCII": (field("Sec-WebSocket-Protocol: caf\xe9"), 400, BAD_SUBPROTOCOL),
    "an extension that is no token": (field("Sec-WebSocket-Extensions: a b"), 400, BAD_EXTENSION),
    "an extension with no name": (field("Sec-WebSocket-Extensions: ;a"), 400, BAD_EXTENSION),
    "an extension with an empty parameter": (field("Sec-WebSocket-Extensions: a;"), 400, BAD_EXTENSION),
    "an extension's parameter without a value": (field("Sec-WebSocket-Extensions: a; b="), 400, BAD_EXTENSION),
    "an extension's quotes left open": (field('Sec-WebSocket-Extensions: a; b="c'), 400, BAD_EXTENSION),
    "an extension's value that is no token": (field('Sec-WebSocket-Extensions: a; b="c d"'), 400, BAD_EXTENSION),
    "a second extension malformed": (
        field("Sec-WebSocket-Extensions: a\r\nSec-WebSocket-Extensions: ="),
        400,
        BAD_EXTENSION,
    ),
    # endless input
    "a request line of 1 MiB": (request("/ws/" + "x" * (1 << 20)), 431, TOO_LARGE),
    "a method of 1 MiB": (b"G" * (1 << 20), 431, TOO_LARGE),
    "a query of 1 MiB": (request("/ws/cars?" + "x" * (1 << 20)), 431, TOO_LARGE),
    "a name of 1 MiB": (b"GET /ws/cars HTTP/1.1\r\n" + b"X" * (1 << 20), 431, TOO_LARGE),
    "a value of 1 MiB": (field("X-A: " + "x" * (1 << 20)), 431, TOO_LARGE),
    "10,000 fields": (field("\r\n".join(f"X-{i}: x" for i in range(10_000))), 431, TOO_LARGE),
    "10,000 Hosts": (field("\r\n".join(["Host: 127.0.0.1"] * 10_000)), 431, TOO_LARGE),
    "one byte too many": (field("X-A: " + "x" * (MAX_HEADER_SIZE - len(field("X-A: ")) + 1)), 431, TOO_LARGE),
    "a bad byte behind too many": (field("X-A: " + "x" * MAX_HEADER_SIZE + "\0"), 431, TOO_LARGE),
    # a second request after a refused one is never read (RFC 9112 9.6)
    "a good request behind a bad path": (request("/nowhere") + request("/ws/cars"), 404, NO_ENDPOINT),
    "a good request behind a bad one": (without("Host") + request("/ws/cars"), 400, ONE_HOST),
    "a good request as the body": (field("Content-Length: 20") + request("/ws/cars"), 400, NO_BODY),
}

# Unusual but valid; some servers refuse them. name: (bytes, the channel that they come to)
ACCEPTED = {
    "Firefox's Connection": (instead("Connection", "keep-alive, Upgrade"), "cars"),
    "two Connections": (instead("Connection", "keep-alive", "Upgrade"), "cars"),
    "Connection with empty members": (instead("Connection", ", ,Upgrade,"), "cars"),
    "upper case": (instead("Connection", "UPGRADE").replace(b"websocket\r", b"WEBSOCKET\r"), "cars"),
    "names in lower case": (
        request("/ws/cars").replace(b"Host", b"host").replace(b"Sec-WebSocket", b"sec-websocket"),
        "cars",
    ),
    "an Upgrade among others": (instead("Upgrade", "h2c, websocket"), "cars"),
    "two Upgrades": (instead("Upgrade", "h2c", "websocket"), "cars"),
    "blanks around a value": (instead("Sec-WebSocket-Key", f" \t {KEY} \t "), "cars"),
    "a length of 0": (field("Content-Length: 0"), "cars"),
    "a Host of IPv6": (instead("Host", "[::1]:8765"), "cars"),
    "a Host of IPv4 in IPv6": (instead("Host", "[::ffff:127.0.0.1]"), "cars"),
    "a Host with an escape": (instead("Host", "caf%C3%A9.example"), "cars"),
    "a Host with an empty port": (instead("Host", "127.0.0.1:"), "cars"),
    "Latin-1 in a value": (field("X-A: caf\xe9"), "cars"),
    "an empty value": (field("X-A:"), "cars"),
    "a name of every token character": (field("!#$%&'*+-.^_`|~09azAZ: 1"), "cars"),
    "absolute form": (request("http://127.0.0.1/ws/cars?a=1"), "cars"),
    "absolute form of another host": (request("HTTPS://evil.example:443/ws/cars"), "cars"),
    "dots and a slash, encoded, are a name": (request("/ws/%2e%2e%2fetc"), "../etc"),
    "encoded twice is decoded once": (request("/ws/%252e"), "%2e"),
    "UTF-8, encoded": (request("/ws/caf%C3%A9"), "café"),
    "a line break in the query": (request("/ws/cars?x=%0d%0aX-Evil:1"), "cars"),
    "a NUL and bad escapes in the query": (request("/ws/cars?x=%00&%zz&%c0%af=%"), "cars"),
    "an extension nobody knows": (field('Sec-WebSocket-Extensions: x-a ; b ; c="d\\e", x-f'), "cars"),
    "2,000 fields first": (
        request("/ws/cars").replace(b"Host", b"".join(b"%x:x\r\n" % i for i in range(2000)) + b"Host"),
        "cars",
    ),
    "the last byte that fits": (field("X-A: " + "x" * (MAX_HEADER_SIZE - len(field("X-A: ")))), "cars"),
}

# Incomplete: 408 after handshake_timeout, or a disconnect if the peer has stopped sending.
STALLED = {
    "nothing": b"",
    "one byte": b"G",
    "half a request line": b"GET /ws/ca",
    "a request line": b"GET /ws/cars HTTP/1.1\r\n",
    "half a name": b"GET /ws/cars HTTP/1.1\r\nHo",
    "half a value": b"GET /ws/cars HTTP/1.1\r\nHost: 127.0",
    "half a line end": b"GET /ws/cars HTTP/1.1\r\nHost: 127.0.0.1\r",
    "all but the last byte": request("/ws/cars")[:-1],
}
