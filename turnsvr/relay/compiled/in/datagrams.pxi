# Datagrams as they arrive: each is taken apart and put on its path.

cdef Packet *join_answer(
    Lane *lane, Batch *batch, Listener *listener, const FiveTupleKey *key, Answer answer, uint32_t size
) noexcept nogil:
    """Have an answer of so many bytes leave with the others, of which the caller says where they are."""
    cdef Destination destination
    cdef Packet *packet
    memset(&destination, 0, sizeof(destination))
    destination.to = key.client
    destination.descriptor = listener.descriptor
    destination.answer = answer
    if listener.is_wildcard:
        destination.source = key.server
    grouping_join(&batch.grouping, &destination, size, lane.policy.gso and not lane.answers_alone)
    packet = &batch.grouping.packets[batch.grouping.packet_count - 1]
    packet.padding = 0
    return packet


cdef void answer_binding(
    Lane *lane, Batch *batch, Listener *listener, const FiveTupleKey *key, uint8_t *request
) noexcept nogil:
    cdef Packet *packet
    cdef uint8_t *head
    cdef uint32_t size
    cdef bint in_one
    if not limiter_allow(lane.shared.limiter, &key.client, batch.now):
        drop_packet(lane, NULL, RATE_LIMITED)
        return
    if grouping_full(&batch.grouping):
        flush(lane, batch)
    head = &batch.heads[batch.grouping.packet_count][0]
    size = binding_success(head, request, &key.client, listener.tells_mapped, listener.suffix_size)
    in_one = size + listener.suffix_size <= HEAD_ROOM
    if in_one:
        memcpy(head + size, listener.suffix, listener.suffix_size)
    packet = join_answer(lane, batch, listener, key, BINDING_ANSWER, size + listener.suffix_size)
    packet.head = head
    packet.head_size = <uint16_t>size
    packet.body = head + size if in_one else listener.suffix
    packet.body_size = listener.suffix_size


cdef bint answer_allocate(
    Lane *lane, Batch *batch, Listener *listener, const FiveTupleKey *key, const uint8_t *request, uint32_t size
) noexcept nogil:
    """Challenge whoever asks for an allocation without credentials; False when the rules must look at it."""
    cdef Packet *packet
    cdef uint8_t *answer
    cdef bint has_fingerprint
    if listener.challenge == NULL or not is_plain_allocate(request, size, &has_fingerprint):
        return False
    if not limiter_allow(lane.shared.limiter, &key.client, batch.now):
        lane.tally.challenges_withheld += 1
        drop_packet(lane, NULL, RATE_LIMITED)
        return True
    if grouping_full(&batch.grouping) or batch.challenges_used == CHALLENGES:
        flush(lane, batch)
    answer = &batch.challenges[batch.challenges_used][0]
    batch.challenges_used += 1
    size = write_challenge(answer, listener.challenge, &key.client, batch.now / 1e9, request, has_fingerprint)
    packet = join_answer(lane, batch, listener, key, CHALLENGE, size)
    packet.head_size = 0
    packet.body = answer
    packet.body_size = size
    return True


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


cdef void take_datagram(Lane *lane, Batch *batch, Listener *listener, uint32_t slot) noexcept nogil:
    """Everything in one received datagram of a client: one packet, or those that GRO has joined."""
    cdef uint8_t *data = <uint8_t *>batch.received_vectors[slot].iov_base
    cdef uint32_t left = batch.received[slot].msg_len
    cdef uint32_t size, home
    cdef uint64_t number = 0
    cdef FiveTupleKey key
    cdef Arrival arrival
    cdef Session *session
    cdef Route route
    read_arrival(&arrival, &batch.received[slot].msg_hdr)
    lane.pace.work += 0 if arrival.segment else PACE_DATAGRAM
    read_name(&key.client, &batch.received_names[slot])
    key.server = listener.address
    if arrival.local.family and listener.is_wildcard:
        key.server = arrival.local
        key.server.port = listener.address.port
    key.transport = UDP
    key.connection = 0
    session = find_session(&lane.sessions, &key)
    home = lane.number
    if session == NULL and lane.shared.lanes > 1:
        home = home_of(lane, &key, &number)
    route.number = NONE
    while True:
        size = min(left, arrival.segment) if arrival.segment else left
        lane.tally.received += 1
        if is_plain_binding(data, size):
            answer_binding(lane, batch, listener, &key, data)
        elif home != lane.number:
            put_foreign(lane, batch, home, number, &key, NULL, NULL, data, size, arrival.tos)
        else:
            from_udp_client(lane, batch, listener, session, &key, data, size, arrival.tos, True, &route)
        data += size
        left -= size
        if left == 0:
            return


cdef void read_listener(Lane *lane, Batch *batch, Listener *listener) noexcept nogil:
    cdef uint32_t first, at
    cdef uint32_t count = BATCH_LISTENER
    cdef size_t bytes = 0
    make_room(lane, batch, BATCH_LISTENER)
    while count == BATCH_LISTENER and bytes < RECEIVE_BYTES and batch.slots_used + BATCH_LISTENER <= RECEIVE_SLOTS:
        first = batch.slots_used
        count = receive(lane, batch, listener.descriptor, BATCH_LISTENER)
        for at in range(first, first + count):
            bytes += batch.received[at].msg_len
            take_datagram(lane, batch, listener, at)


cdef void read_relay(Lane *lane, Batch *batch, Relay *relay) noexcept nogil:
    cdef uint32_t first, at, count
    cdef uint32_t left, size, headroom
    cdef uint8_t *data
    cdef Arrival arrival
    cdef Endpoint peer
    cdef Route route
    make_room(lane, batch, BATCH_RELAY)
    first = batch.slots_used
    count = receive(lane, batch, relay.descriptor, BATCH_RELAY)
    for at in range(first, first + count):
        read_arrival(&arrival, &batch.received[at].msg_hdr)
        lane.pace.work += 0 if arrival.segment else PACE_DATAGRAM
        read_name(&peer, &batch.received_names[at])
        peer.scope = 0
        known_as(lane, relay.session, &peer, batch.now)
        find_reply(relay.session, &peer, batch.now, False, &route)
        data = <uint8_t *>batch.received_vectors[at].iov_base
        left = batch.received[at].msg_len
        headroom = HEADROOM
        while True:
            size = min(left, arrival.segment) if arrival.segment else left
            lane.tally.received += 1
            to_client(lane, batch, relay.session, &peer, data, size, arrival.tos, headroom, &route)
            headroom = 0
            data += size
            left -= size
            if left == 0:
                break


cdef inline void make_room(Lane *lane, Batch *batch, uint32_t slots) noexcept nogil:
    """Send what was received before, unless so many more datagrams make no more than one read of a listener."""
    if batch.slots_used + slots > BATCH_LISTENER:
        flush(lane, batch)
        batch.slots_used = 0
