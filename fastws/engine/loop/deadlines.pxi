# Deadlines: what happens when one passes.


cdef int meet_open_deadline(Reactor reactor, Conn* c) except -1:
    """It has been idle for too long, is due for a ping, is dead, or nothing of the kind yet."""
    cdef Endpoint endpoint = (<WebSocket>c.ws).endpoint
    if c.doom != DOOM_NONE:
        return 0
    if c.idle_timeout and is_past(c.last_message + c.idle_timeout, reactor.now):
        return close_idle(reactor, c)
    if c.throttled and is_past(c.throttle_end, reactor.now):
        end_throttle(reactor, c)
        if c.state != OPEN:
            return 0
    if c.paused:
        c.last_received = reactor.now                      # its input waits for us: we do not wait for it
        c.ping_sent = False
    if c.ping_sent and is_past(c.deadline, reactor.now):
        return close_silent(reactor, c)
    if not c.ping_sent and endpoint.ping_interval_ticks and is_past(
            c.last_received + endpoint.ping_interval_ticks, reactor.now):
        send_ping(reactor, c)
        if endpoint.ping_timeout_ticks:
            c.ping_sent = True
            c.deadline = reactor.now + endpoint.ping_timeout_ticks
        else:
            c.last_received = reactor.now
    arm_open(reactor, c)
    return 0


cdef int meet_deadline(Reactor reactor, Conn* c) except -1:
    if c.state == OPEN or c.state == OPENING:
        return meet_open_deadline(reactor, c)
    if not is_past(c.deadline, reactor.now):
        arm(reactor, c, c.deadline)
    elif c.state == HEAD:
        refuse_late(reactor, c)
    elif c.state == PENDING:
        reactor.server.on_overdue(<WebSocket>c.ws)
    elif c.state == CLOSING or c.state == FLUSHING_OUT:
        drop(reactor, c)
    return 0


cdef int turn_wheel(Reactor reactor) except -1:
    """Look at every connection whose deadline has passed."""
    cdef Conn** slot
    cdef Conn* c
    read_clock(reactor)
    if reactor.now - reactor.wheel_time > WHEEL_SLOTS:
        reactor.wheel_time = reactor.now - WHEEL_SLOTS          # the loop stood still for a whole turn
    while reactor.wheel_time != reactor.now:
        reactor.wheel_time += 1
        slot = reactor.wheel + (reactor.wheel_time & (WHEEL_SLOTS - 1))
        while slot[0] is not NULL:                              # arm() never links into the slot under the hand
            c = slot[0]
            disarm(reactor, c)
            try:
                meet_deadline(reactor, c)
            except BaseException as error:
                survive(reactor, c, error)
    reactor.timer_due = next_occupied(reactor)
    reactor.timer_stale = True
    return 0
