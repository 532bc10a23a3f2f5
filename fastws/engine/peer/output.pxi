# Output: what goes to peers, from a message or a control frame to bytes in an outbox.

import orjson

cdef object orjson_dumps = orjson.dumps

cdef enum:                              # Endpoint.overflow
    OVERFLOW_CLOSE
    OVERFLOW_DROP_OLDEST
    OVERFLOW_DROP_NEWEST


cdef int encode(Reactor reactor, message, Frame* frame) except -1:
    """Write a message into the arena as one frame. The caller releases `frame.block` once."""
    cdef Py_ssize_t size
    cdef const char* text
    cdef Py_buffer view
    if isinstance(message, str):
        text = PyUnicode_AsUTF8AndSize(message, &size)
        return write_frame(reactor, TEXT, text, size, frame)
    if isinstance(message, bytes):
        return write_frame(reactor, BINARY, PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message), frame)
    if PyObject_CheckBuffer(message):
        PyObject_GetBuffer(message, &view, PyBUF_SIMPLE)
        try:
            return write_frame(reactor, BINARY, view.buf, view.len, frame)
        finally:
            PyBuffer_Release(&view)
    message = orjson_dumps(message)
    return write_frame(reactor, TEXT, PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message), frame)


cdef int write_frame(Reactor reactor, uint8_t opcode, const void* payload, size_t length, Frame* frame) except -1:
    if length > MAX_MESSAGE_BYTES:
        raise ValueError(f"message of {length} bytes: at most {MAX_MESSAGE_BYTES} can be sent")
    if not put_frame(&reactor.arena, PLAIN, opcode, payload, length, frame):
        raise MemoryError
    return 0


cdef bint put_frame(Arena* arena, int lane, uint8_t opcode, const void* payload, size_t length,
                    Frame* frame) noexcept nogil:
    """Returns False when out of memory."""
    cdef Block* block = arena_room(arena, lane, MAX_HEADER_BYTES + length)
    cdef uint8_t* p
    cdef uint32_t header
    if block is NULL:
        return False
    p = <uint8_t*>block_data(block) + block.used
    header = header_write(p, opcode, length)
    if length:
        memcpy(p + header, payload, length)
    frame.block = block
    frame.offset = block.used
    frame.length = header + <uint32_t>length
    block.used += frame.length
    return True


cdef inline void release_frame(Reactor reactor, Frame* frame) noexcept:
    """Give up the writer's reference. A frame that was sent to nobody is freed at once: a flush may never come."""
    block_release(frame.block, 1)
    if reactor.arena.emptied is not NULL:
        arena_collect(&reactor.arena)


# -- compression, once for each size of window


cdef int encode_message(Endpoint endpoint, message, compress, Message* encoded) except -1:
    """Write a message that may go out compressed. The caller releases it once."""
    cdef uint32_t length
    encode(endpoint.reactor, message, &encoded.plain)
    length = encoded.plain.length - header_size(<const uint8_t*>block_data(encoded.plain.block) + encoded.plain.offset)
    encoded.tried = 0
    encoded.is_deflatable = endpoint.deflate_level > 0 and (
        length >= endpoint.deflate_threshold if compress is None else compress is not False)
    return 0


cdef inline Frame* frame_for(Endpoint endpoint, const Conn* c, Message* message) noexcept:
    """Returns the frame that a connection gets."""
    if not message.is_deflatable or c.deflate == 0:
        return &message.plain
    return deflated_frame(endpoint, message, c.deflate)


cdef Frame* deflated_frame(Endpoint endpoint, Message* message, uint8_t bits) noexcept:
    """Returns the message compressed for a window of so many bits, or plain where that is not larger."""
    cdef uint8_t window = bits - MIN_WINDOW_BITS
    cdef Frame* frame = &message.deflated[window]
    if not message.tried & (1 << window):
        message.tried |= 1 << window
        frame.block = NULL
        put_deflated(endpoint, &message.plain, bits, frame)
    return &message.plain if frame.block is NULL else frame


cdef void put_deflated(Endpoint endpoint, const Frame* plain, uint8_t bits, Frame* frame) noexcept:
    """Compress a frame into another one; that stays without a block if it is not smaller, or memory runs out."""
    cdef Reactor reactor = endpoint.reactor
    cdef const uint8_t* p = <const uint8_t*>block_data(plain.block) + plain.offset
    cdef uint32_t header = header_size(p)
    cdef size_t size = 0
    cdef z_stream* deflater = deflater_begin(
        &endpoint.deflaters[bits - MIN_WINDOW_BITS], endpoint.deflate_level, bits)
    if deflater is not NULL:
        size = deflate_message(deflater, &reactor.deflated, p + header, plain.length - header)
    if size and put_frame(&reactor.arena, DEFLATED, p[0] & 0x0f | RSV1, reactor.deflated.data, size, frame):
        endpoint.compressed += 1
        endpoint.compressed_before += plain.length - header
        endpoint.compressed_after += size
    scratch_trim(&reactor.deflated)


