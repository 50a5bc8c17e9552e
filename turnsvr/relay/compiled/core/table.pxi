# How sessions, relays, permissions and channels are found, added and removed, and what they allow. Pure but for memory:
# time is an argument. Under the lane's lock.

cdef enum Drop:
    # The order of turnsvr.relay.counts.Drop.
    MALFORMED
    NO_SESSION
    NO_PERMISSION
    NO_CHANNEL
    EXPIRED
    BANDWIDTH
    FENCED
    SLOW_CLIENT
    RATE_LIMITED
    SEND_FAILED
    OVERLOAD
    DROPS
    PASSES
    # Passes to a relayed transport address of this server, and is FENCED where there is none.
    INSIDE


cdef inline bint is_session_of(const void *item, const void *key) noexcept nogil:
    return same_key(&(<const Session *>item).key, <const FiveTupleKey *>key)


cdef Session *find_session(const Index *index, const FiveTupleKey *key) noexcept nogil:
    """index: a lane's own under its lock, or Shared.sessions under its mutex."""
    return <Session *>index_find(index, hash_key(key), is_session_of, key)


cdef inline bint is_expected_at(const void *item, const void *key) noexcept nogil:
    return same_key(&(<const Expected *>item).key, <const FiveTupleKey *>key)


cdef Expected *find_expected(const Index *index, const FiveTupleKey *key) noexcept nogil:
    """index: Shared.expected, under its mutex."""
    return <Expected *>index_find(index, hash_key(key), is_expected_at, key)


cdef inline bint is_session_numbered(const void *item, const void *key) noexcept nogil:
    return (<const Session *>item).number == (<const uint64_t *>key)[0]


cdef Session *find_number(const Index *index, uint64_t number) noexcept nogil:
    """index: Shared.numbers, which is the control thread's."""
    return <Session *>index_find(index, hash_number(number), is_session_numbered, &number)


cdef inline bint is_stream_of(const void *item, const void *key) noexcept nogil:
    return same_key(&(<const Stream *>item).key, <const FiveTupleKey *>key)


cdef Stream *find_stream(const Index *index, const FiveTupleKey *key) noexcept nogil:
    """index: a lane's, under its lock; the control thread, which alone changes it, may read without."""
    return <Stream *>index_find(index, hash_key(key), is_stream_of, key)


cdef inline bint is_advertised_at(const void *item, const void *key) noexcept nogil:
    return same_endpoint(&(<const Relay *>item).advertised, <const Endpoint *>key)


cdef Relay *find_relay(const Index *index, const Endpoint *advertised) noexcept nogil:
    """index: Shared.relays, under its mutex. The relay's session is another lane's, perhaps."""
    return <Relay *>index_find(index, hash_endpoint(advertised, 0), is_advertised_at, advertised)


cdef inline bint is_permission_for(const void *item, const void *key) noexcept nogil:
    return (
        same_ip(&(<const Permission *>item).ip, &(<const Endpoint *>key).ip)
        and (<const Permission *>item).family == (<const Endpoint *>key).family
    )


cdef Permission *find_permission(const Index *index, const Endpoint *peer) noexcept nogil:
    """The port does not matter."""
    return <Permission *>index_find(index, hash_ip(&peer.ip, peer.family), is_permission_for, peer)


cdef inline bint covers(const Permission *permission, uint16_t port) noexcept nogil:
    """Whether this port of the host is permitted, too."""
    cdef const Span *spans = <const Span *>(permission + 1)
    cdef uint32_t at
    for at in range(permission.spans):
        if spans[at].low <= port <= spans[at].high:
            return True
    return False


cdef void remember_name(Session *session, uint16_t port, bint is_outer) noexcept nogil:
    """Note that the client has sent to this port of a host of two names, by its outer or its inner one."""
    if session.names == NULL:
        session.names = <uint32_t *>calloc(NAMES, sizeof(uint32_t))
        if session.names == NULL:
            return
    session.names[port % NAMES] = (<uint32_t>port << 1) + <uint32_t>is_outer


cdef inline bint is_called(const Session *session, uint16_t port, bint is_outer) noexcept nogil:
    """Whether that was the last name."""
    return session.names != NULL and session.names[port % NAMES] == (<uint32_t>port << 1) + <uint32_t>is_outer


cdef inline bint is_numbered(const void *item, const void *key) noexcept nogil:
    """A channel's number is its hash."""
    return True


cdef inline Channel *find_channel(const Index *index, uint32_t number) noexcept nogil:
    """index: a session's channels. One whose deadline has passed is found as well."""
    return <Channel *>index_find(index, number, is_numbered, NULL)


cdef inline bint is_bound_to(const void *item, const void *key) noexcept nogil:
    return same_endpoint(&(<const Channel *>item).peer, <const Endpoint *>key)


cdef Channel *find_channel_of(const Index *index, const Endpoint *peer) noexcept nogil:
    """index: a session's channels_by_peer; as find_channel()."""
    return <Channel *>index_find(index, hash_endpoint(peer, 0), is_bound_to, peer)


