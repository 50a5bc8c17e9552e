# What the table says of a packet: where it goes, or why it may not. Under the lane's lock.

cdef struct Route:
    # What the table said of a channel or peer; holds for all packets of one datagram that GRO has joined.
    Channel *channel
    uint32_t number
    Drop verdict


cdef bint shows_move(
    Lane *lane, const Session *session, const FiveTupleKey *key, const uint8_t *data, uint32_t size
) noexcept nogil:
    """Whether these are ChannelData from where a session is about to move, which the rules are to see."""
    cdef bint found
    # One word, written under the mutex: nearly always no client is expected.
    if session != NULL or lane.shared.expected.used == 0 or size == 0 or not 0x40 <= data[0] <= 0x7F:
        return False
    pthread_mutex_lock(&lane.shared.mutex)
    found = find_expected(&lane.shared.expected, key) != NULL
    pthread_mutex_unlock(&lane.shared.mutex)
    return found


cdef void find_route(Session *session, uint32_t number, int64_t now, Route *route) noexcept nogil:
    """The channel, or none and the verdict."""
    cdef Channel *channel = NULL
    route.number = number
    route.channel = NULL
    if now > session.deadline:
        route.verdict = EXPIRED
        return
    channel = find_channel(&session.channels, number)
    if channel == NULL:
        route.verdict = NO_CHANNEL
    elif now > channel.deadline:
        route.verdict = EXPIRED
    else:
        route.channel = channel
        route.verdict = outward(session, &channel.peer, now)


cdef void find_reply(Session *session, const Endpoint *peer, int64_t now, bint inside, Route *route) noexcept nogil:
    """What a packet from this peer becomes: ChannelData when there is a live channel, else a Data indication.

    inside: it has not come over the network, where the permission's ports count.
    """
    cdef Channel *channel
    route.channel = NULL
    route.verdict = refusal(session, peer, now)
    if route.verdict == PASSES and not inside and not covers(find_permission(&session.permissions, peer), peer.port):
        route.verdict = NO_PERMISSION
    if route.verdict == PASSES:
        channel = find_channel_of(&session.channels_by_peer, peer)
        if channel != NULL and now <= channel.deadline:
            route.channel = channel
