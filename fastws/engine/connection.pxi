# Connection: the life of one socket, and the WebSocket object that listeners see.

from collections import deque

import orjson

cdef object orjson_dumps = orjson.dumps

cdef enum:                              # Conn.state, in the order of a life
    HEAD                                # the request's head is being received
    PENDING                             # the server decides on it
    OPENING                             # accepted; on_open runs, input waits
    OPEN
    CLOSING                             # our Close is queued; the peer's is awaited
    DRAINING                            # nothing more is read; what is queued goes out, then the socket is shut down
    CLOSED                              # socket gone; the Conn waits to be recycled

cdef enum:                              # Conn.doom
    DOOM_NONE
    DOOM_LOST                           # the socket failed
    DOOM_SLOW                           # more than max_backlog pending
    DOOM_PINNING                        # holds the oldest blocks of a full arena

cdef enum:                              # Endpoint.overflow
    OVERFLOW_CLOSE
    OVERFLOW_DROP_OLDEST
    OVERFLOW_DROP_NEWEST

cdef enum:
    WAITING_MESSAGES = 64               # behind an async handler; past it the socket is not read


cdef inline bint is_sendable(const Conn* c) noexcept nogil:
    return (c.state == OPEN or c.state == OPENING) and c.doom == DOOM_NONE


cdef inline Inbound* inbound_of(Conn* c) except NULL:
    if c.inbound is NULL:
        c.inbound = <Inbound*>calloc(1, sizeof(Inbound))
        if c.inbound is NULL:
            raise MemoryError
    return c.inbound


cdef void inbound_free(Reactor reactor, Conn* c) noexcept:
    if c.inbound is not NULL:
        reactor.inbound_bytes -= c.inbound.raw_capacity + c.inbound.message_capacity
        free(c.inbound.raw)
        free(c.inbound.message)
        free(c.inbound)
        c.inbound = NULL


cdef inline char* take_message(Reactor reactor, Inbound* inbound) noexcept:
    """The payload received so far; the caller's from now on."""
    cdef char* message = inbound.message
    reactor.inbound_bytes -= inbound.message_capacity
    inbound.message = NULL
    inbound.message_capacity = 0
    return message


cdef inline void forget_waiting(WebSocket ws) noexcept:
    """Drop the messages that wait behind a busy handler."""
    if ws.waiting is not None:
        ws.reactor.inbound_bytes -= ws.waiting_bytes
        ws.waiting_bytes = 0
        ws.waiting = None


cdef inline size_t inbound_held(const Conn* c) noexcept:
    """Bytes of memory that the connection's input takes."""
    cdef size_t held = 0 if c.ws is NULL else (<WebSocket>c.ws).waiting_bytes
    return held if c.inbound is NULL else held + c.inbound.raw_capacity + c.inbound.message_capacity


cdef inline void inbound_rest(Reactor reactor, Conn* c) noexcept:
    """Give the memory back when nothing is unfinished."""
    cdef Inbound* inbound = c.inbound
    if (inbound is not NULL and not inbound.in_frame and inbound.message_opcode == 0 and inbound.raw_length == 0
            and not inbound.ping_due):
        inbound_free(reactor, c)


cdef int bytes_append(Reactor reactor, char** data, size_t* length, size_t* capacity, const uint8_t* p, size_t n) except -1:
    """Append to a malloc'ed array that grows with what has come, never with what was announced. `p` may be NULL: room
    for `n` bytes is made, and the caller fills it."""
    cdef size_t larger
    cdef char* moved
    if length[0] + n > capacity[0]:
        larger = max(length[0] + n, min(capacity[0] * 2, capacity[0] + (4 << 20)))
        moved = <char*>realloc(data[0], larger)
        if moved is NULL:
            raise MemoryError
        data[0] = moved
        reactor.inbound_bytes += larger - capacity[0]
        capacity[0] = larger
    if p is not NULL:
        memcpy(data[0] + length[0], p, n)
        length[0] += n
    return 0


cdef inline int keep_raw(Reactor reactor, Conn* c, const uint8_t* p, size_t n) except -1:
    """Keep input that cannot be parsed yet."""
    cdef Inbound* inbound = inbound_of(c)
    return bytes_append(reactor, &inbound.raw, &inbound.raw_length, &inbound.raw_capacity, p, n)


cpdef bint is_awaitable(object value):
    """Whether a handler's result has to be awaited."""
    cdef PyAsyncMethods* methods = Py_TYPE(value).tp_as_async  # a lookup by name would raise, for every answer
    return methods is not NULL and methods.am_await is not NULL


