# Groups: connections under one name, and leaving them.

cdef enum:                              # Group.kind
    EVERYONE
    CHANNEL
    USER
    SESSION

cdef enum:
    USER_INDEX = 1                      # of a user among a connection's memberships; 0 is EVERYONE

EVERYONE_KIND = EVERYONE
CHANNEL_KIND = CHANNEL
USER_KIND = USER
SESSION_KIND = SESSION


@cython.final
@cython.no_gc
cdef class Group:

    def __cinit__(self, name, int kind):
        self.name = name
        self.kind = kind

    def __dealloc__(self):
        free(self.members)
        free(self.back)

    cdef int add(self, Conn* c, uint32_t now) except -1:
        """Add a connection that is not a member."""
        cdef uint32_t capacity
        cdef void* moved
        if self.count == self.capacity:
            capacity = self.capacity + (self.capacity >> 1) + 2
            moved = realloc(self.members, capacity * sizeof(Conn*))
            if moved is NULL:
                raise MemoryError
            self.members = <Conn**>moved
            moved = realloc(self.back, capacity * sizeof(uint32_t))
            if moved is NULL:
                raise MemoryError
            self.back = <uint32_t*>moved
            self.capacity = capacity
        membership_reserve(c)
        self.members[self.count] = c
        self.back[self.count] = c.membership_count
        c.memberships[c.membership_count].group = <void*>self
        c.memberships[c.membership_count].position = self.count
        c.memberships[c.membership_count].joined = now
        c.membership_count += 1
        self.count += 1
        if self.kind == USER:
            membership_swap(c, USER_INDEX, c.membership_count - 1)
        return 0

    cdef void remove(self, Conn* c, uint32_t index) noexcept:
        """Remove a member, whose membership `index` this is, in constant time: the last ones fill the gaps."""
        cdef uint32_t position = c.memberships[index].position
        cdef Conn* moved
        cdef Membership* last
        self.count -= 1
        if position != self.count:
            moved = self.members[self.count]
            self.members[position] = moved
            self.back[position] = self.back[self.count]
            moved.memberships[self.back[position]].position = position
        c.membership_count -= 1
        if index != c.membership_count:
            last = &c.memberships[c.membership_count]
            c.memberships[index] = last[0]
            (<Group>last.group).back[last.position] = index

    cdef bint is_over(self):
        """Returns whether it has no members, and the listener has been told of every departure."""
        return self.count == 0 and self.leaving == 0


cdef void membership_swap(Conn* c, uint32_t i, uint32_t j) noexcept:
    cdef Membership first = c.memberships[i]
    c.memberships[i] = c.memberships[j]
    c.memberships[j] = first
    (<Group>c.memberships[i].group).back[c.memberships[i].position] = i
    (<Group>c.memberships[j].group).back[c.memberships[j].position] = j


cdef int membership_reserve(Conn* c) except -1:
    cdef Membership* larger
    if c.membership_count < c.membership_capacity:
        return 0
    larger = <Membership*>malloc(2 * c.membership_capacity * sizeof(Membership))
    if larger is NULL:
        raise MemoryError
    memcpy(larger, c.memberships, c.membership_count * sizeof(Membership))
    if c.memberships is not c.own_memberships:
        free(c.memberships)
    c.memberships = larger
    c.membership_capacity *= 2
    return 0


cdef inline int64_t membership_find(const Conn* c, Group group) noexcept:
    """Returns the index of `group` in the connection's memberships, or -1.

    Looks at whichever are fewer: the memberships, or the group's members.
    """
    cdef uint32_t i
    if group.count < c.membership_count:
        for i in range(group.count):
            if group.members[i] is c:
                return group.back[i]
        return -1
    for i in range(c.membership_count):
        if c.memberships[i].group is <void*>group:
            return i
    return -1


cdef inline Group user_of(const Conn* c):
    """Returns all connections of this one's user, or None."""
    if c.membership_count > USER_INDEX and (<Group>c.memberships[USER_INDEX].group).kind == USER:
        return <Group>c.memberships[USER_INDEX].group
    return None


cdef Conn* device_in(Group user, Group channel, const Conn* but) noexcept:
    """Returns a connection of a user that is in a channel, other than `but`; NULL if there is none.

    Looks at whichever are fewer: the user's connections or the channel's members.
    """
    cdef int64_t i
    if channel.count < user.count:
        for i in range(channel.count):
            if channel.members[i] is not but and user_of(channel.members[i]) is user:
                return channel.members[i]
        return NULL
    for i in range(<int64_t>user.count - 1, -1, -1):         # unsubscribe_user() begins with the first
        if user.members[i] is not but and membership_find(user.members[i], channel) >= 0:
            return user.members[i]
    return NULL


cdef void bequeath(Conn* c, uint32_t index, Group user) noexcept:
    """A device leaves a channel: another of the user's devices there, if any, inherits the time of joining."""
    cdef Group channel = <Group>c.memberships[index].group
    cdef uint32_t joined = c.memberships[index].joined
    cdef Conn* heir = device_in(user, channel, c)
    cdef Membership* inherits
    if heir is not NULL:
        inherits = &heir.memberships[membership_find(heir, channel)]
        if is_past(joined, inherits.joined):
            inherits.joined = joined


cdef Py_ssize_t count_members(dict groups):
    """Returns how many members they have, each counted in every group that it is in."""
    cdef Group group
    cdef Py_ssize_t count = 0
    for group in groups.values():
        count += group.count
    return count


cdef Py_ssize_t count_occupied(dict groups):
    """Returns how many have a member; the others wait until the listener has been told that the last one left."""
    cdef Group group
    cdef Py_ssize_t count = 0
    for group in groups.values():
        count += group.count > 0
    return count


cdef int leave_groups(Conn* c) except -1:
    """Take a connection out of all its groups at once; the groups stay until _release_group()."""
    cdef WebSocket ws = <WebSocket>c.ws
    cdef Group group, user
    cdef uint32_t i, joined
    if ws.left_groups is not None:
        return 0
    left = []
    user = user_of(c)
    for i in range(0 if user is None else c.membership_count):
        if (<Group>c.memberships[i].group).kind == CHANNEL:
            bequeath(c, i, user)
    while c.membership_count:
        group = <Group>c.memberships[c.membership_count - 1].group
        joined = c.memberships[c.membership_count - 1].joined
        group.remove(c, c.membership_count - 1)
        if group.kind != EVERYONE:
            group.leaving += 1
            left.append((group, joined))
    left.reverse()
    ws.left_groups = tuple(left)
    if c.memberships is not c.own_memberships:
        free(c.memberships)
        c.memberships = c.own_memberships
        c.membership_capacity = 2
    return 0
