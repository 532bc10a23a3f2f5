"""Floods: endless small inputs, and large ones that must be handled fast."""

from ..lib.raw import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame, request

# After a handshake and `first`, `repeated` may come forever without using more memory. name: (first, repeated)
ENDLESS = {
    "pings": (b"", frame(PING, b"x" * 125)),
    "empty pings": (b"", frame(PING)),
    "pongs": (b"", frame(PONG, b"x" * 125)),
    "empty messages": (b"", frame(BINARY)),
    "messages in two fragments": (b"", frame(BINARY, fin=False) + frame(CONTINUATION)),
}

# A message may have 1,024 of these, or one per 64 bytes of max_message_size if that is more: then close 1009.
FRAGMENTS = {
    "empty fragments of a message": (frame(BINARY, b"x", fin=False), frame(CONTINUATION, fin=False)),
    "empty fragments of a text": (frame(TEXT, b"\xc3", fin=False), frame(CONTINUATION, fin=False)),
    "empty fragments and pings": (frame(TEXT, fin=False), frame(CONTINUATION, fin=False) + frame(PING, b"p")),
}

# A long field: reading it in quadratic time would take minutes. name: (bytes, status)
MUCH = 300_000  # bytes
LENGTHY = {
    "blanks between subprotocols (CVE-2021-32640)": (
        request("/ws/cars", extra=[("Sec-WebSocket-Protocol", "b" + " " * MUCH + "x")]),
        400,
    ),
    "commas between subprotocols": (
        request("/ws/cars", extra=[("Sec-WebSocket-Protocol", "b" + " ," * (MUCH // 2))]),
        101,
    ),
    "blanks between an extension's parameters": (
        request("/ws/cars", extra=[("Sec-WebSocket-Extensions", "a;b" + " \t" * (MUCH // 2) + "x")]),
        400,
    ),
    "an extension's parameters": (
        request("/ws/cars", extra=[("Sec-WebSocket-Extensions", "a" + ";b=c" * (MUCH // 4) + ";")]),
        400,
    ),
    "an extension's name": (request("/ws/cars", extra=[("Sec-WebSocket-Extensions", "a" * MUCH + "@")]), 400),
    "escapes in a cookie (CVE-2024-7592)": (request("/ws/cars", extra=[("Cookie", 'a="' + "\\" * MUCH + '"')]), 101),
    "octal escapes in a cookie": (request("/ws/cars", extra=[("Cookie", 'a="' + "\\101" * (MUCH // 4) + '"')]), 101),
    "cookies without a value": (request("/ws/cars", extra=[("Cookie", "a=;" * (MUCH // 3))]), 101),
    "blanks around a value": (request("/ws/cars", extra=[("X-A", " " * MUCH)]), 101),
    "blanks in Connection": (request("/ws/cars", extra=[("Connection", "a" + " " * MUCH + "b")]), 101),
    "Upgrades": (request("/ws/cars", extra=[("Upgrade", "x," * (MUCH // 2))]), 101),
    "dots in Host": (request("/ws/cars", without=["Host"], extra=[("Host", "a." * (MUCH // 2) + "/")]), 400),
    "a key": (request("/ws/cars", without=["Sec-WebSocket-Key"], extra=[("Sec-WebSocket-Key", "A" * MUCH)]), 400),
    "escapes in a path": (request("/ws/" + "%41" * (MUCH // 3)), 101),
    "escapes in a path, the last one bad": (request("/ws/" + "%41" * (MUCH // 3) + "%"), 400),
    "segments in a path": (request("/ws" + "/a" * (MUCH // 2)), 404),
    "fields in a query": (request("/ws/cars?" + "a=b&" * (MUCH // 4)), 101),
    "escapes in a query": (request("/ws/cars?" + "%41" * (MUCH // 3)), 101),
    "absolute form": (request("http://" + "a" * MUCH + "@b/ws/cars"), 400),
    "fields (CVE-2024-37890)": (request("/ws/cars", extra=[("a", "b")] * (MUCH // 6)), 101),
}

# What a peer may have sent before a TCP reset.
RESETS = {
    "nothing": b"",
    "half a request": b"GET /ws/cars HTTP/1.1\r\nHost: 127",
    "a bad request": b"GET /ws/cars\r\n\r\n",
    "a request": request("/ws/cars"),
    "half a header": request("/ws/cars") + b"\x81",
    "half a frame": request("/ws/cars") + frame(TEXT, b"hello")[:-1],
    "half a message": request("/ws/cars") + frame(TEXT, b"hello", fin=False),
    "a message": request("/ws/cars") + frame(TEXT, b"hello"),
    "a bad frame": request("/ws/cars") + frame(0x3),
    "a Close": request("/ws/cars") + frame(CLOSE, b"\x03\xe8"),
}