cdef void release_message(Reactor reactor, Message* message) noexcept:
    cdef int window
    for window in range(WINDOWS if message.tried else 0):
        if message.tried & (1 << window) and message.deflated[window].block is not NULL:
            block_release(message.deflated[window].block, 1)
    release_frame(reactor, &message.plain)


# -- what is not a message


cdef int queue_control(Reactor reactor, Conn* c, uint8_t opcode, const void* payload, size_t length) except -1:
    """Queue a control frame, whatever the backlog."""
    cdef Frame frame
    write_frame(reactor, opcode, payload, length, &frame)
    return queue_frame(reactor, c, &frame)


cdef int queue_close(Reactor reactor, Conn* c, int code, bytes reason) except -1:
    """Queue a Close frame (RFC 6455 5.5.1)."""
    cdef bytes payload = code.to_bytes(2, "big") + reason
    return queue_control(reactor, c, CLOSE, PyBytes_AS_STRING(payload), len(payload))


cdef int queue_bytes(Reactor reactor, Conn* c, bytes data) except -1:
    """Queue bytes that are not a frame: the answer to a handshake."""
    cdef Frame frame
    cdef size_t length = len(data)
    frame.block = arena_room(&reactor.arena, PLAIN, length)
    if frame.block is NULL:
        raise MemoryError
    frame.offset = frame.block.used
    frame.length = <uint32_t>length
    memcpy(block_data(frame.block) + frame.offset, PyBytes_AS_STRING(data), length)
    frame.block.used += frame.length
    return queue_frame(reactor, c, &frame)


cdef int queue_frame(Reactor reactor, Conn* c, Frame* frame) except -1:
    cdef int appended = outbox_append(c, frame.block, frame.offset, frame.length)
    if appended > 0:
        frame.block.references += 1
    block_release(frame.block, 1)
    if appended < 0:
        raise MemoryError
    return flush_soon(reactor, c)


# -- messages, and the overflow policy


cdef inline void write_pending(Conn* c, Releases* releases) noexcept nogil:
    """Write what is pending, as far as the wire takes it now; `outcome` says what came of it."""
    c.outcome = OUTCOME_DONE
    if c.state != CLOSED:
        c.wire.write(c, releases)


cdef void write_now(Reactor reactor, Conn* c) noexcept:
    """Write one connection at once."""
    cdef Releases releases = Releases(NULL, 0, 0)
    write_pending(c, &releases)
    release_now(&releases)
    reactor.sent_bytes += releases.sent
    if c.outcome == OUTCOME_LOST:
        doom(reactor, c, DOOM_LOST)
    elif c.outcome == OUTCOME_PYTHON:
        try:
            c.wire.write_with_python(reactor, c)
        except Exception:
            doom(reactor, c, DOOM_LOST)


cdef bint make_room(Endpoint endpoint, Conn* c, Frame* frame) noexcept:
    """The outbox is full: write it now if the wire may take it, otherwise follow the overflow policy."""
    if not c.blocked:
        write_now(endpoint.reactor, c)
        if c.doom != DOOM_NONE:
            return False
        if c.pending + frame.length <= endpoint.max_backlog or c.pending == 0:
            return True
    if endpoint.overflow == OVERFLOW_DROP_NEWEST:
        endpoint.dropped_newest += 1
        return False
    if endpoint.overflow == OVERFLOW_DROP_OLDEST:
        while c.pending + frame.length > endpoint.max_backlog and outbox_drop_oldest(c):
            endpoint.dropped_oldest += 1
        return True                 # what is left is a half-sent frame, and this one
    doom(endpoint.reactor, c, DOOM_SLOW)
    return False


cdef bint deliver(Endpoint endpoint, Conn* c, Frame* frame) noexcept:
    """Append a frame to the outbox of a sendable connection. Returns False if the overflow policy says no."""
    cdef int appended
    if c.pending and c.pending + frame.length > endpoint.max_backlog and not make_room(endpoint, c, frame):
        return False
    appended = outbox_append(c, frame.block, frame.offset, frame.length)
    if appended < 0:
        doom(endpoint.reactor, c, DOOM_SLOW)
        return False
    frame.block.references += appended      # no flush thread runs now
    c.last_message = endpoint.reactor.now
    c.messages_out += 1
    endpoint.deliveries += 1
    return True


cdef bint send_message(Reactor reactor, WebSocket ws, message, compress=None) except -1:
    """Queue a message for one connection. Returns whether it is open and has room."""
    cdef Message encoded
    cdef bint queued
    if ws.conn is NULL or not is_sendable(ws.conn):
        return False
    encode_message(ws.endpoint, message, compress, &encoded)
    read_clock(reactor)
    queued = deliver(ws.endpoint, ws.conn, frame_for(ws.endpoint, ws.conn, &encoded))
    release_message(reactor, &encoded)
    flush_soon(reactor, ws.conn)
    return queued
