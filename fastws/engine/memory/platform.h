/* What the engine takes from the system, under one name on every system.
 *
 * Linux has epoll and drives sockets itself. Elsewhere the calls exist but fail with ENOSYS, and every
 * connection goes through an asyncio transport (engine/transport.pxi).
 */
#ifndef FASTWS_PLATFORM_H
#define FASTWS_PLATFORM_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/epoll.h>
#define FASTWS_HAS_EPOLL 1
#else
#define FASTWS_HAS_EPOLL 0
#define EPOLLIN 0x001u
#define EPOLLOUT 0x004u
#define EPOLLERR 0x008u
#define EPOLLHUP 0x010u
#define EPOLLRDHUP 0x2000u
#define EPOLLET (1u << 31)
#define EPOLL_CTL_ADD 1
#define EPOLL_CTL_DEL 2
#define EPOLL_CLOEXEC 0
#define SOCK_NONBLOCK 0
#define SOCK_CLOEXEC 0
typedef union { void *ptr; uint64_t u64; } epoll_data_t;
struct epoll_event { uint32_t events; epoll_data_t data; };
static inline int epoll_create1(int flags) { (void)flags; errno = ENOSYS; return -1; }
static inline int epoll_ctl(int a, int b, int c, struct epoll_event *d) {
    (void)a; (void)b; (void)c; (void)d; errno = ENOSYS; return -1;
}
static inline int epoll_wait(int a, struct epoll_event *b, int c, int d) {
    (void)a; (void)b; (void)c; (void)d; errno = ENOSYS; return -1;
}
static inline int accept4(int a, struct sockaddr *b, socklen_t *c, int d) {
    (void)a; (void)b; (void)c; (void)d; errno = ENOSYS; return -1;
}
#endif

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

#ifdef CLOCK_MONOTONIC_COARSE
#define FASTWS_COARSE_CLOCK CLOCK_MONOTONIC_COARSE
#else
#define FASTWS_COARSE_CLOCK CLOCK_MONOTONIC
#endif

/* When a flush takes several threads; a build for ThreadSanitizer takes them sooner (setup.py). */
#ifndef FASTWS_FLUSH_SPAN
#define FASTWS_FLUSH_SPAN 32            /* connections that a thread takes at a time */
#endif
#ifndef FASTWS_THREADS_FROM
#define FASTWS_THREADS_FROM 128         /* connections in a batch; fewer are done by one thread */
#endif

/* Flush threads only ever count references down and push emptied blocks; both are atomic. */
#define atomic_add(pointer, n) __atomic_add_fetch((pointer), (n), __ATOMIC_RELAXED)
#define atomic_subtract(pointer, n) __atomic_sub_fetch((pointer), (n), __ATOMIC_ACQ_REL)
#define atomic_load_pointer(pointer) __atomic_load_n((pointer), __ATOMIC_RELAXED)
#define atomic_swap_if(pointer, expected, desired) \
    __atomic_compare_exchange_n((pointer), (expected), (desired), 1, __ATOMIC_RELEASE, __ATOMIC_RELAXED)

#define prefetch_for_write(pointer) __builtin_prefetch((pointer), 1, 3)

#endif
