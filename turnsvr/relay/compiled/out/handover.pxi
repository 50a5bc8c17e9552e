# Packets for another lane's table: copied, and processed under that lane's lock once ours is free.

cdef void put_foreign(
    Lane *lane, Batch *batch, uint32_t home, uint64_t session, const FiveTupleKey *key,
    const Endpoint *sender, const Endpoint *advertised,
    const uint8_t *data, uint32_t size, uint8_t tos
) noexcept nogil:
    cdef Foreign *foreign = <Foreign *>(batch.foreign + batch.foreign_used)
    cdef uint32_t whole = sizeof(Foreign) + ((size + 7) & ~<uint32_t>7)
    if whole > FOREIGN_BYTES - batch.foreign_used:
        drop_packet(lane, NULL, OVERLOAD)
        return
    memset(foreign, 0, sizeof(Foreign))
    foreign.lane = home
    foreign.session = session
    foreign.size = size
    foreign.tos = tos
    if key != NULL:
        foreign.key = key[0]
    else:
        foreign.from_relay = True
        foreign.sender = sender[0]
        foreign.advertised = advertised[0]
    if size:
        memcpy(<uint8_t *>foreign + sizeof(Foreign), data, size)
    batch.foreign_used += whole


cdef void take_foreign(Lane *lane, Batch *batch, const Foreign *foreign) noexcept nogil:
    """Process one under the lock of the lane that it is for."""
    cdef const uint8_t *data = <const uint8_t *>foreign + sizeof(Foreign)
    cdef Session *session
    cdef Relay *inside
    cdef Route route
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
    if inside != NULL and (inside.lane != lane.number or inside.session.number != foreign.session):
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
            take_foreign(lane, batch, foreign)
            at += sizeof(Foreign) + ((foreign.size + 7) & ~<uint32_t>7)
            foreign = <Foreign *>(batch.foreign + at)
        flush(lane, batch)
        lane_unlock(lane)
    batch.foreign_used = 0
