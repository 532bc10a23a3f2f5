# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: embedsignature=False, auto_pickle=False
"""What a Redis server sends to a connection that has subscribed (RESP2), and the calls of whoever listens.

Also what scripts publish of logs.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject, PyTypeObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcmp, memcpy, memmove

cdef enum:
    MOST_ITEMS = 16         # of one array
    MOST_LINE = 16384       # bytes of one line
    MOST_DIGITS = 10
    MOST_TIME_DIGITS = 18   # of a position
    SPARE_BYTES = 1 << 16   # kept for the next unfinished push

cdef const char* SMESSAGE = b"*3\r\n$8\r\nsmessage\r\n$"
cdef Py_ssize_t SMESSAGE_BYTES = 19


cdef enum Got:
    PART    # more bytes are needed
    WHOLE
    BAD     # no RESP2 of a subscriber


@cython.final
cdef class PushParser:
    """Calls the receiver of each message; everything else goes to ``on_reply``.

    ``receivers`` maps channels to callables, and may change at any time; messages of other channels are skipped.
    ``on_reply`` is called with a list for each other array, with bytes (their first byte included) for each line.
    ``on_failure`` is called with a channel and the Exception that its receiver raised.
    """

    cdef dict receivers
    cdef object on_reply
    cdef object on_failure
    cdef Py_ssize_t most_bytes
    cdef char* rest             # bytes of an unfinished push
    cdef Py_ssize_t length
    cdef Py_ssize_t room
    cdef Py_ssize_t wanted      # bytes of it that there must be before another look is worth while
    cdef bint is_feeding

    def __init__(self, dict receivers, on_reply, on_failure, Py_ssize_t most_bytes=1 << 26):
        self.receivers = receivers
        self.on_reply = on_reply
        self.on_failure = on_failure
        self.most_bytes = most_bytes

    def __dealloc__(self):
        free(self.rest)

    @property
    def pending(self):
        """Bytes of an unfinished push."""
        return self.length

    def feed(self, bytes data not None):
        """Take what was received. Raises ValueError for what no server sends; then nothing more may be fed."""
        cdef Py_ssize_t used
        cdef bint is_kept = self.length > 0
        if self.is_feeding:
            raise RuntimeError("feed() was called by a receiver")
        if is_kept:
            self.keep(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
            if self.length < self.wanted:
                return
        self.is_feeding = True
        try:
            if is_kept:
                used = self.parse(self.rest, self.length)
                self.length -= used
                if self.length:
                    memmove(self.rest, self.rest + used, self.length)
                elif self.room > SPARE_BYTES:
                    free(self.rest)
                    self.rest, self.room = NULL, 0
            else:
                used = self.parse(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
                self.keep(PyBytes_AS_STRING(data) + used, PyBytes_GET_SIZE(data) - used)
        finally:
            self.is_feeding = False

    cdef int keep(self, const char* data, Py_ssize_t size) except -1:
        cdef Py_ssize_t room
        cdef char* rest
        if not size:
            return 0
        if self.length + size > self.room:
            room = max(2 * self.room, self.length + size, 4096)
            rest = <char*>realloc(self.rest, room)
            if rest is NULL:
                raise MemoryError()
            self.rest, self.room = rest, room
        memcpy(self.rest + self.length, data, size)
        self.length += size
        return 0

    cdef Py_ssize_t parse(self, const char* data, Py_ssize_t size) except -1:
        """Returns how many bytes the whole pushes at the beginning take."""
        cdef Py_ssize_t used = 0, step
        self.wanted = 0
        while used < size:
            step = self.push(data + used, size - used)
            if not step:
                break
            used += step
        return used

    cdef Py_ssize_t push(self, const char* data, Py_ssize_t size) except -1:
        """Returns the bytes of one push; 0 if it is not whole yet."""
        cdef const char* at = data
        cdef const char* end = data + size
        cdef const char* channel = NULL
        cdef const char* payload = NULL
        cdef Py_ssize_t channel_bytes = 0, payload_bytes = 0
        cdef Got got
        if size < SMESSAGE_BYTES or memcmp(data, SMESSAGE, SMESSAGE_BYTES) != 0:
            return self.other(data, size)
        at += SMESSAGE_BYTES - 1
        got = self.bulk(&at, end, &channel, &channel_bytes)
        if got == WHOLE:
            got = self.bulk(&at, end, &payload, &payload_bytes)
        if got == PART:
            return self.unfinished(at - data, size)
        if got == BAD or channel_bytes < 0 or payload_bytes < 0:
            raise self.error(data, size)
        self.deliver(PyBytes_FromStringAndSize(channel, channel_bytes), payload, payload_bytes)
        return at - data

    cdef int deliver(self, bytes channel, const char* payload, Py_ssize_t size) except -1:
        cdef PyObject* found = PyDict_GetItem(self.receivers, channel)
        cdef object receive
        if found is NULL:
            return 0
        receive = <object>found
        try:
            receive(PyBytes_FromStringAndSize(payload, size))
        except Exception as error:
            self.on_failure(channel, error)
        return 0

    cdef Py_ssize_t other(self, const char* data, Py_ssize_t size) except -1:
        """What is not a message: a line, or an array of strings and numbers."""
        cdef const char* at = data + 1
        cdef const char* end = data + size
        cdef Py_ssize_t count = 0, number
        cdef Got got
        cdef list items = []
        if data[0] == c"+" or data[0] == c"-":
            got = line(&at, end)
            if got == WHOLE:
                self.on_reply(PyBytes_FromStringAndSize(data, at - data - 2))
        elif data[0] == c"*":
            got = integer(&at, end, &count)
            if got == WHOLE and not 0 < count <= MOST_ITEMS:
                got = BAD
            for number in range(count):
                if got != WHOLE:
                    break
                got = self.item(&at, end, items)
            if got == WHOLE:
                self.on_reply(items)
        else:
            got = BAD
        if got == BAD:
            raise self.error(data, size)
        return at - data if got == WHOLE else self.unfinished(at - data, size)

    cdef Got item(self, const char** at, const char* end, list items) except *:
        cdef const char* text = NULL
        cdef Py_ssize_t number = 0
        cdef Got got
        if at[0] == end:
            return PART
        if at[0][0] == c"$":
            got = self.bulk(at, end, &text, &number)
            if got == WHOLE:
                items.append(None if number < 0 else PyBytes_FromStringAndSize(text, number))
            return got
        if at[0][0] != c":":
            return BAD
        at[0] += 1
        got = integer(at, end, &number)
        if got == WHOLE:
            items.append(number)
        return got

    cdef Got bulk(self, const char** at, const char* end, const char** text, Py_ssize_t* size) noexcept:
        """A string after its ``$``; a size of -1 is none. After PART ``at`` is where it would end, if that is known."""
        cdef Got got
        if at[0] == end:
            return PART
        if at[0][0] != c"$":
            return BAD
        at[0] += 1
        got = integer(at, end, size)
        if got != WHOLE:
            return got
        if size[0] < 0:
            return WHOLE if size[0] == -1 else BAD
        if size[0] > self.most_bytes:
            return BAD
        text[0] = at[0]
        at[0] += size[0] + 2
        if at[0] > end:
            return PART
        return WHOLE if (at[0] - 2)[0] == c"\r" and (at[0] - 1)[0] == c"\n" else BAD

    cdef Py_ssize_t unfinished(self, Py_ssize_t known, Py_ssize_t size) except -1:
        self.wanted = max(known, size + 1)
        return 0

    cdef object error(self, const char* data, Py_ssize_t size):
        return ValueError(f"no push of a Redis server: {PyBytes_FromStringAndSize(data, min(size, 60))!r}")


cdef Got integer(const char** at, const char* end, Py_ssize_t* number) noexcept:
    """A number and the end of its line."""
    cdef const char* p = at[0]
    cdef bint is_negative = False
    cdef int digits = 0
    number[0] = 0
    if p < end and p[0] == c"-":
        is_negative = True
        p += 1
    while p < end and c"0" <= p[0] <= c"9":
        number[0] = 10 * number[0] + (p[0] - c"0")
        digits += 1
        if digits > MOST_DIGITS:
            return BAD
        p += 1
    if p == end:
        return PART
    if p[0] != c"\r" or not digits:
        return BAD
    if p + 1 == end:
        return PART
    if p[1] != c"\n":
        return BAD
    if is_negative:
        number[0] = -number[0]
    at[0] = p + 2
    return WHOLE


cdef Got line(const char** at, const char* end) noexcept:
    """The rest of a line."""
    cdef Py_ssize_t size = min(<Py_ssize_t>(end - at[0]), MOST_LINE)
    cdef const char* p = <const char*>memchr(at[0], c"\r", size)
    if p is NULL:
        return BAD if size == MOST_LINE else PART
    if p + 1 == end:
        return PART
    if p[1] != c"\n":
        return BAD
    at[0] = p + 2
    return WHOLE


def records_of(bytes data not None, bint has_keys, type position not None, type record not None):
    """Returns what the script `append` publishes: a position, and the records after it, made of these named tuples.

    Raises ValueError for anything else.
    """
    cdef const char* at = PyBytes_AS_STRING(data) + 1
    cdef const char* end = PyBytes_AS_STRING(data) + PyBytes_GET_SIZE(data)
    cdef long long offset = 0, before = 0, tag = 0, key_bytes = 0, payload_bytes = 0
    cdef list records = []
    cdef object previous, key, payload
    if not (
        PyBytes_GET_SIZE(data)
        and data[0] == c"H"
        and word(&at, end, c" ", &offset)
        and word(&at, end, c" ", &before)
        and word(&at, end, c"\n", &tag)
    ):
        raise ValueError(f"no records of a log: {data[:60]!r}")
    previous = named(position, (offset, before))
    while at < end:
        if not (word(&at, end, c" ", &key_bytes) and word(&at, end, c"\n", &payload_bytes)):
            raise ValueError(f"no records of a log: {data[:60]!r}")
        if key_bytes < 0 or payload_bytes < -1 or key_bytes > end - at or payload_bytes > end - at - key_bytes:
            raise ValueError(f"no records of a log: {data[:60]!r}")
        key = PyUnicode_DecodeUTF8(at, key_bytes, "surrogatepass") if has_keys else None
        at += key_bytes
        payload = None
        if payload_bytes >= 0:
            payload = PyBytes_FromStringAndSize(at, payload_bytes)
            at += payload_bytes
        offset += 1
        records.append(named(record, (named(position, (offset, tag)), key, payload)))
    return previous, records


cdef object named(type cls, tuple values):
    """A named tuple, without the function in Python that would make it."""
    cdef tuple arguments = (values,)
    return (<PyTypeObject*>tuple).tp_new(cls, <PyObject*>arguments, NULL)


cdef bint word(const char** at, const char* end, char last, long long* number) noexcept:
    """Whether there is a number that ends with this character."""
    cdef const char* p = at[0]
    cdef bint is_negative = p < end and p[0] == c"-"
    cdef int digits = 0
    number[0] = 0
    if is_negative:
        p += 1
    while p < end and c"0" <= p[0] <= c"9" and digits < MOST_TIME_DIGITS:
        number[0] = 10 * number[0] + (p[0] - c"0")
        digits += 1
        p += 1
    if p == end or p[0] != last or not digits:
        return False
    if is_negative:
        number[0] = -number[0]
    at[0] = p + 1
    return True
