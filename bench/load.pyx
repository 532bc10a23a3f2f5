# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The load generator: thousands of WebSocket clients on one thread, one epoll and no Python object per message.

A *stream* is what is checked and timed: senders put numbered messages in, the server passes each to all receivers. A
fan-out is one stream to every client, an echo one stream per client to itself, rooms are a stream each. A payload begins
with the stream's number and the message's (two little-endian uint32); a receiver must see 0, 1, 2, ... of each of its streams.

Closed loop: a stream keeps `window` messages in flight, and sends the next when one has reached every receiver.
Open loop: it sends at a fixed rate, and latency counts from when a message was due, not from when it could be sent.
"""

import math
import os
import socket
import time

include "layout.pxi"
include "histogram.pxi"

REQUEST = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # the answer to that key (RFC 6455 1.3)
CLIENTS_PER_ADDRESS = 20_000  # under the number of ephemeral ports


@cython.final
cdef class Load:
    """Clients of one server on 127.0.0.1:`port`. Not thread-safe; `close` when done."""

    cdef int epoll, client_count, stream_count, stream_capacity
    cdef Client *clients
    cdef Stream *streams
    cdef epoll_event events[EVENTS]
    cdef uint8_t *buffer
    cdef int *ready             # streams that may send their next message
    cdef uint32_t ready_count
    cdef uint32_t *dirty        # clients with something new to send
    cdef uint32_t dirty_count
    cdef uint32_t random, cursor, roaming, in_flight
    cdef uint64_t awaited       # deliveries that have not come yet
    cdef bint holding           # nothing new is sent
    cdef int64_t idle_ns        # spent in polls that found nothing
    cdef readonly uint64_t deliveries, messages, lost, repeated, malformed, closed
    cdef readonly Histogram latency, side_latency
    cdef readonly object port, paths, sockets

    def __cinit__(self):
        self.epoll = epoll_create1(0)
        self.buffer = <uint8_t *>malloc(READ_SIZE)
        self.random = 2463534242

    def __init__(self, port):
        self.port = port
        self.paths, self.sockets = [], []
        self.latency, self.side_latency = Histogram(), Histogram()

    def __dealloc__(self):
        cdef int i
        for i in range(self.client_count):
            free(self.clients[i].out)
        for i in range(self.stream_count):
            free(self.streams[i].senders)
            free(self.streams[i].sent_at)
            free(self.streams[i].missing)
        free(self.clients)
        free(self.streams)
        free(self.buffer)
        free(self.ready)
        free(self.dirty)
        close(self.epoll)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    # -- clients --------------------------------------------------------------------------------------------------

    def add_clients(self, paths):
        """One client per path, not yet connected; their numbers as a range."""
        cdef int first = self.client_count, count = first + len(paths)
        self.clients = <Client *>realloc(self.clients, count * sizeof(Client))
        self.dirty = <uint32_t *>realloc(self.dirty, count * sizeof(uint32_t))
        memset(self.clients + first, 0, (count - first) * sizeof(Client))
        for i in range(first, count):
            self.clients[i].state = CLOSED
        self.client_count = count
        self.paths.extend(paths)
        return range(first, count)

    def connect(self, int concurrency=64, timeout=60):
        """Connects all clients that are not, `concurrency` of them at a time; returns the seconds it took."""
        cdef int i, waiting = 0, count
        start = time.monotonic()
        todo = iter([i for i in range(self.client_count) if self.clients[i].state == CLOSED])
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
        client = socket.socket()
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Closing resets the connection: tens of thousands in TIME_WAIT would take the ports of the next run.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
        client.bind((f"127.0.0.{2 + number // CLIENTS_PER_ADDRESS}", 0))
        client.connect_ex(("127.0.0.1", self.port))
        self.sockets.append(client)
        self.clients[number].fd = client.fileno()
        self.clients[number].state = CONNECTING
        self.queue_bytes(&self.clients[number], REQUEST.format(path=self.paths[number], port=self.port).encode())
        cdef epoll_event event
        event.events = <uint32_t>(EPOLLIN | EPOLLOUT | EPOLLET)
        event.data.u32 = number
        epoll_ctl(self.epoll, EPOLL_CTL_ADD, self.clients[number].fd, &event)

    cdef queue_bytes(self, Client *client, bytes data):
        memcpy(self.reserve(client, len(data)), <const uint8_t *>data, len(data))
        client.out_length += len(data)

    cdef int shake_hands(self, int number) except -1:
        """Sends the request, reads the answer byte for byte up to its end; 1 when the client is open."""
        cdef Client *client = &self.clients[number]
        cdef ssize_t size
        cdef int i
        if client.state != CONNECTING:
            return 0
        self.flush(client)
        size = recv(client.fd, self.buffer, READ_SIZE, MSG_DONTWAIT)
        if size < 0 and errno == EAGAIN:
            return 0
        if size <= 0:
            raise ConnectionError(f"client {number}: connection refused or closed in the handshake")
        answer = (<uint8_t *>self.buffer)[:size]
        head, end, rest = answer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101") or ACCEPT not in head or not end:
            raise ConnectionError(f"client {number}: handshake refused: {answer[:200]!r}")
        client.state = OPEN
        self.parse(client, self.buffer + size - len(rest), len(rest))
        return 1

    def stop_reading(self, clients):
        """These clients stay connected but take nothing more from their sockets."""
        for number in clients:
            epoll_ctl(self.epoll, EPOLL_CTL_DEL, self.clients[number].fd, NULL)

    def close(self):
        for client in self.sockets:
            client.close()
        self.sockets.clear()

    # -- streams --------------------------------------------------------------------------------------------------

    def add_stream(self, senders, receivers, *, int size=64, int window=0, double rate=0, bint side=False):
        """A stream from `senders`, in turn, to `receivers`; returns its number, which its messages carry.

        Closed loop with `window` messages in flight, or open loop with `rate` messages a second, or neither: then it
        sends when `run(roaming=...)` comes round to it. The latency of a `side` stream goes to `side_latency`.
        """
        cdef int number = self.stream_count
        cdef Stream *stream
        if number == self.stream_capacity:
            self.stream_capacity = max(64, 2 * number)
            self.streams = <Stream *>realloc(self.streams, self.stream_capacity * sizeof(Stream))
        stream = &self.streams[number]
        memset(stream, 0, sizeof(Stream))
        self.stream_count += 1
        stream.sender_count, stream.receiver_count = len(senders), len(receivers)
        stream.size, stream.side = max(size, 8), side
        stream.senders = <uint32_t *>malloc(len(senders) * sizeof(uint32_t))
        for i, client in enumerate(senders):
            stream.senders[i] = client
        for client in receivers:
            self.add_slot(client, number)
        self.set_ring(stream, OPEN_RING if rate else max(window, 1))
        stream.window = window
        self.set_rate(number, rate)
        return number

    cdef add_slot(self, int number, int stream):
        cdef Client *client = &self.clients[number]
        if client.slot_count == SLOTS:
            raise ValueError(f"client {number} receives {SLOTS} streams already")
        client.slots[client.slot_count].stream = stream
        client.slots[client.slot_count].next = 0
        client.slot_count += 1

    cdef set_ring(self, Stream *stream, uint32_t size):
        """Room for at least `size` messages in flight; those that are in flight move along."""
        cdef uint32_t sequence, ring = 1, old, new
        while ring < size:
            ring *= 2
        sent_at = <int64_t *>calloc(ring, sizeof(int64_t))
        missing = <uint32_t *>calloc(ring, sizeof(uint32_t))
        for sequence in range(stream.done, stream.sent):
            old, new = sequence & stream.mask, sequence & (ring - 1)
            sent_at[new], missing[new] = stream.sent_at[old], stream.missing[old]
        free(stream.sent_at)
        free(stream.missing)
        stream.sent_at, stream.missing, stream.mask = sent_at, missing, ring - 1

    def widen(self, int number, uint32_t window):
        """More messages in flight from the next `run` on."""
        self.set_ring(&self.streams[number], window)
        self.streams[number].window = window

    def set_rate(self, int number, double rate):
        """Messages a second of an open loop, from the next `run` on; 0 stops it."""
        self.streams[number].interval = <int64_t>(1e9 / rate) if rate else 0

    # -- running --------------------------------------------------------------------------------------------------

    def run(self, double seconds, *, uint32_t roaming=0):
        """Sends and receives for `seconds`; counts, rate, latency, and the share of the time in which the load was busy.

        `roaming` messages in flight go round the streams: when one is done, the next idle stream in turn sends.
        """
        cdef int64_t start
        self.holding, self.roaming = False, roaming
        self.deliveries = self.messages = self.idle_ns = 0
        self.latency.clear()
        self.side_latency.clear()
        self.fill_windows()
        start = now_ns()
        with nogil:
            self.loop(start + <int64_t>(seconds * 1e9))
        elapsed = (now_ns() - start) / 1e9
        return {
            "seconds": elapsed,
            "deliveries": self.deliveries,
            "messages": self.messages,
            "rate": self.deliveries / elapsed,
            "load_busy": 1 - self.idle_ns / 1e9 / elapsed,
            **self.latency.summary(),
            **{f"side_{name}": value for name, value in self.side_latency.summary().items()},
        }

    def settle(self, double seconds):
        """Waits, `seconds` at most, until nothing is in flight; True when all that was sent has come."""
        cdef int64_t deadline = now_ns() + <int64_t>(seconds * 1e9)
        self.holding = True
        with nogil:
            self.loop(deadline)
        return self.in_flight == 0

    @property
    def errors(self):
        """What must not happen, by name; empty when all is well."""
        counts = {"lost": self.lost, "repeated": self.repeated, "malformed": self.malformed, "closed": self.closed}
        return {name: count for name, count in counts.items() if count}

    cdef fill_windows(self):
        cdef int64_t now = now_ns()
        cdef int number
        cdef uint32_t room = self.roaming
        for number in range(self.stream_count):
            room += self.streams[number].window
            self.streams[number].due = now
        self.ready = <int *>realloc(self.ready, max(room, self.in_flight, 1) * sizeof(int))
        self.ready_count = 0
        for number in range(self.stream_count):
            while self.streams[number].sent - self.streams[number].done < self.streams[number].window:
                self.publish(number, now_ns())
        while self.in_flight < self.roaming:
            self.publish_next()
        self.flush_dirty()

    cdef void loop(self, int64_t deadline) noexcept nogil:
        """Polls and never sleeps: a sleeping load has to be woken by the server's `send`, which would then be charged for it."""
        cdef int64_t now = now_ns(), then
        cdef int i, count
        while now < deadline and (self.in_flight or not self.holding):
            if not self.holding:
                self.publish_due(now)
            count = epoll_wait(self.epoll, self.events, EVENTS, 0)
            for i in range(count):
                self.serve(&self.clients[self.events[i].data.u32])
            then, now = now, now_ns()
            if <uint64_t>count * CROWD < self.awaited:
                self.idle_ns += self.let_some_come(now) - (now if count else then)
            elif not count:
                self.idle_ns += now - then

    cdef int64_t let_some_come(self, int64_t now) noexcept nogil:
        """Spins for a moment when far more is under way than has come; returns the time.

        Each poll takes the lock under which the kernel, in the server's `send`, puts a socket on the list of the ready:
        polling for every single delivery would charge the server for a quarrel that clients elsewhere do not have.
        """
        cdef int64_t end = now + PAUSE_NS
        while now < end:
            now = now_ns()
        return now

    cdef void serve(self, Client *client) noexcept nogil:
        """Reads all that has come, and at once sends what that allows to be sent."""
        cdef ssize_t size = READ_SIZE
        if client.out_length:
            self.flush(client)
        while size == READ_SIZE:
            size = recv(client.fd, self.buffer, READ_SIZE, MSG_DONTWAIT)
            if size > 0:
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
            if client.head_length or end - p < HEAD:  # it may be split: gather it
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
        """A frame's head is there; the payload that is still to come goes to `skip`."""
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
            if not 0 <= client.stream < self.stream_count or length != self.streams[client.stream].size:
                client.stream = NOBODY
                self.malformed += 1
        elif head[0] != 0x89:  # a ping is harmless; a close frame, text or a fragment is not
            self.malformed += 1

    cdef inline void delivered(self, Client *client, int64_t now) noexcept nogil:
        cdef Stream *stream
        cdef uint32_t place
        if client.stream == NOBODY or not self.in_order(client):
            return
        stream = &self.streams[client.stream]
        place = client.sequence & stream.mask
        self.deliveries += 1
        if stream.side:
            self.side_latency.add(now - stream.sent_at[place])
        else:
            self.latency.add(now - stream.sent_at[place])
        stream.missing[place] -= 1
        if not stream.missing[place]:
            self.complete(stream, client.stream)

    cdef inline bint in_order(self, Client *client) noexcept nogil:
        """Whether the client's message is the one that must come; counts what was lost or came twice."""
        cdef Slot *slot = client.slots
        cdef int i
        for i in range(client.slot_count):
            if slot[i].stream == client.stream:
                if client.sequence < slot[i].next:
                    self.repeated += 1
                    return False
                self.lost += client.sequence - slot[i].next
                self.awaited -= client.sequence + 1 - slot[i].next
                slot[i].next = client.sequence + 1
                return True
        self.malformed += 1  # not addressed to this client
        return False

    cdef inline void complete(self, Stream *stream, int number) noexcept nogil:
        stream.done += 1
        self.messages += 1
        self.in_flight -= 1
        if not self.holding and (stream.window or self.roaming):
            self.ready[self.ready_count] = number
            self.ready_count += 1

    # -- sending --------------------------------------------------------------------------------------------------

    cdef void answer(self) noexcept nogil:
        """One new message for each that is done."""
        cdef int64_t now
        cdef uint32_t i
        if not self.ready_count:
            return
        now = now_ns()
        for i in range(self.ready_count):
            if self.roaming:
                self.publish_next()
            else:
                self.publish(self.ready[i], now)
        self.ready_count = 0
        self.flush_dirty()

    cdef void publish_next(self) noexcept nogil:
        """A message on the next idle stream in turn. Of several senders to one stream nobody could tell the order."""
        while self.streams[self.cursor].sent != self.streams[self.cursor].done:
            self.cursor = (self.cursor + 1) % self.stream_count
        self.publish(self.cursor, now_ns())
        self.cursor = (self.cursor + 1) % self.stream_count

    cdef void publish_due(self, int64_t now) noexcept nogil:
        """Sends what open loops owe."""
        cdef Stream *stream
        cdef int number
        for number in range(self.stream_count):
            stream = &self.streams[number]
            if not stream.interval:
                continue
            while stream.due <= now and stream.sent - stream.done <= stream.mask:
                self.publish(number, stream.due)
                stream.due += stream.interval
        self.flush_dirty()

    cdef void publish(self, int number, int64_t at) noexcept nogil:
        cdef Stream *stream = &self.streams[number]
        cdef uint32_t place = stream.sent & stream.mask
        cdef Client *sender = &self.clients[stream.senders[stream.sent % stream.sender_count]]
        stream.sent_at[place] = at
        stream.missing[place] = stream.receiver_count
        if not sender.out_length:
            self.dirty[self.dirty_count] = <uint32_t>(sender - self.clients)
            self.dirty_count += 1
        self.write_frame(sender, number, stream.sent, stream.size)
        stream.sent += 1
        self.in_flight += 1
        self.awaited += stream.receiver_count

    cdef void write_frame(self, Client *client, uint32_t stream, uint32_t sequence, uint32_t size) noexcept nogil:
        cdef uint8_t *p = self.reserve(client, size + 14)
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
        memcpy(payload, &stream, 4)
        memcpy(payload + 4, &sequence, 4)
        memset(payload + 8, 120, size - 8)
        for i in range(size):
            payload[i] ^= key[i & 3]
        client.out_length += payload + size - p

    cdef uint8_t *reserve(self, Client *client, size_t size) noexcept nogil:
        """Room for `size` bytes at the end of what the client is to send; the caller counts what it writes."""
        if client.out_length + size > client.out_capacity:
            client.out_capacity = 2 * (client.out_length + size)
            client.out = <uint8_t *>realloc(client.out, client.out_capacity)
        return client.out + client.out_length

    cdef void flush_dirty(self) noexcept nogil:
        cdef uint32_t i
        for i in range(self.dirty_count):
            self.flush(&self.clients[self.dirty[i]])
        self.dirty_count = 0

    cdef void flush(self, Client *client) noexcept nogil:
        """Sends what the socket takes; epoll says when it takes the rest."""
        cdef ssize_t sent = send(client.fd, client.out, client.out_length, MSG_DONTWAIT | MSG_NOSIGNAL)
        if sent > 0:
            client.out_length -= sent
            memmove(client.out, client.out + sent, client.out_length)
