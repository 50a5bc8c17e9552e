# TCP and TLS clients: frames in, frames out, what waits for a slow one bounded. While the rules have a message of one,
# its later frames stay in pending, and its socket is not read: TCP has the client wait.
# A stream is freed by the control thread only.

cdef enum:
    CLOSED_BY_CLIENT = 0
    CLOSED_MALFORMED = 0xFFFF
    CLOSED_BY_TLS = 0xFFFE
    OUTPUT_FIRST_ROOM = 2048


cdef inline uint64_t stream_name(const Lane *lane, const Stream *stream) noexcept nogil:
    """What tells a stream from those that had its slot before: its slot's generation and index."""
    return <uint64_t>lane.slots[stream.slot].generation << 32 | stream.slot


cdef void end_stream(Lane *lane, Stream *stream, uint32_t reason) noexcept nogil:
    """Read from it no more and say so; reason is an errno or one of CLOSED_….

    Answers to what came before the end are still written, unless the connection has failed.
    """
    cdef UpRecord record
    if reason != CLOSED_BY_CLIENT and reason != CLOSED_MALFORMED:
        stream.dead = True
    if stream.is_over:
        return
    stream.is_over = True
    watch(lane, stream.slot, stream.descriptor, 0, EPOLL_CTL_DEL)
    memset(&record, 0, sizeof(record))
    record.key = stream.key
    record.kind = UP_STREAM_CLOSED
    record.session = stream_name(lane, stream)
    record.first = reason
    up_push(&lane.up, &record, NULL, 0, NULL, 0, 0)


cdef bint stream_write(Lane *lane, Stream *stream) noexcept nogil:
    """Write what waits; False when some of it still does, or the stream has ended."""
    cdef ssize_t sent
    while stream.output_size and not stream.dead:
        lane.tally.sends += 1
        sent = c_send(
            stream.descriptor, stream.output + stream.output_at, stream.output_size, MSG_DONTWAIT | MSG_NOSIGNAL
        )
        if sent > 0:
            stream.output_at += <uint32_t>sent
            stream.output_size -= <uint32_t>sent
        elif errno == EAGAIN:
            if not stream.wants_write:
                stream.wants_write = True
                watch_stream(lane, stream)
            return False
        elif errno != EINTR:
            end_stream(lane, stream, <uint32_t>errno)
    if stream.dead:
        return False
    free(stream.output)
    stream.output = NULL
    stream.output_at = 0
    stream.output_room = 0
    if stream.wants_write:
        stream.wants_write = False
        watch_stream(lane, stream)
    return True


cdef void watch_stream(Lane *lane, const Stream *stream) noexcept nogil:
    """Have epoll look for what the stream waits for now. Errors it tells of always."""
    cdef uint32_t events = (0 if stream.is_muted else EPOLLIN) | (EPOLLOUT if stream.wants_write else 0)
    watch(lane, stream.slot, stream.descriptor, events, EPOLL_CTL_MOD)


cdef bint output_room(Stream *stream, uint32_t size) noexcept nogil:
    """Have room for so many bytes more."""
    cdef uint32_t room = stream.output_room if stream.output_room else OUTPUT_FIRST_ROOM
    cdef uint8_t *grown
    if stream.output_at + stream.output_size + size <= stream.output_room:
        return True
    if stream.output_at:
        memmove(stream.output, stream.output + stream.output_at, stream.output_size)
        stream.output_at = 0
    while room < stream.output_size + size:
        room *= 2
    if room != stream.output_room:
        grown = <uint8_t *>realloc(stream.output, room)
        if grown == NULL:
            return False
        stream.output = grown
        stream.output_room = room
    return True


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
        lane.tally.segments += 1
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
    cdef Stream *stream
    while batch.queued != NULL:
        stream = batch.queued
        batch.queued = stream.next_queued
        stream.queued = False
        stream_write(lane, stream)


cdef bint keep_pending(Stream *stream, const uint8_t *data, uint32_t size) noexcept nogil:
    """Keep these bytes in the place of what was kept."""
    free(stream.pending)
    stream.pending = NULL
    stream.pending_at = 0
    stream.pending_size = 0
    return append_pending(stream, data, size)


