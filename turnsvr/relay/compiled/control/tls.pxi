# TLS: the context of a certificate, the handshake on the control thread, and what carries records from and to a stream.

cdef enum:
    # Plain bytes of a record, and what a record adds to them at the most.
    TLS_RECORD = 16384
    TLS_OVERHEAD = 128
    # What OpenSSL may write by itself, such as answers to key updates and alerts, beyond the bound on frames.
    TLS_OWN_OUTPUT = 16384

cdef struct TlsLink:
    # One connection's TLS. Hands are shaken over the socket itself; from then on records come from input, which must
    # be taken whole, and go to the stream's output.
    void *ssl
    int descriptor
    Stream *stream
    const uint8_t *input
    uint32_t input_size
    uint32_t output_limit

cdef struct Protocols:
    # As ALPN writes them, each behind its size.
    unsigned int size
    unsigned char names[256]

cdef void *_bio_method = NULL


cdef int link_read(void *bio, char *to, int size) noexcept nogil:
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
    if link != NULL:
        _libssl.SSL_free(link.ssl)
        free(link)


cdef int no_pass_phrase(char *to, int size, int for_writing, void *nothing) noexcept nogil:
    """Without it OpenSSL asks the terminal."""
    return 0


cdef int select_protocol(
    void *ssl, const unsigned char **chosen, unsigned char *chosen_size, const unsigned char *offered,
    unsigned int offered_size, void *context
) noexcept nogil:
    """The first of ours that the client offers; none where it offers others (RFC 7301 section 3.2 lets us go on)."""
    cdef Protocols *known = <Protocols *>context
    if _libssl.SSL_select_next_proto(
        <unsigned char **>chosen, chosen_size, known.names, known.size, offered, offered_size
    ) != OPENSSL_NPN_NEGOTIATED:
        return SSL_TLSEXT_ERR_NOACK
    return SSL_TLSEXT_ERR_OK


cdef str last_error():
    """What OpenSSL complained of last, which is forgotten with all else. It names neither files nor their contents."""
    cdef unsigned long number = _libssl.ERR_peek_last_error()
    cdef const char *reason = _libssl.ERR_reason_error_string(number) if number else NULL
    _libssl.ERR_clear_error()
    return (<bytes>reason).decode("ascii", "replace") if reason != NULL else ""


cdef class TlsContext:
    """A certificate with its key, and what clients may negotiate. Connections outlive it, handshakes hold it."""

    cdef void *context
    cdef Protocols protocols

    def __cinit__(
        self, bytes certificate not None, bytes key not None, uint64_t options, int minimum, int maximum,
        bytes ciphers not None, bytes protocols not None
    ):
        """certificate and key: PEM files. options: OpenSSL's SSL_OP_… bits. minimum and maximum: protocol versions as
        TLS has them on the wire, 0 for OpenSSL's own. ciphers: a cipher list. protocols: as in Protocols.

        Raises ValueError with OpenSSL's reason.
        """
        cdef const char *certificate_file = certificate
        cdef const char *key_file = key
        if _bio_method == NULL:
            raise ValueError("no OpenSSL was found")
        if len(protocols) > <Py_ssize_t>sizeof(self.protocols.names):
            raise ValueError("too many protocols")
        memcpy(self.protocols.names, <const uint8_t *>protocols, len(protocols))
        self.protocols.size = <unsigned int>len(protocols)
        _libssl.ERR_clear_error()
        self.context = _libssl.SSL_CTX_new(_libssl.TLS_server_method())
        if self.context == NULL:
            raise ValueError(last_error() or "no context")
        _libssl.SSL_CTX_set_options(self.context, options)
        _libssl.SSL_CTX_ctrl(self.context, SSL_CTRL_MODE, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_AUTO_RETRY, NULL)
        # Sessions are resumed by tickets, which clients keep.
        _libssl.SSL_CTX_ctrl(self.context, SSL_CTRL_SET_SESS_CACHE_MODE, SSL_SESS_CACHE_OFF, NULL)
        _libssl.SSL_CTX_set_session_id_context(self.context, <const unsigned char *>b"turnsvr", 7)
        _libssl.SSL_CTX_set_default_passwd_cb(self.context, no_pass_phrase)
        _libssl.SSL_CTX_set_alpn_select_cb(self.context, select_protocol, &self.protocols)
        if not (
            _libssl.SSL_CTX_ctrl(self.context, SSL_CTRL_SET_MIN_PROTO_VERSION, minimum, NULL)
            and _libssl.SSL_CTX_ctrl(self.context, SSL_CTRL_SET_MAX_PROTO_VERSION, maximum, NULL)
            and _libssl.SSL_CTX_set_cipher_list(self.context, ciphers)
            and _libssl.SSL_CTX_use_certificate_chain_file(self.context, certificate_file) == 1
            and _libssl.SSL_CTX_use_PrivateKey_file(self.context, key_file, SSL_FILETYPE_PEM) == 1
            and _libssl.SSL_CTX_check_private_key(self.context) == 1
        ):
            raise ValueError(last_error() or "not accepted")

    def __dealloc__(self):
        if self.context != NULL:
            _libssl.SSL_CTX_set_alpn_select_cb(self.context, NULL, NULL)
            _libssl.SSL_CTX_free(self.context)

    def handshake(self, int descriptor):
        """Begin as the server on a connected socket that does not block; it stays the caller's."""
        return TlsHandshake(self, descriptor)


