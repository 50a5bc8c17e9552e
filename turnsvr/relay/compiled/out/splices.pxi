# Bytes out to both ends of a joined connection: what one read has brought leaves at once, as far as the end takes it.
# The rest waits, in the stream's pending for the peer and in its output for the client. Under the lane's lock.

cdef void to_peers_end(Lane *lane, Stream *stream, const uint8_t *data, uint32_t size) noexcept nogil:
    """Send bytes of the client, of which none wait; what the peer does not take is kept."""
    cdef uint32_t sent = write_some(lane, stream, stream.splice.descriptor, data, size)
    if not stream.is_over and not keep_pending(stream, data + sent, size - sent):
        end_stream(lane, stream, ENOMEM)


cdef void to_clients_end(Lane *lane, Stream *stream, const uint8_t *data, uint32_t size) noexcept nogil:
    """Send bytes of the peer, of which none wait; what the client does not take is kept."""
    cdef uint32_t sent
    if stream.tls != NULL:
        seal_bytes(lane, stream, data, size)
        stream_write(lane, stream)
        return
    sent = write_some(lane, stream, stream.descriptor, data, size)
    if stream.is_over or sent == size:
        return
    if not output_room(stream, size - sent):
        end_stream(lane, stream, ENOMEM)
        return
    memcpy(stream.output + stream.output_at + stream.output_size, data + sent, size - sent)
    stream.output_size += size - sent
    stream.wants_write = True


cdef uint32_t write_some(Lane *lane, Stream *stream, int descriptor, const uint8_t *data, uint32_t size) noexcept nogil:
    """Send as much as an end takes now; returns how many bytes that was. An error ends the stream."""
    cdef uint32_t at = 0
    cdef ssize_t sent
    while at < size:
        lane.counts.sends += 1
        sent = c_send(descriptor, data + at, size - at, MSG_DONTWAIT | MSG_NOSIGNAL)
        if sent > 0:
            at += <uint32_t>sent
            lane.counts.segments += 1
        elif errno == EAGAIN:
            return at
        elif errno != EINTR:
            end_stream(lane, stream, <uint32_t>errno)
            return at
    return at


cdef void write_pending(Lane *lane, Stream *stream) noexcept nogil:
    """Send what waits for the peer."""
    cdef uint32_t sent = write_some(
        lane, stream, stream.splice.descriptor, stream.pending + stream.pending_at, stream.pending_size
    )
    stream.pending_at += sent
    stream.pending_size -= sent
    if stream.pending_size == 0:
        keep_pending(stream, NULL, 0)


cdef void settle_splice(Lane *lane, Stream *stream) noexcept nogil:
    """Pass on the end of each direction behind its last byte; when both have ended, end the stream."""
    cdef Splice *splice = stream.splice
    if stream.is_over:
        return
    if splice.ended[<int>CLIENT_END] and not stream.pending_size and not splice.finished[<int>PEER_END]:
        splice.finished[<int>PEER_END] = True
        c_shutdown(splice.descriptor, SHUT_WR)
    if splice.ended[<int>PEER_END] and not stream.output_size and not splice.finished[<int>CLIENT_END]:
        splice.finished[<int>CLIENT_END] = True
        if stream.tls != NULL:
            say_goodbye(lane, stream)
        if not stream.output_size:
            c_shutdown(stream.descriptor, SHUT_WR)
    if (
        splice.ended[<int>CLIENT_END] and splice.ended[<int>PEER_END]
        and not stream.pending_size and not stream.output_size
    ):
        end_stream(lane, stream, CLOSED_BY_CLIENT)
    else:
        watch_splice(lane, stream)
