# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: embedsignature=False, always_allow_keywords=True, auto_pickle=False, autotestdict=False
"""The engine, room by room, on four floors; each room knows only those above it. Layouts are in _core.pxd."""
#
# One call goes down, from `closing`: Reactor.read_on().
#
# Where no Python may run: in write_pending() during a flush and in all that it calls (no GIL), in the loop of
# Endpoint.deliver_all(), and in note_outcomes(). Python there could queue, and so move what is being walked.
#
# Names: functions on a struct begin with its name (block_, outbox_, list_, wheel_, conn_), and so do those of a wire's
# table (socket_, transport_). All others that do something are verbs; they take the reactor first where they need it,
# and then the connection.

cimport cython

# memory: knows nothing of WebSockets
include "engine/memory/platform.pxi"        # what comes from C and from the system
include "engine/memory/arena.pxi"           # blocks of encoded frames, reference-counted, with a pool
include "engine/memory/lists.pxi"           # growable arrays of connections
include "engine/memory/clock.pxi"           # time in ticks
include "engine/memory/wheel.pxi"           # all deadlines, in the slots of one wheel

# protocol: RFC 6455 and RFC 9112, without a socket in sight
include "engine/protocol/frames.pxi"        # headers and masks
include "engine/protocol/utf8.pxi"          # text, validated as it arrives
include "engine/protocol/packing.pxi"       # heads of requests, kept small while a connection is open
include "engine/protocol/head.pxi"          # the syntax of a request's head
include "engine/protocol/cookies.pxi"       # the syntax of cookies
include "engine/protocol/request.pxi"       # Request and Headers
include "engine/protocol/proxy.pxi"         # the PROXY protocol's header
include "engine/protocol/deflate.pxi"       # permessage-deflate, by the system's zlib
include "engine/protocol/handshake.pxi"     # the checks of an upgrade, and the 101

# peer: one connection, whatever its wire
include "engine/peer/outbox.pxi"            # what is still to be written, as ranges of blocks
include "engine/peer/connection.pxi"        # the states of a connection
include "engine/peer/slabs.pxi"             # the memory of all connections, and finding one in it
include "engine/peer/addresses.pxi"         # how many connections there are from each address
include "engine/peer/inbound.pxi"           # input that is unfinished
include "engine/peer/groups.pxi"            # connections under one name
include "engine/peer/agenda.pxi"            # what has to be done before a tick ends
include "engine/peer/output.pxi"            # from a message to bytes in an outbox; the overflow policy
include "engine/peer/runs.pxi"              # many messages, encoded once for many connections
include "engine/peer/closing.pxi"           # every end of a connection, and every close code
include "engine/peer/shedding.pxi"          # which connections go when memory runs out
include "engine/peer/rates.pxi"             # peers that send too fast
include "engine/peer/messages.pxi"          # to the listener, one at a time
include "engine/peer/control.pxi"           # the peer's Close and pings, and our pings
include "engine/peer/arrival.pxi"           # the head of a request, until the server decides on it
include "engine/peer/input.pxi"             # from bytes to frames
include "engine/peer/endpoint.pxi"          # Endpoint: broadcast and targeting
include "engine/peer/websocket.pxi"         # WebSocket

# loop: when it happens
include "engine/loop/socket.pxi"            # the first kind of wire, a socket that epoll watches
include "engine/loop/flush.pxi"             # one write for each connection and tick
include "engine/loop/transport.pxi"         # the second kind of wire, an asyncio transport
include "engine/loop/deadlines.pxi"         # what happens when one passes
include "engine/loop/accepting.pxi"         # new sockets
include "engine/loop/reactor.pxi"           # Reactor: the tick
