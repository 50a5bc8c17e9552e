# OpenSSL, as far as the pump uses it: found at run time in what Python's own ssl module is linked with, so that
# neither headers nor a library are needed to build, and all of the process shares one.

cdef extern from "<dlfcn.h>" nogil:
    const int RTLD_NOW
    const int RTLD_LOCAL
    const int RTLD_NOLOAD
    void *dlopen(const char *, int)
    void *dlsym(void *, const char *)

cdef enum:
    OPENSSL_3 = 0x30000000
    SSL_FILETYPE_PEM = 1
    # What SSL_get_error() says.
    SSL_ERROR_WANT_READ = 2
    SSL_ERROR_WANT_WRITE = 3
    SSL_ERROR_ZERO_RETURN = 6
    # Commands of SSL_CTX_ctrl() that the headers dress as functions, and their arguments.
    SSL_CTRL_SET_MTU = 17
    SSL_CTRL_MODE = 33
    SSL_CTRL_SET_SESS_CACHE_MODE = 44
    SSL_CTRL_SET_MIN_PROTO_VERSION = 123
    SSL_CTRL_SET_MAX_PROTO_VERSION = 124
    DTLS_CTRL_GET_TIMEOUT = 73
    DTLS_CTRL_HANDLE_TIMEOUT = 74
    DTLS1_2_VERSION = 0xFEFD
    # A bit of what SSL_get_shutdown() says.
    SSL_RECEIVED_SHUTDOWN = 2
    SSL_OP_NO_QUERY_MTU = 0x1000
    SSL_OP_COOKIE_EXCHANGE = 0x2000
    SSL_MODE_AUTO_RETRY = 0x04
    SSL_MODE_RELEASE_BUFFERS = 0x10
    SSL_SESS_CACHE_OFF = 0
    # What the callback for ALPN finds and answers.
    OPENSSL_NPN_NEGOTIATED = 1
    SSL_TLSEXT_ERR_OK = 0
    SSL_TLSEXT_ERR_NOACK = 3
    # A BIO of our own.
    BIO_TYPE_SOURCE_SINK = 0x0400
    BIO_CTRL_FLUSH = 11
    BIO_FLAGS_READ = 0x01
    BIO_FLAGS_WRITE = 0x02
    BIO_FLAGS_RETRY = 0x0F
    BIO_FLAGS_SHOULD_RETRY = 0x08

ctypedef int (*password_callback)(char *, int, int, void *) noexcept nogil

ctypedef int (*alpn_callback)(
    void *, const unsigned char **, unsigned char *, const unsigned char *, unsigned int, void *
) noexcept nogil

ctypedef int (*cookie_callback)(void *, unsigned char *, unsigned int *) noexcept nogil

ctypedef int (*cookie_check_callback)(void *, const unsigned char *, unsigned int) noexcept nogil

ctypedef int (*bio_read_callback)(void *, char *, int) noexcept nogil

ctypedef int (*bio_write_callback)(void *, const char *, int) noexcept nogil

ctypedef long (*bio_ctrl_callback)(void *, int, long, void *) noexcept nogil

