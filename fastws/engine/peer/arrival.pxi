# Arrival: the head of a request, and a PROXY header before it, until the server decides on it.


cdef int meet_proxy(Reactor reactor, Conn* c, const ProxyHeader* found) except -1:
    """A trusted proxy says for whom it connected: from now on the peer is whoever that is."""
    cdef WebSocket ws = websocket_of(reactor, c)
    ws.request = Request(b"")           # until there is one: arrival and refusals take the address from it
    c.wire.describe(c, ws.request)
    if found.is_local:
        return 0
    if found.family == 0:               # somebody unknown, whose header fields nobody vouches for
        c.trusted = False
    else:
        ws.request._peer = None
        ws.request.family = found.family
        ws.request.port = found.port
        memcpy(ws.request.address, found.address, 16)
        c.trusted = trusts(reactor, ws.request)
    if not c.trusted and not claim_address(reactor, c, ws.request):
        return refuse_crowded(reactor, c)
    return 0


cdef Py_ssize_t take_proxy(Reactor reactor, Conn* c, const uint8_t* p, size_t n) except -1:
    """Returns how many of these bytes, which are all so far, a PROXY header takes. While `proxy_due` stays set, more
    are needed, or the connection is refused."""
    cdef ProxyHeader found
    cdef Py_ssize_t length = proxy_parse(p, n, &found)
    if length == PROXY_SHORT:
        return 0
    if length == PROXY_NONE:
        if c.trusted and reactor.proxy_protocol == PROXY_REQUIRED:
            refuse_without_proxy(reactor, c)
        else:
            c.proxy_due = False
        return 0
    if not c.trusted:
        refuse_stranger(reactor, c)
        return 0
    if length == PROXY_BAD:
        refuse_proxy(reactor, c)
        return 0
    meet_proxy(reactor, c, &found)
    if c.state == HEAD:
        c.proxy_due = False
    return length


cdef int receive_head(Reactor reactor, Conn* c, uint8_t* p, size_t n) except -1:
    cdef Inbound* inbound
    cdef size_t seen = 0
    cdef Py_ssize_t end, length
    if c.inbound is not NULL:
        seen = c.inbound.raw_length
        keep_raw(reactor, c, p, n)
        p = <uint8_t*>c.inbound.raw
        n = c.inbound.raw_length
    if c.proxy_due:
        length = take_proxy(reactor, c, p, n)
        if c.state != HEAD:
            return 0                    # refused, and what was kept is freed
        if c.proxy_due:
            return keep_raw(reactor, c, p, n) if c.inbound is NULL else 0
        seen = 0
        n -= length
        if c.inbound is NULL:
            p += length
        else:
            memmove(p, p + length, n)
            c.inbound.raw_length = n
        if n == 0:
            inbound_free(reactor, c)
            return 0
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
    if ws.request is None:
        c.wire.describe(c, request)
    else:                               # as a PROXY header said
        take_address(request, ws.request)
    request._from_proxy = c.trusted
    ws.request = request
    c.state = PENDING
    c.paused = True
    reactor.server.on_request(ws)
    return 0
