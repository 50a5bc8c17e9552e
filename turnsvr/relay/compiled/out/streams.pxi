# The socket of a TCP or TLS client: what waits to be written to it, what epoll looks for, how it ends. Under the lane's
# lock. Only the control thread frees a stream.

cdef enum:
    CLOSED_BY_CLIENT = 0
    CLOSED_MALFORMED = 0xFFFF
    CLOSED_BY_TLS = 0xFFFE
    CLOSED_FOR_ANOTHER = 0xFFFD
    CLOSED_IDLE = 0xFFFC
    CLOSED_FOR_ROOM = 0xFFFB
    CLOSED_WITH_SESSION = 0xFFFA
    OUTPUT_FIRST_ROOM = 2048


cdef inline uint64_t stream_name(const Lane *lane, const Stream *stream) noexcept nogil:
    """What tells a stream from those that had its slot before: its slot's generation and index."""
    return <uint64_t>lane.slots[stream.slot].generation << 32 | stream.slot


cdef void end_stream(Lane *lane, Stream *stream, uint32_t reason) noexcept nogil:
    """Read from a stream no more, and tell Python; reason is an errno or one of CLOSED_….

    Answers to what came before the end are still written, unless the connection has failed. While the rules have a
    message of it, or will, the end waits.
    """
    cdef UpRecord record
    if reason != CLOSED_BY_CLIENT and reason != CLOSED_MALFORMED and reason != CLOSED_WITH_SESSION:
        stream.dead = True
    if stream.is_over:
        return
    if stream.queue != NULL:
        put_off_end(lane, stream, reason)
        return
    stream.is_over = True
    if stream.splice != NULL:
        watch_splice(lane, stream)
    else:
        watch(lane, stream.slot, stream.descriptor, 0, EPOLL_CTL_DEL)
    memset(&record, 0, sizeof(record))
    record.key = stream.key
    record.kind = UP_STREAM_CLOSED
    record.session = stream_name(lane, stream)
    record.first = reason
    up_push(&lane.up, &record, NULL, 0, NULL, 0, 0)


cdef void put_off_end(Lane *lane, Stream *stream, uint32_t reason) noexcept nogil:
    """Let a stream end when the rules have nothing of it any more; nothing is read of it until then."""
    if not stream.ends:
        stream.ends = True
        stream.end_reason = reason
    if stream.dead:
        watch(lane, stream.slot, stream.descriptor, 0, EPOLL_CTL_DEL)


cdef bint stream_write(Lane *lane, Stream *stream) noexcept nogil:
    """Write what waits; False when some of it still does, or the stream has ended."""
    cdef ssize_t sent
    while stream.output_size and not stream.dead:
        lane.counts.sends += 1
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
    """Have epoll look for what the stream waits for now. It always reports errors."""
    if stream.splice != NULL:
        watch_splice(lane, <Stream *>stream)
        return
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


cdef bint keep_pending(Stream *stream, const uint8_t *data, uint32_t size) noexcept nogil:
    """Keep these bytes, none of which are in pending, in the place of what was kept; False when there is no memory."""
    free(stream.pending)
    stream.pending = NULL
    stream.pending_at = 0
    stream.pending_size = 0
    return append_pending(stream, data, size)


cdef bint append_pending(Stream *stream, const uint8_t *data, uint32_t size) noexcept nogil:
    """Keep these bytes behind what was kept; False when there is no memory."""
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
