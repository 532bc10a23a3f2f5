# Addresses: how many connections there are from each, for max_connections_per_ip.


cdef uint64_t address_key(int family, const uint8_t* address) noexcept:
    """Returns one number for whoever has an address: an IPv4 address, even when mapped into IPv6, or the /64 of an IPv6
    address, which is what one subscriber gets (RFC 6177)."""
    cdef uint64_t key = 0
    cdef int i
    if family == AF_INET6 and memcmp(address, b"\0\0\0\0\0\0\0\0\0\0\xff\xff", 12) == 0:
        return address_key(AF_INET, address + 12)
    for i in range(4 if family == AF_INET else 8):
        key = key << 8 | address[i]
    return key | <uint64_t>1 << 32 if family == AF_INET else key or 1       # 0::/8 belongs to nobody (RFC 4291 2.4)


cdef bint meet_peer(Reactor reactor, Conn* c) except -1:
    """Count a new connection under its address, unless that is a trusted proxy's, whose clients will count instead.
    Returns False if there are too many from there."""
    cdef Request peer
    c.proxy_due = reactor.proxy_protocol != PROXY_OFF
    if reactor.max_connections_per_ip == 0 and not reactor.trusts_proxies:
        return True
    peer = Request(b"")
    c.wire.describe(c, peer)
    c.trusted = trusts(reactor, peer)
    return c.trusted or claim_address(reactor, c, peer)


cdef bint trusts(Reactor reactor, Request peer) except -1:
    """Returns whether this is a trusted proxy."""
    if not reactor.trusts_proxies:
        return False
    return reactor.server.trusts("unix" if peer.family == AF_UNIX else peer.remote_address[0])


cdef bint claim_address(Reactor reactor, Conn* c, Request peer) except -1:
    """Count a connection under this address, if it is one. Returns False if there are too many from there."""
    if reactor.max_connections_per_ip == 0:
        return True
    if peer._peer is not None:
        host, port = peer._peer
        peer = Request(b"")
        place_address(peer, host, port)
    if peer.family != AF_INET and peer.family != AF_INET6:
        return True
    address = address_key(peer.family, peer.address)
    count = reactor.per_address.get(address, 0)
    if count >= reactor.max_connections_per_ip:
        return False
    reactor.per_address[address] = count + 1
    c.address = address
    return True


cdef int unclaim_address(Reactor reactor, uint64_t address) except -1:
    """Count one connection fewer from an address; 0 stands for none."""
    if address == 0:
        return 0
    count = reactor.per_address.pop(address)
    if count > 1:
        reactor.per_address[address] = count - 1
    return 0


cdef int forget_address(Reactor reactor, Conn* c) except -1:
    """Stop counting a connection under its address."""
    cdef uint64_t address = c.address
    c.address = 0
    return unclaim_address(reactor, address)
