# The path of a packet: whose it is, whether it may pass, where it goes. Every function runs under its lane's lock.

cdef struct Route:
    # What the table said of a channel or peer; holds for all packets of one datagram that GRO has joined.
    Channel *channel
    uint32_t number
    Drop verdict


cdef inline Drop refusal(Session *session, const Endpoint *peer, int64_t now) noexcept nogil:
    """Why nothing may pass between the client and this peer, or PASSES."""
    cdef Permission *permission
    if now > session.deadline:
        return EXPIRED
    permission = find_permission(&session.permissions, peer)
    if permission == NULL:
        return NO_PERMISSION
    return EXPIRED if now > permission.deadline else PASSES


# From clients

cdef bint from_client(
    Lane *lane, Batch *batch, Session *session, const uint8_t *data, uint32_t size, uint8_t tos, bint may_write, Route *route
) noexcept nogil:
    """Relay or drop what a client sent; False when the rules must look at it. may_write: data is ours to overwrite."""
    cdef SendIndication indication
    cdef uint32_t first = data[0] if size else 0xFF
    if 0x40 <= first <= 0x7F:
        channel_data(lane, batch, session, data, size, tos, may_write, route)
        return True
    if first > 0x7F or not is_possible(data, size):
        drop_packet(lane, session, MALFORMED)
        return True
    if get16(data) != SEND_INDICATION or session == NULL or batch.now > session.deadline:
        return False
    if not read_send_indication(&indication, data, size):
        return False
    to_peer(
        lane, batch, session, &indication.peer, indication.data, indication.size, tos, indication.dont_fragment,
        may_write, refusal(session, &indication.peer, batch.now),
    )
    return True


cdef void channel_data(
    Lane *lane, Batch *batch, Session *session, const uint8_t *frame, uint32_t size, uint8_t tos, bint may_write, Route *route
) noexcept nogil:
    cdef uint32_t number, length
    if size < 4:
        drop_packet(lane, session, MALFORMED)
        return
    number = get16(frame)
    length = get16(frame + 2)
    if length > size - 4:
        drop_packet(lane, session, MALFORMED)
    elif session == NULL:
        drop_packet(lane, session, NO_SESSION)
    else:
        if route.number != number:
            find_route(session, number, batch.now, route)
        if route.channel == NULL:
            drop_packet(lane, session, route.verdict)
        else:
            to_peer(
                lane, batch, session, &route.channel.peer, frame + 4, length, tos, False, may_write, route.verdict
            )


cdef void find_route(Session *session, uint32_t number, int64_t now, Route *route) noexcept nogil:
    """The channel, or none and the verdict."""
    cdef Channel *channel = NULL
    route.number = number
    route.channel = NULL
    if now > session.deadline:
        route.verdict = EXPIRED
        return
    channel = find_channel(&session.channels, number)
    if channel == NULL:
        route.verdict = NO_CHANNEL
    elif now > channel.deadline:
        route.verdict = EXPIRED
    else:
        route.channel = channel
        route.verdict = refusal(session, &channel.peer, now)


