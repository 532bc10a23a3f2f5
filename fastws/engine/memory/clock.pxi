# Clock: time in ticks of 10 ms. They wrap after 497 days, so they are compared by their difference.

from math import ceil
from time import time as wall_clock

cdef enum:
    TICKS_PER_SECOND = 100
    NO_TIMER = 0xffffffff

cdef double TICK_SECONDS = 1.0 / TICKS_PER_SECOND


cdef uint32_t ticks(object seconds) except? 0:
    """Returns whole ticks, rounded up; 0 means never. Raises ValueError for anything but a duration."""
    if not seconds >= 0:
        raise ValueError(f"{seconds!r} is not a duration: use seconds, 0 for never")
    return <uint32_t>ceil(min(seconds * TICKS_PER_SECOND, 1 << 30))


cdef inline bint is_past(uint32_t deadline, uint32_t now) noexcept nogil:
    return <int>(now - deadline) >= 0


cdef inline uint32_t ticks_left(uint32_t deadline, uint32_t now) noexcept nogil:
    return <uint32_t>max(<int>(deadline - now), 0)


cdef inline uint64_t read_ticks() noexcept:
    cdef timespec t
    clock_gettime(FASTWS_COARSE_CLOCK, &t)
    return <uint64_t>t.tv_sec * TICKS_PER_SECOND + t.tv_nsec // (1000000000 // TICKS_PER_SECOND)


cdef void read_clock(Reactor reactor) noexcept:
    reactor.now = <uint32_t>read_ticks()


cdef double unix_time(Reactor reactor, uint32_t tick) noexcept:
    """Returns the Unix time of a past tick, in seconds."""
    cdef uint64_t now = read_ticks()
    return reactor.epoch + (now - (<uint32_t>now - tick)) * TICK_SECONDS


cdef uint32_t tick_at(Reactor reactor, double time) noexcept:
    """Returns the tick at a Unix time that unix_time() returned."""
    return <uint32_t><uint64_t>((time - reactor.epoch) * TICKS_PER_SECOND + 0.5)


cdef inline int bucket_of(const int64_t* bounds, int64_t took) noexcept nogil:
    """Returns the first bucket whose upper bound is not passed; that of the last is INT64_MAX."""
    cdef int bucket = 0
    while took > bounds[bucket]:
        bucket += 1
    return bucket