cdef struct Libssl:
    # Its functions under their own names.
    unsigned long (*OpenSSL_version_num)() noexcept nogil
    void (*ERR_clear_error)() noexcept nogil
    unsigned long (*ERR_peek_last_error)() noexcept nogil
    const char *(*ERR_reason_error_string)(unsigned long) noexcept nogil
    void *(*TLS_server_method)() noexcept nogil
    void *(*DTLS_server_method)() noexcept nogil
    void *(*SSL_CTX_new)(void *) noexcept nogil
    void (*SSL_CTX_free)(void *) noexcept nogil
    long (*SSL_CTX_ctrl)(void *, int, long, void *) noexcept nogil
    uint64_t (*SSL_CTX_set_options)(void *, uint64_t) noexcept nogil
    int (*SSL_CTX_set_cipher_list)(void *, const char *) noexcept nogil
    int (*SSL_CTX_set_session_id_context)(void *, const unsigned char *, unsigned int) noexcept nogil
    void (*SSL_CTX_set_default_passwd_cb)(void *, password_callback) noexcept nogil
    void (*SSL_CTX_set_alpn_select_cb)(void *, alpn_callback, void *) noexcept nogil
    void (*SSL_CTX_set_cookie_generate_cb)(void *, cookie_callback) noexcept nogil
    void (*SSL_CTX_set_cookie_verify_cb)(void *, cookie_check_callback) noexcept nogil
    int (*SSL_CTX_use_certificate_chain_file)(void *, const char *) noexcept nogil
    int (*SSL_CTX_use_PrivateKey_file)(void *, const char *, int) noexcept nogil
    int (*SSL_CTX_check_private_key)(const void *) noexcept nogil
    int (*SSL_select_next_proto)(
        unsigned char **, unsigned char *, const unsigned char *, unsigned int, const unsigned char *, unsigned int
    ) noexcept nogil
    void *(*SSL_new)(void *) noexcept nogil
    void (*SSL_free)(void *) noexcept nogil
    void (*SSL_set_bio)(void *, void *, void *) noexcept nogil
    void (*SSL_set_accept_state)(void *) noexcept nogil
    int (*SSL_do_handshake)(void *) noexcept nogil
    int (*SSL_read)(void *, void *, int) noexcept nogil
    int (*SSL_write)(void *, const void *, int) noexcept nogil
    int (*SSL_shutdown)(void *) noexcept nogil
    void (*SSL_get0_alpn_selected)(const void *, const unsigned char **, unsigned int *) noexcept nogil
    int (*SSL_get_error)(const void *, int) noexcept nogil
    long (*SSL_ctrl)(void *, int, long, void *) noexcept nogil
    const char *(*SSL_state_string_long)(const void *) noexcept nogil
    int (*SSL_has_pending)(const void *) noexcept nogil
    int (*SSL_get_shutdown)(const void *) noexcept nogil
    void *(*SSL_get_rbio)(const void *) noexcept nogil
    int (*DTLSv1_listen)(void *, void *) noexcept nogil
    void *(*BIO_ADDR_new)() noexcept nogil
    void (*BIO_ADDR_free)(void *) noexcept nogil
    int (*BIO_get_new_index)() noexcept nogil
    void *(*BIO_meth_new)(int, const char *) noexcept nogil
    int (*BIO_meth_set_read)(void *, bio_read_callback) noexcept nogil
    int (*BIO_meth_set_write)(void *, bio_write_callback) noexcept nogil
    int (*BIO_meth_set_ctrl)(void *, bio_ctrl_callback) noexcept nogil
    void *(*BIO_new)(const void *) noexcept nogil
    int (*BIO_free)(void *) noexcept nogil
    void (*BIO_set_data)(void *, void *) noexcept nogil
    void *(*BIO_get_data)(void *) noexcept nogil
    void (*BIO_set_init)(void *, int) noexcept nogil
    void (*BIO_set_flags)(void *, int) noexcept nogil
    void (*BIO_clear_flags)(void *, int) noexcept nogil

cdef Libssl _libssl


