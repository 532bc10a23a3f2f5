"""The layout of every struct and class of the engine, room by room. Who owns what is said here, once."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef class Reactor
cdef class Request

cdef extern from "zlib.h" nogil:
    ctypedef struct z_stream:
        unsigned char* next_in
        unsigned int avail_in
        unsigned char* next_out
        unsigned int avail_out
        int data_type

cdef enum:
    LANES = 2                   # of an arena: plain frames, deflated ones
    WINDOWS = 7                 # sizes of a deflater's window: of 9 to 15 bits


# memory: arena -------------------------------------------------------------------------------------------

cdef struct Block:
    # Bytes of encoded frames, `size` of them behind this header. Owned by its references: one for each Range
    # that names it, one for whoever writes to it now, one for the arena while it is in `current`, one for its Run.
    Arena* arena
    Block* previous             # the arena's live blocks, by age
    Block* next
    Block* emptied_next         # the arena's stack of emptied blocks, or its pool
    int references              # atomic
    uint32_t is_held            # by a Run, so that readers cannot give it back
    uint64_t born               # a number that grows with every block
    uint32_t size
    uint32_t used

cdef struct Arena:
    # Owned by its Reactor, address fixed.
    Block* current[LANES]       # being filled; one reference to each is the arena's
    Block* oldest
    Block* newest
    Block* emptied              # last reference gone, not yet collected; pushed by any flush thread
    Block* pool                 # blocks of BLOCK_BYTES, ready for use
    uint64_t born               # of the newest block
    uint32_t pooled
    uint32_t blocks             # live
    uint64_t bytes              # of all live blocks
    uint64_t held               # of them, those of Runs

cdef struct Range:
    # `length` bytes of `block` from `offset`; holds one reference.
    Block* block
    uint32_t offset
    uint32_t length

cdef struct Frame:
    # A frame just encoded; its writer holds one reference until it is delivered.
    Block* block
    uint32_t offset
    uint32_t length

cdef struct Message:
    # A message on the stack of whoever sends it, and who gives its frames up once it is delivered.
    Frame plain
    Frame[WINDOWS] deflated     # only where `tried` says so; without a block where that is not smaller
    uint8_t is_deflatable       # for whoever has agreed on that
    uint8_t tried               # a bit for each window

cdef struct Scratch:
    # Room for one result of zlib. Owned by a Reactor, and used within one call.
    uint8_t* data
    size_t capacity

cdef struct Releases:
    # What one thread of a flush did, counted together: references to one block that it gave up, bytes that went out.
    Block* block
    int count
    uint64_t sent


# protocol: frames, UTF-8, PROXY; peer: inbound -----------------------------------------------------------

cdef struct Utf8:
    # The state of a validation between two bytes: continuation bytes due, and the bounds of the next one.
    uint8_t due
    uint8_t low
    uint8_t high

cdef struct FrameHeader:
    uint8_t final
    uint8_t deflated            # RSV1 (RFC 7692 6)
    uint8_t opcode
    uint8_t size                # of the header itself, in bytes
    uint32_t mask               # in memory order
    uint64_t length             # of the payload

cdef struct Inbound:
    # What of the peer's input is unfinished. Owned by its Conn; an idle connection has none.
    char* raw                   # not parsed yet: half a head or header, or input that waits for a handler
    size_t raw_length
    size_t raw_capacity
    char* message               # unmasked payload of the message so far
    size_t message_length
    size_t message_capacity
    uint64_t remaining          # of the current frame's payload
    uint32_t mask
    uint8_t in_frame
    uint8_t phase               # of the mask
    uint8_t final
    uint8_t opcode              # of the current frame
    uint8_t message_opcode      # 0: no message begun
    uint8_t message_deflated
    uint8_t control_length
    uint32_t fragments          # of the message so far
    uint8_t ping_due            # a ping came while the socket was full; its payload is `ping`
    uint8_t ping_length
    Utf8 utf8
    uint8_t[125] control
    uint8_t[125] ping


cdef struct ProxyHeader:
    # What a header of the PROXY protocol says of whoever connected to the proxy. It owns nothing.
    uint8_t is_local            # the proxy speaks for itself
    uint8_t family              # AF_INET or AF_INET6; 0: it does not say
    uint16_t port
    uint8_t[16] address


# peer: connection ----------------------------------------------------------------------------------------

cdef struct Membership:
    void* group                 # a Group; alive as long as it has a member
    uint32_t position           # in the group's arrays
    uint32_t joined             # tick; of a user's devices in a channel one has that of the first

cdef struct Wire:
    # What one kind of wire does for a connection that is not CLOSED. One constant table for each kind: SOCKET
    # (loop/socket.pxi) and TRANSPORT (loop/transport.pxi).
    void (*write)(Conn* c, Releases* releases) noexcept nogil   # what is pending, as far as it goes; sets `outcome`
    int (*write_with_python)(Reactor reactor, Conn* c) except -1    # likewise, where the outcome was OUTCOME_PYTHON
    int (*pause)(Reactor reactor, Conn* c) except -1            # receive no more
    int (*resume)(Reactor reactor, Conn* c) except -1           # receive again
    int (*describe)(Conn* c, Request request) except -1         # note where the peer is, and whether TLS is between
    int (*close)(Conn* c) except -1                             # at once, without a word
    object (*give_away)(Reactor reactor, Conn* c)               # a descriptor or a transport, the caller's from now on

cdef struct Conn:
    # One accepted socket. Owned by its Reactor's slabs and recycled only by reap().
    # First what fan-out and flush touch.
    int fd                      # owned; -1: the wire is `transport`, or gone
    uint8_t state
    uint8_t fresh               # on the reactor's fresh list
    uint8_t overdue             # on the reactor's overdue list
    uint8_t blocked             # the socket is full; an EPOLLOUT edge is to come
    uint32_t head               # outbox: ranges[head : head + count]
    uint32_t count
    uint32_t capacity
    uint32_t pending            # outbox: bytes
    uint32_t frame_left         # bytes in front that belong to a frame already begun on the wire
    uint32_t last_message       # tick
    Range* ranges               # `own_ranges`, or malloc'ed and owned
    Range[2] own_ranges
    const Wire* wire            # the table of its kind
    uint64_t mark               # equals Reactor.mark when chosen in the current targeting
    uint32_t messages_out       # queued for it
    uint32_t messages_in
    # What reading touches.
    void* ws                    # the WebSocket; a strong reference from the head of its request on
    Inbound* inbound            # owned; NULL when nothing is unfinished
    uint32_t last_received      # tick
    uint8_t deflate             # bits of the window that was agreed on; 0: it gets plain frames, and sends them
    uint8_t paused              # not read: a handler runs
    uint8_t readable            # something came while paused
    uint8_t again               # on the reactor's again list
    uint8_t handler_runs        # an async message handler
    uint8_t outcome             # what the last flush met
    uint8_t when_empty          # what a flush meets that empties the outbox; OUTCOME_PYTHON: `life` is to be told
    uint8_t doom                # why it must go; set where no Python may run
    uint8_t closed_told         # the application was told that it is over
    uint8_t fin_sent            # our side of the socket is shut down
    uint8_t fin_received        # the peer's side is
    uint8_t linked              # in the timer wheel
    uint8_t ping_sent           # and nothing received since
    uint8_t throttled           # not read: it sent too fast, and waits until `throttle_end`
    uint8_t trusted             # the peer is a trusted proxy: whoever its head names is counted
    uint8_t proxy_due           # a PROXY header may come first, or has to
    # The rest.
    uint32_t slot               # in the reactor's slabs
    uint32_t deadline           # tick; of the handshake, the close or the flushing out; of the pong, while open
    uint32_t idle_timeout       # ticks; 0: none
    uint32_t charged            # tick of the last charge
    uint32_t throttle_end       # tick
    uint32_t inflated           # bytes, within the tick `inflated_at`
    uint32_t inflated_at
    float message_debt          # seconds' worth of messages received and not yet worked off
    float byte_debt             # likewise of bytes
    uint32_t timer_slot
    Conn* timer_next
    Conn* timer_previous
    Membership* memberships     # `own_memberships`, or malloc'ed and owned
    uint32_t membership_count
    uint32_t membership_capacity
    Membership[2] own_memberships
    void* transport             # a TransportWire, strong reference; NULL: the wire is `fd`, or gone
    uint64_t address            # under which it counts in Reactor.per_address; 0: nowhere

cdef enum:
    FLUSH_BUCKETS = 15          # of Reactor.flushes; their bounds are in loop/flush.pxi
    PING_BUCKETS = 14           # of Reactor.pings; their bounds are in peer/control.pxi

cdef struct ConnList:
    # A growable array of connections that owns its memory, not the connections.
    Conn** items
    size_t start
    size_t count
    size_t capacity


cdef class Request:
    cdef bytes kept_head                    # request line and header, as received; packed once open, where that is less
    cdef readonly object method
    cdef str _known_target                  # read lazily, forgotten once open
    cdef object _headers                    # likewise
    cdef object _peer                       # tuple, where the wire is a transport
    cdef public object _template            # for path_parameters, asked again when wanted
    cdef object _response_headers
    cdef object _data
    cdef public object user
    cdef public object session
    cdef public object claims
    cdef public object subprotocol
    cdef uint8_t deflate                    # as in Conn
    cdef readonly bint is_secure
    cdef uint8_t family
    cdef uint8_t is_packed
    cdef uint16_t port
    cdef uint8_t[16] address
    cdef readonly bint _from_proxy          # the peer is a trusted proxy, whose header fields say who asks

    cdef bytes head(self)
    cdef int forget(self) except -1


cdef class WebSocket:
    cdef Conn* conn                         # NULL once recycled
    cdef Reactor reactor
    cdef readonly Request request
    cdef Endpoint endpoint
    cdef tuple left_groups                  # (group, tick of joining) of all it left; until the listener is told
    cdef object waiting                     # deque of messages that wait for a handler, or None
    cdef size_t waiting_bytes               # of its messages; counted in Reactor.inbound_bytes
    cdef uint64_t serial
    cdef uint32_t slot
    cdef uint32_t idle_ticks                # kept for idle_timeout after the end
    cdef uint16_t close_code                # that our Close has, where we closed first; 0: we did not
    cdef object __weakref__


# peer: runs, groups, endpoint ----------------------------------------------------------------------------

cdef class Run:
    # Frames one after the other in a block of their own.
    cdef Reactor reactor                    # whose arena the block belongs to
    cdef Block* block                       # one reference is the run's; NULL: there are no frames
    cdef uint32_t* starts                   # of each frame in the block, and the end of the last one; owned
    cdef uint32_t count

    cdef int gather(self, const Frame* frames, uint32_t count) except -1


cdef class Group:
    # Connections under one name: a channel, a user, an HTTP session, or all of an endpoint. Owned by its endpoint; all
    # but the last kind exist from their first member until the listener has been told that the last one left.
    cdef object name
    cdef int kind
    cdef uint32_t leaving                   # members that left without the listener being told yet
    cdef uint32_t count
    cdef uint32_t capacity
    cdef Conn** members
    cdef uint32_t* back                     # index of this group in each member's memberships

    cdef int add(self, Conn* c, uint32_t now) except -1
    cdef void remove(self, Conn* c, uint32_t index) noexcept
    cdef bint is_over(self)


cdef class Endpoint:
    cdef Reactor reactor
    cdef dict channel_groups
    cdef dict user_groups
    cdef dict session_groups
    cdef public object life                 # told what happens to its connections
    cdef object on_message                  # a bound method, or None
    cdef Group everyone
    cdef uint64_t max_message_size
    cdef uint64_t max_fragments             # of one message
    cdef bint is_rated                      # messages or bytes have a rate
    cdef float seconds_per_message          # 0: any rate
    cdef float seconds_per_byte
    cdef bint closes_over_rate
    cdef int deflate_level                  # 0: compression is off
    cdef uint64_t deflate_threshold
    cdef z_stream* deflaters[WINDOWS]       # owned; NULL until there is a message for a member with that window
    cdef uint32_t max_backlog
    cdef int overflow
    cdef uint32_t idle_ticks
    cdef uint32_t ping_interval_ticks
    cdef uint32_t ping_timeout_ticks
    cdef uint32_t close_ticks
    cdef uint64_t messages_received
    cdef uint64_t binary_received           # of them
    cdef uint64_t throttled
    cdef uint64_t broadcasts
    cdef uint64_t compressed
    cdef uint64_t compressed_before         # bytes of their payloads
    cdef uint64_t compressed_after
    cdef uint64_t expanded
    cdef uint64_t expanded_bytes
    cdef uint64_t deliveries
    cdef uint64_t closed_slow
    cdef uint64_t closed_unfinished
    cdef uint64_t dropped_oldest
    cdef uint64_t dropped_newest
    cdef object __weakref__

    cdef dict groups(self, int kind)
    cdef send_chosen(self, ids, users, message, exclude, compress)
    cdef uint32_t deliver_all(self, Group group, Message* message, uint64_t excluded) except? 0
    cdef list pass_over(self, Group group, const Frame* frame, uint32_t limit, uint64_t excluded)
    cdef uint32_t deliver_chosen(self, Group group, Message* message, ids, users, exclude) except? 0
    cdef bint deliver_once(self, Conn* c, Group group, Message* message, uint64_t excluded, uint64_t taken)
    cdef uint64_t mark_excluded(self, exclude) except 0
    cdef Conn* find(self, name) except? NULL


# loop ----------------------------------------------------------------------------------------------------

cdef class Reactor:
    cdef object _loop
    cdef object server                      # told of requests and of trouble: see loop/reactor.pxi
    cdef int epoll_fd
    cdef unsigned long thread
    cdef Arena arena
    cdef uint64_t max_arena
    cdef uint64_t max_inbound
    cdef uint64_t inbound_bytes             # of all connections: unfinished input, messages that wait for a handler
    cdef uint64_t received_bytes            # since the start, like what follows
    cdef uint64_t sent_bytes                # atomic
    cdef uint64_t[FLUSH_BUCKETS] flushes    # that wrote anything, by how long they took
    cdef uint64_t flush_nanoseconds         # of them all
    cdef uint64_t[PING_BUCKETS] pings       # that were timed and answered, by how long that took
    cdef uint64_t ping_nanoseconds          # of them all
    cdef uint64_t timed_serial              # of the WebSocket whose ping is being timed
    cdef int64_t timed_since                # nanoseconds; 0: none is
    cdef int flush_threads
    cdef uint32_t max_header_size
    cdef uint32_t handshake_ticks
    cdef uint32_t close_ticks
    cdef uint64_t max_connections_per_ip    # 0: any number, and addresses are not counted
    cdef bint trusts_proxies                # some peers are; `server` says which
    cdef int proxy_protocol                 # PROXY_OFF, PROXY_OPTIONAL or PROXY_REQUIRED
    cdef dict per_address                   # address -> connections and handshakes from there
    cdef str id_prefix
    cdef uint64_t next_serial
    cdef uint64_t mark
    cdef uint32_t now                       # tick
    cdef double epoch                       # of tick 0, as Unix time in seconds
    cdef bint in_tick                       # in a tick or a flush: what is queued now goes out at its end
    cdef bint tick_scheduled
    cdef bint closed
    cdef uint8_t* buffer                    # one receive buffer for all connections
    cdef z_stream* inflater                 # owned; NULL until there is a compressed message
    cdef Scratch inflated                   # its data are owned, as are those of the next one
    cdef Scratch deflated
    cdef Conn** slabs                       # arrays of SLAB_CONNECTIONS connections, never moved
    cdef uint32_t slab_count
    cdef ConnList unused
    cdef ConnList fresh
    cdef ConnList overdue
    cdef ConnList again_list
    cdef ConnList doomed
    cdef ConnList for_python                # found by a flush, to be written with the GIL
    cdef ConnList graveyard
    cdef list listeners                     # sockets; epoll knows them by index
    cdef bint accept_paused                 # no descriptors left
    cdef bint accept_trouble                # and that was logged; until an accept succeeds
    cdef uint64_t connections               # sockets, whatever their state
    cdef uint64_t lingering                 # of them, those shut down on our side: nothing is owed to their peers
    cdef Conn** wheel                       # WHEEL_SLOTS lists
    cdef uint64_t* occupied                 # a bit per slot of the wheel
    cdef uint32_t wheel_time                # tick up to which the wheel has turned
    cdef uint32_t timer_due                 # tick for which the loop's timer is set
    cdef bint timer_stale                   # `timer_due` changed since the loop's timer was set
    cdef object timer_handle
    cdef object interruption                # a handler's KeyboardInterrupt or SystemExit, for after the tick
    cdef object __weakref__

    cdef int tick(self) except -1
    cdef int poll(self) except -1
    # The one call from a room to one below it: once our Close is queued, reading goes on for the peer's.
    cdef int read_on(self, Conn* c) except -1


cdef class TransportWire:
    cdef Reactor reactor
    cdef Conn* conn                         # NULL once the connection is gone
    cdef readonly object transport
    cdef bint is_secure
    cdef tuple peer                         # (host, port), if HTTP had the transport before; None: its own
    cdef bint is_trusted                    # then: it is a trusted proxy
    cdef object __weakref__

    cdef int take(self, size_t n) except -1
