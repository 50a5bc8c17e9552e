# Answers that a lane gives itself: to plain Binding requests, and challenges to plain Allocate requests. Under the
# lane's lock.

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
    packet.payload = 0
    return packet


cdef void answer_binding(
    Lane *lane, Batch *batch, Listener *listener, const FiveTupleKey *key, uint8_t *request
) noexcept nogil:
    """Answer a plain Binding request, unless its sender has had its share of answers."""
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
    """Challenge an Allocate request without credentials; False when the rules must look at it."""
    cdef Packet *packet
    cdef uint8_t *answer
    cdef bint has_fingerprint
    if listener.challenge == NULL or not is_plain_allocate(request, size, &has_fingerprint):
        return False
    if not limiter_allow(lane.shared.limiter, &key.client, batch.now):
        lane.counts.challenges_withheld += 1
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
