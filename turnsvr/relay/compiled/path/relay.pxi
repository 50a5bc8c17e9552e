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


cdef inline Drop outward(Session *session, const Endpoint *peer, int64_t now) noexcept nogil:
    """As refusal(), of what a client sends; INSIDE where the permission does not cover the port."""
    cdef Permission *permission
    if now > session.deadline:
        return EXPIRED
    permission = find_permission(&session.permissions, peer)
    if permission == NULL:
        return NO_PERMISSION
    if now > permission.deadline:
        return EXPIRED
    return PASSES if covers(permission, peer.port) else INSIDE


# From clients

cdef bint from_client(
    Lane *lane, Batch *batch, Session *session, const uint8_t *data, uint32_t size, uint8_t tos,
    bint may_write, Route *route
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
        may_write, outward(session, &indication.peer, batch.now),
    )
    return True


cdef void channel_data(
    Lane *lane, Batch *batch, Session *session, const uint8_t *frame, uint32_t size, uint8_t tos,
    bint may_write, Route *route
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
        route.verdict = outward(session, &channel.peer, now)


cdef void fence(Lane *lane, Session *session, const Endpoint *peer) noexcept nogil:
    """Drop what is for a port that the permission does not cover; Python hears of the first."""
    cdef Permission *permission = find_permission(&session.permissions, peer)
    cdef UpRecord record
    drop_packet(lane, session, FENCED)
    if permission == NULL or permission.told:
        return
    memset(&record, 0, sizeof(record))
    record.kind = UP_FENCED
    record.session = session.number
    record.key.client = peer[0]
    permission.told = up_push(&lane.up, &record, NULL, 0, NULL, 0, 0)


cdef void to_peer(
    Lane *lane, Batch *batch, Session *session, const Endpoint *peer, const uint8_t *data, uint32_t size, uint8_t tos,
    bint dont_fragment, bint may_write, Drop verdict
) noexcept nogil:
    """Send from the session's relay, from inside to another session, or drop; verdict is outward()'s."""
    cdef Relay *relay
    cdef Destination destination
    cdef Run *run
    cdef Packet *packet
    cdef Home *home
    if verdict != PASSES and verdict != INSIDE:
        drop_packet(lane, session, verdict)
        return
    if peer.port == 0 or size > MAX_DATA:
        drop_packet(lane, session, MALFORMED)
        return
    if session.bandwidth > 0 and not bucket_take(
        &session.from_client, session.bandwidth, session.bandwidth, size, batch.now
    ):
        drop_packet(lane, session, BANDWIDTH)
        return
    relay = session.relays[peer.family - 1]
    home = find_home(&lane.policy.advertised, peer)
    if relay != NULL and home != NULL:
        if to_inside(lane, batch, relay, peer, data, size, tos, may_write):
            return
    if verdict == INSIDE:
        fence(lane, session, peer)
        return
    if relay == NULL:
        drop_packet(lane, session, SEND_FAILED)
        return
    memset(&destination, 0, sizeof(destination))
    destination.to = peer[0]
    if home != NULL and home.has_other:
        destination.to.ip = home.other
        remember_name(session, peer.port, True)
    elif lane.policy.behind.used and find_home(&lane.policy.behind, peer) != NULL:
        remember_name(session, peer.port, False)
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
    Lane *lane, Batch *batch, Relay *relay, const Endpoint *peer, const uint8_t *data, uint32_t size,
    uint8_t tos, bint may_write
) noexcept nogil:
    """Give a packet to the live session that is advertised at peer; False when there is none."""
    cdef Relay *inside
    cdef Session *session = relay.session
    cdef Route route
    cdef uint32_t home = 0
    cdef uint64_t number = 0
    cdef bint live = False
    pthread_mutex_lock(&lane.shared.mutex)
    inside = find_relay(&lane.shared.relays, peer)
    if inside != NULL:
        home = inside.lane
        number = inside.session.number
        live = batch.now <= inside.session.deadline
    pthread_mutex_unlock(&lane.shared.mutex)
    if not live:
        return False
    session.traffic.packets_from_client += 1
    session.traffic.bytes_from_client += size
    if home == lane.number:
        find_reply(inside.session, &relay.advertised, batch.now, True, &route)
        # A channel header in front of the data is read by now, and has the size of the one that replaces it.
        to_client(lane, batch, inside.session, &relay.advertised, data, size, tos, 4 if may_write else 0, &route)
    else:
        put_foreign(lane, batch, home, number, NULL, &relay.advertised, peer, data, size, tos)
    return True


# From peers

cdef void known_as(Lane *lane, Session *session, Endpoint *peer, int64_t now) noexcept nogil:
    """Call a peer behind an advertised host as the client does: by the name that it has called it last, of those that
    it has a permission for; by the outer one where it has called it by none.
    """
    cdef Home *home
    cdef Endpoint there
    if lane.policy.behind.used == 0:
        return
    home = find_home(&lane.policy.behind, peer)
    if home == NULL:
        return
    there = peer[0]
    there.ip = home.other
    if refusal(session, &there, now) != PASSES:
        return
    if refusal(session, peer, now) == PASSES and is_called(session, peer.port, False):
        return
    peer[0] = there


cdef void find_reply(Session *session, const Endpoint *peer, int64_t now, bint inside, Route *route) noexcept nogil:
    """What a packet from this peer becomes: ChannelData when there is a live channel, else a Data indication.

    inside: it has not come over the network, where the permission's ports count.
    """
    cdef Channel *channel
    route.channel = NULL
    route.verdict = refusal(session, peer, now)
    if route.verdict == PASSES and not inside and not covers(find_permission(&session.permissions, peer), peer.port):
        route.verdict = NO_PERMISSION
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
    if session.bandwidth > 0 and not bucket_take(
        &session.to_client, session.bandwidth, session.bandwidth, size, batch.now
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
