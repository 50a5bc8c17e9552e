# DTLS records as they arrive from a client whose handshake is done. Under the lane's lock. OpenSSL keeps errors
# by thread: the code that meets one clears them. An error may be left from a record that OpenSSL threw away, so it is
# asked what it waits for instead.

cdef inline bint waits_for_records(const DtlsLink *link) noexcept nogil:
    """Whether OpenSSL has stopped for want of a datagram; there may be errors to clear all the same."""
    return _libssl.SSL_want(link.ssl) == SSL_READING


cdef void open_datagram(
    Lane *lane, Batch *batch, DtlsLink *link, const uint8_t *data, uint32_t size, uint8_t tos
) noexcept nogil:
    """Serve the messages in one datagram, and those that OpenSSL has kept; the link may be freed then.

    data: NULL for the latter alone.
    """
    cdef Route route
    cdef uint8_t *message
    cdef int got
    route.number = NONE
    link.batch = batch
    link.input = data
    link.input_size = size
    while True:
        message = room_for_records(lane, batch, HEADROOM + TLS_RECORD) + HEADROOM
        got = _libssl.SSL_read(link.ssl, message, TLS_RECORD)
        if got <= 0:
            break
        batch.opened_used += HEADROOM + <uint32_t>got
        from_udp_client(lane, batch, NULL, link.session, &link.key, message, <uint32_t>got, tos, True, &route)
        if link.input == NULL and not _libssl.SSL_has_pending(link.ssl):
            return
    link.input = NULL
    if waits_for_records(link):
        _libssl.ERR_clear_error()
        return
    _libssl.ERR_clear_error()
    if _libssl.SSL_get_shutdown(link.ssl) & SSL_RECEIVED_SHUTDOWN:
        part_from(link, batch)
        end_association(lane, link, CLOSED_BY_CLIENT)
    else:
        end_association(lane, link, CLOSED_BY_TLS)
