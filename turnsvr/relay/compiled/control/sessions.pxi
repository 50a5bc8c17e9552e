# Sessions, relays and streams as they begin and end. For the control thread, under the lane's lock where none is taken.

cdef Listener *listener_of(Lane *lane, const Endpoint *server) noexcept nogil:
    """The listener that serves this address: the one at it, else the wildcard one of its port; NULL when none does."""
    cdef uint32_t at
    cdef Listener *listener
    cdef Listener *wildcard = NULL
    for at in range(lane.listener_count):
        listener = lane.listeners[at]
        if same_endpoint(&listener.address, server):
            return listener
        if listener.is_wildcard and listener.address.family == server.family and listener.address.port == server.port:
            wildcard = listener
    return wildcard


cdef bint add_session(Lane *lane, Session *session) noexcept nogil:
    """Enter a session into the indexes; False when there is no memory."""
    cdef bint added
    pthread_mutex_lock(&lane.shared.mutex)
    added = index_add(&lane.shared.sessions, hash_key(&session.key), session)
    pthread_mutex_unlock(&lane.shared.mutex)
    return (
        added
        and index_add(&lane.sessions, hash_key(&session.key), session)
        and index_add(&lane.shared.numbers, hash_number(session.number), session)
    )


cdef int add_relay(Lane *lane, Session *session, int descriptor, host, advertised) except -1:
    """Serve a relay socket for a session that has none of its family; raises OSError."""
    cdef Relay *relay = <Relay *>calloc(1, sizeof(Relay))
    cdef int64_t slot = -1
    cdef bint added
    if relay == NULL:
        raise MemoryError
    try:
        read_peer(&relay.host, host[0], host[1])
        read_peer(&relay.advertised, advertised[0], advertised[1])
        slot = take_slot(lane, IS_RELAY, relay)
        if slot < 0 or session.relays[relay.host.family - 1] != NULL:
            raise OSError(ENOMEM, "relay")
        relay.slot = <uint32_t>slot
        relay.session = session
        relay.descriptor = descriptor
        relay.lane = lane.number
        relay.gso = True
        if not watch(lane, relay.slot, descriptor, EPOLLIN, EPOLL_CTL_ADD):
            raise OSError(errno, "epoll")
    except BaseException:
        if slot >= 0:
            release_slot(lane, <uint32_t>slot)
        free(relay)
        raise
    session.relays[relay.host.family - 1] = relay
    pthread_mutex_lock(&lane.shared.mutex)
    added = index_add(&lane.shared.relays, hash_endpoint(&relay.advertised, 0), relay)
    pthread_mutex_unlock(&lane.shared.mutex)
    if not added:
        raise MemoryError
    return 0


cdef int know_homes(Lane *lane, homes) except -1:
    """Take these for the hosts that are advertised as others: (host, advertised)."""
    cdef Endpoint host, advertised
    forget_others(&lane.policy.homes.advertised)
    free_items(&lane.policy.homes.behind)
    for inner, outer in homes:
        read_peer(&host, inner, 0)
        read_peer(&advertised, outer, 0)
        if not add_home(&lane.policy.homes.advertised, &advertised, &host):
            raise MemoryError
        if not add_home(&lane.policy.homes.behind, &host, &advertised):
            raise MemoryError
    return 0


cdef Permission *permission_of(const Endpoint *host, int64_t deadline, ports) except NULL:
    """A permission for spans of ports, which is the caller's."""
    cdef uint32_t at = 0
    cdef Permission *made = <Permission *>calloc(1, sizeof(Permission) + len(ports) * sizeof(Span))
    cdef Span *spans = <Span *>(made + 1)
    if made == NULL:
        raise MemoryError
    made.ip = host.ip
    made.family = host.family
    made.deadline = deadline
    made.spans = <uint32_t>len(ports)
    for low, high in ports:
        spans[at].low = low
        spans[at].high = high
        at += 1
    return made


cdef bint put_permission(Session *session, Permission *made, uint32_t most, int64_t now) noexcept nogil:
    """Have a permission hold in the place of the host's; False, and it is freed, when there are `most` live ones."""
    cdef Endpoint host
    cdef Permission *old
    host.ip = made.ip
    host.family = made.family
    old = find_permission(&session.permissions, &host)
    if old != NULL and old.spans == made.spans and not memcmp(old + 1, made + 1, made.spans * sizeof(Span)):
        old.deadline = made.deadline
        free(made)
        return True
    if old != NULL:
        remove_permission(&session.permissions, old)
    elif session.permissions.used >= most:
        forget(session, now, NO_FAMILY)
    if session.permissions.used < most and add_permission(&session.permissions, made):
        return True
    free(made)
    return False


