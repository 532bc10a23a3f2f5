# Input: what peers send, from the request's head to the Close frame.

cdef enum:
    LONGEST_THROTTLE = 3600             # seconds
    LEAST_FRAGMENTS = 1024              # that a message may have in any case
    FRAGMENT = 64                       # bytes, on average, of the smallest fragments of a large message


cdef int received(Reactor reactor, Conn* c, uint8_t* p, size_t n) except -1:
    """`n` bytes came; `p` is writable and the caller's."""
    if c.state == DRAINING or c.state == CLOSED:
        return 0
    if c.state == HEAD:
        receive_head(reactor, c, p, n)
    elif c.paused:
        keep(reactor, c, p, n)
    else:
        receive_frames(reactor, c, p, n)
    if reactor.inbound_bytes > reactor.max_inbound:
        shed(reactor)
    return 0


cdef int keep(Reactor reactor, Conn* c, const uint8_t* p, size_t n) except -1:
    """Input for which it is too early. A transport is read while a handshake is decided, for only so its end is met."""
    keep_raw(reactor, c, p, n)
    if c.state == PENDING and c.inbound.raw_length > reactor.max_header_size:
        pause(reactor, c)
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
    inbound_rest(reactor, c)
    return 0


cdef int feed_raw(Reactor reactor, Conn* c) except -1:
    """Parse what was kept. The array is ours meanwhile: the rest is kept anew."""
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


# -- the request's head


cdef int receive_head(Reactor reactor, Conn* c, uint8_t* p, size_t n) except -1:
    cdef Inbound* inbound
    cdef size_t seen = 0
    cdef Py_ssize_t end
    if c.inbound is not NULL:
        seen = c.inbound.raw_length
        keep_raw(reactor, c, p, n)
        p = <uint8_t*>c.inbound.raw
        n = c.inbound.raw_length
    end = head_end(p, min(n, <size_t>reactor.max_header_size), seen - 1 if seen else 0)
    if end < 0:
        return bad_request(reactor, c, 400, "this is not an HTTP/1.1 request")
    if end == 0 and n > reactor.max_header_size:
        return bad_request(reactor, c, 431, f"the request head exceeds {reactor.max_header_size} bytes")
    if end == 0:
        if c.inbound is NULL:
            keep_raw(reactor, c, p, n)
        return 0
    head = PyBytes_FromStringAndSize(<const char*>p, end)
    return head_complete(reactor, c, head, p + end, n - end)


cdef int head_complete(Reactor reactor, Conn* c, bytes head, const uint8_t* rest, size_t n) except -1:
    cdef WebSocket ws
    cdef Request request
    cdef Inbound* inbound = c.inbound
    if inbound is NULL:
        if n:
            keep_raw(reactor, c, rest, n)
    else:
        inbound.raw_length = n
        if n:
            memmove(inbound.raw, rest, n)
        else:
            inbound_free(reactor, c)
    ws = reactor.websocket(c)
    try:
        request = parse_request(head, c.wire is not NULL and (<TransportWire>c.wire).is_secure)
    except Reject as error:
        return bad_request(reactor, c, error.status, error.reason)
    reactor.set_peer(c, request)
    ws.request = request
    c.state = PENDING
    c.paused = True
    reactor.server.on_request(ws)
    return 0


cdef int bad_request(Reactor reactor, Conn* c, int status, message) except -1:
    """Refuse what is no request: the server makes the answer, and logs it."""
    cdef WebSocket ws = reactor.websocket(c)
    inbound_free(reactor, c)
    ws.request = Request(b"")           # for its address
    reactor.set_peer(c, ws.request)
    reactor.server.on_bad_request(ws, status, message)
    return 0


# -- frames


cdef int feed(Reactor reactor, Conn* c, uint8_t* p, size_t n) except -1:
    """Take frames as far as they go. Whole ones are unmasked where they lie; the rest is kept with the connection."""
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
        found = header_parse(p, n, &h)
        if found == HEADER_SHORT:
            return keep_raw(reactor, c, p, n)
        if found != HEADER_OK:
            return fail(reactor, c, 1002, HEADER_ERRORS[found])
        if h.opcode == CLOSE and (<WebSocket>c.ws).waiting:
            pause(reactor, c)               # a Close waits behind the messages that wait
            return keep_raw(reactor, c, p, n)
        if not admit(reactor, c, &h):
            return 0
        p += h.size
        n -= h.size
        if h.length <= n and (h.opcode & 0x8 or (h.final and h.opcode != CONTINUATION)):
            step = <size_t>h.length
            unmask(p, p, step, h.mask, 0)
            if h.opcode & 0x8:
                handle_control(reactor, c, h.opcode, p, step)
            elif c.state == OPEN:
                handle_data(reactor, c, h.opcode, <const char*>p, step)
        else:
            begin_frame(reactor, c, &h)
            step = feed_payload(reactor, c, p, n)
        p += step
        n -= step
    return 0


