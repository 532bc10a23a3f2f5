# Endpoint: who is connected, who is in which channel, and sending to them.

cdef enum:
    MIN_FRAGMENTS_ALLOWED = 1024        # that a message may always have
    MEAN_FRAGMENT_BYTES = 64            # of the smallest fragments of a large message


cpdef object many(value):
    """Returns an iterable of ids, users or connections; a single one may be given, too."""
    if isinstance(value, (str, bytes, WebSocket)) or not hasattr(type(value), "__iter__"):
        return (value,)
    return value


cdef inline uint32_t deliver_to_members(Endpoint endpoint, Group group, Message* message, uint64_t excluded,
                                        const bint is_deflatable) except? 0:
    cdef uint32_t i
    cdef uint32_t addressed = 0
    cdef Conn* c
    cdef Conn** members = group.members
    cdef uint32_t count = group.count
    read_clock(endpoint.reactor)
    for i in range(count):
        c = members[i]
        if i + 8 < count:
            prefetch_for_write(members[i + 8])
        if c.mark == excluded or not is_sendable(c):
            continue
        addressed += 1
        deliver(endpoint, c, frame_for(endpoint, c, message) if is_deflatable else &message.plain)
        if not (c.fresh or c.overdue or c.blocked):
            push_fresh(endpoint.reactor, c)
    wake(endpoint.reactor)
    return addressed


