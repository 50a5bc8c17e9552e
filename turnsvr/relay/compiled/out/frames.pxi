# Frames out to stream clients: queued whole, written at the next flush; what waits for a slow client is bounded.
# Under the lane's lock.

cdef bint stream_queue(
    Lane *lane, Batch *batch, Stream *stream, const uint8_t *head, uint32_t head_size, const uint8_t *body,
    uint32_t body_size, uint32_t padding
) noexcept nogil:
    """Queue one whole frame, written at the next flush; False when the client is too slow for it."""
    cdef uint32_t size = head_size + body_size + padding
    cdef uint8_t *to
    if stream.tls != NULL:
        size = sealed_size(size)
    if stream.output_size + size > lane.policy.stream_buffer and not stream.wants_write:
        stream_write(lane, stream)
    if stream.dead or stream.output_size + size > lane.policy.stream_buffer or not output_room(stream, size):
        return False
    if stream.tls != NULL:
        if not seal(lane, batch, stream, head, head_size, body, body_size, padding):
            return False
    else:
        to = stream.output + stream.output_at + stream.output_size
        if head_size:
            memcpy(to, head, head_size)
        if body_size:
            memcpy(to + head_size, body, body_size)
        memset(to + head_size + body_size, 0, padding)
        stream.output_size += size
    if not stream.queued and not stream.wants_write:
        stream.queued = True
        stream.next_queued = batch.queued
        batch.queued = stream
    return True


cdef void to_stream(
    Lane *lane, Batch *batch, Session *session, const uint8_t *head, uint32_t head_size, const uint8_t *body,
    uint32_t body_size, uint32_t padding
) noexcept nogil:
    """One frame for a stream client: to its socket, or up when Python writes for it."""
    cdef UpRecord record
    if session.stream != NULL and not session.stream.dead:
        if not stream_queue(lane, batch, session.stream, head, head_size, body, body_size, padding):
            drop_packet(lane, session, SLOW_CLIENT)
            return
        lane.counts.segments += 1
        session.traffic.packets_to_client += 1
        session.traffic.bytes_to_client += body_size
    elif session.writer != NULL:
        memset(&record, 0, sizeof(record))
        record.key = session.key
        record.session = session.number
        record.kind = UP_FRAME
        record.first = body_size
        if not up_push(&lane.up, &record, head, head_size, body, body_size, padding):
            drop_packet(lane, session, OVERLOAD)
    else:
        drop_packet(lane, session, SEND_FAILED)


cdef void flush_streams(Lane *lane, Batch *batch) noexcept nogil:
    """Write to every stream that had something queued in this batch."""
    cdef Stream *stream
    while batch.queued != NULL:
        stream = batch.queued
        batch.queued = stream.next_queued
        stream.queued = False
        stream_write(lane, stream)
