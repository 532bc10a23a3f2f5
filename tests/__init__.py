"""The tests, by subject. `make test ARGS=tests/people` runs those of one folder.

protocol    RFC 6455 on the wire: handshakes, frames, closing, both kinds of wire
channels    who receives what: channels, targeting, fan-out, isolation, threads
life        a connection's life from deciding to what is left of it, and the listener's handlers
limits      slow, dead and greedy peers, and what the server has no more of
people      users, presence, who may see whom
access      sessions, tokens, and forged ones
web         HTTP on the same port
deploy      sockets, signals, readiness, the end of a server
command     the command line, as a process of its own
clients     clients of other people, and that of fastws.testing
demo        the chat over sockets, and the examples
browser     the chat's page in Chromium
hostile     what strangers may send: a corpus, and each input's answer
fuzz        what fuzzing begins with and has found; `make fuzz`
soak        a crowd that comes and goes; `make soak`
house       the package, its documentation, its style
lib         what tests share: raw sockets, listeners that tell, processes, visitors
"""
