# Frames out as TLS records. Under the lane's lock, which keeps two threads off one connection. OpenSSL keeps errors by
# thread: the code that meets one clears them.

cdef inline uint32_t sealed_size(uint32_t size) noexcept nogil:
    """The most bytes that a frame of this size takes as records."""
    return size + (size // TLS_RECORD + 1) * TLS_OVERHEAD


cdef bint seal(
    Lane *lane, Batch *batch, Stream *stream, const uint8_t *head, uint32_t head_size, const uint8_t *body,
    uint32_t body_size, uint32_t padding
) noexcept nogil:
    """Encrypt one frame that has room into the stream's output; False when the connection has failed.

    Frames larger than a record are the only ones that take more than one.
    """
    cdef uint32_t size = head_size + body_size + padding
    cdef const uint8_t *frame = body
    if size > MAX_FRAME or size == 0:
        return size == 0
    if head_size or padding:
        frame = head
        if head + head_size != body or padding:
            memcpy(batch.frame, head, head_size)
            memcpy(batch.frame + head_size, body, body_size)
            memset(batch.frame + head_size + body_size, 0, padding)
            frame = batch.frame
    stream.tls.output_limit = lane.policy.stream_buffer + TLS_OWN_OUTPUT
    if _libssl.SSL_write(stream.tls.ssl, frame, <int>size) == <int>size:
        return True
    _libssl.ERR_clear_error()
    end_stream(lane, stream, CLOSED_BY_TLS)
    return False


cdef void seal_bytes(Lane *lane, Stream *stream, const uint8_t *data, uint32_t size) noexcept nogil:
    """Encrypt bytes of a joined connection into the stream's output, however much that is."""
    stream.tls.output_limit = stream.output_size + sealed_size(size) + TLS_OWN_OUTPUT
    if _libssl.SSL_write(stream.tls.ssl, data, <int>size) != <int>size:
        _libssl.ERR_clear_error()
        end_stream(lane, stream, CLOSED_BY_TLS)


cdef void say_goodbye(Lane *lane, Stream *stream) noexcept nogil:
    """Send close_notify where it can be sent at once."""
    if stream.dead or stream.wants_write:
        return
    stream.tls.output_limit = lane.policy.stream_buffer + TLS_OWN_OUTPUT
    if _libssl.SSL_shutdown(stream.tls.ssl) < 0:
        _libssl.ERR_clear_error()
    stream_write(lane, stream)
