# One connection's TLS as OpenSSL sees it: a BIO that reads and writes the socket until hands are shaken; from then on
# it reads what a lane has received, and writes into the stream's output. Used by a handshake's owner alone, then by the
# stream under the lane's lock.

cdef enum:
    # Plain bytes of a record, and the most that a record adds to them.
    TLS_RECORD = 16384
    TLS_OVERHEAD = 128
    # What OpenSSL may write by itself, such as answers to key updates and alerts, beyond the bound on frames.
    TLS_OWN_OUTPUT = 16384

cdef void *_bio_method = NULL


cdef int link_read(void *bio, char *to, int size) noexcept nogil:
    """BIO_meth_set_read: bytes read, or -1 and the flag to try again."""
    cdef TlsLink *link = <TlsLink *>_libssl.BIO_get_data(bio)
    cdef ssize_t got
    _libssl.BIO_clear_flags(bio, BIO_FLAGS_RETRY)
    if size <= 0:
        return 0
    if link.stream == NULL:
        got = c_recv(link.descriptor, to, <size_t>size, MSG_DONTWAIT)
        if got < 0 and (errno == EAGAIN or errno == EINTR):
            _libssl.BIO_set_flags(bio, BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY)
        return <int>got
    got = min(<ssize_t>size, <ssize_t>link.input_size)
    if got == 0:
        _libssl.BIO_set_flags(bio, BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY)
        return -1
    memcpy(to, link.input, <size_t>got)
    link.input += got
    link.input_size -= <uint32_t>got
    return <int>got


cdef int link_write(void *bio, const char *data, int size) noexcept nogil:
    """BIO_meth_set_write: bytes written, or -1; of a stream no flag is set, for it has no room for more."""
    cdef TlsLink *link = <TlsLink *>_libssl.BIO_get_data(bio)
    cdef Stream *stream = link.stream
    cdef ssize_t sent
    _libssl.BIO_clear_flags(bio, BIO_FLAGS_RETRY)
    if size <= 0:
        return 0
    if stream == NULL:
        sent = c_send(link.descriptor, data, <size_t>size, MSG_DONTWAIT | MSG_NOSIGNAL)
        if sent < 0 and (errno == EAGAIN or errno == EINTR):
            _libssl.BIO_set_flags(bio, BIO_FLAGS_WRITE | BIO_FLAGS_SHOULD_RETRY)
        return <int>sent
    if <uint64_t>stream.output_size + <uint32_t>size > link.output_limit or not output_room(stream, <uint32_t>size):
        return -1
    memcpy(stream.output + stream.output_at + stream.output_size, data, <size_t>size)
    stream.output_size += <uint32_t>size
    return size


cdef long link_control(void *bio, int command, long number, void *pointer) noexcept nogil:
    """BIO_meth_set_ctrl: a flush has nothing to do, anything else is not known."""
    return command == BIO_CTRL_FLUSH


cdef void *link_method() noexcept nogil:
    """The BIO_METHOD of links; NULL when there is no memory."""
    cdef void *method = _libssl.BIO_meth_new(_libssl.BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "turnsvr")
    if method != NULL:
        _libssl.BIO_meth_set_read(method, link_read)
        _libssl.BIO_meth_set_write(method, link_write)
        _libssl.BIO_meth_set_ctrl(method, link_control)
    return method


cdef TlsLink *link_new(void *context, int descriptor) noexcept nogil:
    """A server's end on a connected socket; NULL when there is no memory."""
    cdef TlsLink *link = <TlsLink *>calloc(1, sizeof(TlsLink))
    cdef void *bio
    if link == NULL:
        return NULL
    link.descriptor = descriptor
    link.ssl = _libssl.SSL_new(context)
    bio = _libssl.BIO_new(_bio_method)
    if link.ssl == NULL or bio == NULL:
        _libssl.SSL_free(link.ssl)
        _libssl.BIO_free(bio)
        free(link)
        return NULL
    _libssl.BIO_set_data(bio, link)
    _libssl.BIO_set_init(bio, 1)
    _libssl.SSL_set_bio(link.ssl, bio, bio)
    _libssl.SSL_set_accept_state(link.ssl)
    return link


cdef void link_free(TlsLink *link) noexcept nogil:
    """Free a link that is not used any more, not its descriptor; NULL is fine."""
    if link != NULL:
        _libssl.SSL_free(link.ssl)
        free(link)
