# What epoll looks for at both ends of a joined connection. It follows from what waits and what has ended, and this is
# the one place that tells epoll. An end that waits for nothing is not watched at all, so that neither the other end nor
# a slow client makes epoll report without need. Under the lane's lock.

cdef enum:
    CLIENT_END = 0
    PEER_END = 1

cdef void watch_end(
    Lane *lane, uint32_t slot, int descriptor, uint32_t events, uint32_t *watched
) noexcept nogil:
    """Have epoll look for these events and no others; watched: what it looks for, 0 where it does not know the end."""
    cdef int operation = EPOLL_CTL_MOD
    if events == watched[0]:
        return
    if events == 0:
        operation = EPOLL_CTL_DEL
    elif watched[0] == 0:
        operation = EPOLL_CTL_ADD
    watched[0] = events
    watch(lane, slot, descriptor, events, operation)


cdef void watch_splice(Lane *lane, Stream *stream) noexcept nogil:
    """Read an end when the other one has taken what came before; write to it while something waits for it."""
    cdef Splice *splice = stream.splice
    cdef uint32_t client = 0
    cdef uint32_t peer = 0
    if not stream.is_over:
        if not splice.ended[<int>CLIENT_END] and not stream.pending_size and not splice.resumes[<int>CLIENT_END]:
            client = EPOLLIN
        if not splice.ended[<int>PEER_END] and not stream.output_size and not splice.resumes[<int>PEER_END]:
            peer = EPOLLIN
        if stream.output_size:
            client |= EPOLLOUT
        if stream.pending_size:
            peer |= EPOLLOUT
    watch_end(lane, stream.slot, stream.descriptor, client, &splice.watched[<int>CLIENT_END])
    watch_end(lane, splice.slot, splice.descriptor, peer, &splice.watched[<int>PEER_END])
