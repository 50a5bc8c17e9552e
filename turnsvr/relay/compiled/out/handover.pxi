# Packets for another lane's table: which lane that is, and their copies, which in/handover.pxi processes once our lock
# is free. Under our lane's lock.

cdef struct Foreign:
    # A packet for a session of another lane; size bytes follow, then what lacks to a multiple of eight.
    # session: the number of the one that it is for, 0 where the client has none.
    FiveTupleKey key
    Endpoint sender
    Endpoint advertised
    uint64_t session
    uint32_t lane
    # Where a client's came in; each lane has the same ones under these numbers.
    uint32_t listener
    uint32_t size
    bint from_relay
    uint8_t tos


cdef inline uint32_t lane_number_of(const Endpoint *client, uint32_t lanes) noexcept nogil:
    """Where the kernel delivers this client's datagrams, and where its session is."""
    return steered_lane(get32(client.ip.bytes + (0 if client.family == IPV4 else 12)), client.port, lanes)


cdef uint32_t home_of(Lane *lane, const FiveTupleKey *key, uint64_t *number) noexcept nogil:
    """The lane of this client's session, and that one's number; this lane and 0 when there is none."""
    cdef Session *session
    cdef uint32_t home = lane.number
    number[0] = 0
    pthread_mutex_lock(&lane.shared.mutex)
    session = find_session(&lane.shared.sessions, key)
    if session != NULL:
        home = session.lane
        number[0] = session.number
    pthread_mutex_unlock(&lane.shared.mutex)
    return home


cdef void put_foreign(
    Lane *lane, Batch *batch, uint32_t home, uint64_t session, const Listener *listener,
    const FiveTupleKey *key, const Endpoint *sender, const Endpoint *advertised,
    const uint8_t *data, uint32_t size, uint8_t tos
) noexcept nogil:
    """Copy a packet for the lane `home`: a client's with its key, or a relay's with sender and advertised address.

    Dropped as OVERLOAD where the batch has no room. The batch's owner calls flush_foreign() once it holds no lock.
    """
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
    foreign.listener = listener.number if listener != NULL else NONE
    if key != NULL:
        foreign.key = key[0]
    else:
        foreign.from_relay = True
        foreign.sender = sender[0]
        foreign.advertised = advertised[0]
    if size:
        memcpy(<uint8_t *>foreign + sizeof(Foreign), data, size)
    batch.foreign_used += whole