cdef class TlsHandshake:
    """The server's end of a TLS connection until Engine.adopt() takes it."""

    cdef TlsContext context
    cdef TlsLink *link
    cdef bint is_done

    def __cinit__(self, TlsContext context not None, int descriptor):
        self.context = context
        self.link = link_new(context.context, descriptor)
        if self.link == NULL:
            _libssl.ERR_clear_error()
            raise MemoryError

    def __dealloc__(self):
        link_free(self.link)

    cdef void give(self, Stream *stream) noexcept:
        """Let this stream have the connection."""
        self.link.stream = stream
        stream.tls = self.link
        self.link = NULL
        _libssl.ERR_clear_error()

    def step(self):
        """Go on as far as the socket allows: "read" or "write" is what to wait for, "" when hands are shaken.

        Raises ConnectionError with the reason when it has failed; there is no going on then. The GIL is not held.
        """
        cdef TlsLink *link = self.link
        cdef int done, error
        if link == NULL:
            raise RuntimeError("the handshake is over")
        with nogil:
            _libssl.ERR_clear_error()
            done = _libssl.SSL_do_handshake(link.ssl)
            error = 0 if done == 1 else _libssl.SSL_get_error(link.ssl, done)
        self.is_done = done == 1
        if done == 1:
            return ""
        if error == SSL_ERROR_WANT_READ:
            return "read"
        if error == SSL_ERROR_WANT_WRITE:
            return "write"
        raise ConnectionError(last_error() or "closed by the client")

    def receive(self, int most):
        """What the client said first, once hands are shaken, so many bytes at the most, and none of them twice.

        None for nothing so far, b"" when it has closed the connection. Raises ConnectionError when that is broken.
        """
        cdef TlsLink *link = self.link
        cdef char said[1024]
        cdef int got, error
        if link == NULL or not self.is_done:
            raise RuntimeError("hands are not shaken, or the handshake is over")
        _libssl.ERR_clear_error()
        got = _libssl.SSL_read(link.ssl, said, min(most, <int>sizeof(said)))
        if got > 0:
            return said[:got]
        error = _libssl.SSL_get_error(link.ssl, got)
        if error == SSL_ERROR_WANT_READ or error == SSL_ERROR_WANT_WRITE:
            return None
        if error == SSL_ERROR_ZERO_RETURN:
            return b""
        raise ConnectionError(last_error() or "closed by the client")

    def farewell(self, bytes word not None):
        """Say this and close_notify, as far as the socket takes it; nothing else is to be done with it then."""
        cdef TlsLink *link = self.link
        if link == NULL or not self.is_done:
            raise RuntimeError("hands are not shaken, or the handshake is over")
        _libssl.ERR_clear_error()
        if len(word):
            _libssl.SSL_write(link.ssl, <const char *>word, <int>len(word))
        _libssl.SSL_shutdown(link.ssl)
        _libssl.ERR_clear_error()
