# Latency histogram: log-linear buckets, 64 to a power of two (values are kept to 1.6 %), as HdrHistogram does.

cdef enum:
    BUCKETS = 2304  # values below 2**41 ns, 36 minutes


cdef inline int bucket_of(uint64_t value) noexcept nogil:
    cdef int shift
    if value < 128:
        return <int>value
    shift = 57 - clzll(value)
    return min((shift << 6) + <int>(value >> shift), BUCKETS - 1)


cdef inline uint64_t bucket_middle(int bucket) noexcept nogil:
    cdef int shift
    if bucket < 128:
        return bucket
    shift = (bucket >> 6) - 1
    return (<uint64_t>(bucket - (shift << 6)) << shift) + ((<uint64_t>1 << shift) >> 1)


@cython.final
cdef class Histogram:
    """Counts of values in nanoseconds. Percentiles are within 1.6 % of the true value."""

    cdef uint64_t counts[BUCKETS]

    def __cinit__(self):
        self.clear()

    def clear(self):
        memset(self.counts, 0, sizeof(self.counts))

    cdef inline void add(self, uint64_t value) noexcept nogil:
        self.counts[bucket_of(value)] += 1

    def record(self, uint64_t value):
        self.add(value)

    def merge(self, Histogram other):
        for bucket in range(BUCKETS):
            self.counts[bucket] += other.counts[bucket]

    def count(self):
        cdef uint64_t total = 0
        for bucket in range(BUCKETS):
            total += self.counts[bucket]
        return total

    def percentile(self, double percent):
        """Returns the value below which `percent` of all values lie, in nanoseconds; None if there are none."""
        cdef uint64_t total = self.count(), seen = 0
        cdef int bucket
        if not total:
            return None
        wanted = max(1, math.ceil(total * percent / 100))
        for bucket in range(BUCKETS):
            seen += self.counts[bucket]
            if seen >= wanted:
                return bucket_middle(bucket)

    def summary(self):
        """Returns p50, p99, p99.9 and the maximum, in microseconds."""
        points = (("p50_us", 50), ("p99_us", 99), ("p999_us", 99.9), ("max_us", 100))
        return {name: self.percentile(point) / 1000 for name, point in points} if self.count() else {}
