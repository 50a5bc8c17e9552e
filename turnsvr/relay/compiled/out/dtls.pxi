# DTLS records out, and one association as OpenSSL sees it: a BIO of datagrams, which reads the one that a lane has
# received, and writes into the batch. Under the lane's lock. OpenSSL keeps errors by thread: the code that meets one
# clears them.

cdef enum:
    # What a packet of a handshake may take: that of IPv6's least MTU, which paths of IPv4 carry as well.
    HANDSHAKE_MTU = 1232

cdef void *_record_method = NULL


cdef uint8_t *room_for_records(Lane *lane, Batch *batch, uint32_t size) noexcept nogil:
    """Room for so many bytes, which stay until the next flush; what was put there last stays through one more call."""
    if batch.opened_used + size > RECORD_BYTES:
        flush(lane, batch)
        batch.opened_used = 0
    return batch.opened + batch.opened_used


cdef int record_read(void *bio, char *to, int size) noexcept nogil:
    """BIO_meth_set_read: the datagram at input, of which what has no room is lost; -1 and the flag when it was read."""
    cdef DtlsLink *link = <DtlsLink *>_libssl.BIO_get_data(bio)
    cdef int got
    _libssl.BIO_clear_flags(bio, BIO_FLAGS_RETRY)
    if size <= 0:
        return 0
    if link.input == NULL:
        _libssl.BIO_set_flags(bio, BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY)
        return -1
    got = min(size, <int>link.input_size)
    memcpy(to, link.input, <size_t>got)
    link.input = NULL
    return got


cdef int record_write(void *bio, const char *data, int size) noexcept nogil:
    """BIO_meth_set_write: one datagram, which leaves with the others of the batch. The kernel may drop it later."""
    cdef DtlsLink *link = <DtlsLink *>_libssl.BIO_get_data(bio)
    cdef Lane *lane = <Lane *>link.lane
    cdef Batch *batch = <Batch *>link.batch
    cdef const Listener *listener = <const Listener *>link.listener
    cdef Session *session = link.sending
    cdef Destination destination
    cdef Packet *packet
    cdef uint8_t *at
    cdef Run *run
    _libssl.BIO_clear_flags(bio, BIO_FLAGS_RETRY)
    if size <= 0:
        return 0
    if grouping_full(&batch.grouping):
        flush(lane, batch)
    at = room_for_records(lane, batch, <uint32_t>size)
    batch.opened_used += <uint32_t>size
    memcpy(at, data, <size_t>size)
    memset(&destination, 0, sizeof(destination))
    destination.to = link.key.client
    destination.descriptor = listener.descriptor
    destination.tos = link.tos
    destination.answer = DTLS_RECORDS if session == NULL else NO_ANSWER
    if listener.is_wildcard:
        destination.source = link.key.server
    run = grouping_join(
        &batch.grouping, &destination, <uint32_t>size,
        lane.policy.gso and (not lane.answers_alone if session == NULL else session.gso),
    )
    packet = &batch.grouping.packets[batch.grouping.packet_count - 1]
    packet.head_size = 0
    packet.body = at
    packet.body_size = <uint32_t>size
    packet.padding = 0
    packet.payload = 0 if session == NULL else link.payload
    run.session = session
    run.payload += packet.payload
    return size


cdef long record_control(void *bio, int command, long number, void *pointer) noexcept nogil:
    """BIO_meth_set_ctrl: a flush has nothing to do; headers of IP and UDP stand outside of our MTU."""
    return command == BIO_CTRL_FLUSH


cdef void *record_method() noexcept nogil:
    """The BIO_METHOD of associations; NULL when there is no memory."""
    cdef void *method = _libssl.BIO_meth_new(_libssl.BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "turnsvr-dtls")
    if method != NULL:
        _libssl.BIO_meth_set_read(method, record_read)
        _libssl.BIO_meth_set_write(method, record_write)
        _libssl.BIO_meth_set_ctrl(method, record_control)
    return method


