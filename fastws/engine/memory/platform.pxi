# What the engine takes from C and from the system.

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.unicode cimport PyUnicode_DecodeUTF8
from cython.parallel cimport prange
from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, errno
from libc.stdint cimport INT64_MAX
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memmove, memset

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object, Py_ssize_t*) except NULL
    unsigned long PyThread_get_thread_ident() nogil
    ctypedef struct PyAsyncMethods:
        void* am_await
    ctypedef struct PyTypeObject:
        PyAsyncMethods* tp_as_async
    PyTypeObject* Py_TYPE(object)

cdef extern from "platform.h" nogil:
    const int FASTWS_HAS_EPOLL
    const uint32_t EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLRDHUP, EPOLLET
    const int EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CLOEXEC
    const int EWOULDBLOCK
    const int MSG_DONTWAIT, MSG_NOSIGNAL, SHUT_WR, SOCK_CLOEXEC, SOCK_NONBLOCK
    const int AF_INET, AF_INET6, AF_UNIX, IPPROTO_TCP, TCP_NODELAY
    const int FASTWS_COARSE_CLOCK, CLOCK_MONOTONIC
    const int FASTWS_FLUSH_SPAN, FASTWS_THREADS_FROM

    ctypedef unsigned int socklen_t
    ctypedef union epoll_data_t:
        void* ptr
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    struct sockaddr:
        pass
    struct in_addr:
        uint32_t s_addr
    struct in6_addr:
        pass
    struct sockaddr_in:
        uint16_t sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        uint16_t sin6_port
        in6_addr sin6_addr
    struct sockaddr_storage:
        uint16_t ss_family
    struct iovec:
        void* iov_base
        size_t iov_len
    struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
    struct timespec:
        long tv_sec
        long tv_nsec

    int epoll_create1(int)
    int epoll_ctl(int, int, int, epoll_event*)
    int epoll_wait(int, epoll_event*, int, int)
    int accept4(int, sockaddr*, socklen_t*, int)
    ssize_t recv(int, void*, size_t, int)
    ssize_t send(int, const void*, size_t, int)
    ssize_t sendmsg(int, const msghdr*, int)
    int getpeername(int, sockaddr*, socklen_t*)
    int setsockopt(int, int, int, const void*, socklen_t)
    int shutdown(int, int)
    int close "close"(int)
    int getpid()
    int clock_gettime(int, timespec*)
    uint16_t ntohs(uint16_t)
    int inet_pton(int, const char*, void*)

    int atomic_add(int*, int)
    uint64_t atomic_add_wide "atomic_add"(uint64_t*, uint64_t)
    int atomic_subtract(int*, int)
    Block* atomic_load_pointer(Block**)
    bint atomic_swap_if(Block**, Block**, Block*)
    void prefetch_for_write(const void*)


cdef extern from "zlib.h" nogil:
    const int Z_OK, Z_STREAM_END, Z_BUF_ERROR, Z_MEM_ERROR, Z_SYNC_FLUSH, Z_DEFLATED, Z_DEFAULT_STRATEGY
    int deflateInit2(z_stream*, int, int, int, int, int)
    int deflateReset(z_stream*)
    int deflate(z_stream*, int)
    int deflateEnd(z_stream*)
    int inflateInit2(z_stream*, int)
    int inflateReset(z_stream*)
    int inflate(z_stream*, int)
    int inflateEnd(z_stream*)


cdef inline int64_t nanoseconds() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <int64_t>t.tv_sec * 1000000000 + t.tv_nsec


has_epoll = bool(FASTWS_HAS_EPOLL)
