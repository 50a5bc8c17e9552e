# Packets that other lanes have put aside for this one's table (out/handover.pxi), processed under this one's lock.

cdef void serve_foreign(Lane *lane, Batch *batch, const Foreign *foreign) noexcept nogil:
    """Process a copied packet under the lock of the lane that it is for."""
    cdef const uint8_t *data = <const uint8_t *>foreign + sizeof(Foreign)
    cdef Session *session
    cdef Relay *inside
    cdef Route route
    if not foreign.from_relay and foreign.key.transport == DTLS:
        from_dtls_client(
            lane, batch, lane.listeners[foreign.listener], &foreign.key, data, foreign.size, foreign.tos
        )
        eventfd_write(lane.wake, 1)
        return
    if not foreign.from_relay:
        route.number = NONE
        session = find_session(&lane.sessions, &foreign.key)
        if session != NULL and session.number != foreign.session:
            session = NULL
        from_udp_client(
            lane, batch, NULL, session, &foreign.key, data, foreign.size, foreign.tos, False, &route
        )
        return
    pthread_mutex_lock(&lane.shared.mutex)
    inside = find_relay(&lane.shared.relays, &foreign.advertised)
    if inside != NULL and (
        inside.lane != lane.number or inside.session.number != foreign.session or inside.session.has_moved
    ):
        inside = NULL
    pthread_mutex_unlock(&lane.shared.mutex)
    if inside == NULL:
        drop_packet(lane, NULL, NO_SESSION)
        return
    find_reply(inside.session, &foreign.sender, batch.now, True, &route)
    to_client(lane, batch, inside.session, &foreign.sender, data, foreign.size, foreign.tos, 0, &route)


cdef void flush_foreign(Lane **lanes, Batch *batch) noexcept nogil:
    """Process what is for other lanes; no lock may be held."""
    cdef uint32_t at = 0
    cdef Foreign *foreign
    cdef Lane *lane
    while at < batch.foreign_used:
        foreign = <Foreign *>(batch.foreign + at)
        lane = lanes[foreign.lane]
        lane_lock(lane)
        while at < batch.foreign_used and foreign.lane == lane.number:
            serve_foreign(lane, batch, foreign)
            at += sizeof(Foreign) + ((foreign.size + 7) & ~<uint32_t>7)
            foreign = <Foreign *>(batch.foreign + at)
        flush(lane, batch)
        lane_unlock(lane)
    batch.foreign_used = 0