def check_close(code, reason):
    """Raises ValueError for what a Close frame may not carry (RFC 6455 5.5 and 7.4); the reason as UTF-8."""
    if not isinstance(code, int) or not close_code_is_valid(code):
        raise ValueError(f"close code {code!r} may not be sent: use 1000 to 1003, 1007 to 1014, or 3000 to 4999")
    encoded = reason.encode()
    if len(encoded) > LARGEST_CONTROL - 2:
        raise ValueError(f"close reason of {len(encoded)} bytes {reason[:20]!r}...: at most 123 bytes of UTF-8 fit")
    return encoded


@cython.final
@cython.no_gc_clear                     # a finalizer that the collector runs may still ask what it is
cdef class WebSocket:
    """One connection, as listeners and the manager hand it out.

    It stays usable after the connection is gone: `is_open` is False then, `send` returns False, and the rest does
    nothing. ``ws["key"]`` reads and writes `data`.
    """

    def __cinit__(self, Reactor reactor not None):
        self.reactor = reactor

    # -- what it is

    @property
    def id(self):
        """Unique over all servers of a cluster, and never used again."""
        return f"{self.reactor.id_prefix}{self.slot:x}-{self.serial:x}"

    @property
    def manager(self):
        """The ConnectionManager of the endpoint it came to."""
        return self.endpoint

    @property
    def is_open(self):
        """Whether messages can be sent: from `on_open` until either side begins to close."""
        return self.conn is not NULL and is_sendable(self.conn)

    @property
    def is_secure(self):
        """Whether it came over TLS."""
        return self.request.is_secure

    @property
    def user(self):
        """Whoever `on_handshake` said, or None."""
        return self.request.user

    @property
    def session(self):
        """The visitor's HTTP session, or None."""
        return self.request.session

    @property
    def data(self):
        """A dict for the application's own; begins as `Request.data`."""
        return self.request.data

    @property
    def subprotocol(self):
        """The subprotocol agreed on, or None."""
        return self.request.subprotocol

    @property
    def path(self):
        """The request's path, percent-decoded."""
        return self.request.path

    @property
    def path_parameters(self):
        """The path parameters, percent-decoded, by name."""
        return self.request.path_parameters

    @property
    def query_string(self):
        """The request's query string, as sent."""
        return self.request.query_string

    @property
    def query(self):
        """The query string's fields by name."""
        return self.request.query

    @property
    def headers(self):
        """The request's header fields."""
        return self.request.headers

    @property
    def cookies(self):
        """The request's cookies by name."""
        return self.request.cookies

    @property
    def remote_address(self):
        """(host, port) of the peer."""
        return self.request.remote_address

    @property
    def channels(self):
        """The channels it is subscribed to; still readable in `on_close`."""
        check_thread(self.reactor, "asyncio.run_coroutine_threadsafe")
        cdef uint32_t i
        cdef Group group
        names = []
        if self.left is not None:
            for group, _ in self.left:
                if group.kind == CHANNEL:
                    names.append(group.name)
        elif self.conn is not NULL:
            for i in range(self.conn.membership_count):
                group = <Group>self.conn.memberships[i].group
                if group.kind == CHANNEL:
                    names.append(group.name)
        return frozenset(names)

    @property
    def since(self):
        """When it was accepted, as Unix time in seconds, exact to 10 ms; None where it is closed."""
        cdef uint32_t i
        if self.conn is not NULL:
            for i in range(self.conn.membership_count):
                if (<Group>self.conn.memberships[i].group).kind == EVERYONE:
                    return unix_time(self.reactor, self.conn.memberships[i].joined)
        return None

    @property
    def pending(self):
        """Bytes that wait to be sent to it."""
        return 0 if self.conn is NULL else self.conn.pending

    @property
    def idle_timeout(self):
        """Seconds without a message either way (pings do not count) after which it is closed with 1001; 0: never."""
        return self.idle_ticks * TICK

    @idle_timeout.setter
    def idle_timeout(self, seconds):
        check_thread(self.reactor, "asyncio.run_coroutine_threadsafe")
        self.idle_ticks = ticks(seconds)
        if self.is_open:
            self.conn.idle_timeout = self.idle_ticks
            read_clock(self.reactor)
            arm_open(self.reactor, self.conn)
            wake(self.reactor)

    def __getitem__(self, key):
        return self.request.data[key]

    def __setitem__(self, key, value):
        self.request.data[key] = value

    def __delitem__(self, key):
        del self.request.data[key]

    def __contains__(self, key):
        return key in self.request.data

    def __iter__(self):
        raise TypeError("a WebSocket is no iterable: its messages come to Listener.on_message")

    def __repr__(self):
        return f"<WebSocket {self.id} {'open' if self.is_open else 'closed'}>"

    # -- what it does

    def send(self, message):
        """Queue a message; False when the connection is closed, or has no room (`max_backlog`) and must do without.

        ``str`` goes out as text, bytes-like as binary, anything else as orjson text. Never waits. Raises TypeError
        for what orjson cannot encode, RuntimeError from another thread.
        """
        check_thread(self.reactor, "ConnectionManager.send_threadsafe")
        return send_message(self.reactor, self, message)

    def subscribe(self, channel):
        """Join a channel; its number of subscribers. Twice is once."""
        return self.endpoint.subscribe(channel, self)

    def unsubscribe(self, channel):
        """Leave a channel; the number of subscribers that stay."""
        return self.endpoint.unsubscribe(channel, self)

    def unsubscribe_all(self):
        """Leave every channel."""
        self.endpoint.unsubscribe_all(self)

    def close(self, code=1000, reason=""):
        """Begin the close handshake (RFC 6455 7.1.2) behind all that is pending.

        The connection leaves its channels at once; the listener is told when the peer has answered, or after
        `close_timeout`. Raises ValueError for a code that may not be sent or a reason over 123 bytes.
        """
        encoded = check_close(code, reason)
        check_thread(self.reactor, "loop.call_soon_threadsafe")
        if self.conn is not NULL and is_sendable(self.conn):
            begin_close(self.reactor, self.conn, code, encoded)

    def ping(self):
        """Send a ping (RFC 6455 5.5.2)."""
        check_thread(self.reactor, "loop.call_soon_threadsafe")
        if self.conn is not NULL and is_sendable(self.conn):
            queue_control(self.reactor, self.conn, PING, NULL, 0)

    # -- for the server and the manager

    def _refuse(self, bytes response not None):
        """Answer the request with a plain HTTP response and close."""
        cdef Conn* c = self.conn
        if c is not NULL and (c.state == HEAD or c.state == PENDING):
            queue_bytes(self.reactor, c, response)
            drain(self.reactor, c)

    def _accept(self, Endpoint endpoint not None, bytes response not None):
        """Answer with 101; from here on it is a connection of `endpoint`. False when the peer is gone."""
        cdef Conn* c = self.conn
        if c is NULL or c.state != PENDING:
            return False
        queue_bytes(self.reactor, c, response)
        c.frame_left = c.pending
        self.endpoint = endpoint
        self.idle_ticks = endpoint.idle_ticks
        c.idle_timeout = endpoint.idle_ticks
        c.state = OPENING
        c.last_message = self.reactor.now
        c.last_received = self.reactor.now
        endpoint.everyone.add(c, self.reactor.now)
        pause(self.reactor, c)
        arm_open(self.reactor, c)
        return True

    def _ready(self):
        """on_open is over: messages flow."""
        cdef Conn* c = self.conn
        self.request.forget()
        if c is not NULL and c.state == OPENING:
            c.state = OPEN
        if c is not NULL and c.state in (OPEN, CLOSING):
            resume(self.reactor, c)

    def _detach(self):
        """Give the wire away: (file descriptor or transport, bytes read so far, claim). None when the peer is gone.

        The claim is the peer's address, which counts until `Reactor.release_address` is called with it.
        """
        cdef Conn* c = self.conn
        cdef uint64_t claim
        if c is NULL or c.state != PENDING:
            return None
        data = self.request.head()
        if c.inbound is not NULL:
            data += PyBytes_FromStringAndSize(c.inbound.raw, c.inbound.raw_length)
        claim = c.address
        c.address = 0
        return give_away(self.reactor, c), data, claim

    def _handled(self, result):
        """An async message handler ended with `result`: on with the messages that wait."""
        cdef Conn* c = self.conn
        if result is not None and self.is_open:
            answer(self.reactor, self, result)
        if c is NULL:
            forget_waiting(self)
            return
        c.busy = False
        while self.waiting and not c.busy and is_sendable(c):
            message = self.waiting.popleft()
            self.waiting_bytes -= len(message)
            self.reactor.inbound_bytes -= len(message)
            call_on_message(self.reactor, c, self, message)
        if not is_sendable(c):
            forget_waiting(self)
        if not self.waiting:
            resume(self.reactor, c)

    def _left(self):
        """[(kind, name, Unix time of joining)] of the groups it was in when it left them, in the order of joining."""
        cdef Group group
        return [(group.kind, group.name, unix_time(self.reactor, joined)) for group, joined in self.left or ()]

    def _forget(self):
        """The listener was told everything: no channels any more."""
        self.left = ()
