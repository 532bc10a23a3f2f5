# Input: from bytes to frames, messages and control frames.

cdef enum:
    DEFLATE_LOSS = 16                   # what cannot be compressed grows, by less than this part of it


cdef int begin_frame(Reactor reactor, Conn* c, FrameHeader* h) except -1:
    cdef Inbound* inbound = inbound_of(c)
    inbound.in_frame = True
    inbound.final = h.final
    inbound.opcode = h.opcode
    inbound.remaining = h.length
    inbound.mask = h.mask
    inbound.phase = 0
    if h.opcode & 0x8:
        inbound.control_length = 0
    elif h.opcode == CONTINUATION:
        inbound.fragments += 1
    else:
        inbound.message_opcode = h.opcode
        inbound.message_deflated = h.deflated
        inbound.message_length = 0
        inbound.fragments = 1
        utf8_start(&inbound.utf8)
    return 0


cdef int end_frame(Reactor reactor, Conn* c) except -1:
    cdef Inbound* inbound = c.inbound
    cdef uint8_t[MAX_CONTROL_BYTES] control
    cdef uint8_t opcode = inbound.message_opcode
    cdef char* message
    if inbound.opcode & 0x8:
        memcpy(control, inbound.control, inbound.control_length)
        return handle_control(reactor, c, inbound.opcode, control, inbound.control_length)
    if not inbound.final:
        return 0
    if c.state == OPEN and opcode == TEXT and inbound.utf8.due and not inbound.message_deflated:
        return fail_encoding(reactor, c, "text is not UTF-8")
    message = take_message(reactor, inbound)    # the handler may end the connection
    inbound.message_opcode = 0
    try:
        if c.state == OPEN and inbound.message_deflated:
            handle_deflated(reactor, c, opcode, <const uint8_t*>message, inbound.message_length)
        elif c.state == OPEN:
            handle_data(reactor, c, opcode, message, inbound.message_length)
    finally:
        free(message)
    return 0


cdef size_t feed_payload(Reactor reactor, Conn* c, const uint8_t* p, size_t n) except? 0:
    """Take payload of the current frame as it arrives; text is validated at once (RFC 6455 8.1), unless it is
    compressed. Returns how much."""
    cdef Inbound* inbound = c.inbound
    cdef size_t step = <size_t>min(<uint64_t>n, inbound.remaining)
    cdef uint8_t* to
    if inbound.opcode & 0x8:
        unmask(inbound.control + inbound.control_length, p, step, inbound.mask, inbound.phase)
        inbound.control_length += <uint8_t>step
    elif step and c.state == OPEN:      # once we close, data is dropped
        bytes_append(reactor, &inbound.message, &inbound.message_length, &inbound.message_capacity, NULL, step)
        to = <uint8_t*>inbound.message + inbound.message_length
        unmask(to, p, step, inbound.mask, inbound.phase)
        inbound.message_length += step
        if (inbound.message_opcode == TEXT and not inbound.message_deflated
                and not utf8_feed(&inbound.utf8, to, step)):
            fail_encoding(reactor, c, "text is not UTF-8")
            return step
    inbound.phase = (inbound.phase + step) & 3
    inbound.remaining -= step
    if inbound.remaining == 0:
        inbound.in_frame = False
        end_frame(reactor, c)
    return step


cdef bint admit_frame(Reactor reactor, Conn* c, FrameHeader* h) except -1:
    """Returns whether the frame may come now, and is neither too large nor one too many (RFC 6455 5.4, 10.4)."""
    cdef uint8_t begun
    cdef uint64_t length = h.length
    cdef uint64_t limit = (<WebSocket>c.ws).endpoint.max_message_size
    if (<WebSocket>c.ws).endpoint.is_rated and h.opcode != CLOSE:
        charge(reactor, c, 1, 0)
        if c.state > CLOSING:
            return False
    if h.opcode & 0x8:
        return True
    begun = 0 if c.inbound is NULL else c.inbound.message_opcode
    if h.opcode == CONTINUATION and not begun:
        fail_protocol(reactor, c, "continuation frame without a message")
        return False
    if h.opcode != CONTINUATION and begun:
        fail_protocol(reactor, c, "new message before the previous one ended")
        return False
    if begun:
        length += c.inbound.message_length
        if c.inbound.fragments >= (<WebSocket>c.ws).endpoint.max_fragments and c.state == OPEN:
            fail_fragments(reactor, c)
            return False
    if c.inbound.message_deflated if begun else h.deflated:
        limit += limit // DEFLATE_LOSS + DEFLATE_LOSS
    if length > limit and c.state == OPEN:
        fail_size(reactor, c)
        return False
    return True


