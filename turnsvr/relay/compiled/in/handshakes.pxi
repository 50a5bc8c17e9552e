# Handshakes of DTLS: a client without an association is sent a cookie and forgotten; one that brings it back has steps
# made when it is its turn. Under the lane's lock.

cdef enum:
    # A record's header, that of a handshake message, and the version before the random bytes of a ClientHello.
    RECORD_HEADER = 13
    HANDSHAKE_HEADER = 12
    RANDOM_AT = RECORD_HEADER + HANDSHAKE_HEADER + 2
    # Nanoseconds between looks at timers that have run out.
    TIMER_GRAIN = 20000000


cdef int make_cookie(void *ssl, unsigned char *to, unsigned int *size) noexcept nogil:
    """SSL_CTX_set_cookie_generate_cb: the cookie for a client, unless it has had its share of answers."""
    cdef DtlsLink *link = <DtlsLink *>_libssl.BIO_get_data(_libssl.SSL_get_rbio(ssl))
    cdef Lane *lane = <Lane *>link.lane
    cdef int64_t now = (<Batch *>link.batch).now
    if not limiter_allow(lane.shared.limiter, &link.key.client, now):
        drop_packet(lane, NULL, RATE_LIMITED)
        return 0
    if not renew_secrets(&lane.dtls.secrets, now):
        return 0
    write_cookie(to, lane.dtls.secrets.now, &link.key)
    size[0] = HELLO_COOKIE_SIZE
    lane.dtls.cookies += 1
    return 1


cdef int check_cookie(void *ssl, const unsigned char *said, unsigned int size) noexcept nogil:
    """SSL_CTX_set_cookie_verify_cb: whether we have given this cookie to the client."""
    cdef DtlsLink *link = <DtlsLink *>_libssl.BIO_get_data(_libssl.SSL_get_rbio(ssl))
    cdef CookieSecrets *secrets = &(<Lane *>link.lane).dtls.secrets
    return (
        size == HELLO_COOKIE_SIZE
        and renew_secrets(secrets, (<Batch *>link.batch).now)
        and is_cookie(secrets, &link.key, said)
    )


cdef void hear_hello(
    Lane *lane, Batch *batch, Listener *listener, const FiveTupleKey *key, const uint8_t *hello, uint32_t size
) noexcept nogil:
    """A ClientHello of a handshake that we know nothing of: answer with a cookie, or begin where it brings one."""
    cdef DtlsLink *link = lane.dtls.door
    cdef uint64_t answers = lane.dtls.cookies + lane.counts.drops[<int>RATE_LIMITED]
    cdef int heard
    if link == NULL:
        link = lane.dtls.door = association_new(lane)
    if link == NULL:
        drop_packet(lane, NULL, OVERLOAD if lane.dtls.context != NULL else MALFORMED)
        return
    link.key.client = key.client
    link.key.server = key.server
    link.listener = listener
    link.batch = batch
    link.input = hello
    link.input_size = size
    heard = _libssl.DTLSv1_listen(link.ssl, lane.dtls.scrap)
    link.input = NULL
    _libssl.ERR_clear_error()
    if heard == 1:
        lane.dtls.door = NULL
        memcpy(link.random, hello + RANDOM_AT, HELLO_RANDOM)
        begin_handshake(lane, batch, link)
    elif lane.dtls.cookies + lane.counts.drops[<int>RATE_LIMITED] == answers:
        drop_packet(lane, NULL, MALFORMED)


cdef void begin_handshake(Lane *lane, Batch *batch, DtlsLink *link) noexcept nogil:
    """Let a client that receives at its address shake hands, where there is room for one more. It takes the link."""
    cdef Associations *all = &lane.dtls
    cdef DtlsLink *former = find_association(&all.by_addresses, &link.key)
    cdef DtlsLink *goes = NULL
    cdef DtlsSource *source
    if former != NULL and former.state != SHAKES:
        former = former.successor
    if former != NULL:
        fail_handshake(lane, former)
    source = dtls_source_for(all, &link.key.client)
    while source != NULL and has_no_room(all, source, &goes):
        if goes == NULL:
            let_source_go(all, source)
            source = NULL
        else:
            make_way(lane, batch, goes)
            source = dtls_source_for(all, &link.key.client)
    all.latest_number += 1
    link.key.connection = all.latest_number * lane.shared.lanes + lane.number
    if link.key.connection == 0:
        all.latest_number += 1
        link.key.connection = all.latest_number * lane.shared.lanes + lane.number
    if source == NULL or not add_association(all, link, source, batch.now):
        if source != NULL:
            let_source_go(all, source)
        all.refused += 1
        drop_packet(lane, NULL, OVERLOAD)
        association_free(link)
        return
    take_turn(all, link)


cdef void make_way(Lane *lane, Batch *batch, DtlsLink *link) noexcept nogil:
    """End an association that goes for another. One whose handshake is done is told."""
    lane.dtls.evicted += 1
    if link.state != SHAKES:
        part_from(link, batch)
    end_association(lane, link, CLOSED_FOR_ROOM)


