# The basis of the load generator: system calls, structs, and helpers that need only these.

cimport cython
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memmove, memset
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

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef extern from * nogil:
    int clzll "__builtin_clzll"(uint64_t value)
    int exchange "__atomic_exchange_n"(int *lock, int value, int order)
    void store "__atomic_store_n"(int *lock, int value, int order)
    uint32_t subtract "__atomic_sub_fetch"(uint32_t *counter, uint32_t value, int order)
    enum: ACQUIRE "__ATOMIC_ACQUIRE", RELEASE "__ATOMIC_RELEASE", ACQ_REL "__ATOMIC_ACQ_REL"

cdef extern from "<zlib.h>" nogil:
    ctypedef struct z_stream:
        unsigned char *next_in
        unsigned int avail_in
        unsigned char *next_out
        unsigned int avail_out
    int inflateInit2(z_stream *stream, int window_bits)
    int inflate(z_stream *stream, int flush)
    int inflateReset(z_stream *stream)
    int inflateEnd(z_stream *stream)
    enum: Z_OK, Z_BUF_ERROR, Z_SYNC_FLUSH

cdef enum:
    EVENTS = 1024
    READ_SIZE = 1 << 18
    HEAD = 18     # the longest frame header, and the two numbers
    SLOTS = 4     # streams that one client may receive
    WINDOW = -15  # raw deflate, with the largest window
    MEMOS = 1024  # compressed messages that a lane remembers: as many as are in flight
    NOBODY = -1   # the stream of a frame that is not a message
    CROWD = 8     # awaited deliveries for each that arrived: beyond that, spin
    PAUSE_NS = 20_000
    OPEN_RING = 1 << 16  # messages that an open loop may have in flight
    DIRTY = 1024         # clients that a lane writes to before it flushes them
    DONE = READ_SIZE / 10 + 2  # messages that one read may complete: the shortest frame has ten bytes
    LINE = 64            # bytes of a cache line

cdef enum State:
    CONNECTING
    OPEN
    CLOSED

cdef struct Slot:
    int stream
    uint32_t next  # the number of the next expected message

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
    bint deflates        # permessage-deflate was agreed on: frames are looked at when they are whole
    z_stream *inflater   # with a window from message to message; NULL: the lane's, for each message by itself
    uint8_t *part        # a frame, as far as it has arrived
    size_t part_length
    size_t part_capacity
    int lock             # for those below: any lane may have something for this client to send
    void *tls            # OpenSSL's SSL; NULL: plain TCP
    uint8_t *out         # data to send
    size_t out_length
    size_t out_capacity
    uint8_t apart[LINE]  # padding before the next client, which another lane reads

cdef struct Stream:
    uint32_t *senders
    uint32_t sender_count
    uint32_t *shares     # receivers, by lane
    uint32_t lane_count  # lanes that have any
    uint32_t window
    uint32_t size        # bytes of payload
    uint8_t *bodies      # what follows the two numbers, in each message in turn
    uint32_t body_count
    uint32_t sent
    uint32_t done
    uint32_t mask        # ring size less one
    int64_t *sent_at     # ring: when each message in flight was sent, or was due
    uint32_t *lanes_left # ring: lanes with receivers that do not have it yet
    uint32_t *missing    # a ring per lane: its receivers that do not have it yet
    uint32_t stride      # from one lane's ring to the next
    int64_t interval     # open loop: ns between messages
    int64_t due
    bint side

cdef struct Shared:      # between all lanes
    int lanes
    Client *clients
    int client_count
    Stream *streams
    int stream_count, stream_capacity
    uint64_t *expected   # deliveries, by lane, of all messages so far
    bint holding         # nothing new is sent
    int lock             # for what follows, and for what sending and completing change in a stream
    uint32_t in_flight
    uint32_t roaming
    uint32_t cursor      # the stream whose turn it is when messages roam


cdef struct Memo:        # a message as it looks compressed
    int stream
    uint32_t sequence
    size_t length
    uint8_t *data

cdef const uint8_t *TAIL = b"\x00\x00\xff\xff"  # what a sender of permessage-deflate leaves out


cdef int64_t now_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec * 1_000_000_000 + now.tv_nsec


cdef inline int head_size(const uint8_t *head, int have) noexcept nogil:
    """Returns how many bytes of a frame contain its header and, in a message, the two numbers."""
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


cdef inline int payload_offset(const uint8_t *head) noexcept nogil:
    """Returns the bytes of a server's frame before its payload."""
    cdef int length = head[1] & 0x7F
    return 2 if length < 126 else 4 if length == 126 else 10


cdef inline size_t frame_size(const uint8_t *frame, size_t have) noexcept nogil:
    """Returns the bytes of a frame, or of as much of it as tells its size."""
    cdef int head
    if have < 2:
        return 2
    head = payload_offset(frame)
    if have < <size_t>head:
        return head
    return head + (frame[1] & 0x7F if head == 2 else big_endian(frame + 2, head - 2))


cdef void keep(Client *client, const uint8_t *p, size_t size) noexcept nogil:
    """Append to the frame that has not arrived whole."""
    if client.part_length + size > client.part_capacity:
        client.part_capacity = 2 * (client.part_length + size)
        client.part = <uint8_t *>realloc(client.part, client.part_capacity)
    memcpy(client.part + client.part_length, p, size)
    client.part_length += size


cdef inline const uint8_t *body_of(Stream *stream, uint32_t sequence) noexcept nogil:
    return stream.bodies + <size_t>(sequence % stream.body_count) * (stream.size - 8)


cdef inline void take(int *lock) noexcept nogil:
    """Spin, but yield: the holder of the lock may be waiting for this core."""
    while exchange(lock, 1, ACQUIRE):
        sched_yield()


cdef inline void release(int *lock) noexcept nogil:
    store(lock, 0, RELEASE)


cdef void watch(int epoll, int fd, uint32_t number) noexcept nogil:
    cdef epoll_event event
    event.events = <uint32_t>(EPOLLIN | EPOLLOUT | EPOLLET)
    event.data.u32 = number
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event)


cdef uint8_t *reserve(Client *client, size_t size) noexcept nogil:
    """Returns room for `size` bytes at the end of the client's output; the caller counts what it writes."""
    if client.out_length + size > client.out_capacity:
        client.out_capacity = 2 * (client.out_length + size)
        client.out = <uint8_t *>realloc(client.out, client.out_capacity)
    return client.out + client.out_length


cdef void flush(Client *client) noexcept nogil:
    """Send what the socket takes; epoll reports when it takes the rest."""
    cdef ssize_t sent
    take(&client.lock)
    if client.out_length:
        if client.tls is not NULL:
            sent = tls_write(client.tls, client.out, client.out_length)
        else:
            sent = send(client.fd, client.out, client.out_length, MSG_DONTWAIT | MSG_NOSIGNAL)
        if sent > 0:
            client.out_length -= sent
            memmove(client.out, client.out + sent, client.out_length)
    release(&client.lock)


cdef ssize_t receive(Client *client, uint8_t *buffer) noexcept nogil:
    """Returns like recv(2) how many bytes have arrived, at most READ_SIZE."""
    cdef ssize_t size
    if client.tls is NULL:
        return recv(client.fd, buffer, READ_SIZE, MSG_DONTWAIT)
    take(&client.lock)  # another lane may be writing
    size = tls_read(client.tls, buffer, READ_SIZE)
    release(&client.lock)
    return size