cdef bint admit(Reactor reactor, Conn* c, FrameHeader* h) except -1:
    """Whether the frame may come now, and is neither too large nor one too many (RFC 6455 5.4, 10.4)."""
    cdef uint8_t begun
    cdef uint64_t length = h.length
    if (<WebSocket>c.ws).endpoint.is_rated and h.opcode != CLOSE:
        charge(reactor, c, 1, 0)
        if c.state > CLOSING:
            return False
    if h.opcode & 0x8:
        return True
    begun = 0 if c.inbound is NULL else c.inbound.message_opcode
    if h.opcode == CONTINUATION and not begun:
        fail(reactor, c, 1002, "continuation frame without a message")
        return False
    if h.opcode != CONTINUATION and begun:
        fail(reactor, c, 1002, "new message before the previous one ended")
        return False
    if begun:
        length += c.inbound.message_length
        if c.inbound.fragments >= (<WebSocket>c.ws).endpoint.max_fragments and c.state == OPEN:
            fail(reactor, c, 1009, f"message has more than {(<WebSocket>c.ws).endpoint.max_fragments} fragments")
            return False
    if length > (<WebSocket>c.ws).endpoint.max_message_size and c.state == OPEN:
        fail(reactor, c, 1009, f"message exceeds {(<WebSocket>c.ws).endpoint.max_message_size} bytes")
        return False
    return True


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
        inbound.message_length = 0
        inbound.fragments = 1
        utf8_start(&inbound.utf8)
    return 0


cdef size_t feed_payload(Reactor reactor, Conn* c, const uint8_t* p, size_t n) except? 0:
    """Take payload of the current frame as it comes; text is validated at once (RFC 6455 8.1)."""
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
        if inbound.message_opcode == TEXT and not utf8_feed(&inbound.utf8, to, step):
            fail(reactor, c, 1007, "text is not UTF-8")
            return step
    inbound.phase = (inbound.phase + step) & 3
    inbound.remaining -= step
    if inbound.remaining == 0:
        inbound.in_frame = False
        end_frame(reactor, c)
    return step


cdef int end_frame(Reactor reactor, Conn* c) except -1:
    cdef Inbound* inbound = c.inbound
    cdef uint8_t[LARGEST_CONTROL] control
    cdef uint8_t opcode = inbound.message_opcode
    cdef char* message
    if inbound.opcode & 0x8:
        memcpy(control, inbound.control, inbound.control_length)
        return handle_control(reactor, c, inbound.opcode, control, inbound.control_length)
    if not inbound.final:
        return 0
    if c.state == OPEN and opcode == TEXT and inbound.utf8.due:
        return fail(reactor, c, 1007, "text is not UTF-8")
    message = take_message(reactor, inbound)    # the handler may end the connection
    inbound.message_opcode = 0
    try:
        if c.state == OPEN:
            handle_data(reactor, c, opcode, message, inbound.message_length)
    finally:
        free(message)
    return 0


# -- messages


cdef int handle_data(Reactor reactor, Conn* c, uint8_t opcode, const char* p, size_t n) except -1:
    if opcode == BINARY:
        return dispatch(reactor, c, PyBytes_FromStringAndSize(p, n))
    try:
        message = PyUnicode_DecodeUTF8(p, n, NULL)
    except UnicodeDecodeError:
        return fail(reactor, c, 1007, "text is not UTF-8")
    return dispatch(reactor, c, message)


cdef int dispatch(Reactor reactor, Conn* c, message) except -1:
    """Hand a message to the listener, or keep it until the handler before it has ended."""
    cdef WebSocket ws = <WebSocket>c.ws
    ws.endpoint.messages_received += 1
    c.last_message = reactor.now
    if ws.endpoint.on_message is None or c.state != OPEN:
        return 0
    if not c.busy:
        return call_on_message(reactor, c, ws, message)
    if ws.waiting is None:
        ws.waiting = deque()
    ws.waiting.append(message)
    ws.waiting_bytes += len(message)
    reactor.inbound_bytes += len(message)
    if len(ws.waiting) >= WAITING_MESSAGES or ws.waiting_bytes >= ws.endpoint.max_message_size:
        return pause(reactor, c)
    return 0


cdef int call_on_message(Reactor reactor, Conn* c, WebSocket ws, message) except -1:
    try:
        result = ws.endpoint.on_message(ws, message)
        if result is None:
            return 0
        if is_awaitable(result):
            c.busy = True
            ws.endpoint.life.await_message(ws, result)
            return 0
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        ws.endpoint.life.handler_failed(ws, error)
        return 0
    return answer(reactor, ws, result)


