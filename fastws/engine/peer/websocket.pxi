# WebSocket: a connection as listeners and the manager hand it out.

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
        """Unique across all servers of a cluster, and never reused."""
        return f"{self.reactor.id_prefix}{self.slot:x}-{self.serial:x}"

    @property
    def manager(self):
        """The ConnectionManager of its endpoint."""
        return self.endpoint

    @property
    def is_open(self):
        """Whether messages can be sent: from `on_open` until either side begins to close."""
        return self.conn is not NULL and is_sendable(self.conn)

    @property
    def is_secure(self):
        """Whether it came over TLS, unless a trusted proxy says otherwise."""
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
    def compression(self):
        """Whether it takes compressed messages: both sides have agreed on that."""
        return self.request.deflate != 0

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
        """(host, port) of the peer, or of whoever a trusted proxy names; the port is 0 where that does not say."""
        return self.request.remote_address

    @property
    def channels(self):
        """The channels it is subscribed to; still readable in `on_close`."""
        check_thread(self.reactor, "asyncio.run_coroutine_threadsafe")
        cdef uint32_t i
        cdef Group group
        names = []
        if self.left_groups is not None:
            for group, _ in self.left_groups:
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
        """Seconds without a message in either direction, pings aside, after which it is closed with 1001; 0: never."""
        return self.idle_ticks * TICK_SECONDS

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
        raise TypeError("a WebSocket is not iterable: its messages go to Listener.on_message")

    def __repr__(self):
        return f"<WebSocket {self.id} {'open' if self.is_open else 'closed'}>"

    # -- what it does

    def send(self, message, *, compress=None):
        """Queue a message. Returns False if the connection is closed, or had no room for it (`max_backlog`).

        ``str`` goes out as text, bytes-like as binary, anything else as orjson text. Never waits. ``compress`` is as
        for `ConnectionManager.broadcast`. Raises TypeError for what orjson cannot encode, RuntimeError from another
        thread.
        """
        check_thread(self.reactor, "ConnectionManager.send_threadsafe")
        return send_message(self.reactor, self, message, compress)

    def subscribe(self, channel):
        """Join a channel; joining again changes nothing. Returns its number of subscribers."""
        return self.endpoint.subscribe(channel, self)

    def unsubscribe(self, channel):
        """Leave a channel. Returns the number of subscribers that stay."""
        return self.endpoint.unsubscribe(channel, self)

    def unsubscribe_all(self):
        """Leave every channel."""
        self.endpoint.unsubscribe_all(self)

    def close(self, code=CODE_NORMAL, reason=""):
        """Begin the close handshake (RFC 6455 7.1.2), after everything pending.

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
            flush_out(self.reactor, c)

    def _claim_address(self):
        """Count a trusted proxy's connection under the address of its request; until now it counted nowhere.

        Returns False if it is refused for that, or gone.
        """
        cdef Conn* c = self.conn
        if c is NULL or c.state != PENDING:
            return False
        if c.address or claim_address(self.reactor, c, self.request):
            return True
        refuse_crowded(self.reactor, c)
        return False

    def _accept(self, Endpoint endpoint not None, bytes response not None):
        """Answer with 101; from now on it is a connection of `endpoint`. Returns False if the peer is gone."""
        cdef Conn* c = self.conn
        if c is NULL or c.state != PENDING:
            return False
        queue_bytes(self.reactor, c, response)
        c.frame_left = c.pending
        self.endpoint = endpoint
        self.idle_ticks = endpoint.idle_ticks
        c.idle_timeout = endpoint.idle_ticks
        c.deflate = self.request.deflate
        c.state = OPENING
        c.last_message = self.reactor.now
        c.last_received = self.reactor.now
        endpoint.everyone.add(c, self.reactor.now)
        pause(self.reactor, c)
        arm_open(self.reactor, c)
        return True

    def _ready(self):
        """on_open has ended: messages flow."""
        cdef Conn* c = self.conn
        self.request.forget()
        if c is not NULL and c.state == OPENING:
            c.state = OPEN
        if c is not NULL and c.state in (OPEN, CLOSING):
            resume(self.reactor, c)

    def _send_run(self, Run run not None, uint32_t first=0):
        """Queue the messages of a run from number ``first`` on, as `send` does. Returns how many there was room for."""
        cdef Conn* c = self.conn
        cdef uint32_t queued
        check_thread(self.reactor, "loop.call_soon_threadsafe")
        if run.reactor is not self.reactor:
            raise ValueError("this run was prepared for another server")
        if c is NULL or not is_sendable(c) or first >= run.count:
            return 0
        read_clock(self.reactor)
        queued = deliver_run(self.endpoint, c, run, first)
        flush_soon(self.reactor, c)
        return queued

    def _notify_when_drained(self):
        """Have `drained` of its `life` called with it, once, when all that it has pending is written.

        Until then, `_broadcast_to_ready` leaves it out. Nothing is called if the connection closes first.
        """
        cdef Conn* c = self.conn
        check_thread(self.reactor, "loop.call_soon_threadsafe")
        if c is not NULL and is_sendable(c):
            c.when_empty = OUTCOME_PYTHON
            if not c.overdue:
                flush_soon(self.reactor, c)

    def _give_away(self):
        """Give the wire away. Returns (file descriptor or transport, bytes read so far, claim), or None if it is gone.

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

    def _take_result(self, result):
        """An async message handler has returned `result`: go on with the messages that wait."""
        cdef Conn* c = self.conn
        if result is not None and self.is_open:
            answer(self.reactor, self, result)
        if c is NULL:
            forget_waiting(self)
            return
        c.handler_runs = False
        while self.waiting and not c.handler_runs and is_sendable(c):
            message = self.waiting.popleft()
            self.waiting_bytes -= len(message)
            self.reactor.inbound_bytes -= len(message)
            call_on_message(self.reactor, c, self, message)
        if not is_sendable(c):
            forget_waiting(self)
        if not self.waiting:
            resume(self.reactor, c)

    def _figures(self):
        """Returns (messages received, messages queued for it, the code of our Close if we closed first, otherwise 0).

        The messages can be asked for until the listener has been told of the end.
        """
        if self.conn is NULL:
            return 0, 0, self.close_code
        return self.conn.messages_in, self.conn.messages_out, self.close_code

    def _left_groups(self):
        """Returns [(kind, name, Unix time of joining)] of the groups that it left, in the order of joining."""
        cdef Group group
        return [(group.kind, group.name, unix_time(self.reactor, joined)) for group, joined in self.left_groups or ()]

    def _forget_groups(self):
        """The listener has been told everything: it has no channels any more."""
        self.left_groups = ()