cdef DtlsLink *association_new(Lane *lane) noexcept nogil:
    """A server's end that belongs to no client yet; NULL when there is no memory, or no context to begin with."""
    cdef DtlsLink *link
    cdef void *bio
    if lane.dtls.context == NULL:
        return NULL
    link = <DtlsLink *>calloc(1, sizeof(DtlsLink))
    if link == NULL:
        return NULL
    link.lane = lane
    link.key.transport = DTLS
    link.ssl = _libssl.SSL_new(lane.dtls.context)
    bio = _libssl.BIO_new(_record_method)
    if link.ssl == NULL or bio == NULL:
        _libssl.SSL_free(link.ssl)
        _libssl.BIO_free(bio)
        _libssl.ERR_clear_error()
        free(link)
        return NULL
    _libssl.BIO_set_data(bio, link)
    _libssl.BIO_set_init(bio, 1)
    _libssl.SSL_set_bio(link.ssl, bio, bio)
    _libssl.SSL_set_accept_state(link.ssl)
    _libssl.SSL_ctrl(link.ssl, SSL_CTRL_SET_MTU, HANDSHAKE_MTU, NULL)
    return link


cdef void association_free(DtlsLink *link) noexcept nogil:
    """Free one that nothing finds any more; NULL is fine."""
    if link != NULL:
        _libssl.SSL_free(link.ssl)
        free(link)


cdef bint seal_record(
    DtlsLink *link, Batch *batch, Session *session, const uint8_t *head, uint32_t head_size, const uint8_t *body,
    uint32_t body_size, uint32_t padding, uint8_t tos
) noexcept nogil:
    """Have one message leave as a record of its own; False when it is too large for one, or OpenSSL refuses.

    session: the one that the data in the body belong to; NULL for a message of the rules.
    """
    cdef uint32_t size = head_size + body_size + padding
    cdef const uint8_t *message = body
    cdef bint sealed
    if size > TLS_RECORD or size == 0:
        return False
    if head_size or padding:
        message = head
        if head + head_size != body or padding:
            memcpy(batch.frame, head, head_size)
            memcpy(batch.frame + head_size, body, body_size)
            memset(batch.frame + head_size + body_size, 0, padding)
            message = batch.frame
    link.batch = batch
    link.sending = session
    link.payload = body_size
    link.tos = tos
    sealed = _libssl.SSL_write(link.ssl, message, <int>size) == <int>size
    link.sending = NULL
    link.tos = 0
    if not sealed:
        _libssl.ERR_clear_error()
    return sealed


cdef void to_association(
    Lane *lane, Batch *batch, Session *session, const uint8_t *head, uint32_t head_size, const uint8_t *body,
    uint32_t body_size, uint32_t padding, uint8_t tos
) noexcept nogil:
    """Data for a DTLS client, or dropped."""
    if session.link == NULL or not seal_record(
        session.link, batch, session, head, head_size, body, body_size, padding, tos
    ):
        drop_packet(lane, session, SEND_FAILED)


cdef void part_from(DtlsLink *link, Batch *batch) noexcept nogil:
    """Send close_notify to a client whose handshake is done."""
    link.batch = batch
    if _libssl.SSL_shutdown(link.ssl) < 0:
        _libssl.ERR_clear_error()


cdef void end_association(Lane *lane, DtlsLink *link, uint32_t reason) noexcept nogil:
    """End an association and free it; reason is one of CLOSED_…. Python hears of it once hands were shaken."""
    cdef Listener *listener = <Listener *>link.listener
    cdef UpRecord record
    if link.state != SHAKES:
        memset(&record, 0, sizeof(record))
        record.key = link.key
        record.kind = UP_ASSOCIATION_CLOSED
        record.first = reason
        up_push(&lane.up, &record, NULL, 0, NULL, 0, 0)
    remove_association(&lane.dtls, link)
    if listener.is_apart and link.predecessor == NULL and link.successor == NULL:
        listener.next = lane.done
        lane.done = listener
    association_free(link)
