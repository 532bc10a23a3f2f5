# Arrival: the head of a request, until the server decides on it.


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
        return refuse_malformed(reactor, c)
    if end == 0 and n > reactor.max_header_size:
        return refuse_large_head(reactor, c)
    if end == 0:
        if c.inbound is NULL:
            keep_raw(reactor, c, p, n)
        return 0
    head = PyBytes_FromStringAndSize(<const char*>p, end)
    return complete_head(reactor, c, head, p + end, n - end)


cdef int complete_head(Reactor reactor, Conn* c, bytes head, const uint8_t* remainder, size_t n) except -1:
    cdef WebSocket ws
    cdef Request request
    cdef Inbound* inbound = c.inbound
    if inbound is NULL:
        if n:
            keep_raw(reactor, c, remainder, n)
    else:
        inbound.raw_length = n
        if n:
            memmove(inbound.raw, remainder, n)
        else:
            inbound_free(reactor, c)
    ws = websocket_of(reactor, c)
    try:
        request = parse_request(head)
    except Reject as error:
        return refuse(reactor, c, error.status, error.reason)
    c.wire.describe(c, request)
    ws.request = request
    c.state = PENDING
    c.paused = True
    reactor.server.on_request(ws)
    return 0
