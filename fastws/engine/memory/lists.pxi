# Lists: growable arrays of connections. Each has room for every connection of its reactor, so that a push cannot fail.


cdef int list_reserve(ConnList* l, size_t capacity) except -1:
    """Make room. Copies only what is on the list, so that pages never used cost no memory."""
    cdef Conn** larger
    if capacity <= l.capacity:
        return 0
    larger = <Conn**>malloc(2 * capacity * sizeof(Conn*))
    if larger is NULL:
        raise MemoryError
    if l.count:
        memcpy(larger, l.items + l.start, l.count * sizeof(Conn*))
    free(l.items)
    l.items = larger
    l.start = 0
    l.capacity = 2 * capacity
    return 0


cdef inline void list_push(ConnList* l, Conn* c) noexcept nogil:
    """There is room: a list holds every connection of the reactor at most once."""
    if l.start + l.count == l.capacity:
        memmove(l.items, l.items + l.start, l.count * sizeof(Conn*))
        l.start = 0
    l.items[l.start + l.count] = c
    l.count += 1


cdef inline void list_drop_first(ConnList* l, size_t n) noexcept nogil:
    l.count -= n
    l.start = l.start + n if l.count else 0


cdef inline Conn* list_pop(ConnList* l) noexcept nogil:
    l.count -= 1
    return l.items[l.start + l.count]
