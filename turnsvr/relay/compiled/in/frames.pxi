# Frames of TCP and TLS clients as they arrive: served as far as one for the rules; the rest stays in pending. Under the
# lane's lock.

cdef uint32_t recall_pending(Batch *batch, Stream *stream) noexcept nogil:
    """Put the unfinished frame where the rest of it is read; returns its size."""
    if stream.pending_size:
        memcpy(batch.stream_input, stream.pending + stream.pending_at, stream.pending_size)
    return stream.pending_size


cdef uint32_t serve_frames(Lane *lane, Batch *batch, Stream *stream, uint8_t *data, uint32_t size) noexcept nogil:
    """The frames in these bytes, as far as one for the rules, or to the end; returns the bytes of these frames."""
    cdef uint32_t at = 0
    cdef int64_t frame
    cdef Session *session = find_session(&lane.sessions, &stream.key)
    cdef Route route
    route.number = NONE
    while size - at >= 4 and stream.queue == NULL:
        frame = frame_size(data + at, size - at)
        if frame < 0:
            flush(lane, batch)
            end_stream(lane, stream, CLOSED_MALFORMED)
            return size
        if frame > size - at:
            break
        lane.counts.received += 1
        if shows_move(lane, session, &stream.key, data + at, <uint32_t>frame) or not from_client(
            lane, batch, session, data + at, <uint32_t>frame, 0, True, &route
        ):
            if not enqueue(lane, session, stream, NULL, &stream.key, data + at, <uint32_t>frame, 0, True):
                drop_packet(lane, session, OVERLOAD)
        at += <uint32_t>frame
    flush(lane, batch)
    return at


cdef void serve_input(Lane *lane, Batch *batch, Stream *stream, uint32_t size) noexcept nogil:
    """Serve the frames in so many bytes of stream_input, and keep the rest."""
    cdef uint32_t at = serve_frames(lane, batch, stream, batch.stream_input, size)
    if not keep_pending(stream, batch.stream_input + at, size - at):
        end_stream(lane, stream, ENOMEM)


cdef void feed_stream(Lane *lane, Batch *batch, Stream *stream, const uint8_t *data, size_t size) noexcept nogil:
    """Take bytes of the stream that the caller has read."""
    cdef uint32_t chunk
    while size and not stream.is_over and stream.queue == NULL:
        chunk = <uint32_t>min(size, <size_t>STREAM_READ)
        recall_pending(batch, stream)
        memcpy(batch.stream_input + stream.pending_size, data, chunk)
        serve_input(lane, batch, stream, stream.pending_size + chunk)
        data += chunk
        size -= chunk
    if not stream.is_over and not append_pending(stream, data, <uint32_t>size):
        end_stream(lane, stream, ENOMEM)