cdef void to_peer(
    Lane *lane, Batch *batch, Session *session, const Endpoint *peer, const uint8_t *data, uint32_t size, uint8_t tos,
    bint dont_fragment, bint may_write, Drop verdict
) noexcept nogil:
    """Send from the session's relay, from inside to another session, or drop; verdict is refusal()'s."""
    cdef Relay *relay
    cdef Destination destination
    cdef Run *run
    cdef Packet *packet
    if verdict != PASSES:
        drop_packet(lane, session, verdict)
        return
    if peer.port == 0 or size > MAX_DATA:
        drop_packet(lane, session, MALFORMED)
        return
    if lane.policy.bandwidth > 0 and not bucket_take(
        &session.from_client, lane.policy.bandwidth, lane.policy.bandwidth, size, batch.now
    ):
        drop_packet(lane, session, BANDWIDTH)
        return
    relay = session.relays[peer.family - 1]
    if relay != NULL and find_permission(&lane.policy.advertised, peer) != NULL:
        if to_inside(lane, batch, relay, peer, data, size, tos, may_write):
            return
    if find_permission(&lane.policy.fenced, peer) != NULL:
        drop_packet(lane, session, FENCED)
        return
    if relay == NULL:
        drop_packet(lane, session, SEND_FAILED)
        return
    memset(&destination, 0, sizeof(destination))
    destination.to = peer[0]
    destination.descriptor = relay.descriptor
    destination.tos = tos
    destination.dont_fragment = dont_fragment
    run = join(lane, batch, &destination, size, relay.gso and lane.policy.gso)
    run.session = session
    run.relay = relay
    run.payload += size
    packet = &batch.grouping.packets[batch.grouping.packet_count - 1]
    packet.head_size = 0
    packet.body = data
    packet.body_size = size
    packet.padding = 0


cdef inline Run *join(Lane *lane, Batch *batch, const Destination *destination, uint32_t size, bint gso) noexcept nogil:
    if grouping_full(&batch.grouping):
        flush(lane, batch)
    return grouping_join(&batch.grouping, destination, size, gso)


cdef bint to_inside(
    Lane *lane, Batch *batch, Relay *relay, const Endpoint *peer, const uint8_t *data, uint32_t size, uint8_t tos, bint may_write
) noexcept nogil:
    """Give a packet to the live session that is advertised at peer; False when there is none."""
    cdef Relay *inside
    cdef Session *session = relay.session
    cdef Route route
    cdef uint32_t home = 0
    cdef bint live = False
    pthread_mutex_lock(&lane.shared.mutex)
    inside = find_relay(&lane.shared.relays, peer)
    if inside != NULL:
        home = inside.lane
        live = batch.now <= inside.session.deadline
    pthread_mutex_unlock(&lane.shared.mutex)
    if not live:
        return False
    session.traffic.packets_from_client += 1
    session.traffic.bytes_from_client += size
    if home == lane.number:
        find_reply(inside.session, &relay.advertised, batch.now, &route)
        # A channel header in front of the data is read by now, and has the size of the one that replaces it.
        to_client(lane, batch, inside.session, &relay.advertised, data, size, tos, 4 if may_write else 0, &route)
    else:
        put_foreign(lane, batch, home, NULL, &relay.advertised, peer, data, size, tos)
    return True


# From peers

cdef void find_reply(Session *session, const Endpoint *peer, int64_t now, Route *route) noexcept nogil:
    """What a packet from this peer becomes: ChannelData when there is a live channel, else a Data indication."""
    cdef Channel *channel
    route.channel = NULL
    route.verdict = refusal(session, peer, now)
    if route.verdict == PASSES:
        channel = find_channel_of(&session.channels_by_peer, peer)
        if channel != NULL and now <= channel.deadline:
            route.channel = channel


cdef inline void next_transaction(Batch *batch, uint8_t *to) noexcept nogil:
    """Twelve bytes that do not repeat; nobody's safety rests on a Data indication's."""
    cdef uint64_t word
    batch.random += <uint64_t>0x9E3779B97F4A7C15U
    word = fold(batch.random ^ _hash_keys[2], _hash_keys[3])
    memcpy(to, &word, 8)
    memcpy(to + 8, &batch.random, 4)