def _functions():
    """Each function's name, and where in _libssl its address belongs."""
    return (
        (b"OpenSSL_version_num", <uintptr_t>&_libssl.OpenSSL_version_num),
        (b"ERR_clear_error", <uintptr_t>&_libssl.ERR_clear_error),
        (b"ERR_peek_last_error", <uintptr_t>&_libssl.ERR_peek_last_error),
        (b"ERR_reason_error_string", <uintptr_t>&_libssl.ERR_reason_error_string),
        (b"TLS_server_method", <uintptr_t>&_libssl.TLS_server_method),
        (b"DTLS_server_method", <uintptr_t>&_libssl.DTLS_server_method),
        (b"SSL_CTX_new", <uintptr_t>&_libssl.SSL_CTX_new),
        (b"SSL_CTX_free", <uintptr_t>&_libssl.SSL_CTX_free),
        (b"SSL_CTX_ctrl", <uintptr_t>&_libssl.SSL_CTX_ctrl),
        (b"SSL_CTX_set_options", <uintptr_t>&_libssl.SSL_CTX_set_options),
        (b"SSL_CTX_set_cipher_list", <uintptr_t>&_libssl.SSL_CTX_set_cipher_list),
        (b"SSL_CTX_set_session_id_context", <uintptr_t>&_libssl.SSL_CTX_set_session_id_context),
        (b"SSL_CTX_set_default_passwd_cb", <uintptr_t>&_libssl.SSL_CTX_set_default_passwd_cb),
        (b"SSL_CTX_set_alpn_select_cb", <uintptr_t>&_libssl.SSL_CTX_set_alpn_select_cb),
        (b"SSL_CTX_set_cookie_generate_cb", <uintptr_t>&_libssl.SSL_CTX_set_cookie_generate_cb),
        (b"SSL_CTX_set_cookie_verify_cb", <uintptr_t>&_libssl.SSL_CTX_set_cookie_verify_cb),
        (b"SSL_CTX_use_certificate_chain_file", <uintptr_t>&_libssl.SSL_CTX_use_certificate_chain_file),
        (b"SSL_CTX_use_PrivateKey_file", <uintptr_t>&_libssl.SSL_CTX_use_PrivateKey_file),
        (b"SSL_CTX_check_private_key", <uintptr_t>&_libssl.SSL_CTX_check_private_key),
        (b"SSL_select_next_proto", <uintptr_t>&_libssl.SSL_select_next_proto),
        (b"SSL_new", <uintptr_t>&_libssl.SSL_new),
        (b"SSL_free", <uintptr_t>&_libssl.SSL_free),
        (b"SSL_set_bio", <uintptr_t>&_libssl.SSL_set_bio),
        (b"SSL_set_accept_state", <uintptr_t>&_libssl.SSL_set_accept_state),
        (b"SSL_do_handshake", <uintptr_t>&_libssl.SSL_do_handshake),
        (b"SSL_read", <uintptr_t>&_libssl.SSL_read),
        (b"SSL_write", <uintptr_t>&_libssl.SSL_write),
        (b"SSL_shutdown", <uintptr_t>&_libssl.SSL_shutdown),
        (b"SSL_get0_alpn_selected", <uintptr_t>&_libssl.SSL_get0_alpn_selected),
        (b"SSL_get_error", <uintptr_t>&_libssl.SSL_get_error),
        (b"SSL_ctrl", <uintptr_t>&_libssl.SSL_ctrl),
        (b"SSL_state_string_long", <uintptr_t>&_libssl.SSL_state_string_long),
        (b"SSL_has_pending", <uintptr_t>&_libssl.SSL_has_pending),
        (b"SSL_get_shutdown", <uintptr_t>&_libssl.SSL_get_shutdown),
        (b"SSL_get_rbio", <uintptr_t>&_libssl.SSL_get_rbio),
        (b"DTLSv1_listen", <uintptr_t>&_libssl.DTLSv1_listen),
        (b"BIO_ADDR_new", <uintptr_t>&_libssl.BIO_ADDR_new),
        (b"BIO_ADDR_free", <uintptr_t>&_libssl.BIO_ADDR_free),
        (b"BIO_get_new_index", <uintptr_t>&_libssl.BIO_get_new_index),
        (b"BIO_meth_new", <uintptr_t>&_libssl.BIO_meth_new),
        (b"BIO_meth_set_read", <uintptr_t>&_libssl.BIO_meth_set_read),
        (b"BIO_meth_set_write", <uintptr_t>&_libssl.BIO_meth_set_write),
        (b"BIO_meth_set_ctrl", <uintptr_t>&_libssl.BIO_meth_set_ctrl),
        (b"BIO_new", <uintptr_t>&_libssl.BIO_new),
        (b"BIO_free", <uintptr_t>&_libssl.BIO_free),
        (b"BIO_set_data", <uintptr_t>&_libssl.BIO_set_data),
        (b"BIO_get_data", <uintptr_t>&_libssl.BIO_get_data),
        (b"BIO_set_init", <uintptr_t>&_libssl.BIO_set_init),
        (b"BIO_set_flags", <uintptr_t>&_libssl.BIO_set_flags),
        (b"BIO_clear_flags", <uintptr_t>&_libssl.BIO_clear_flags),
    )