cdef class Endpoint:
    """The engine's half of a ConnectionManager: who is connected, who is in which channel, and sending to them."""

    def __cinit__(self, *args, **kwargs):
        self.channel_groups = {}
        self.user_groups = {}
        self.session_groups = {}
        self.everyone = Group(None, EVERYONE)

    def __dealloc__(self):
        cdef int window
        for window in range(WINDOWS):
            deflater_free(self.deflaters[window])

    def _attach(self, Reactor reactor not None, on_message, options):
        """Be served by `reactor`. Called once, before the first connection."""
        self.reactor = reactor
        self.on_message = on_message
        self.max_message_size = options.max_message_size
        self.max_fragments = max(self.max_message_size // MEAN_FRAGMENT_BYTES, <uint64_t>MIN_FRAGMENTS_ALLOWED)
        self.seconds_per_message = 1 / options.max_message_rate if options.max_message_rate else 0
        self.seconds_per_byte = 1 / options.max_byte_rate if options.max_byte_rate else 0
        self.is_rated = self.seconds_per_message > 0 or self.seconds_per_byte > 0
        self.closes_over_rate = options.over_rate == "close"
        self.deflate_level = 0 if options.compression == "off" else options.compression_level
        self.deflate_threshold = options.compression_threshold
        self.max_backlog = options.max_backlog
        self.overflow = {"close": OVERFLOW_CLOSE, "drop_oldest": OVERFLOW_DROP_OLDEST,
                         "drop_newest": OVERFLOW_DROP_NEWEST}[options.overflow]
        self.idle_ticks = ticks(options.idle_timeout)
        self.ping_interval_ticks = ticks(options.ping_interval)
        self.ping_timeout_ticks = ticks(options.ping_timeout)
        self.close_ticks = ticks(options.close_timeout)

    # -- sending

    def broadcast(self, channel, message, *, to=None, users=None, exclude=None, compress=None):
        """Send a message to the members of a channel. Returns how many were addressed.

        Where ``to`` (ids) or ``users`` is given, only to those members named in either; never to those in
        ``exclude`` (connections or ids). A single value serves as well as a list. Encoded once, never waits.
        Where `compression` is on, ``compress`` says whether to compress; None: from `compression_threshold` on.
        Raises TypeError for what orjson cannot encode, RuntimeError from another thread.
        """
        cdef Message encoded
        cdef Group group
        check_thread(self.reactor, "broadcast_threadsafe")
        group = self.channel_groups.get(channel)
        if group is None or group.count == 0:
            return 0
        encode_message(self, message, compress, &encoded)
        self.broadcasts += 1
        try:
            if to is None and users is None:
                return self.deliver_all(group, &encoded, self.mark_excluded(exclude))
            return self.deliver_chosen(group, &encoded, to, users, exclude)
        finally:
            release_message(self.reactor, &encoded)

    def send(self, ids, message, *, compress=None):
        """Send a message to connections of this endpoint, by id. Returns how many were addressed."""
        return self.send_chosen(ids, None, message, None, compress)

    def send_to_user(self, users, message, *, exclude=None, compress=None):
        """Send a message to every connection (device) of one or several users. Returns how many were addressed."""
        return self.send_chosen(None, users, message, exclude, compress)

    cdef send_chosen(self, ids, users, message, exclude, compress):
        cdef Message encoded
        check_thread(self.reactor, "send_threadsafe")
        if self.reactor is None:
            return 0
        encode_message(self, message, compress, &encoded)
        try:
            return self.deliver_chosen(None, &encoded, ids, users, exclude)
        finally:
            release_message(self.reactor, &encoded)

    cdef uint32_t deliver_all(self, Group group, Message* message, uint64_t excluded) except? 0:
        if message.is_deflatable:
            return deliver_to_members(self, group, message, excluded, True)
        return deliver_to_members(self, group, message, excluded, False)    # of which the compiler makes its own loop

    cdef list pass_over(self, Group group, const Frame* frame, uint32_t limit, uint64_t excluded):
        """Mark members that do not keep up as excluded from a frame. Returns them."""
        cdef uint32_t i
        cdef Conn* c
        cdef list lagging = []
        limit = min(limit, self.max_backlog - min(self.max_backlog, frame.length))
        for i in range(group.count):
            c = group.members[i]
            if c.mark == excluded or not is_sendable(c):
                continue
            if c.blocked or c.pending > limit or c.when_empty == OUTCOME_PYTHON:
                c.mark = excluded
                lagging.append(<WebSocket>c.ws)
        return lagging

    cdef uint32_t deliver_chosen(self, Group group, Message* message, ids, users, exclude) except? 0:
        """Deliver to connections named by id or by user; if a `group` is given, only to its members."""
        cdef uint32_t i
        cdef uint32_t addressed = 0
        cdef Group user_group
        cdef uint64_t excluded = self.mark_excluded(exclude)
        cdef uint64_t taken
        read_clock(self.reactor)
        self.reactor.mark += 1
        taken = self.reactor.mark
        for name in many(ids) if ids is not None else ():
            addressed += self.deliver_once(self.find(name), group, message, excluded, taken)
        for user in many(users) if users is not None else ():
            user_group = self.user_groups.get(user)
            if user_group is not None:
                for i in range(user_group.count):
                    addressed += self.deliver_once(user_group.members[i], group, message, excluded, taken)
        return addressed

    cdef bint deliver_once(self, Conn* c, Group group, Message* message, uint64_t excluded, uint64_t taken):
        if c is NULL or c.mark == excluded or c.mark == taken or not is_sendable(c):
            return False
        if group is not None and membership_find(c, group) < 0:
            return False
        c.mark = taken
        deliver(self, c, frame_for(self, c, message))
        flush_soon(self.reactor, c)
        return True

    cdef uint64_t mark_excluded(self, exclude) except 0:
        """Mark the connections that are not to be addressed. Returns the mark."""
        cdef Conn* c
        self.reactor.mark += 1
        if exclude is not None:
            for name in many(exclude):
                c = self.find(name)
                if c is not NULL:
                    c.mark = self.reactor.mark
        return self.reactor.mark

    cdef Conn* find(self, name) except? NULL:
        """Returns the connection of this endpoint that an id or a WebSocket names, or NULL."""
        cdef WebSocket ws
        if isinstance(name, WebSocket):
            ws = name
        elif isinstance(name, str):
            ws = None if self.reactor is None else find_websocket(self.reactor, name)
        else:
            raise TypeError(f"expected a connection or its id (a str), not {name!r}")
        if ws is None or ws.endpoint is not self:
            return NULL
        return ws.conn

    # -- for logs

    def _broadcast_to_ready(self, channel, message, uint32_t limit, *, exclude=None, compress=None):
        """Send a message to those members of a channel that keep up. Returns (how many, the others).

        The others are those whose socket is full, that have more than ``limit`` bytes pending, or too many for this
        message within `max_backlog`, or that are waited for (`WebSocket._notify_when_drained`).
        """
        cdef Message encoded
        cdef Group group
        cdef uint64_t excluded
        check_thread(self.reactor, "loop.call_soon_threadsafe")
        group = self.channel_groups.get(channel)
        if group is None or group.count == 0:
            return 0, []
        encode_message(self, message, compress, &encoded)
        self.broadcasts += 1
        try:
            excluded = self.mark_excluded(exclude)
            lagging = self.pass_over(group, &encoded.plain, limit, excluded)
            return self.deliver_all(group, &encoded, excluded), lagging
        finally:
            release_message(self.reactor, &encoded)

    def _prepare(self, messages):
        """Encode messages once for many connections, which get them by `WebSocket._send_run`. Returns a `Run`."""
        check_thread(self.reactor, "loop.call_soon_threadsafe")
        if self.reactor is None:
            raise RuntimeError("nothing can be prepared before the server has started")
        return Run(self.reactor, messages)

    # -- who is there

    def _check_thread(self):
        """Raises RuntimeError on any thread but the loop's."""
        check_thread(self.reactor, "loop.call_soon_threadsafe")

    cdef dict groups(self, int kind):
        if kind == CHANNEL:
            return self.channel_groups
        return self.user_groups if kind == USER else self.session_groups

    def _find(self, name):
        """Returns the open connection with this id, or None."""
        cdef Conn* c = self.find(name) if isinstance(name, str) else NULL
        return <WebSocket>c.ws if c is not NULL and is_sendable(c) else None

    def _members(self, int kind, name):
        """Returns the connections of a group."""
        cdef Group group = self.everyone
        cdef uint32_t i
        check_thread(self.reactor, "asyncio.run_coroutine_threadsafe")
        if kind != EVERYONE:
            group = self.groups(kind).get(name)
        if group is None:
            return []
        return [<WebSocket>group.members[i].ws for i in range(group.count)]

    def _counts(self, int kind):
        """Returns {name: number of connections} for the channels or the users that have any."""
        cdef Group group
        check_thread(self.reactor, "asyncio.run_coroutine_threadsafe")
        return {name: group.count for name, group in self.groups(kind).items() if group.count}

    def _count(self, channel):
        """Returns the number of subscribers."""
        cdef Group group = self.channel_groups.get(channel)
        return 0 if group is None else group.count

    def _people(self, channel):
        """Returns {user: (Unix time when the first device joined, number of devices)} for a channel."""
        cdef Group group
        cdef uint32_t i = 0
        cdef uint32_t joined
        cdef dict people = {}
        check_thread(self.reactor, "asyncio.run_coroutine_threadsafe")
        group = self.channel_groups.get(channel)
        while group is not None and i < group.count:        # comparing users may run any code
            joined = group.members[i].memberships[group.back[i]].joined
            user = (<WebSocket>group.members[i].ws).request.user
            i += 1
            if user is not None:
                first, devices = people.get(user, (joined, 0))
                people[user] = first if is_past(first, joined) else joined, devices + 1
        for user, (first, devices) in people.items():
            people[user] = unix_time(self.reactor, first), devices
        return people

    def _person(self, channel, user):
        """Returns the same for one user; (0, 0) if the user has no connection in the channel."""
        cdef Group group = self.channel_groups.get(channel)
        cdef Group devices = self.user_groups.get(user)
        cdef uint32_t i, joined
        cdef uint32_t first = 0
        cdef uint32_t count = 0
        cdef int64_t index
        if group is not None and devices is not None:
            for i in range(devices.count):
                index = membership_find(devices.members[i], group)
                if index >= 0:
                    joined = devices.members[i].memberships[index].joined
                    first = joined if count == 0 or is_past(joined, first) else first
                    count += 1
        return unix_time(self.reactor, first) if count else 0.0, count

    def _is_there(self, channel, user):
        """Returns whether a user has a connection in a channel."""
        cdef Group group = self.channel_groups.get(channel)
        cdef Group devices = self.user_groups.get(user)
        return group is not None and devices is not None and device_in(devices, group, NULL) is not NULL

    def _backdate(self, channel, WebSocket ws not None, double since):
        """Let a connection count as in a channel since a Unix time before it joined."""
        cdef Group group = self.channel_groups.get(channel)
        cdef int64_t index = -1
        if group is not None and ws.conn is not NULL:
            index = membership_find(ws.conn, group)
        if index >= 0:
            ws.conn.memberships[index].joined = tick_at(self.reactor, since)

    @property
    def connection_count(self):
        """Connections of this endpoint that are open."""
        return self.everyone.count

    @property
    def stats(self):
        """Counters since the start, as a dict: what came in, what was addressed, what an overflow policy did.

        ``binary_received`` counts those of ``messages_received`` that were not text; ``broadcasts`` counts the calls
        that had a channel with members; ``subscriptions`` is how many channels all connections are in, added up.
        ``throttled`` counts the times that a connection was not read because its peer sent too fast
        (`max_message_rate`, `max_byte_rate`) or too much that was compressed; ``compressed`` counts how often a message
        was: once for each size of window that its receivers had agreed on, from ``compressed_before_bytes`` to
        ``compressed_after_bytes``; ``expanded`` counts compressed messages that came, and ``expanded_bytes`` what was
        expanded of them; ``deliveries`` counts frames queued, one per connection; ``closed_slow`` counts connections
        closed with 1013 for more than `max_backlog` bytes pending; ``dropped_oldest`` and ``dropped_newest`` count
        frames not sent for that reason; ``closed_unfinished`` counts connections closed with 1013 because `max_inbound`
        was passed and they held the most.
        """
        return {
            "connections": self.everyone.count,
            "channels": count_occupied(self.channel_groups),
            "users": count_occupied(self.user_groups),
            "subscriptions": count_members(self.channel_groups),
            "messages_received": self.messages_received,
            "binary_received": self.binary_received,
            "throttled": self.throttled,
            "broadcasts": self.broadcasts,
            "compressed": self.compressed,
            "compressed_before_bytes": self.compressed_before,
            "compressed_after_bytes": self.compressed_after,
            "expanded": self.expanded,
            "expanded_bytes": self.expanded_bytes,
            "deliveries": self.deliveries,
            "closed_slow": self.closed_slow,
            "closed_unfinished": self.closed_unfinished,
            "dropped_oldest": self.dropped_oldest,
            "dropped_newest": self.dropped_newest,
        }

    # -- joining and leaving, without telling the listener

    def _join(self, int kind, name, WebSocket ws not None):
        """Add an open connection to a group. Returns (members now, whether it joined, whether the group is new)."""
        check_thread(self.reactor, "loop.call_soon_threadsafe")
        cdef dict groups = self.groups(kind)
        cdef Group group = groups.get(name)
        cdef bint is_new
        if ws.endpoint is not self:
            raise ValueError(f"{ws!r} belongs to another endpoint")
        if group is None:
            group = groups.setdefault(name, Group(name, kind))
        is_new = group.is_over()
        try:
            # Only here, after the lookup in the dict: comparing names may run any code.
            if ws.conn is NULL or not is_sendable(ws.conn) or membership_find(ws.conn, group) >= 0:
                return group.count, False, False
            read_clock(self.reactor)
            group.add(ws.conn, self.reactor.now)
        finally:
            if group.is_over():
                groups.pop(name, None)
        return group.count, True, is_new

    def _leave(self, name, WebSocket ws not None):
        """Take an open connection out of a channel; that stays until _release_group(). Returns whether it was in it."""
        check_thread(self.reactor, "loop.call_soon_threadsafe")
        cdef Group group = self.channel_groups.get(name)
        cdef Group user
        cdef int64_t index
        if group is None or ws.conn is NULL or ws.endpoint is not self:
            return False
        index = membership_find(ws.conn, group)
        if index < 0:
            return False
        user = user_of(ws.conn)
        if user is not None:
            bequeath(ws.conn, <uint32_t>index, user)
        group.remove(ws.conn, <uint32_t>index)
        group.leaving += 1
        return True

    def _release_group(self, int kind, name):
        """The listener has been told that a connection left. Returns whether the group is gone with it."""
        cdef dict groups = self.groups(kind)
        cdef Group group = groups[name]
        group.leaving -= 1
        if not group.is_over():
            return False
        del groups[name]
        return True