cdef void to_client(
    Lane *lane, Batch *batch, Session *session, const Endpoint *peer, const uint8_t *data, uint32_t size, uint8_t tos,
    uint32_t headroom, const Route *route
) noexcept nogil:
    """Send data from this peer to the client, or drop it. headroom: bytes before data that may be overwritten."""
    cdef Destination destination
    cdef Listener *listener
    cdef Run *run
    cdef Packet *packet
    cdef uint8_t *head
    cdef uint8_t transaction_id[12]
    cdef uint32_t head_size, padding
    if route.verdict != PASSES:
        drop_packet(lane, session, route.verdict)
        return
    if peer.port == 0:
        drop_packet(lane, session, MALFORMED)
        return
    if lane.policy.bandwidth > 0 and not bucket_take(
        &session.to_client, lane.policy.bandwidth, lane.policy.bandwidth, size, batch.now
    ):
        drop_packet(lane, session, BANDWIDTH)
        return
    head_size = 4 if route.channel != NULL else (36 if peer.family == IPV4 else 48)
    padding = (0 - size) & 3 if route.channel == NULL or session.key.transport != UDP else 0
    if size > MAX_DATA or (route.channel == NULL and head_size + size + padding > HEADER_SIZE + 0xFFFF):
        drop_packet(lane, session, SEND_FAILED)
        return
    if grouping_full(&batch.grouping):
        flush(lane, batch)
    if head_size <= headroom:
        head = <uint8_t *>data - head_size
    else:
        head = &batch.heads[batch.grouping.packet_count][0]
    if route.channel != NULL:
        put16(head, route.channel.number)
        put16(head + 2, size)
    else:
        next_transaction(batch, transaction_id)
        data_indication_head(head, transaction_id, peer, size)
    if session.key.transport != UDP:
        to_stream(lane, batch, session, head, head_size, data, size, padding)
        return
    if session.listener < 0:
        drop_packet(lane, session, SEND_FAILED)
        return
    listener = lane.listeners[session.listener]
    memset(&destination, 0, sizeof(destination))
    destination.to = session.key.client
    destination.descriptor = listener.descriptor
    destination.tos = tos
    if listener.is_wildcard:
        destination.source = session.key.server
    run = grouping_join(
        &batch.grouping, &destination, head_size + size + padding, session.gso and lane.policy.gso
    )
    run.session = session
    run.payload += size
    packet = &batch.grouping.packets[batch.grouping.packet_count - 1]
    packet.head = head
    packet.head_size = <uint16_t>head_size
    packet.body = data
    packet.body_size = size
    packet.padding = <uint16_t>padding


# Packets for another lane's table: copied, and processed under that lane's lock once ours is free.

cdef void put_foreign(
    Lane *lane, Batch *batch, uint32_t home, const FiveTupleKey *key, const Endpoint *sender, const Endpoint *advertised,
    const uint8_t *data, uint32_t size, uint8_t tos
) noexcept nogil:
    cdef Foreign *foreign = <Foreign *>(batch.foreign + batch.foreign_used)
    cdef uint32_t whole = sizeof(Foreign) + ((size + 7) & ~<uint32_t>7)
    if whole > FOREIGN_BYTES - batch.foreign_used:
        drop_packet(lane, NULL, OVERLOAD)
        return
    memset(foreign, 0, sizeof(Foreign))
    foreign.lane = home
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
    cdef Relay *inside
    cdef Route route
    if not foreign.from_relay:
        route.number = NONE
        if not from_client(
            lane, batch, find_session(&lane.sessions, &foreign.key), data, foreign.size, foreign.tos, False, &route
        ):
            send_up(lane, &foreign.key, data, foreign.size)
        return
    pthread_mutex_lock(&lane.shared.mutex)
    inside = find_relay(&lane.shared.relays, &foreign.advertised)
    if inside != NULL and inside.lane != lane.number:
        inside = NULL
    pthread_mutex_unlock(&lane.shared.mutex)
    if inside == NULL:
        drop_packet(lane, NULL, NO_SESSION)
        return
    find_reply(inside.session, &foreign.sender, batch.now, &route)
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


# What epoll says is ready

cdef void send_up(Lane *lane, const FiveTupleKey *key, const uint8_t *data, uint32_t size) noexcept nogil:
    cdef UpRecord record
    memset(&record, 0, sizeof(record))
    record.key = key[0]
    record.kind = UP_MESSAGE
    if up_push(&lane.up, &record, NULL, 0, data, size, 0):
        lane.tally.sent_up += 1
    else:
        drop_packet(lane, NULL, OVERLOAD)


