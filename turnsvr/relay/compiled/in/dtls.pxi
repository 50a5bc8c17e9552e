# DTLS records as they arrive from a client whose handshake is done. Under the lane's lock. OpenSSL keeps errors
# by thread: the code that meets one clears them.

cdef inline bint has_failed(const DtlsLink *link) noexcept nogil:
    """Whether OpenSSL has given up, rather than waiting for a datagram.

    Its state says so; an error in its queue may be left from a record that it threw away.
    """
    return (
        _libssl.SSL_get_shutdown(link.ssl) & SSL_RECEIVED_SHUTDOWN != 0
        or memcmp(_libssl.SSL_state_string_long(link.ssl), <const char *>b"error", 5) == 0
    )


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
    _libssl.ERR_clear_error()
    if not has_failed(link):
        return
    if _libssl.SSL_get_shutdown(link.ssl) & SSL_RECEIVED_SHUTDOWN:
        part_from(link, batch)
        end_association(lane, link, CLOSED_BY_CLIENT)
    else:
        end_association(lane, link, CLOSED_BY_TLS)
