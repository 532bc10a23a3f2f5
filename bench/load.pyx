# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The load generator: thousands of WebSocket clients, one thread and epoll per core, no Python object per message.

A *stream* is what is checked and timed: senders put numbered messages in, the server passes each to all receivers. A
fan-out is one stream to every client, an echo one stream per client to itself, rooms are a stream each. A payload begins
with the stream's number and the message's (two little-endian uint32); a receiver must see 0, 1, 2, ... of each of its streams.

Closed loop: a stream keeps `window` messages in flight, and sends the next when one has reached every receiver.
Open loop: it sends at a fixed rate, and latency counts from when a message was due, not from when it could be sent.

With permessage-deflate every message is expanded and compared with what was sent. Where a server keeps no window between
messages, all get the same bytes: those are expanded once per message and lane, and compared for everybody else.

A *lane* is a thread's part: only it reads its clients, and what it counts is its own. A message is done when every lane
has it, and the last of them sends the next one; so lanes meet once per message, not once per delivery.
"""

import math
import os
import socket
import threading
import time

include "layout.pxi"
include "tls.pxi"
include "histogram.pxi"

REQUEST = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # the answer to that key (RFC 6455 1.3)
CLIENTS_PER_ADDRESS = 20_000  # fewer than there are ephemeral ports
FAULTS = ("lost", "repeated", "malformed", "closed")  # what must not happen
COUNTERS = ("deliveries", "messages", "received", "idle_ns", *FAULTS)


@cython.final
cdef class Lane:
    """One thread's share of the clients. Its methods need no lock unless stated otherwise."""

    cdef Shared *shared
    cdef int number, epoll
    cdef epoll_event events[EVENTS]
    cdef uint8_t buffer[READ_SIZE]
    cdef int done[DONE]           # streams of messages that this lane was the last to receive
    cdef uint32_t done_count
    cdef uint32_t dirty[DIRTY]    # clients with something new to send
    cdef uint32_t dirty_count
    cdef uint32_t random
    cdef z_stream inflater        # for messages without a window
    cdef uint8_t inflated[READ_SIZE]
    cdef Memo memos[MEMOS]
    cdef uint64_t arrived         # of the deliveries that it can expect, including lost ones
    cdef readonly int64_t idle_ns  # spent in polls that found nothing
    cdef readonly uint64_t deliveries, messages, received, lost, repeated, malformed, closed
    cdef readonly Histogram latency, side_latency

    def __cinit__(self, int number):
        self.number, self.random = number, 2463534242 + number
        self.epoll = epoll_create1(0)
        self.latency, self.side_latency = Histogram(), Histogram()
        inflateInit2(&self.inflater, WINDOW)

    def __dealloc__(self):
        cdef int i
        close(self.epoll)
        inflateEnd(&self.inflater)
        for i in range(MEMOS):
            free(self.memos[i].data)

    def clear(self):
        self.deliveries = self.messages = self.received = self.idle_ns = 0
        self.latency.clear()
        self.side_latency.clear()

    def work(self, int64_t deadline, cores):
        """Run the loop on these cores."""
        os.sched_setaffinity(0, cores)
        with nogil:
            self.loop(deadline)

    cdef void loop(self, int64_t deadline) noexcept nogil:
        """Poll and never sleep: otherwise the server's `send` would have to wake the load, at the server's expense."""
        cdef Shared *shared = self.shared
        cdef int64_t now = now_ns(), then
        cdef int i, count
        while now < deadline and (shared.in_flight or not shared.holding):
            if self.number == 0 and not shared.holding:
                self.publish_due(now)
            count = epoll_wait(self.epoll, self.events, EVENTS, 0)
            for i in range(count):
                self.serve(&shared.clients[self.events[i].data.u32])
            then, now = now, now_ns()
            if not count:
                self.idle_ns += now - then
            if <uint64_t>count * CROWD < shared.expected[self.number] - self.arrived:
                then, now = now, self.let_some_come(now)
                self.idle_ns += now - then

    cdef int64_t let_some_come(self, int64_t now) noexcept nogil:
        """Spin for a moment if much more is in flight than has arrived. Returns the time.

        Each poll takes the lock under which the kernel, in the server's `send`, adds a socket to the ready list:
        polling for every single delivery would cost the server contention that remote clients do not cause.
        """
        cdef int64_t end = now + PAUSE_NS
        while now < end:
            now = now_ns()
        return now

    cdef void serve(self, Client *client) noexcept nogil:
        """Read everything that has arrived, and send at once what that permits."""
        cdef ssize_t size = READ_SIZE
        if client.out_length:
            flush(client)
        while size == READ_SIZE or (size > 0 and client.tls is not NULL):
            size = receive(client, self.buffer)
            if size > 0:
                self.received += size
                if client.deflates:
                    self.parse_whole(client, self.buffer, size)
                else:
                    self.parse(client, self.buffer, size)
                self.answer()
        if size == 0 or (size < 0 and errno != EAGAIN and errno != EINTR):
            self.hang_up(client)

    cdef void hang_up(self, Client *client) noexcept nogil:
        if client.state == OPEN:
            client.state = CLOSED
            self.closed += 1
            epoll_ctl(self.epoll, EPOLL_CTL_DEL, client.fd, NULL)

    # -- receiving ------------------------------------------------------------------------------------------------

    cdef void parse(self, Client *client, const uint8_t *p, size_t size) noexcept nogil:
        cdef const uint8_t *end = p + size
        cdef const uint8_t *head
        cdef size_t taken
        cdef int need
        cdef int64_t now = now_ns()
        while p < end:
            if client.skip:
                taken = min(client.skip, <size_t>(end - p))
                p += taken
                client.skip -= taken
                if not client.skip:
                    self.delivered(client, now)
                continue
            head, need = p, HEAD
            if client.head_length or end - p < HEAD:  # it may be split: collect it
                need = head_size(client.head, client.head_length)
                taken = min(<size_t>(need - client.head_length), <size_t>(end - p))
                memcpy(client.head + client.head_length, p, taken)
                client.head_length += <int>taken
                p += taken
                if client.head_length < head_size(client.head, client.head_length):
                    continue
                self.begin(client, client.head)
                client.head_length = 0
            else:
                p += head_size(p, HEAD)
                self.begin(client, head)
            if not client.skip:
                self.delivered(client, now)

    cdef inline void begin(self, Client *client, const uint8_t *head) noexcept nogil:
        """Handle a complete head of a frame; the payload still to come goes to `skip`."""
        cdef Shared *shared = self.shared
        cdef uint64_t length = head[1] & 0x7F
        cdef const uint8_t *payload = head + 2
        if length == 126:
            length, payload = big_endian(payload, 2), payload + 2
        elif length == 127:
            length, payload = big_endian(payload, 8), payload + 8
        client.stream = NOBODY
        client.skip = length - 8 if length >= 8 else 0
        if head[0] == 0x82 and length >= 8:
            memcpy(&client.stream, payload, 4)
            memcpy(&client.sequence, payload + 4, 4)
            if not 0 <= client.stream < shared.stream_count or length != shared.streams[client.stream].size:
                client.stream = NOBODY
                self.malformed += 1
        elif head[0] != 0x89:  # a ping is harmless; a close frame, text or a fragment is not
            self.malformed += 1

    cdef void parse_whole(self, Client *client, const uint8_t *p, size_t size) noexcept nogil:
        """The same with permessage-deflate."""
        cdef size_t taken
        cdef int64_t now = now_ns()
        while size:
            taken = frame_size(p, size)
            if not client.part_length and taken <= size:
                self.take_frame(client, p, taken, now)
            else:
                if client.part_length:
                    taken = frame_size(client.part, client.part_length) - client.part_length
                taken = min(taken, size)
                keep(client, p, taken)
                if client.part_length == frame_size(client.part, client.part_length):
                    self.take_frame(client, client.part, client.part_length, now)
                    client.part_length = 0
            p += taken
            size -= taken

    cdef void take_frame(self, Client *client, const uint8_t *p, size_t size, int64_t now) noexcept nogil:
        cdef int head = payload_offset(p)
        client.stream = NOBODY
        if p[0] == 0xC2:
            self.recognise(client, p + head, size - head)
        elif p[0] == 0x82:
            self.identify(client, p + head, size - head)
        elif p[0] != 0x89:  # a ping is harmless
            self.malformed += 1
        self.delivered(client, now)

    cdef void recognise(self, Client *client, const uint8_t *p, size_t size) noexcept nogil:
        """Find out which message this is: most likely what others have been sent already."""
        cdef Slot *slot = &client.slots[0]
        cdef Memo *memo = &self.memos[slot.next % MEMOS]
        cdef ssize_t length
        if client.inflater is NULL and memo.length == size and memo.stream == slot.stream and memo.sequence == slot.next:
            if not memcmp(memo.data, p, size):
                client.stream, client.sequence = slot.stream, slot.next
                return
        length = self.expand(client, p, size)
        self.identify(client, self.inflated, max(length, 0))
        if client.stream != NOBODY and client.inflater is NULL:
            memo = &self.memos[client.sequence % MEMOS]
            memo.stream, memo.sequence, memo.length = client.stream, client.sequence, size
            memo.data = <uint8_t *>realloc(memo.data, size)
            memcpy(memo.data, p, size)

    cdef ssize_t expand(self, Client *client, const uint8_t *p, size_t size) noexcept nogil:
        """Returns the size of the message that is now in `inflated`; -1 if it is damaged, or larger than that."""
        cdef z_stream *stream = client.inflater if client.inflater is not NULL else &self.inflater
        cdef int result
        if client.inflater is NULL:
            inflateReset(stream)
        stream.next_out, stream.avail_out = self.inflated, READ_SIZE
        stream.next_in, stream.avail_in = <unsigned char *>p, <unsigned int>size
        result = inflate(stream, Z_SYNC_FLUSH)
        if result == Z_OK and stream.avail_out:
            stream.next_in, stream.avail_in = <unsigned char *>TAIL, 4
            result = inflate(stream, Z_SYNC_FLUSH)
        return -1 if result not in (Z_OK, Z_BUF_ERROR) or not stream.avail_out else READ_SIZE - stream.avail_out

    cdef void identify(self, Client *client, const uint8_t *message, size_t size) noexcept nogil:
        """Compare a whole message with what was sent as its stream and number."""
        cdef Stream *stream
        if size >= 8:
            memcpy(&client.stream, message, 4)
            memcpy(&client.sequence, message + 4, 4)
            if 0 <= client.stream < self.shared.stream_count:
                stream = &self.shared.streams[client.stream]
                if size == stream.size and not memcmp(message + 8, body_of(stream, client.sequence), size - 8):
                    return
        client.stream = NOBODY
        self.malformed += 1

    cdef inline void delivered(self, Client *client, int64_t now) noexcept nogil:
        cdef Stream *stream
        cdef uint32_t *missing
        cdef uint32_t place
        if client.stream == NOBODY or not self.in_order(client):
            return
        stream = &self.shared.streams[client.stream]
        place = client.sequence & stream.mask
        missing = &stream.missing[self.number * stream.stride + place]
        self.deliveries += 1
        if stream.side:
            self.side_latency.add(now - stream.sent_at[place])
        else:
            self.latency.add(now - stream.sent_at[place])
        missing[0] -= 1
        if not missing[0] and not subtract(&stream.lanes_left[place], 1, ACQ_REL):
            self.done[self.done_count] = client.stream
            self.done_count += 1

    cdef inline bint in_order(self, Client *client) noexcept nogil:
        """Returns whether the message is the expected one; counts lost and repeated ones."""
        cdef Slot *slot = client.slots
        cdef int i
        for i in range(client.slot_count):
            if slot[i].stream == client.stream:
                if client.sequence < slot[i].next:
                    self.repeated += 1
                    return False
                self.lost += client.sequence - slot[i].next
                self.arrived += client.sequence + 1 - slot[i].next
                slot[i].next = client.sequence + 1
                return True
        self.malformed += 1  # not addressed to this client
        return False

    # -- sending --------------------------------------------------------------------------------------------------

    cdef void answer(self) noexcept nogil:
        """Send one new message for each that is done."""
        cdef int64_t now
        cdef uint32_t i
        if not self.done_count:
            return
        now = now_ns()
        take(&self.shared.lock)
        for i in range(self.done_count):
            self.complete(self.done[i], now)
        release(&self.shared.lock)
        self.done_count = 0
        self.flush_dirty()

    cdef void complete(self, int number, int64_t now) noexcept nogil:
        """Needs the lock."""
        cdef Stream *stream = &self.shared.streams[number]
        stream.done += 1
        self.messages += 1
        self.shared.in_flight -= 1
        if self.shared.holding:
            return
        if self.shared.roaming:
            self.publish_next(now)
        elif stream.window:
            self.publish(number, now)

    cdef void fill_windows(self) noexcept nogil:
        """Send what is in flight at first. Needs the lock, unless no other lane is running."""
        cdef Shared *shared = self.shared
        cdef Stream *stream
        cdef int number
        for number in range(shared.stream_count):
            stream = &shared.streams[number]
            stream.due = now_ns()
            while stream.sent - stream.done < stream.window:
                self.publish(number, now_ns())
        while shared.in_flight < shared.roaming:
            self.publish_next(now_ns())
        self.flush_dirty()

    cdef void publish_next(self, int64_t now) noexcept nogil:
        """Send a message on the next idle stream in turn. With several senders per stream the order would be unknown.

        Needs the lock.
        """
        cdef Shared *shared = self.shared
        while shared.streams[shared.cursor].sent != shared.streams[shared.cursor].done:
            shared.cursor = (shared.cursor + 1) % shared.stream_count
        self.publish(shared.cursor, now)
        shared.cursor = (shared.cursor + 1) % shared.stream_count

    cdef void publish_due(self, int64_t now) noexcept nogil:
        """Send what is due in open loops."""
        cdef Stream *stream
        cdef int number
        for number in range(self.shared.stream_count):
            stream = &self.shared.streams[number]
            if not stream.interval or stream.due > now:
                continue
            take(&self.shared.lock)
            while stream.due <= now and stream.sent - stream.done <= stream.mask:
                self.publish(number, stream.due)
                stream.due += stream.interval
            release(&self.shared.lock)
        self.flush_dirty()

    cdef void publish(self, int number, int64_t at) noexcept nogil:
        """Needs the lock; the caller has to flush."""
        cdef Shared *shared = self.shared
        cdef Stream *stream = &shared.streams[number]
        cdef uint32_t place = stream.sent & stream.mask
        cdef int lane
        stream.sent_at[place] = at
        stream.lanes_left[place] = stream.lane_count
        for lane in range(shared.lanes):
            stream.missing[lane * stream.stride + place] = stream.shares[lane]
            shared.expected[lane] += stream.shares[lane]
        self.write(stream.senders[stream.sent % stream.sender_count], stream, number)
        stream.sent += 1
        shared.in_flight += 1

    cdef void write(self, uint32_t sender, Stream *stream, uint32_t number) noexcept nogil:
        cdef Client *client = &self.shared.clients[sender]
        if self.dirty_count == DIRTY:
            self.flush_dirty()
        take(&client.lock)
        if not client.out_length:  # otherwise epoll or another lane is about to flush it
            self.dirty[self.dirty_count] = sender
            self.dirty_count += 1
        self.write_frame(client, stream, number)
        release(&client.lock)

    cdef void write_frame(self, Client *client, Stream *stream, uint32_t number) noexcept nogil:
        cdef uint32_t size = stream.size
        cdef uint8_t *p = reserve(client, size + 14)
        cdef uint8_t *payload
        cdef uint8_t key[4]
        cdef uint32_t i
        p[0] = 0x82
        if size < 126:
            p[1], payload = <uint8_t>(0x80 | size), p + 6
        elif size < 65536:
            p[1], payload = 0x80 | 126, p + 8
        else:
            p[1], payload = 0x80 | 127, p + 14
        for i in range(<uint32_t>(payload - p) - 6):
            p[payload - p - 5 - i] = <uint8_t>(<uint64_t>size >> 8 * i)
        self.random ^= self.random << 13
        self.random ^= self.random >> 17
        self.random ^= self.random << 5
        memcpy(key, &self.random, 4)
        memcpy(payload - 4, key, 4)
        memcpy(payload, &number, 4)
        memcpy(payload + 4, &stream.sent, 4)
        memcpy(payload + 8, body_of(stream, stream.sent), size - 8)
        for i in range(size):
            payload[i] ^= key[i & 3]
        client.out_length += payload + size - p

    cdef void flush_dirty(self) noexcept nogil:
        cdef uint32_t i
        for i in range(self.dirty_count):
            flush(&self.shared.clients[self.dirty[i]])
        self.dirty_count = 0