cdef void fail_handshake(Lane *lane, DtlsLink *link) noexcept nogil:
    """End an association whose handshake has failed."""
    lane.dtls.failures += 1
    end_association(lane, link, CLOSED_BY_TLS)


cdef bint make_step(Lane *lane, Batch *batch) noexcept nogil:
    """One client's step of the handshake, with all that has come of it; False when none has one to make."""
    cdef DtlsLink *link = next_in_turn(&lane.dtls)
    cdef DtlsDatagram *datagram
    cdef int done
    if link == NULL:
        return False
    link.batch = batch
    while True:
        datagram = next_datagram(link)
        link.input = <const uint8_t *>(datagram + 1) if datagram != NULL else NULL
        link.input_size = datagram.size if datagram != NULL else 0
        done = _libssl.SSL_do_handshake(link.ssl)
        link.input = NULL
        free(datagram)
        if done == 1:
            finish_handshake(lane, batch, link)
            return True
        _libssl.ERR_clear_error()
        if has_failed(link):
            fail_handshake(lane, link)
            return True
        if link.first == NULL:
            set_timer(lane, link, batch.now)
            return True


cdef void finish_handshake(Lane *lane, Batch *batch, DtlsLink *link) noexcept nogil:
    """The handshake is done: make this the client's association from now on, and serve what came early."""
    cdef Associations *all = &lane.dtls
    cdef DtlsDatagram *datagram
    cdef FiveTupleKey key = link.key
    _libssl.ERR_clear_error()
    if not index_add(&all.by_key, hash_key(&link.key), link):
        fail_handshake(lane, link)
        return
    all.handshakes += 1
    unlist_link(all, link)
    list_link(all, link, IDLES, batch.now)
    if link.predecessor != NULL:
        end_association(lane, link.predecessor, CLOSED_FOR_ANOTHER)
    open_datagram(lane, batch, link, NULL, 0, 0)
    # It may have ended.
    link = find_link(&all.by_key, &key)
    while link != NULL and link.first != NULL:
        datagram = next_datagram(link)
        open_datagram(lane, batch, link, <const uint8_t *>(datagram + 1), datagram.size, 0)
        free(datagram)
        link = find_link(&all.by_key, &key)


cdef void set_timer(Lane *lane, DtlsLink *link, int64_t now) noexcept nogil:
    """Note when to send again what the client has not answered: OpenSSL says how long, the lane's clock measures it."""
    cdef int64_t[2] left
    link.retransmit_at = 0
    if _libssl.SSL_ctrl(link.ssl, DTLS_CTRL_GET_TIMEOUT, 0, left) == 1:
        link.retransmit_at = now + max(left[0] * 1000000000 + left[1] * 1000, <int64_t>TIMER_GRAIN)
        wake_at(&lane.dtls, link.retransmit_at)


cdef bint send_flight_again(Lane *lane, Batch *batch, DtlsLink *link) noexcept nogil:
    """Send once more what the client has not answered in time; False when it had its last chance, and is freed."""
    link.batch = batch
    if _libssl.SSL_ctrl(link.ssl, DTLS_CTRL_HANDLE_TIMEOUT, 0, NULL) < 0:
        _libssl.ERR_clear_error()
        fail_handshake(lane, link)
        return False
    set_timer(lane, link, batch.now)
    return True


cdef void look_at_timers(Lane *lane, Batch *batch) noexcept nogil:
    """End what has lasted too long, send again what is due, and know when to look again."""
    cdef Associations *all = &lane.dtls
    cdef DtlsSource *source
    cdef uint32_t at = 0
    if all.look_at == 0 or batch.now < all.look_at:
        return
    all.look_at = 0
    while all.sources.slots != NULL and at <= all.sources.mask:
        source = <DtlsSource *>all.sources.slots[at].item
        # With its last association a source is removed, and the slots behind it move up.
        if source == NULL or not serve_timers(lane, batch, source):
            at += 1
    if all.look_at:
        all.look_at = max(all.look_at, batch.now + TIMER_GRAIN)


cdef bint serve_timers(Lane *lane, Batch *batch, DtlsSource *source) noexcept nogil:
    """As look_at_timers() of one source; whether something of it has ended, so that it is to be looked at again."""
    cdef DtlsLink *link = source.oldest[<int>IDLES]
    if link != NULL and batch.now >= link.deadline:
        part_from(link, batch)
        end_association(lane, link, CLOSED_IDLE)
        return True
    if link != NULL:
        wake_at(&lane.dtls, link.deadline)
    link = source.oldest[<int>SHAKES]
    if link != NULL and batch.now >= link.deadline:
        fail_handshake(lane, link)
        return True
    if link != NULL:
        wake_at(&lane.dtls, link.deadline)
    while link != NULL:
        if link.retransmit_at and batch.now >= link.retransmit_at:
            if not send_flight_again(lane, batch, link):
                return True
        elif link.retransmit_at:
            wake_at(&lane.dtls, link.retransmit_at)
        link = link.next
    return False