cdef int answer(Reactor reactor, WebSocket ws, message) except -1:
    """Send what a handler returned."""
    try:
        send_message(reactor, ws, message)
    except Exception as error:
        ws.endpoint.life.handler_failed(ws, error)
    return 0


cdef int pause(Reactor reactor, Conn* c) except -1:
    """Read no more until resume()."""
    c.paused = True
    if c.wire is not NULL:
        (<TransportWire>c.wire).transport.pause_reading()
    return 0


cdef int resume(Reactor reactor, Conn* c) except -1:
    """Go on reading where a handler, or too high a rate, held it up."""
    if not c.paused or c.state < OPEN or c.state > CLOSING or (c.throttled and c.state == OPEN):
        return 0
    c.paused = False
    read_clock(reactor)
    if c.inbound is not NULL and c.inbound.raw_length:
        feed_raw(reactor, c)
        inbound_rest(reactor, c)
    if not c.paused:
        if c.readable:
            c.readable = False
            reactor.read_again(c)
        if c.wire is not NULL:
            (<TransportWire>c.wire).transport.resume_reading()
    return wake(reactor)


# -- rates


cdef int charge(Reactor reactor, Conn* c, uint32_t messages, size_t size) except -1:
    """Count what a peer sends. A second's worth may come at once; past it the endpoint's policy acts."""
    cdef Endpoint endpoint = (<WebSocket>c.ws).endpoint
    cdef float elapsed = (reactor.now - c.charged) * <float>TICK
    cdef float debt
    c.charged = reactor.now
    c.message_debt = max(c.message_debt - elapsed, <float>0) + messages * endpoint.seconds_per_message
    c.byte_debt = max(c.byte_debt - elapsed, <float>0) + size * endpoint.seconds_per_byte
    debt = min(max(c.message_debt, c.byte_debt), LONGEST_THROTTLE)
    if debt <= 1 or c.state != OPEN or c.throttled:
        return 0
    if endpoint.closes_over_rate:
        return fail(reactor, c, 1008, "rate limit exceeded")
    # Half of the bucket is worked off before the next is taken, lest what was kept is moved for each message.
    c.throttled = True
    c.throttle_end = reactor.now + <uint32_t>((debt - 0.5) * TICKS_PER_SECOND) + 1
    endpoint.throttled += 1
    pause(reactor, c)
    arm_open(reactor, c)
    return 0


cdef int throttle_over(Reactor reactor, Conn* c) except -1:
    """The time of a peer that sent too much has come; a handler may still hold it up."""
    c.throttled = False
    if (<WebSocket>c.ws).waiting:
        return 0
    return resume(reactor, c)


# -- control frames


cdef int handle_control(Reactor reactor, Conn* c, uint8_t opcode, const uint8_t* p, size_t n) except -1:
    cdef Inbound* inbound
    if opcode == CLOSE:
        return handle_close(reactor, c, p, n)
    if opcode == PING and is_sendable(c):
        if not c.blocked:
            return queue_control(reactor, c, PONG, p, n)
        inbound = inbound_of(c)         # a peer that does not read gets one pong, for its last ping (RFC 6455 5.5.3)
        memcpy(inbound.ping, p, n)
        inbound.ping_length = <uint8_t>n
        inbound.ping_due = True
    return 0


cdef int handle_close(Reactor reactor, Conn* c, const uint8_t* p, size_t n) except -1:
    """The peer's Close (RFC 6455 5.5.1): answer it unless it is the answer, and be done."""
    cdef int code = 1005
    cdef str reason = ""
    if n == 1:
        return fail(reactor, c, 1002, "Close frame with an incomplete code")
    if n:
        code = (p[0] << 8) | p[1]
        if not close_code_is_valid(code):
            return fail(reactor, c, 1002, f"close code {code} must not be sent")
        try:
            reason = PyUnicode_DecodeUTF8(<const char*>p + 2, n - 2, NULL)
        except UnicodeDecodeError:
            return fail(reactor, c, 1007, "close reason is not UTF-8")
    if c.state == OPEN:
        queue_control(reactor, c, CLOSE, p, min(n, <size_t>2))
    drain(reactor, c)
    return finish(reactor, c, code, reason)


cdef int fail(Reactor reactor, Conn* c, int code, reason) except -1:
    """Fail the connection (RFC 6455 7.1.7): say why, read no more, tell the listener."""
    cdef WebSocket ws = <WebSocket>c.ws
    if c.state == OPEN:
        queue_close(reactor, c, code, reason.encode())
    drain(reactor, c)
    ws.endpoint.life.protocol_failed(ws, ProtocolError(code, reason))
    return finish(reactor, c, 1006, "")