cdef bint add_permission(Index *permissions, Permission *added) noexcept nogil:
    """Add one for a host that has none; False when there is no memory."""
    return index_add(permissions, hash_ip(&added.ip, added.family), added)


cdef void remove_permission(Index *permissions, Permission *removed) noexcept nogil:
    """Remove and free."""
    index_remove(permissions, hash_ip(&removed.ip, removed.family), removed)
    free(removed)


cdef bint add_channel(Session *session, uint32_t number, const Endpoint *peer, int64_t deadline) noexcept nogil:
    """Add one for a number and a peer that have none; False when there is no memory."""
    cdef Channel *channel = <Channel *>calloc(1, sizeof(Channel))
    if channel == NULL:
        return False
    channel.number = number
    channel.peer = peer[0]
    channel.deadline = deadline
    if not index_add(&session.channels, number, channel):
        free(channel)
        return False
    if not index_add(&session.channels_by_peer, hash_endpoint(peer, 0), channel):
        index_remove(&session.channels, number, channel)
        free(channel)
        return False
    return True


cdef void remove_channel(Session *session, Channel *channel) noexcept nogil:
    """Remove and free; NULL is fine."""
    if channel != NULL:
        index_remove(&session.channels, channel.number, channel)
        index_remove(&session.channels_by_peer, hash_endpoint(&channel.peer, 0), channel)
        free(channel)


cdef void free_session(Session *session) noexcept nogil:
    """Free a session that no index holds any more; its relays are gone already."""
    free_items(&session.permissions)
    index_free(&session.channels_by_peer)
    free_items(&session.channels)
    free(session.names)
    free(session)


cdef void forget(Session *session, int64_t now, int family) noexcept nogil:
    """Remove permissions and channels that ended before now, or with a family all of that one."""
    cdef Permission *permission
    cdef Channel *channel
    cdef uint32_t at = 0
    # A removal moves the slots behind it up: the same place is looked at again.
    while session.permissions.slots != NULL and at <= session.permissions.mask:
        permission = <Permission *>session.permissions.slots[at].item
        if permission != NULL and (permission.family == family if family else now > permission.deadline):
            remove_permission(&session.permissions, permission)
            at = 0
        else:
            at += 1
    at = 0
    while session.channels.slots != NULL and at <= session.channels.mask:
        channel = <Channel *>session.channels.slots[at].item
        if channel != NULL and (channel.peer.family == family if family else now > channel.deadline):
            remove_channel(session, channel)
            at = 0
        else:
            at += 1


cdef inline bint bucket_take(Bucket *bucket, double rate, double burst, uint32_t amount, int64_t now) noexcept nogil:
    """Whether amount may pass at `rate` units a second, and `burst` at once; takes it if so."""
    cdef double level = bucket.level
    if now > bucket.filled_at:
        level += <double>(now - bucket.filled_at) * rate * 1e-9
        if level > burst:
            level = burst
        bucket.filled_at = now
    if amount > level:
        bucket.level = level
        return False
    bucket.level = level - amount
    return True


cdef inline int64_t bucket_spend(Bucket *bucket, double rate, uint32_t amount, int64_t now) noexcept nogil:
    """Take amount whether it is there or not; nanoseconds until the bucket is out of debt. rate is the burst, too."""
    bucket_take(bucket, rate, rate, 0, now)
    bucket.level -= amount
    return <int64_t>(-bucket.level / rate * 1e9) if bucket.level < 0 else 0


cdef int64_t move_bytes(Session *session, bint is_upward, uint32_t size, int64_t now) noexcept nogil:
    """Count bytes of a connection to a peer; nanoseconds for which no more may come, 0 where more may."""
    if is_upward:
        session.traffic.packets_from_client += 1
        session.traffic.bytes_from_client += size
    else:
        session.traffic.packets_to_client += 1
        session.traffic.bytes_to_client += size
    if session.bandwidth <= 0:
        return 0
    return bucket_spend(
        &session.from_client if is_upward else &session.to_client, session.bandwidth, size, now
    )


cdef inline Drop refusal(Session *session, const Endpoint *peer, int64_t now) noexcept nogil:
    """Why nothing may pass between the client and this peer, or PASSES."""
    cdef Permission *permission
    if now > session.deadline:
        return EXPIRED
    permission = find_permission(&session.permissions, peer)
    if permission == NULL:
        return NO_PERMISSION
    return EXPIRED if now > permission.deadline else PASSES


cdef inline Drop outward(Session *session, const Endpoint *peer, int64_t now) noexcept nogil:
    """As refusal(), of what a client sends; INSIDE where the permission does not cover the port."""
    cdef Permission *permission
    if now > session.deadline:
        return EXPIRED
    permission = find_permission(&session.permissions, peer)
    if permission == NULL:
        return NO_PERMISSION
    if now > permission.deadline:
        return EXPIRED
    return PASSES if covers(permission, peer.port) else INSIDE
