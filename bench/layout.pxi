# What the load generator is made of: the system's calls, its structs, and the helpers that need no more than those.

cimport cython
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memmove, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport close

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        uint32_t u32
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event *event)
    int epoll_wait(int epfd, epoll_event *events, int maxevents, int timeout)
    enum: EPOLLIN, EPOLLOUT, EPOLLET, EPOLLERR, EPOLLHUP, EPOLL_CTL_ADD, EPOLL_CTL_DEL

cdef extern from "<sys/socket.h>" nogil:
    ssize_t recv(int fd, void *buffer, size_t size, int flags)
    ssize_t send(int fd, const void *buffer, size_t size, int flags)
    enum: MSG_DONTWAIT, MSG_NOSIGNAL

cdef extern from * nogil:
    int clzll "__builtin_clzll"(uint64_t value)

cdef enum:
    EVENTS = 1024
    READ_SIZE = 1 << 18
    HEAD = 18     # the longest frame header, and the two numbers
    SLOTS = 4     # streams that one client may receive
    NOBODY = -1   # the stream of a frame that is no message
    CROWD = 8     # deliveries awaited for each that came at once: then there is no hurry
    PAUSE_NS = 20_000
    OPEN_RING = 1 << 16  # messages that an open loop may have in flight

cdef enum State:
    CONNECTING
    OPEN
    CLOSED

cdef struct Slot:
    int stream
    uint32_t next  # the number of the message that must come next

cdef struct Client:
    int fd
    State state
    int stream           # of the message whose payload is being read
    uint32_t sequence
    uint64_t skip        # bytes of it still to come
    int head_length
    uint8_t head[HEAD]   # an unfinished one
    int slot_count
    Slot slots[SLOTS]
    uint8_t *out         # what is to be sent
    size_t out_length
    size_t out_capacity

cdef struct Stream:
    uint32_t *senders
    uint32_t sender_count
    uint32_t receiver_count
    uint32_t window
    uint32_t size        # bytes of payload
    uint32_t sent
    uint32_t done
    uint32_t mask        # ring size less one
    int64_t *sent_at     # ring: when each message in flight was sent, or was due
    uint32_t *missing    # ring: receivers that lack it
    int64_t interval     # open loop: ns between messages
    int64_t due
    bint side


cdef int64_t now_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec * 1_000_000_000 + now.tv_nsec


cdef inline int head_size(const uint8_t *head, int have) noexcept nogil:
    """How much of a frame must be there to know its header and, in a message, the two numbers."""
    cdef int length
    if have < 2:
        return 2
    length = head[1] & 0x7F
    return 2 + min(length, 8) if length < 126 else 12 if length == 126 else 18


cdef inline uint64_t big_endian(const uint8_t *p, int size) noexcept nogil:
    cdef uint64_t value = 0
    cdef int i
    for i in range(size):
        value = value << 8 | p[i]
    return value
