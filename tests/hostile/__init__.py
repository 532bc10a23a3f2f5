"""The corpus of hostile inputs: what strangers may send, with the required answers.

``handshakes.py``, ``frames.py`` and ``floods.py`` hold named entries and no code; the tests send each to a server with
these limits, whole and in pieces, and then check that nobody else is affected. ``hosts.py`` is for
the demo (``tests/demo/test_hosts.py``).
"""

PATH = "/ws/{channel}"
MAX_MESSAGE_SIZE = 1000  # bytes
MAX_HEADER_SIZE = 16 * 1024  # bytes

# It would start a new line in a log, clear a terminal, and reverse the text after it.
FORGED = "\r\n2026-01-01 ERROR fastws: forged\x1b[2J\x9b2J\u2028\u202e"
