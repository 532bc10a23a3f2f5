# Runs: many messages, encoded once for many connections, each of which gets them, or the last of them, as one range.


@cython.final
@cython.no_gc_clear                     # at its end it needs the reactor
cdef class Run:
    """Messages that `Endpoint._prepare` has encoded. They take memory for as long as this exists."""

    def __cinit__(self, Reactor reactor not None, messages):
        cdef list listed = list(messages)
        cdef uint32_t encoded = 0
        cdef uint32_t i
        cdef Frame* frames = <Frame*>malloc((len(listed) + 1) * sizeof(Frame))
        if frames is NULL:
            raise MemoryError
        self.reactor = reactor
        try:
            for message in listed:
                encode(reactor, message, &frames[encoded])
                encoded += 1
            self.gather(frames, encoded)
        finally:
            for i in range(encoded):
                release_frame(reactor, &frames[i])
            free(frames)

    cdef int gather(self, const Frame* frames, uint32_t count) except -1:
        """Copy frames into one block, without anything of others' between them."""
        cdef uint64_t total = 0
        cdef uint32_t i
        for i in range(count):
            total += frames[i].length
        if total > MAX_MESSAGE_BYTES:
            raise ValueError(f"messages of {total} bytes: at most {MAX_MESSAGE_BYTES} can be prepared together")
        self.starts = <uint32_t*>malloc((count + 1) * sizeof(uint32_t))
        if self.starts is NULL:
            raise MemoryError
        self.starts[0] = 0
        if count == 0:
            return 0
        self.block = block_new(&self.reactor.arena, total)
        if self.block is NULL:
            raise MemoryError
        block_hold(self.block, True)
        for i in range(count):
            memcpy(block_data(self.block) + self.starts[i], block_data(frames[i].block) + frames[i].offset,
                   frames[i].length)
            self.starts[i + 1] = self.starts[i] + frames[i].length
        self.block.used = <uint32_t>total
        self.count = count
        return 0

    def __dealloc__(self):
        free(self.starts)
        if self.block is NULL:
            return
        block_hold(self.block, False)
        block_release(self.block, 1)
        if PyThread_get_thread_ident() == self.reactor.thread and self.reactor.arena.emptied is not NULL:
            arena_collect(&self.reactor.arena)      # on another thread, flush threads may be at work

    def __len__(self):
        return self.count

    @property
    def size(self):
        """Bytes of the encoded messages."""
        return self.starts[self.count]


cdef uint32_t deliver_run(Endpoint endpoint, Conn* c, Run run, uint32_t first) noexcept:
    """Append the frames of a run from `first` on to the outbox of a sendable connection: all at once if there is room,
    otherwise one by one under the overflow policy. Returns how many were appended."""
    cdef uint32_t i
    cdef uint32_t queued = 0
    cdef Frame frame = Frame(run.block, run.starts[first], run.starts[run.count] - run.starts[first])
    if c.pending + frame.length <= endpoint.max_backlog:
        if not deliver(endpoint, c, &frame):
            return 0
        queued = run.count - first
        c.messages_out += queued - 1
        endpoint.deliveries += queued - 1
        return queued
    for i in range(first, run.count):
        if not is_sendable(c):
            break
        frame.offset = run.starts[i]
        frame.length = run.starts[i + 1] - run.starts[i]
        queued += deliver(endpoint, c, &frame)
    return queued
