# Data from peers on their way to the client. Under the lane's lock.

cdef inline void next_transaction(Batch *batch, uint8_t *to) noexcept nogil:
    """Twelve bytes that do not repeat. They may be guessed: an indication has no answer that could be forged."""
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
    padding = (0 - size) & 3 if route.channel == NULL or not is_datagram(session.key.transport) else 0
    if size > MAX_DATA or (route.channel == NULL and head_size + size + padding > HEADER_SIZE + 0xFFFF):
        drop_packet(lane, session, SEND_FAILED)
        return
    if session.is_observed:
        tell_relayed(lane, session, peer, data, size, False)
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
    if session.key.transport == DTLS:
        to_association(lane, batch, session, head, head_size, data, size, padding, tos)
        return
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
    packet.payload = size
