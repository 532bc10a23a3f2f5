# TLS for the clients, by the OpenSSL that Python itself has loaded: nothing to link, and no headers.

import _ssl
import ctypes

cdef enum:
    MODES = 0x13                    # SSL_MODE: partial writes, buffers that move, buffers released when empty
    SSL_CTRL_MODE = 33
    SSL_CTRL_SET_READ_AHEAD = 41
    SSL_ERROR_WANT_READ = 2
    SSL_ERROR_WANT_WRITE = 3

cdef struct OpenSSL:
    const void *(*TLS_client_method)() noexcept nogil
    void *(*SSL_CTX_new)(const void *method) noexcept nogil
    void (*SSL_CTX_free)(void *context) noexcept nogil
    long (*SSL_CTX_ctrl)(void *context, int command, long value, void *pointer) noexcept nogil
    void *(*SSL_new)(void *context) noexcept nogil
    void (*SSL_free)(void *tls) noexcept nogil
    int (*SSL_set_fd)(void *tls, int fd) noexcept nogil
    void (*SSL_set_connect_state)(void *tls) noexcept nogil
    int (*SSL_read)(void *tls, void *buffer, int size) noexcept nogil
    int (*SSL_write)(void *tls, const void *buffer, int size) noexcept nogil
    int (*SSL_get_error)(const void *tls, int result) noexcept nogil
    void (*ERR_clear_error)() noexcept nogil

cdef OpenSSL openssl


cdef void *address(library, name) except NULL:
    return <void *><size_t>ctypes.cast(getattr(library, name), ctypes.c_void_p).value


cdef void *tls_context() except NULL:
    """Returns a new SSL_CTX of clients that accept any certificate."""
    cdef void *context
    library = ctypes.CDLL(_ssl.__file__)
    openssl.TLS_client_method = <const void *(*)() noexcept nogil>address(library, "TLS_client_method")
    openssl.SSL_CTX_new = <void *(*)(const void *) noexcept nogil>address(library, "SSL_CTX_new")
    openssl.SSL_CTX_free = <void (*)(void *) noexcept nogil>address(library, "SSL_CTX_free")
    openssl.SSL_CTX_ctrl = <long (*)(void *, int, long, void *) noexcept nogil>address(library, "SSL_CTX_ctrl")
    openssl.SSL_new = <void *(*)(void *) noexcept nogil>address(library, "SSL_new")
    openssl.SSL_free = <void (*)(void *) noexcept nogil>address(library, "SSL_free")
    openssl.SSL_set_fd = <int (*)(void *, int) noexcept nogil>address(library, "SSL_set_fd")
    openssl.SSL_set_connect_state = <void (*)(void *) noexcept nogil>address(library, "SSL_set_connect_state")
    openssl.SSL_read = <int (*)(void *, void *, int) noexcept nogil>address(library, "SSL_read")
    openssl.SSL_write = <int (*)(void *, const void *, int) noexcept nogil>address(library, "SSL_write")
    openssl.SSL_get_error = <int (*)(const void *, int) noexcept nogil>address(library, "SSL_get_error")
    openssl.ERR_clear_error = <void (*)() noexcept nogil>address(library, "ERR_clear_error")
    context = openssl.SSL_CTX_new(openssl.TLS_client_method())
    openssl.SSL_CTX_ctrl(context, SSL_CTRL_MODE, MODES, NULL)
    openssl.SSL_CTX_ctrl(context, SSL_CTRL_SET_READ_AHEAD, 1, NULL)
    return context


cdef void *tls_client(void *context, int fd) noexcept:
    cdef void *tls = openssl.SSL_new(context)
    openssl.SSL_set_fd(tls, fd)
    openssl.SSL_set_connect_state(tls)
    return tls


cdef ssize_t tls_result(void *tls, int result) noexcept nogil:
    """Returns what recv(2) and send(2) would; a shutdown or an alert is the end."""
    if result > 0:
        return result
    if openssl.SSL_get_error(tls, result) in (SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE):
        errno = EAGAIN
        return -1
    return 0


cdef ssize_t tls_read(void *tls, uint8_t *buffer, size_t size) noexcept nogil:
    """Read what is left of a record, or the next one; the handshake goes on by itself."""
    openssl.ERR_clear_error()
    return tls_result(tls, openssl.SSL_read(tls, buffer, <int>size))


cdef ssize_t tls_write(void *tls, const uint8_t *data, size_t size) noexcept nogil:
    """Write record by record until the socket takes no more; the handshake comes first."""
    cdef ssize_t total = 0, result = 1
    while result > 0 and <size_t>total < size:
        openssl.ERR_clear_error()
        result = tls_result(tls, openssl.SSL_write(tls, data + total, <int>(size - total)))
        total += max(result, 0)
    return total if total else result