cdef void join_association(Lane *lane, Session *session) noexcept nogil:
    """Have a session that begins, and its client's DTLS association where there is one, know each other."""
    cdef DtlsLink *link = find_link(&lane.dtls.by_key, &session.key)
    if link != NULL:
        unlist_link(&lane.dtls, link)
        list_link(&lane.dtls, link, SERVES, monotonic())
        link.session = session
        session.link = link


cdef void leave_association(Lane *lane, Session *session) noexcept nogil:
    """A session ends: its client's association may stay a while without one."""
    cdef DtlsLink *link = session.link
    if link != NULL:
        list_link(&lane.dtls, link, IDLES, monotonic())
        link.session = NULL
        session.link = NULL
        eventfd_write(lane.wake, 1)


cdef void end_relays(Lane *lane, Session *session, int family) noexcept nogil:
    """Let go of the relay of one family, or of all."""
    cdef Relay *relay
    cdef int at
    for at in range(2):
        relay = session.relays[at]
        if relay == NULL or (family and family != at + 1):
            continue
        pthread_mutex_lock(&lane.shared.mutex)
        index_remove(&lane.shared.relays, hash_endpoint(&relay.advertised, 0), relay)
        pthread_mutex_unlock(&lane.shared.mutex)
        watch(lane, relay.slot, relay.descriptor, 0, EPOLL_CTL_DEL)
        release_slot(lane, relay.slot)
        session.relays[at] = NULL
        free(relay)


cdef void end_session(Lane *lane, Session *session) noexcept nogil:
    """Forget a session whose relays have ended, and keep its figures."""
    leave_association(lane, session)
    pthread_mutex_lock(&lane.shared.mutex)
    index_remove(&lane.shared.sessions, hash_key(&session.key), session)
    pthread_mutex_unlock(&lane.shared.mutex)
    index_remove(&lane.sessions, hash_key(&session.key), session)
    index_remove(&lane.shared.numbers, hash_number(session.number), session)
    forget_splices(session)
    add_traffic(&lane.counts.ended, &session.traffic)
    add_traffic(&lane.counts.ended, &session.written)
    free_session(session)


cdef bint set_expected(Shared *shared, const FiveTupleKey *key, bint expected) noexcept nogil:
    """Whether a session is about to move here; False when there is no memory to keep it."""
    cdef Expected *made = NULL
    cdef Expected *found
    cdef bint kept = True
    if expected:
        made = <Expected *>calloc(1, sizeof(Expected))
        if made == NULL:
            return False
        made.key = key[0]
    pthread_mutex_lock(&shared.mutex)
    found = find_expected(&shared.expected, key)
    if found != NULL:
        index_remove(&shared.expected, hash_key(key), found)
    if made != NULL:
        kept = index_add(&shared.expected, hash_key(key), made)
    pthread_mutex_unlock(&shared.mutex)
    free(found)
    if not kept:
        free(made)
    return kept


cdef void leave_lane(Lane *lane, Session *session) noexcept nogil:
    """Have a session found no more, and its relays watched no more: what comes for them stays in their sockets."""
    cdef Relay *relay
    cdef int at
    pthread_mutex_lock(&lane.shared.mutex)
    index_remove(&lane.shared.sessions, hash_key(&session.key), session)
    for at in range(2):
        relay = session.relays[at]
        if relay != NULL:
            index_remove(&lane.shared.relays, hash_endpoint(&relay.advertised, 0), relay)
    pthread_mutex_unlock(&lane.shared.mutex)
    index_remove(&lane.sessions, hash_key(&session.key), session)
    leave_association(lane, session)
    for at in range(2):
        relay = session.relays[at]
        if relay != NULL:
            watch(lane, relay.slot, relay.descriptor, 0, EPOLL_CTL_DEL)
            release_slot(lane, relay.slot)


cdef bint enter_lane(Lane *lane, Session *session) noexcept nogil:
    """Have a session that is in no lane found in this one, by its key; False where there is no memory for all of it."""
    cdef Relay *relay
    cdef int64_t slot
    cdef int at
    cdef bint added
    session.lane = lane.number
    session.stream = find_stream(&lane.streams, &session.key)
    session.queue = find_queue(&lane.queues, &session.key)
    join_association(lane, session)
    pthread_mutex_lock(&lane.shared.mutex)
    added = index_add(&lane.shared.sessions, hash_key(&session.key), session)
    for at in range(2):
        relay = session.relays[at]
        if relay != NULL:
            relay.lane = lane.number
            added = index_add(&lane.shared.relays, hash_endpoint(&relay.advertised, 0), relay) and added
    pthread_mutex_unlock(&lane.shared.mutex)
    added = index_add(&lane.sessions, hash_key(&session.key), session) and added
    for at in range(2):
        relay = session.relays[at]
        if relay != NULL:
            slot = take_slot(lane, IS_RELAY, relay)
            relay.slot = <uint32_t>slot
            added = slot >= 0 and watch(lane, relay.slot, relay.descriptor, EPOLLIN, EPOLL_CTL_ADD) and added
    return added


