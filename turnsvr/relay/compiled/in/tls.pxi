# TLS records as they arrive. Under the lane's lock, which keeps two threads off one connection. OpenSSL keeps errors by
# thread: the code that meets one clears them.

cdef void fail_tls(Lane *lane, Stream *stream) noexcept nogil:
    """End a connection whose client broke the protocol, and tell it why if the socket takes that at once."""
    _libssl.ERR_clear_error()
    if not stream.wants_write:
        stream_write(lane, stream)
    end_stream(lane, stream, CLOSED_BY_TLS)


cdef inline uint32_t recall_plain(Batch *batch, Stream *stream) noexcept nogil:
    """As recall_pending(), unless frames wait for the rules: what comes goes behind them then."""
    return recall_pending(batch, stream) if stream.queue == NULL else 0


cdef inline void serve_plain(Lane *lane, Batch *batch, Stream *stream, uint32_t size) noexcept nogil:
    """As serve_input(), or behind the frames that wait for the rules."""
    if stream.queue == NULL:
        serve_input(lane, batch, stream, size)
    elif not append_pending(stream, batch.stream_input, size):
        end_stream(lane, stream, ENOMEM)


cdef void open_records(Lane *lane, Batch *batch, Stream *stream, const uint8_t *data, uint32_t size) noexcept nogil:
    """Decrypt bytes that were read, and serve them. OpenSSL keeps an unfinished record, so that data is free then."""
    cdef TlsLink *link = stream.tls
    cdef uint32_t kept = recall_plain(batch, stream)
    cdef uint32_t at = kept
    cdef int error
    cdef int got = 0
    link.input = data
    link.input_size = size
    link.output_limit = lane.policy.stream_buffer + TLS_OWN_OUTPUT
    while True:
        if STREAM_INPUT - at < TLS_RECORD:
            serve_plain(lane, batch, stream, at)
            kept = at = recall_plain(batch, stream)
            if stream.is_over:
                break
        got = _libssl.SSL_read(link.ssl, batch.stream_input + at, <int>(STREAM_INPUT - at))
        if got <= 0:
            break
        at += <uint32_t>got
    error = SSL_ERROR_WANT_READ if stream.is_over else _libssl.SSL_get_error(link.ssl, got)
    link.input = NULL
    link.input_size = 0
    if at != kept:
        serve_plain(lane, batch, stream, at)
    if error == SSL_ERROR_ZERO_RETURN:
        end_stream(lane, stream, CLOSED_BY_CLIENT)
    elif error != SSL_ERROR_WANT_READ:
        fail_tls(lane, stream)
    if stream.output_size and not stream.wants_write and not stream.dead:
        stream_write(lane, stream)