@cython.final
cdef class Load:
    """Clients of one server on 127.0.0.1:`port`, on `threads` threads: by default one per core that the caller may use.

    With `tls` they accept whatever certificate the server has.
    Not to be used by several threads at once; `close` when done.
    """

    cdef Shared shared
    cdef int epoll  # for handshakes
    cdef epoll_event events[EVENTS]
    cdef void *tls_context
    cdef readonly object port, requests, sockets, lanes
    cdef readonly int compressing  # clients that have agreed on permessage-deflate
    cdef readonly Histogram latency, side_latency

    def __cinit__(self):
        self.epoll = epoll_create1(0)

    def __init__(self, port, threads=None, tls=False):
        cdef Lane lane
        if tls:
            self.tls_context = tls_context()
        self.port = port
        self.requests, self.sockets = [], []
        self.lanes = [Lane(i) for i in range(threads or len(os.sched_getaffinity(0)))]
        for lane in self.lanes:
            lane.shared = &self.shared
        self.shared.lanes = len(self.lanes)
        self.shared.expected = <uint64_t *>calloc(self.shared.lanes, sizeof(uint64_t))
        self.latency, self.side_latency = Histogram(), Histogram()

    def __dealloc__(self):
        cdef int i
        for i in range(self.shared.client_count):
            free(self.shared.clients[i].out)
            free(self.shared.clients[i].part)
            if self.shared.clients[i].inflater is not NULL:
                inflateEnd(self.shared.clients[i].inflater)
                free(self.shared.clients[i].inflater)
            if self.shared.clients[i].tls is not NULL:
                openssl.SSL_free(self.shared.clients[i].tls)
        if self.tls_context is not NULL:
            openssl.SSL_CTX_free(self.tls_context)
        for i in range(self.shared.stream_count):
            free(self.shared.streams[i].senders)
            free(self.shared.streams[i].bodies)
            free(self.shared.streams[i].shares)
            free(self.shared.streams[i].sent_at)
            free(self.shared.streams[i].lanes_left)
            free(self.shared.streams[i].missing)
        free(self.shared.clients)
        free(self.shared.streams)
        free(self.shared.expected)
        close(self.epoll)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def __getattr__(self, name):
        """The sum of a counter over all lanes."""
        if name not in COUNTERS:
            raise AttributeError(name)
        return sum(getattr(lane, name) for lane in self.lanes)

    @property
    def errors(self):
        """The number of faults by name; empty if there are none."""
        counts = {name: getattr(self, name) for name in FAULTS}
        return {name: count for name, count in counts.items() if count}

    # -- clients --------------------------------------------------------------------------------------------------

    def add_clients(self, paths, request=REQUEST):
        """Add one client per path, not yet connected. Returns their numbers as a range.

        `request` is the head that it sends, with {path} and {port} for its own, or a function that gives one for each.
        """
        cdef int first = self.shared.client_count, count = first + len(paths)
        clients = <Client *>realloc(self.shared.clients, count * sizeof(Client))
        memset(clients + first, 0, (count - first) * sizeof(Client))
        for i in range(first, count):
            clients[i].state = CLOSED
        self.shared.clients, self.shared.client_count = clients, count
        make = request if callable(request) else lambda: request
        self.requests.extend([make().format(path=path, port=self.port).encode() for path in paths])
        return range(first, count)

    cdef Lane lane_of(self, int client):
        return self.lanes[client % self.shared.lanes]

    def connect(self, int concurrency=64, timeout=60):
        """Connect all unconnected clients, `concurrency` at a time. Returns the seconds it took."""
        cdef int i, waiting = 0, count
        start = time.monotonic()
        todo = iter([i for i in range(self.shared.client_count) if self.shared.clients[i].state == CLOSED])
        left = True
        while left or waiting:
            while left and waiting < concurrency:
                number = next(todo, None)
                left = number is not None
                if left:
                    self.start_client(number)
                    waiting += 1
            with nogil:
                count = epoll_wait(self.epoll, self.events, EVENTS, 100)
            for i in range(count):
                waiting -= self.shake_hands(self.events[i].data.u32)
            if time.monotonic() - start > timeout:
                raise TimeoutError(f"{waiting} handshakes unfinished after {timeout} s")
        return time.monotonic() - start

    cdef start_client(self, int number):
        cdef Client *client = &self.shared.clients[number]
        connection = socket.socket()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Closing resets the connection: tens of thousands in TIME_WAIT would take the ports of the next run.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
        connection.bind((f"127.0.0.{2 + number // CLIENTS_PER_ADDRESS}", 0))
        connection.connect_ex(("127.0.0.1", self.port))
        self.sockets.append(connection)
        client.fd, client.state = connection.fileno(), CONNECTING
        if self.tls_context is not NULL:
            client.tls = tls_client(self.tls_context, client.fd)
        request = self.requests[number]
        memcpy(reserve(client, len(request)), <const uint8_t *>request, len(request))
        client.out_length += len(request)
        watch(self.epoll, client.fd, number)

    cdef int shake_hands(self, int number) except -1:
        """Send the request, and read the answer byte by byte up to its end. Returns 1 once the client is open."""
        cdef Client *client = &self.shared.clients[number]
        cdef Lane lane = self.lane_of(number)
        cdef ssize_t size
        flush(client)
        size = receive(client, lane.buffer)
        if size < 0 and errno == EAGAIN:
            return 0
        if size <= 0:
            raise ConnectionError(f"client {number}: connection refused or closed in the handshake")
        answer = (<uint8_t *>lane.buffer)[:size]
        head, end, rest = answer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101") or ACCEPT not in head or not end:
            raise ConnectionError(f"client {number}: handshake refused: {answer[:200]!r}")
        client.state = OPEN
        if b"permessage-deflate" in head:
            self.begin_compression(client, b"server_no_context_takeover" not in head)
            lane.parse_whole(client, lane.buffer + size - len(rest), len(rest))
        else:
            lane.parse(client, lane.buffer + size - len(rest), len(rest))
        epoll_ctl(self.epoll, EPOLL_CTL_DEL, client.fd, NULL)
        watch(lane.epoll, client.fd, number)
        if client.tls is not NULL:
            lane.serve(client)  # OpenSSL may have read more than the answer
        return 1

    cdef begin_compression(self, Client *client, bint has_window):
        client.deflates = True
        self.compressing += 1
        if has_window:
            client.inflater = <z_stream *>calloc(1, sizeof(z_stream))
            inflateInit2(client.inflater, WINDOW)

    def stop_reading(self, clients):
        """Keep these clients connected, but stop reading from their sockets."""
        for number in clients:
            epoll_ctl(self.lane_of(number).epoll, EPOLL_CTL_DEL, self.shared.clients[number].fd, NULL)

    def close(self):
        for client in self.sockets:
            client.close()
        self.sockets.clear()

    # -- streams --------------------------------------------------------------------------------------------------

    def add_stream(self, senders, receivers, *, int size=64, int window=0, double rate=0, bint side=False, bodies=()):
        """Add a stream from `senders`, in turn, to `receivers`. Returns its number, which is in its messages.

        Closed loop with `window` messages in flight, or open loop with `rate` messages a second, or neither: then it
        sends when `run(roaming=...)` comes round to it. The latency of a `side` stream goes to `side_latency`. Each
        message in turn has one of the `bodies`, of `size` bytes less the eight of the two numbers.
        """
        cdef int number = self.new_stream()
        cdef Stream *stream = &self.shared.streams[number]
        stream.size, stream.side, stream.window = max(size, 8), side, window
        bodies = bodies or [b"x" * (stream.size - 8)]
        if any([len(body) != stream.size - 8 for body in bodies]):
            raise ValueError(f"each body has to have {stream.size - 8} bytes")
        joined, stream.body_count = b"".join(bodies), len(bodies)
        stream.bodies = <uint8_t *>malloc(len(joined) + 1)
        memcpy(stream.bodies, <const uint8_t *>joined, len(joined))
        stream.sender_count = len(senders)
        stream.senders = <uint32_t *>malloc(len(senders) * sizeof(uint32_t))
        for i, client in enumerate(senders):
            stream.senders[i] = client
        stream.shares = <uint32_t *>calloc(self.shared.lanes, sizeof(uint32_t))
        for client in receivers:
            self.add_slot(client, number)
            stream.shares[client % self.shared.lanes] += 1
        stream.lane_count = sum([stream.shares[i] > 0 for i in range(self.shared.lanes)])
        self.set_ring(stream, OPEN_RING if rate else max(window, 1))
        self.set_rate(number, rate)
        return number

    cdef int new_stream(self):
        cdef int number = self.shared.stream_count
        if number == self.shared.stream_capacity:
            self.shared.stream_capacity = max(64, 2 * number)
            self.shared.streams = <Stream *>realloc(
                self.shared.streams, self.shared.stream_capacity * sizeof(Stream)
            )
        memset(&self.shared.streams[number], 0, sizeof(Stream))
        self.shared.stream_count += 1
        return number

    cdef add_slot(self, int number, int stream):
        cdef Client *client = &self.shared.clients[number]
        if client.slot_count == SLOTS:
            raise ValueError(f"client {number} receives {SLOTS} streams already")
        client.slots[client.slot_count].stream = stream
        client.slots[client.slot_count].next = 0
        client.slot_count += 1

    cdef set_ring(self, Stream *stream, uint32_t size):
        """Make room for at least `size` messages in flight, keeping those already in flight."""
        cdef uint32_t sequence, ring = 1, stride, old, new
        cdef int lane
        while ring < size:
            ring *= 2
        stride = ring + LINE / sizeof(uint32_t)  # lanes do not write to the same line
        sent_at = <int64_t *>calloc(ring, sizeof(int64_t))
        lanes_left = <uint32_t *>calloc(ring, sizeof(uint32_t))
        missing = <uint32_t *>calloc(self.shared.lanes * stride, sizeof(uint32_t))
        for sequence in range(stream.done, stream.sent):
            old, new = sequence & stream.mask, sequence & (ring - 1)
            sent_at[new], lanes_left[new] = stream.sent_at[old], stream.lanes_left[old]
            for lane in range(self.shared.lanes):
                missing[lane * stride + new] = stream.missing[lane * stream.stride + old]
        free(stream.sent_at)
        free(stream.lanes_left)
        free(stream.missing)
        stream.sent_at, stream.lanes_left, stream.missing = sent_at, lanes_left, missing
        stream.mask, stream.stride = ring - 1, stride

    def widen(self, int number, uint32_t window):
        """Set how many messages are in flight from the next `run` on."""
        self.set_ring(&self.shared.streams[number], window)
        self.shared.streams[number].window = window

    def set_rate(self, int number, double rate):
        """Set the messages per second of an open loop, from the next `run` on; 0 stops it."""
        self.shared.streams[number].interval = <int64_t>(1e9 / rate) if rate else 0

    # -- running --------------------------------------------------------------------------------------------------

    def run(self, double seconds, *, uint32_t roaming=0):
        """Send and receive for `seconds`. Returns counts, rate, latency, and the fraction of time the load was busy.

        `roaming` messages in flight go round the streams: when one is done, the next idle stream in turn sends.
        """
        cdef Lane first = self.lanes[0]
        self.shared.holding, self.shared.roaming = False, roaming
        for lane in self.lanes:
            lane.clear()
        first.fill_windows()
        start = now_ns()
        self.work(start + <int64_t>(seconds * 1e9))
        return self.figures((now_ns() - start) / 1e9)

    def settle(self, double seconds):
        """Wait at most `seconds` until nothing is in flight. Returns whether everything sent has arrived."""
        self.shared.holding = True
        self.work(now_ns() + <int64_t>(seconds * 1e9))
        return self.shared.in_flight == 0

    cdef work(self, int64_t deadline):
        """Run all lanes, the first on this thread; each on its own core if there are as many cores as lanes.

        With more cores, other processes may be running there, and the kernel knows better which ones are free.
        """
        allowed = os.sched_getaffinity(0)
        cores = [{core} for core in allowed] if len(allowed) == len(self.lanes) else [allowed] * len(self.lanes)
        first, *others = [(lane.work, (deadline, own)) for lane, own in zip(self.lanes, cores)]
        threads = [threading.Thread(target=work, args=arguments) for work, arguments in others]
        for thread in threads:
            thread.start()
        try:
            work, arguments = first
            work(*arguments)
        finally:
            os.sched_setaffinity(0, allowed)
            for thread in threads:
                thread.join()

    cdef figures(self, double elapsed):
        self.latency.clear()
        self.side_latency.clear()
        for lane in self.lanes:
            self.latency.merge(lane.latency)
            self.side_latency.merge(lane.side_latency)
        return {
            "seconds": elapsed,
            "deliveries": self.deliveries,
            "messages": self.messages,
            "rate": self.deliveries / elapsed,
            "bytes_per_delivery": self.received / max(self.deliveries, 1),
            "load_busy": 1 - self.idle_ns / 1e9 / elapsed / len(self.lanes),
            **self.latency.summary(),
            **{f"side_{name}": value for name, value in self.side_latency.summary().items()},
        }