cdef void end_connection(Lane *lane, Stream *stream) noexcept nogil:
    """Close and free a stream. Takes the lock."""
    cdef Session *session
    lane_lock(lane)
    session = find_session(&lane.sessions, &stream.key)
    if session != NULL and session.stream == stream:
        session.stream = NULL
    index_remove(&lane.streams, hash_key(&stream.key), stream)
    if stream.queue != NULL:
        abandon_queue(lane, stream.queue)
    if stream.tls != NULL:
        say_goodbye(lane, stream)
    if stream.splice != NULL:
        end_splice(lane, stream)
    elif not stream.is_over:
        watch(lane, stream.slot, stream.descriptor, 0, EPOLL_CTL_DEL)
    release_slot(lane, stream.slot)
    lane_unlock(lane)
    if stream.splice != NULL:
        c_close(stream.splice.descriptor)
        free(stream.splice)
    free_stream(stream)


cdef void free_stream(Stream *stream) noexcept nogil:
    """Close and free a stream that no lane knows."""
    c_close(stream.descriptor)
    link_free(stream.tls)
    free(stream.pending)
    free(stream.output)
    free(stream)


cdef void part_from_all(Lane *lane, Batch *batch) noexcept nogil:
    """End the associations that would be read at the listeners; those with a socket of their own stay."""
    cdef Associations *all = &lane.dtls
    cdef DtlsLink *link
    cdef uint32_t at
    cdef bint is_new = True
    association_free(all.door)
    all.door = NULL
    while is_new:
        at = 0
        # A successor takes the place of the one that ends, wherever in the index that is.
        is_new = False
        while all.by_addresses.slots != NULL and at <= all.by_addresses.mask:
            link = <DtlsLink *>all.by_addresses.slots[at].item
            if link == NULL or (<Listener *>link.listener).is_apart:
                at += 1
                continue
            is_new = True
            if link.state != SHAKES:
                part_from(link, batch)
            end_association(lane, link, CLOSED_BY_CLIENT)


cdef void end_associations(Lane *lane, Batch *batch) noexcept nogil:
    """Let go of every DTLS association, and begin none any more; clients are told where there is a batch."""
    cdef Associations *all = &lane.dtls
    cdef DtlsLink *link
    all.context = NULL
    association_free(all.door)
    all.door = NULL
    while all.by_addresses.used:
        link = <DtlsLink *>index_any(&all.by_addresses)
        if batch != NULL and link.state != SHAKES:
            part_from(link, batch)
        end_association(lane, link, CLOSED_BY_CLIENT)
    while next_in_turn(all) != NULL:
        pass
    index_free(&all.by_addresses)
    index_free(&all.by_key)
    index_free(&all.sources)
    if all.scrap != NULL:
        _libssl.BIO_ADDR_free(all.scrap)
        all.scrap = NULL


cdef void close_lane(Lane *lane) noexcept nogil:
    """Close the lane's own descriptors; its thread must have ended."""
    if lane.epoll >= 0:
        c_close(lane.epoll)
    if lane.wake >= 0:
        c_close(lane.wake)
    lane.epoll = lane.wake = lane.up.event = -1


cdef void free_lane(Lane *lane) noexcept nogil:
    """Free a lane without sessions and streams, whose thread has ended."""
    cdef uint32_t at
    free_queues(lane)
    end_associations(lane, NULL)
    free_done(lane)
    for at in range(lane.listener_count):
        free_listener(lane.listeners[at])
    free_items(&lane.policy.homes.advertised)
    free_items(&lane.policy.homes.behind)
    index_free(&lane.sessions)
    index_free(&lane.streams)
    free(lane.slots)
    free(lane.up.bytes)
    free(lane)


cdef void limit_session(Session *session, double bandwidth, int64_t now) noexcept nogil:
    """Bytes a second in each direction from now on, 0 for no limit."""
    session.bandwidth = bandwidth
    session.from_client.level = session.to_client.level = bandwidth
    session.from_client.filled_at = session.to_client.filled_at = now


cdef void limit_sessions(Lane *lane, int64_t now) noexcept nogil:
    """Have every session without a limit of its own go by the lane's."""
    cdef uint32_t at
    cdef Session *session
    if lane.sessions.slots == NULL:
        return
    for at in range(lane.sessions.mask + 1):
        session = <Session *>lane.sessions.slots[at].item
        if session != NULL and not session.limited_by_itself:
            limit_session(session, lane.policy.bandwidth, now)
