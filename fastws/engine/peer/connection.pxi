# Connection: the states of a connection, and the deadline of an open one.

from logging import getLogger

cdef object logger = getLogger("fastws.connection")

cdef enum:                              # Conn.state, in the order of a life
    HEAD                                # the head of the request is being received
    PENDING                             # the server decides on it
    OPENING                             # accepted; on_open runs, input waits
    OPEN
    CLOSING                             # our Close is queued; the peer's is awaited
    FLUSHING_OUT                        # no more is read; what is queued goes out, then the socket is shut down
    CLOSED                              # socket gone; the Conn waits to be recycled

cdef enum:                              # Conn.doom
    DOOM_NONE
    DOOM_LOST                           # the socket failed
    DOOM_SLOW                           # more than max_backlog pending
    DOOM_PINNING                        # holds the oldest blocks of a full arena

cdef enum:                              # Conn.outcome
    OUTCOME_DONE
    OUTCOME_EMPTY                       # nothing more to write, and the connection is to be shut down
    OUTCOME_LOST
    OUTCOME_PYTHON                      # the rest takes the GIL: writing to this wire, or telling that all is written


cdef inline int check_thread(Reactor reactor, str twin) except -1:
    """Everything runs on the loop's thread: while flush threads write, nothing else may touch the engine."""
    if reactor is not None and PyThread_get_thread_ident() != reactor.thread:
        raise RuntimeError(f"fastws is not thread-safe: call this on the loop's thread, or use {twin} from another")
    return 0


cdef inline bint is_sendable(const Conn* c) noexcept nogil:
    return (c.state == OPEN or c.state == OPENING) and c.doom == DOOM_NONE


cdef void arm_open(Reactor reactor, Conn* c) noexcept:
    """Have an open connection looked at when the earliest of its deadlines comes."""
    cdef Endpoint endpoint = (<WebSocket>c.ws).endpoint
    cdef uint32_t wait = NO_TIMER
    cdef uint32_t due
    if c.idle_timeout:
        wait = ticks_left(c.last_message + c.idle_timeout, reactor.now)
    if c.ping_sent:
        due = c.deadline
    else:
        due = c.last_received + endpoint.ping_interval_ticks
    if endpoint.ping_interval_ticks:
        wait = min(wait, ticks_left(due, reactor.now))
    if c.throttled:
        wait = min(wait, ticks_left(c.throttle_end, reactor.now))
    if wait == NO_TIMER:
        disarm(reactor, c)
    else:
        arm(reactor, c, reactor.now + wait)
