# What epoll reports of a TCP or TLS client. While the rules have a message of one, its later frames stay in pending and
# its socket is not read: TCP has the client wait. Under the lane's lock.

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
        end_stream(lane, stream, stream.end_reason)
    elif stream.is_muted:
        stream.is_muted = False
        watch_stream(lane, stream)


cdef void wait_for_rules(Lane *lane, Stream *stream, uint32_t events) noexcept nogil:
    """Stop watching a stream that is not read now, of which something came; end it where the connection has failed."""
    cdef int error = 0
    cdef socklen_t size = sizeof(error)
    if events & (EPOLLERR | EPOLLHUP):
        getsockopt(stream.descriptor, SOL_SOCKET, SO_ERROR, &error, &size)
        end_stream(lane, stream, <uint32_t>(error if error else ECONNRESET))
    elif not stream.is_muted:
        stream.is_muted = True
        watch_stream(lane, stream)


cdef void read_stream(Lane *lane, Batch *batch, Stream *stream, uint32_t events) noexcept nogil:
    """Serve what epoll has reported of a stream, with at most one read; the stream may have ended then."""
    cdef ssize_t got
    cdef size_t most = STREAM_READ
    cdef uint64_t frames = lane.counts.received
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
        lane.counts.batches += 1
        if stream.tls != NULL:
            open_records(lane, batch, stream, batch.records, <uint32_t>got)
        else:
            serve_input(lane, batch, stream, stream.pending_size + <uint32_t>got)
        lane.pace.work += PACE_FRAME * <int64_t>(lane.counts.received - frames)
        lane.pace.more = lane.pace.more or got == <ssize_t>most
    elif got == 0:
        end_stream(lane, stream, CLOSED_BY_CLIENT)
    elif errno != EAGAIN and errno != EINTR:
        end_stream(lane, stream, <uint32_t>errno)
