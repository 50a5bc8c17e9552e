# TLS as Python sees it: OpenSSL found, the context of a certificate, the handshake. On the control thread.

cdef struct Protocols:
    # As ALPN writes them, each behind its size.
    unsigned int size
    unsigned char names[256]


# What all contexts for datagrams let clients choose from: handshakes go on in lanes while a context is replaced.
cdef Protocols _datagram_protocols


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


def find_libssl(str extension, unsigned long version):
    """Find OpenSSL through the file of the loaded module _ssl, which says that it is of this version.

    None stands for a module without a file. Returns why it will not do in a word or two, "" when it does.
    """
    global _bio_method, _record_method
    cdef void *handle
    cdef void *function
    cdef bytes name
    cdef bytes file
    if _bio_method != NULL:
        return ""
    if extension is None:
        return "Python is linked with its own OpenSSL"
    if version < <unsigned long>OPENSSL_3:
        return "OpenSSL is older than 3.0"
    file = os.fsencode(extension)
    handle = dlopen(file, RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD)
    if handle == NULL:
        return "Python's module for TLS is not loaded"
    for name, where in _functions():
        function = dlsym(handle, name)
        if function == NULL:
            return f"OpenSSL has no {name.decode()} for others"
        (<void **><uintptr_t>where)[0] = function
    if _libssl.OpenSSL_version_num() != version:
        return "Python's OpenSSL is another one"
    _record_method = record_method()
    _bio_method = link_method()
    return "" if NULL not in (_bio_method, _record_method) else "there is no memory"


cdef class TlsContext:
    """A certificate with its key, and what clients may negotiate. Connections outlive it, handshakes hold it."""

    cdef void *context
    cdef Protocols protocols
    cdef readonly bint is_for_datagrams

    def __cinit__(
        self, bytes certificate not None, bytes key not None, uint64_t options, int minimum, int maximum,
        bytes ciphers not None, bytes protocols not None, bint datagrams=False
    ):
        """certificate and key: PEM files. options: OpenSSL's SSL_OP_… bits. minimum and maximum: protocol versions as
        TLS has them on the wire, 0 for OpenSSL's own. ciphers: a cipher list. protocols: as in Protocols. datagrams:
        for DTLS, of version 1.2, the last that OpenSSL has; minimum and maximum do not count then.

        Raises ValueError with OpenSSL's reason.
        """
        cdef const char *certificate_file = certificate
        cdef const char *key_file = key
        cdef Protocols *known = &self.protocols
        if _bio_method == NULL:
            raise ValueError("no OpenSSL was found")
        if len(protocols) > <Py_ssize_t>sizeof(self.protocols.names):
            raise ValueError("too many protocols")
        self.is_for_datagrams = datagrams
        if datagrams:
            known = &_datagram_protocols
        memcpy(known.names, <const uint8_t *>protocols, len(protocols))
        known.size = <unsigned int>len(protocols)
        _libssl.ERR_clear_error()
        self.context = _libssl.SSL_CTX_new(
            _libssl.DTLS_server_method() if datagrams else _libssl.TLS_server_method()
        )
        if self.context == NULL:
            raise ValueError(last_error() or "no context")
        if datagrams:
            minimum = maximum = DTLS1_2_VERSION
            options |= SSL_OP_NO_QUERY_MTU | SSL_OP_COOKIE_EXCHANGE
            _libssl.SSL_CTX_set_cookie_generate_cb(self.context, make_cookie)
            _libssl.SSL_CTX_set_cookie_verify_cb(self.context, check_cookie)
        _libssl.SSL_CTX_set_options(self.context, options)
        _libssl.SSL_CTX_ctrl(self.context, SSL_CTRL_MODE, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_AUTO_RETRY, NULL)
        # Sessions are resumed by tickets, which clients keep.
        _libssl.SSL_CTX_ctrl(self.context, SSL_CTRL_SET_SESS_CACHE_MODE, SSL_SESS_CACHE_OFF, NULL)
        _libssl.SSL_CTX_set_session_id_context(self.context, <const unsigned char *>b"turnsvr", 7)
        _libssl.SSL_CTX_set_default_passwd_cb(self.context, no_pass_phrase)
        _libssl.SSL_CTX_set_alpn_select_cb(self.context, select_protocol, known)
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
            if not self.is_for_datagrams:
                _libssl.SSL_CTX_set_alpn_select_cb(self.context, NULL, NULL)
            _libssl.SSL_CTX_free(self.context)

    def handshake(self, int descriptor):
        """Begin as the server on a connected socket that does not block; it stays the caller's. Not for datagrams."""
        if self.is_for_datagrams:
            raise ValueError("the context is one for datagrams")
        return TlsHandshake(self, descriptor)


cdef class TlsHandshake:
    """The server's end of a TLS connection until PacketEngine.adopt() takes it."""

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

    cdef void hand_to(self, Stream *stream) noexcept:
        """Have this stream own the connection; the handshake is of no use any more."""
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
        """At most so many bytes of what the client says, once hands are shaken: those of one record, and none twice.

        None for nothing so far, b"" when it has closed the connection. Raises ConnectionError when that is broken.
        """
        cdef TlsLink *link = self.link
        cdef char said[TLS_RECORD]
        cdef int got, error
        if link == NULL or not self.is_done:
            raise RuntimeError("hands are not shaken, or the handshake is over")
        _libssl.ERR_clear_error()
        got = _libssl.SSL_read(link.ssl, said, min(most, <int>sizeof(said)))
        if got > 0:
            return said[:got]
        error = _libssl.SSL_get_error(link.ssl, got)
        if error == SSL_ERROR_WANT_READ:
            return None
        if error == SSL_ERROR_WANT_WRITE:
            # It asks for answers of TLS's own, such as new keys, and reads none: waiting to read would never end.
            _libssl.ERR_clear_error()
            raise ConnectionError("the client reads nothing")
        if error == SSL_ERROR_ZERO_RETURN:
            return b""
        raise ConnectionError(last_error() or "closed by the client")

    def send(self, bytes data not None):
        """Send these bytes, at most a record's; False where the socket has no room, and then the same object is next.

        Raises ConnectionError when the connection is broken.
        """
        cdef TlsLink *link = self.link
        cdef int sent, error
        if link == NULL or not self.is_done:
            raise RuntimeError("hands are not shaken, or the handshake is over")
        if not 0 < len(data) <= TLS_RECORD:
            raise ValueError("a record holds 1 to 16384 bytes")
        _libssl.ERR_clear_error()
        sent = _libssl.SSL_write(link.ssl, <const char *>data, <int>len(data))
        if sent > 0:
            return True
        error = _libssl.SSL_get_error(link.ssl, sent)
        if error == SSL_ERROR_WANT_READ or error == SSL_ERROR_WANT_WRITE:
            return False
        raise ConnectionError(last_error() or "closed by the client")

    @property
    def protocol(self):
        """What was agreed upon by ALPN; "" where nothing was."""
        cdef const unsigned char *name = NULL
        cdef unsigned int size = 0
        if self.link != NULL:
            _libssl.SSL_get0_alpn_selected(self.link.ssl, &name, &size)
        return (<const char *>name)[:size].decode("ascii", "replace") if size else ""

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
