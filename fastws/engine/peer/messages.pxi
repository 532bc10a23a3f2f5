# Messages: to the listener, one at a time, and what it answers.

from collections import deque

cdef enum:
    MAX_WAITING_MESSAGES = 64           # for an async handler to end; with more the socket is not read


cpdef bint is_awaitable(object value):
    """Returns whether a handler's result has to be awaited."""
    cdef PyAsyncMethods* methods = Py_TYPE(value).tp_as_async  # a lookup by name would raise, for every answer
    return methods is not NULL and methods.am_await is not NULL


cdef int handle_data(Reactor reactor, Conn* c, uint8_t opcode, const char* p, size_t n) except -1:
    if opcode == BINARY:
        (<WebSocket>c.ws).endpoint.binary_received += 1
        return dispatch(reactor, c, PyBytes_FromStringAndSize(p, n))
    try:
        message = PyUnicode_DecodeUTF8(p, n, NULL)
    except UnicodeDecodeError:
        return fail_encoding(reactor, c, "text is not UTF-8")
    return dispatch(reactor, c, message)


cdef int handle_deflated(Reactor reactor, Conn* c, uint8_t opcode, const uint8_t* p, size_t n) except -1:
    """A whole message as its sender compressed it (RFC 7692 7.2.2)."""
    cdef Endpoint endpoint = (<WebSocket>c.ws).endpoint
    cdef z_stream* inflater = inflater_begin(&reactor.inflater)
    cdef size_t size = 0
    cdef int found = INFLATED_NO_MEMORY
    try:
        if inflater is not NULL:
            found = inflate_message(inflater, &reactor.inflated, p, n, endpoint.max_message_size, &size)
        endpoint.expanded += 1
        endpoint.expanded_bytes += size
        if found != INFLATED:
            return fail_inflating(reactor, c, found)
        charge_inflated(reactor, c, n, size)
        if c.state == OPEN:
            handle_data(reactor, c, opcode, <const char*>reactor.inflated.data, size)
    finally:
        scratch_trim(&reactor.inflated)
    return 0


cdef int dispatch(Reactor reactor, Conn* c, message) except -1:
    """Hand a message to the listener, or keep it until the handler that runs now has ended."""
    cdef WebSocket ws = <WebSocket>c.ws
    ws.endpoint.messages_received += 1
    c.messages_in += 1
    c.last_message = reactor.now
    if ws.endpoint.on_message is None or c.state != OPEN:
        return 0
    if not c.handler_runs:
        return call_on_message(reactor, c, ws, message)
    if ws.waiting is None:
        ws.waiting = deque()
    ws.waiting.append(message)
    ws.waiting_bytes += len(message)
    reactor.inbound_bytes += len(message)
    if len(ws.waiting) >= MAX_WAITING_MESSAGES or ws.waiting_bytes >= ws.endpoint.max_message_size:
        return pause(reactor, c)
    return 0


cdef int call_on_message(Reactor reactor, Conn* c, WebSocket ws, message) except -1:
    try:
        result = ws.endpoint.on_message(ws, message)
        if result is None:
            return 0
        if is_awaitable(result):
            c.handler_runs = True
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
