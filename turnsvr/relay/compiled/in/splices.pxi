# What epoll reports of the two ends of a joined connection: at most one read of the end that is ready, and at once out
# to the other (out/splices.pxi). Bytes are taken from the session's bandwidth as they come; an end that has overdrawn
# it is read again when the debt is paid. Under the lock of the session's lane.

cdef enum:
    # Bytes of a peer that are sealed together, for a TLS client.
    SEALED_READ = 65536
    # Of a bandwidth, the part that one read may take, and the least that is worth a read.
    READS_A_SECOND = 8
    LEAST_READ = 1024

cdef bint may_move(Lane *lane, Batch *batch, Stream *stream) noexcept nogil:
    """Whether the session lives; else the stream ends."""
    cdef Session *session = stream.splice.session
    if session != NULL and batch.now <= session.deadline:
        return True
    end_stream(lane, stream, CLOSED_WITH_SESSION)
    return False


cdef inline size_t most_of(const Stream *stream, size_t most) noexcept nogil:
    """How much to read at once."""
    cdef double bandwidth = stream.splice.session.bandwidth
    if bandwidth > 0 and bandwidth / READS_A_SECOND < most:
        return max(<size_t>(bandwidth / READS_A_SECOND), <size_t>LEAST_READ)
    return most


cdef void count_moved(Lane *lane, Batch *batch, Stream *stream, int end, uint32_t size) noexcept nogil:
    """Count bytes that have come from an end, and have it wait where they overdraw the bandwidth."""
    cdef Splice *splice = stream.splice
    cdef Session *session = splice.session
    cdef int64_t debt
    lane.counts.received += 1
    lane.counts.batches += 1
    debt = move_bytes(session, end == CLIENT_END, size, batch.now)
    if debt:
        splice.resumes[end] = batch.now + debt
        if not splice.is_paced:
            splice.is_paced = True
            splice.next_paced = lane.paced
            lane.paced = splice
        if lane.paced_until == 0 or splice.resumes[end] < lane.paced_until:
            lane.paced_until = splice.resumes[end]


cdef int64_t resume_paced(Lane *lane, int64_t now) noexcept nogil:
    """Read the ends again that have paid their debt; returns when to look for the next, 0 for none."""
    cdef Splice **at = &lane.paced
    cdef Splice *splice
    cdef int end
    if lane.paced_until == 0 or now < lane.paced_until:
        return lane.paced_until
    lane.paced_until = 0
    while at[0] != NULL:
        splice = at[0]
        for end in range(2):
            if splice.resumes[end] and splice.resumes[end] <= now:
                splice.resumes[end] = 0
            if splice.resumes[end] and (lane.paced_until == 0 or splice.resumes[end] < lane.paced_until):
                lane.paced_until = splice.resumes[end]
        watch_splice(lane, splice.stream)
        if splice.resumes[0] or splice.resumes[1]:
            at = &splice.next_paced
        else:
            splice.is_paced = False
            at[0] = splice.next_paced
    return lane.paced_until


cdef int64_t open_bytes(Lane *lane, Batch *batch, Stream *stream, uint32_t size) noexcept nogil:
    """Decrypt so many bytes of records into stream_input; how many are there then, -1 where the stream has ended."""
    cdef TlsLink *link = stream.tls
    cdef uint32_t at = 0
    cdef int got = 0
    cdef int error
    link.input = batch.records
    link.input_size = size
    link.output_limit = stream.output_size + TLS_OWN_OUTPUT
    while True:
        got = _libssl.SSL_read(link.ssl, batch.stream_input + at, <int>(STREAM_INPUT - at))
        if got <= 0:
            break
        at += <uint32_t>got
    error = _libssl.SSL_get_error(link.ssl, got)
    link.input = NULL
    link.input_size = 0
    if error == SSL_ERROR_ZERO_RETURN:
        stream.splice.ended[<int>CLIENT_END] = True
    elif error != SSL_ERROR_WANT_READ:
        fail_tls(lane, stream)
        return -1
    if stream.output_size and not stream.wants_write:
        stream_write(lane, stream)
    return at


cdef void read_clients_end(Lane *lane, Batch *batch, Stream *stream) noexcept nogil:
    """One read of the client, for the peer."""
    cdef bint is_tls = stream.tls != NULL
    cdef uint8_t *to = batch.records if is_tls else batch.stream_input
    cdef ssize_t got = c_recv(stream.descriptor, to, most_of(stream, STREAM_READ), MSG_DONTWAIT)
    cdef int64_t size = got
    if got > 0 and is_tls:
        size = open_bytes(lane, batch, stream, <uint32_t>got)
    if got > 0 and size > 0 and not stream.is_over:
        count_moved(lane, batch, stream, CLIENT_END, <uint32_t>size)
        to_peers_end(lane, stream, batch.stream_input, <uint32_t>size)
    elif got == 0:
        stream.splice.ended[<int>CLIENT_END] = True
    elif got < 0 and errno != EAGAIN and errno != EINTR:
        end_stream(lane, stream, <uint32_t>errno)


cdef void read_peers_end(Lane *lane, Batch *batch, Stream *stream) noexcept nogil:
    """One read of the peer, for the client."""
    cdef size_t most = SEALED_READ if stream.tls != NULL else STREAM_READ
    cdef ssize_t got = c_recv(stream.splice.descriptor, batch.stream_input, most_of(stream, most), MSG_DONTWAIT)
    if got > 0:
        count_moved(lane, batch, stream, PEER_END, <uint32_t>got)
        to_clients_end(lane, stream, batch.stream_input, <uint32_t>got)
    elif got == 0:
        stream.splice.ended[<int>PEER_END] = True
    elif errno != EAGAIN and errno != EINTR:
        end_stream(lane, stream, <uint32_t>errno)


cdef void serve_splice(Lane *lane, Batch *batch, Stream *stream, int end, uint32_t events) noexcept nogil:
    """Serve what epoll has told of one end; the stream may have ended then."""
    cdef uint32_t watched = stream.splice.watched[end]
    if not may_move(lane, batch, stream):
        return
    if watched & EPOLLOUT:
        if end == CLIENT_END:
            stream_write(lane, stream)
        else:
            write_pending(lane, stream)
    if watched & EPOLLIN and events & (EPOLLIN | EPOLLERR | EPOLLHUP) and not stream.is_over:
        if end == CLIENT_END:
            read_clients_end(lane, batch, stream)
        else:
            read_peers_end(lane, batch, stream)
    settle_splice(lane, stream)