cdef bint append_pending(Stream *stream, const uint8_t *data, uint32_t size) noexcept nogil:
    cdef uint8_t *grown
    if size == 0:
        return True
    grown = <uint8_t *>malloc(stream.pending_size + size)
    if grown == NULL:
        return False
    if stream.pending_size:
        memcpy(grown, stream.pending + stream.pending_at, stream.pending_size)
    memcpy(grown + stream.pending_size, data, size)
    free(stream.pending)
    stream.pending = grown
    stream.pending_at = 0
    stream.pending_size += size
    return True


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
        lane.tally.received += 1
        if not from_client(lane, batch, session, data + at, <uint32_t>frame, 0, True, &route):
            if not enqueue(lane, session, stream, NULL, &stream.key, data + at, <uint32_t>frame, 0, True):
                drop_packet(lane, session, OVERLOAD)
        at += <uint32_t>frame
    flush(lane, batch)
    return at


cdef void take_frames(Lane *lane, Batch *batch, Stream *stream, uint32_t size) noexcept nogil:
    """Serve the frames in so many bytes of stream_input, and keep the rest."""
    cdef uint32_t at = serve_frames(lane, batch, stream, batch.stream_input, size)
    if not keep_pending(stream, batch.stream_input + at, size - at):
        end_stream(lane, stream, ENOMEM)


cdef void feed_stream(Lane *lane, Batch *batch, Stream *stream, const uint8_t *data, size_t size) noexcept nogil:
    """Take bytes that somebody else has read."""
    cdef uint32_t chunk
    while size and not stream.is_over and stream.queue == NULL:
        chunk = <uint32_t>min(size, <size_t>STREAM_READ)
        recall_pending(batch, stream)
        memcpy(batch.stream_input + stream.pending_size, data, chunk)
        take_frames(lane, batch, stream, stream.pending_size + chunk)
        data += chunk
        size -= chunk
    if not stream.is_over and not append_pending(stream, data, <uint32_t>size):
        end_stream(lane, stream, ENOMEM)


cdef void resume_stream(Lane *lane, Batch *batch, Stream *stream) noexcept nogil:
    """Go on with a stream of which the rules have nothing any more."""
    cdef uint32_t at
    if stream.is_over:
        return
    if stream.pending_size:
        at = serve_frames(lane, batch, stream, stream.pending + stream.pending_at, stream.pending_size)
        stream.pending_at += at
        stream.pending_size -= at
        if stream.pending_size == 0:
            keep_pending(stream, NULL, 0)
    if stream.queue != NULL or stream.is_over:
        return
    if stream.ends:
        end_stream(lane, stream, CLOSED_BY_CLIENT)
    elif stream.is_muted:
        stream.is_muted = False
        watch_stream(lane, stream)


cdef void wait_for_rules(Lane *lane, Stream *stream, uint32_t events) noexcept nogil:
    """Something came of a stream that is not read now: hear no more of it, unless the connection has failed."""
    cdef int error = 0
    cdef socklen_t size = sizeof(error)
    if events & (EPOLLERR | EPOLLHUP):
        getsockopt(stream.descriptor, SOL_SOCKET, SO_ERROR, &error, &size)
        end_stream(lane, stream, <uint32_t>(error if error else ECONNRESET))
    elif not stream.is_muted:
        stream.is_muted = True
        watch_stream(lane, stream)


cdef void read_stream(Lane *lane, Batch *batch, Stream *stream, uint32_t events) noexcept nogil:
    cdef ssize_t got
    cdef size_t most = STREAM_READ
    cdef uint64_t frames = lane.tally.received
    if events & EPOLLOUT:
        stream_write(lane, stream)
    if stream.is_over or not events & (EPOLLIN | EPOLLERR | EPOLLHUP):
        return
    if stream.queue != NULL:
        wait_for_rules(lane, stream, events)
        return
    if find_session(&lane.sessions, &stream.key) == NULL:
        most = STRANGER_READ
    if stream.tls != NULL:
        got = c_recv(stream.descriptor, batch.records, most, MSG_DONTWAIT)
    else:
        recall_pending(batch, stream)
        got = c_recv(stream.descriptor, batch.stream_input + stream.pending_size, most, MSG_DONTWAIT)
    if got > 0:
        lane.tally.batches += 1
        if stream.tls != NULL:
            open_records(lane, batch, stream, batch.records, <uint32_t>got)
        else:
            take_frames(lane, batch, stream, stream.pending_size + <uint32_t>got)
        lane.pace.work += PACE_FRAME * <int64_t>(lane.tally.received - frames)
        lane.pace.more = lane.pace.more or got == <ssize_t>most
    elif got == 0:
        end_stream(lane, stream, CLOSED_BY_CLIENT)
    elif errno != EAGAIN and errno != EINTR:
        end_stream(lane, stream, <uint32_t>errno)
