"""The corpus of hostile inputs: what strangers may send, each beside the answer that it must get.

``handshakes.py``, ``frames.py`` and ``floods.py`` hold named entries and no code; the tests beside them send each over
a socket to a server with these limits, whole and in pieces, and then look at whom it has harmed. ``hosts.py`` is for
the demo (``tests/demo/test_hosts.py``).
"""

PATH = "/ws/{channel}"
MAX_MESSAGE_SIZE = 1000  # bytes
MAX_HEADER_SIZE = 16 * 1024  # bytes

# What would be a line of its own in a log, clear a terminal, and turn the text behind it around.
FORGED = "\r\n2026-01-01 ERROR fastws: forged\x1b[2J\x9b2J\u2028\u202e"
