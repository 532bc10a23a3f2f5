"""Hosts and origins of requests to the demo, with `--host chat.lan` and `--origins` for two others."""

HOST = "chat.lan"
ORIGINS = ["https://chat.example.org", "HTTP://Friend.example:8080"]

# name: (Host, Origin or None)
WELCOME = {
    "no browser": ("localhost", None),
    "localhost": ("localhost:8765", "http://localhost:8765"),
    "below localhost": ("chat.localhost:8765", "http://chat.localhost:8765"),
    "upper case": ("LocalHost:8765", "http://localhost:8765"),
    "upper case in both": ("LOCALHOST:8765", "HTTP://LOCALHOST:8765"),
    "the root's dot": ("localhost.:8765", "http://localhost.:8765"),
    "the root's dot in one": ("localhost.:8765", "http://localhost:8765"),
    "IPv4": ("127.0.0.1:8765", "http://127.0.0.1:8765"),
    "another IPv4": ("192.168.7.1", "http://192.168.7.1"),
    "IPv6": ("[::1]:8765", "http://[::1]:8765"),
    "IPv6 without a port": ("[2001:db8::1]", "http://[2001:db8::1]"),
    "IPv6, upper case": ("[2001:DB8::A]", "http://[2001:db8::a]"),
    "the port of http": ("localhost:80", "http://localhost"),
    "the port of http in one": ("localhost", "http://localhost:80"),
    "an empty port": ("localhost:", "http://localhost"),
    "a proxy in front that speaks TLS": ("localhost", "https://localhost"),
    "the host listened on": ("chat.lan:8765", "http://chat.lan:8765"),
    "the host of an origin": ("chat.example.org", "https://chat.example.org"),
    "the host of an origin, no browser": ("chat.example.org:8765", None),
    "an origin that is allowed": ("localhost:8765", "https://chat.example.org"),
    "an origin that is allowed, its port written": ("localhost:8765", "https://chat.example.org:443"),
    "an origin that is allowed in another case": ("localhost:8765", "http://friend.example:8080"),
}

# Host alone decides: 421
NOT_SERVED = {
    "rebinding": ("evil.example:8765", "http://evil.example:8765"),
    "rebinding, no Origin": ("evil.example:8765", None),
    "rebinding, an origin that is allowed": ("evil.example", "https://chat.example.org"),
    "localhost in front": ("localhost.evil.example", None),
    "localhost behind": ("evillocalhost", None),
    "IPv4 in front": ("127.0.0.1.evil.example", None),
    "IPv4 as one number": ("2130706433", None),
    "IPv4, cut short": ("127.1", None),
    "IPv4 in octal": ("0177.0.0.1", None),
    "an origin's host in front": ("chat.example.org.evil.example", None),
    "below an origin's host": ("evil.chat.example.org", None),
    "a dot": (".", None),
    "two dots": ("localhost..", None),
    "an escape": ("%6cocalhost", None),
    "a comma": ("localhost,evil.example", None),
    "a port too long": ("evil.example:00000", None),
    "very long": ("a" * 5000 + ".example", None),
}

# Origin decides: 403
NOT_ALLOWED = {
    "another site": ("localhost:8765", "http://evil.example"),
    "another port": ("localhost:8765", "http://localhost:3000"),
    "another port, of http": ("localhost:8765", "http://localhost"),
    "another name of this machine": ("localhost:8765", "http://127.0.0.1:8765"),
    "null": ("localhost:8765", "null"),
    "empty": ("localhost:8765", ""),
    "blank": ("localhost:8765", " "),
    "a file": ("localhost:8765", "file://"),
    "an extension": ("localhost:8765", "chrome-extension://localhost:8765"),
    "WebSocket's scheme": ("localhost:8765", "ws://localhost:8765"),
    "no scheme": ("localhost:8765", "localhost:8765"),
    "a path": ("localhost:8765", "http://localhost:8765/"),
    "a user": ("localhost:8765", "http://evil@localhost:8765"),
    "two": ("localhost:8765", "http://localhost:8765 http://evil.example"),
    "two, with a comma": ("localhost:8765", "http://localhost:8765, http://evil.example"),
    "an origin that is allowed, by http": ("localhost:8765", "http://chat.example.org"),
    "an origin that is allowed, another port": ("localhost:8765", "https://chat.example.org:8443"),
    "below an origin that is allowed": ("localhost:8765", "https://evil.chat.example.org"),
    "an origin that is allowed in front": ("localhost:8765", "https://chat.example.org.evil.example"),
    "IPv6 without brackets": ("[::1]:8765", "http://::1:8765"),
}
