"""The tests, by subject. `make test ARGS=tests/people` runs those of one folder.

protocol    RFC 6455 on the wire: handshakes, frames, closing, both kinds of wire
channels    who receives what: channels, targeting, fan-out, isolation, threads
life        a connection's life from the handshake to its end, and the listener's handlers
limits      slow, dead and greedy peers, and exhausted resources
people      users, presence, who may see whom
access      sessions, tokens, and forged ones
web         HTTP on the same port: applications, the API, metrics, the status page
v1          the protocol fastws.v1, and plain sockets beside it
hooks       a backend over HTTP that decides and is told
standalone  `fastws serve` as a whole: its start, its strangers, its security
deploy      sockets, signals, readiness, the end of a server
command     the command line, in a separate process
clients     ours: fastws.js, React, fastws.client, fastws.testing
interop     third-party clients: websockets, aiohttp, picows, Node's ws
demo        the chat over sockets, and the examples
browser     the chat's page in Chromium
hostile     what strangers may send: a corpus of inputs and their answers
fuzz        the corpus of the fuzzers, including their findings; `make fuzz`
soak        thousands of clients that come and go; `make soak`
house       the package, its documentation, its style
lib         shared helpers: raw sockets, recording listeners, processes, visitors
"""