cdef void answer_binding(
    Lane *lane, Batch *batch, Listener *listener, const FiveTupleKey *key, uint8_t *request
) noexcept nogil:
    cdef Destination destination
    cdef Packet *packet
    cdef Run *run
    cdef uint8_t *head
    cdef uint32_t size
    if not limiter_allow(&lane.shared.limiter, &key.client, batch.now):
        drop_packet(lane, NULL, RATE_LIMITED)
        return
    if grouping_full(&batch.grouping):
        flush(lane, batch)
    head = &batch.heads[batch.grouping.packet_count][0]
    size = binding_success(head, request, &key.client, listener.suffix_size)
    memset(&destination, 0, sizeof(destination))
    destination.to = key.client
    destination.descriptor = listener.descriptor
    if listener.is_wildcard:
        destination.source = key.server
    run = grouping_join(&batch.grouping, &destination, size + listener.suffix_size, False)
    packet = &batch.grouping.packets[batch.grouping.packet_count - 1]
    packet.head = head
    packet.head_size = <uint16_t>size
    packet.body = listener.suffix
    packet.body_size = listener.suffix_size
    packet.padding = 0


cdef uint32_t home_of(Lane *lane, const FiveTupleKey *key) noexcept nogil:
    """The lane of this client's session, this one when there is none."""
    cdef Session *session
    cdef uint32_t home = lane.number
    pthread_mutex_lock(&lane.shared.mutex)
    session = find_session(&lane.shared.sessions, key)
    if session != NULL:
        home = session.lane
    pthread_mutex_unlock(&lane.shared.mutex)
    return home


cdef void take_datagram(Lane *lane, Batch *batch, Listener *listener, uint32_t slot) noexcept nogil:
    """Everything in one received datagram of a client: one packet, or those that GRO has joined."""
    cdef uint8_t *data = <uint8_t *>batch.received_vectors[slot].iov_base
    cdef uint32_t left = batch.received[slot].msg_len
    cdef uint32_t size, home
    cdef FiveTupleKey key
    cdef Arrival arrival
    cdef Session *session
    cdef Route route
    read_arrival(&arrival, &batch.received[slot].msg_hdr)
    read_name(&key.client, &batch.received_names[slot])
    key.server = listener.address
    if arrival.local.family and listener.is_wildcard:
        key.server = arrival.local
        key.server.port = listener.address.port
    key.transport = UDP
    session = find_session(&lane.sessions, &key)
    home = lane.number
    if session == NULL and lane.shared.lanes > 1:
        home = home_of(lane, &key)
    route.number = NONE
    while True:
        size = min(left, arrival.segment) if arrival.segment else left
        lane.tally.received += 1
        if is_plain_binding(data, size):
            answer_binding(lane, batch, listener, &key, data)
        elif home != lane.number:
            put_foreign(lane, batch, home, &key, NULL, NULL, data, size, arrival.tos)
        elif not from_client(lane, batch, session, data, size, arrival.tos, True, &route):
            send_up(lane, &key, data, size)
        data += size
        left -= size
        if left == 0:
            return


cdef void read_listener(Lane *lane, Batch *batch, Listener *listener) noexcept nogil:
    cdef uint32_t first, at
    make_room(lane, batch, BATCH_RELAY)
    first = batch.slots_used
    for at in range(first, first + receive(lane, batch, listener.descriptor, BATCH_LISTENER)):
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
        read_name(&peer, &batch.received_names[at])
        peer.scope = 0
        find_reply(relay.session, &peer, batch.now, &route)
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
    """Have so many receive slots free; what was received before is sent first when there are fewer."""
    if batch.slots_used + slots > RECEIVE_SLOTS:
        flush(lane, batch)
        batch.slots_used = 0
