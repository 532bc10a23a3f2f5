# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The bare loop: what a fan-out costs without a server, with only one `send` per client."""

from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memmove

cdef extern from "<sys/socket.h>" nogil:
    ssize_t recv(int fd, void *buffer, size_t size, int flags)
    ssize_t send(int fd, const void *buffer, size_t size, int flags)
    enum: MSG_NOSIGNAL

cdef enum:
    SIZE = 1 << 21


cdef class SendLoop:
    """Reads masked frames from one socket at a time, and sends them unmasked to all, in as few sends as possible."""

    cdef uint8_t *incoming
    cdef uint8_t *outgoing
    cdef size_t have

    def __cinit__(self):
        self.incoming, self.outgoing = <uint8_t *>malloc(SIZE), <uint8_t *>malloc(SIZE)

    def __dealloc__(self):
        free(self.incoming)
        free(self.outgoing)

    def relay(self, int source, int[:] members):
        """Read once from `source`, and send once to each of `members`. Returns False if the source has closed."""
        cdef ssize_t size, i
        cdef size_t length
        with nogil:
            size = recv(source, self.incoming + self.have, SIZE - self.have, 0)
            if size > 0:
                self.have += size
                length = self.unmask()
                if length:
                    for i in range(members.shape[0]):
                        send(members[i], self.outgoing, length, MSG_NOSIGNAL)
        return size > 0

    cdef size_t unmask(self) noexcept nogil:
        """Turn the complete frames received into those of a server. Returns their bytes."""
        cdef size_t at = 0, length = 0, header, payload, i
        cdef uint8_t *frame
        while self.have - at >= 6:
            frame = self.incoming + at
            payload = frame[1] & 0x7F
            header = 2 if payload < 126 else 4 if payload == 126 else 10
            if self.have - at < header + 4:
                break
            if header > 2:
                payload = 0
                for i in range(2, header):
                    payload = payload << 8 | frame[i]
            if self.have - at < header + 4 + payload:
                break
            memmove(self.outgoing + length, frame, header)
            self.outgoing[length + 1] &= 0x7F
            for i in range(payload):
                self.outgoing[length + header + i] = frame[header + 4 + i] ^ frame[header + (i & 3)]
            at += header + 4 + payload
            length += header + payload
        memmove(self.incoming, self.incoming + at, self.have - at)
        self.have -= at
        return length
