# A stream's way from frames to bytes: joined with a connection to a peer, on the lane of the session that this belongs
# to, so that its figures and its bandwidth are under one lock. For the control thread.

cdef bint take_stream_off(Lane *lane, Stream *stream) noexcept nogil:
    """Take a stream off its lane, once the rules have its message or have judged it. Takes the lock.

    False where the stream is over, or is to end for another reason than the client's word; it stays as it is then.
    """
    lane_lock(lane)
    if stream.is_over or stream.dead or (stream.ends and stream.end_reason != CLOSED_BY_CLIENT):
        lane_unlock(lane)
        return False
    if stream.queue != NULL:
        stream.queue.stream = NULL
        stream.queue = NULL
    index_remove(&lane.streams, hash_key(&stream.key), stream)
    watch(lane, stream.slot, stream.descriptor, 0, EPOLL_CTL_DEL)
    release_slot(lane, stream.slot)
    lane_unlock(lane)
    return True


cdef bint put_on_lane(Lane *lane, Stream *stream, Splice *splice, Session *session, int64_t now) noexcept nogil:
    """Have the session's lane move bytes between both ends; takes the lock. False when there is no memory."""
    cdef int64_t client, peer
    lane_lock(lane)
    client = take_slot(lane, IS_STREAM, stream)
    peer = take_slot(lane, IS_PEER, stream) if client >= 0 else -1
    if peer < 0 or not index_add(&lane.streams, hash_key(&stream.key), stream):
        if peer >= 0:
            release_slot(lane, <uint32_t>peer)
        if client >= 0:
            release_slot(lane, <uint32_t>client)
        lane_unlock(lane)
        return False
    stream.slot = <uint32_t>client
    splice.slot = <uint32_t>peer
    splice.session = session
    splice.next_of_session = session.splices
    session.splices = splice
    splice.ended[<int>CLIENT_END] = stream.ends
    stream.splice = splice
    stream.is_muted = stream.ends = False
    if stream.pending_size:
        # The lane writes it; what it overdraws is made good by the next reads.
        move_bytes(session, True, stream.pending_size, now)
        lane.counts.received += 1
    settle_splice(lane, stream)
    lane_unlock(lane)
    return True


cdef void unlink_splice(Splice *splice) noexcept nogil:
    """Take it off its session's list; under the lane's lock."""
    cdef Splice **at
    if splice.session == NULL:
        return
    at = &splice.session.splices
    while at[0] != splice:
        at = &at[0].next_of_session
    at[0] = splice.next_of_session
    splice.session = NULL


cdef void end_splice(Lane *lane, Stream *stream) noexcept nogil:
    """Let go of the peer's end, closed by the caller; under the lane's lock."""
    cdef Splice *splice = stream.splice
    cdef Splice **at = &lane.paced
    unlink_splice(splice)
    if splice.is_paced:
        while at[0] != splice:
            at = &at[0].next_paced
        at[0] = splice.next_paced
    stream.is_over = True
    watch_splice(lane, stream)
    release_slot(lane, splice.slot)
    if stream.dead and not splice.ended[<int>CLIENT_END]:
        reset_when_closed(splice.descriptor)


cdef void forget_splices(Session *session) noexcept nogil:
    """Part a session that ends from its joined connections; each ends at the latest when its lane looks at it."""
    while session.splices != NULL:
        unlink_splice(session.splices)