cdef int feed(Reactor reactor, Conn* c, uint8_t* p, size_t n) except -1:
    """Take every frame that is there. Whole ones are unmasked in place; what remains is kept with the connection."""
    cdef FrameHeader h
    cdef size_t step
    cdef int found
    while n and (c.state == OPEN or c.state == CLOSING):
        if c.paused:
            return keep_raw(reactor, c, p, n)
        if c.inbound is not NULL and c.inbound.in_frame:
            step = feed_payload(reactor, c, p, n)
            p += step
            n -= step
            continue
        found = header_parse(p, n, c.deflate, &h)
        if found == HEADER_SHORT:
            return keep_raw(reactor, c, p, n)
        if found != HEADER_OK:
            return fail_protocol(reactor, c, HEADER_ERRORS[found])
        if h.opcode == CLOSE and (<WebSocket>c.ws).waiting:
            pause(reactor, c)               # a Close waits until the messages before it are handled
            return keep_raw(reactor, c, p, n)
        if not admit_frame(reactor, c, &h):
            return 0
        p += h.size
        n -= h.size
        if h.length <= n and (h.opcode & 0x8 or (h.final and h.opcode != CONTINUATION)):
            step = <size_t>h.length
            unmask(p, p, step, h.mask, 0)
            if h.opcode & 0x8:
                handle_control(reactor, c, h.opcode, p, step)
            elif c.state == OPEN and h.deflated:
                handle_deflated(reactor, c, h.opcode, p, step)
            elif c.state == OPEN:
                handle_data(reactor, c, h.opcode, <const char*>p, step)
        else:
            begin_frame(reactor, c, &h)
            step = feed_payload(reactor, c, p, n)
        p += step
        n -= step
    return 0


cdef int feed_raw(Reactor reactor, Conn* c) except -1:
    """Parse what was kept. The array is ours meanwhile; what remains is kept in a new one."""
    cdef Inbound* inbound = c.inbound
    cdef char* raw = inbound.raw
    cdef size_t n = inbound.raw_length
    reactor.inbound_bytes -= inbound.raw_capacity
    inbound.raw = NULL
    inbound.raw_length = 0
    inbound.raw_capacity = 0
    try:
        feed(reactor, c, <uint8_t*>raw, n)
    finally:
        free(raw)
    return 0


cdef int receive_frames(Reactor reactor, Conn* c, uint8_t* p, size_t n) except -1:
    if c.state == OPEN and (<WebSocket>c.ws).endpoint.is_rated:
        charge(reactor, c, 0, n)
        if c.state != OPEN:
            return 0
        if c.paused:
            return keep_raw(reactor, c, p, n)
    if c.inbound is NULL or c.inbound.raw_length == 0:
        feed(reactor, c, p, n)
    else:
        keep_raw(reactor, c, p, n)
        feed_raw(reactor, c)
    inbound_release_memory(reactor, c)
    return 0


cdef int keep_early(Reactor reactor, Conn* c, const uint8_t* p, size_t n) except -1:
    """Keep early input. A transport is read while a handshake is decided, because only reading shows its end."""
    keep_raw(reactor, c, p, n)
    if c.state == PENDING and c.inbound.raw_length > reactor.max_header_size:
        pause(reactor, c)
    return 0


cdef int receive(Reactor reactor, Conn* c, uint8_t* p, size_t n) except -1:
    """Take `n` bytes that have arrived; `p` is writable, and the caller's."""
    if c.state == FLUSHING_OUT or c.state == CLOSED:
        return 0
    if c.state == HEAD:
        receive_head(reactor, c, p, n)
    elif c.paused:
        keep_early(reactor, c, p, n)
    else:
        receive_frames(reactor, c, p, n)
    if reactor.inbound_bytes > reactor.max_inbound:
        shed(reactor)
    return 0


cdef int resume(Reactor reactor, Conn* c) except -1:
    """Go on reading after a handler, or too high a rate, held it up."""
    if not c.paused or c.state < OPEN or c.state > CLOSING or (c.throttled and c.state == OPEN):
        return 0
    c.paused = False
    read_clock(reactor)
    if c.inbound is not NULL and c.inbound.raw_length:
        feed_raw(reactor, c)
        inbound_release_memory(reactor, c)
    if not c.paused:
        c.wire.resume(reactor, c)
    return wake(reactor)


cdef int end_throttle(Reactor reactor, Conn* c) except -1:
    """The pause of a peer that sent too fast is over; a handler may still hold it up."""
    c.throttled = False
    if (<WebSocket>c.ws).waiting:
        return 0
    return resume(reactor, c)
