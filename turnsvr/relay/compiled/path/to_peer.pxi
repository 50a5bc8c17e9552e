# What clients send, on its way: to a peer through the relay's socket, or inside to another session. Under the lane's
# lock.

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
    """Relay or drop a ChannelData message; as from_client()."""
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
    if session.is_observed:
        tell_relayed(lane, session, peer, data, size, True)
    relay = session.relays[peer.family - 1]
    home = find_home(&lane.policy.homes.advertised, peer)
    if relay != NULL and home != NULL:
        if to_inside(lane, batch, relay, peer, data, size, tos, may_write):
            return
    if verdict == INSIDE and not is_elsewhere(lane, peer):
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
    elif lane.policy.homes.behind.used and find_home(&lane.policy.homes.behind, peer) != NULL:
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
    packet.payload = size


cdef inline Run *join(Lane *lane, Batch *batch, const Destination *destination, uint32_t size, bint gso) noexcept nogil:
    """A run with the next packet, of this size, in it; the caller fills the packet in."""
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
    if inside != NULL and not inside.session.has_moved:
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
        put_foreign(lane, batch, home, number, NULL, NULL, &relay.advertised, peer, data, size, tos)
    return True
