# DTLS associations of a lane: how they are found, which may stay, which handshake is next. Pure but for memory: time is
# an argument, and the caller frees what OpenSSL has of a link. Under the lane's lock.
#
# An association belongs to the source of its client, an IPv4 address or an IPv6 /64. Where a bound is reached, one
# without an allocation goes: the oldest of the new one's own source where that has all it may, else the oldest of the
# source that has most of them. Of handshakes only others go for a handshake. Handshakes have turns: one step of each
# source that has something to do, and within it of each client.

cdef enum:
    # Handshakes at once, of all lanes together and of one source on a lane.
    HALF_OPEN = 1024
    HALF_OPEN_OF_SOURCE = 64
    # What may wait of one client for its turn in the handshake, in datagrams and bytes.
    SHAKING_DATAGRAMS = 32
    SHAKING_BYTES = 32768

cdef struct Associations:
    # All but successors by the addresses of client and server; those that are shaken by five-tuple.
    Index by_addresses
    Index by_key
    Index sources
    DtlsSource *first
    DtlsSource *last
    uint32_t count
    uint32_t listed[LISTED_STATES]
    uint32_t most
    uint32_t most_of_source
    uint32_t most_shaking
    # Nanoseconds that a link may be in each state that has a list.
    int64_t longest[LISTED_STATES]
    # What new handshakes begin with: an SSL_CTX, NULL while there is none; the link that listens for them, and where
    # OpenSSL puts an address that we do not need.
    void *context
    DtlsLink *door
    void *scrap
    CookieSecrets secrets
    uint32_t latest_number
    # When a timer may have run out, 0 for never; until when no step is made.
    int64_t look_at
    int64_t rests_until
    uint64_t cookies
    uint64_t handshakes
    uint64_t failures
    uint64_t evicted
    uint64_t refused


cdef inline uint64_t hash_addresses(const FiveTupleKey *key) noexcept nogil:
    """The hash of both addresses; transport and connection do not enter."""
    return hash_endpoint(&key.client, hash_endpoint(&key.server, DTLS))


cdef inline bint is_association_at(const void *item, const void *key) noexcept nogil:
    return (
        same_endpoint(&(<const DtlsLink *>item).key.client, &(<const FiveTupleKey *>key).client)
        and same_endpoint(&(<const DtlsLink *>item).key.server, &(<const FiveTupleKey *>key).server)
    )


cdef DtlsLink *find_association(const Index *index, const FiveTupleKey *key) noexcept nogil:
    """The one between these addresses, whatever its number."""
    return <DtlsLink *>index_find(index, hash_addresses(key), is_association_at, key)


cdef inline bint is_link_of(const void *item, const void *key) noexcept nogil:
    return same_key(&(<const DtlsLink *>item).key, <const FiveTupleKey *>key)


cdef DtlsLink *find_link(const Index *index, const FiveTupleKey *key) noexcept nogil:
    """The association of exactly this five-tuple."""
    return <DtlsLink *>index_find(index, hash_key(key), is_link_of, key)


cdef inline bint is_dtls_source(const void *item, const void *key) noexcept nogil:
    return (
        same_ip(&(<const DtlsSource *>item).ip, &(<const Endpoint *>key).ip)
        and (<const DtlsSource *>item).family == (<const Endpoint *>key).family
    )


cdef DtlsSource *dtls_source_for(Associations *all, const Endpoint *client) noexcept nogil:
    """The source that a client belongs to, made where it has none yet; NULL when there is no memory."""
    cdef Endpoint host = client[0]
    cdef DtlsSource *source
    if host.family == IPV6:
        host.ip.words[1] = 0
    source = <DtlsSource *>index_find(&all.sources, hash_ip(&host.ip, host.family), is_dtls_source, &host)
    if source != NULL:
        return source
    source = <DtlsSource *>calloc(1, sizeof(DtlsSource))
    if source == NULL:
        return NULL
    source.ip = host.ip
    source.family = host.family
    if not index_add(&all.sources, hash_ip(&host.ip, host.family), source):
        free(source)
        return NULL
    return source


cdef void let_source_go(Associations *all, DtlsSource *source) noexcept nogil:
    """Free a source that has nothing, unless it stands in the ring, which frees it."""
    if source.count == 0 and not source.is_in_ring:
        index_remove(&all.sources, hash_ip(&source.ip, source.family), source)
        free(source)


cdef void list_link(Associations *all, DtlsLink *link, LinkState state, int64_t now) noexcept nogil:
    """Come to a state, as the latest in it."""
    cdef DtlsSource *source = link.source
    link.state = state
    link.since = now
    if state == SERVES:
        return
    link.deadline = now + all.longest[<int>state]
    wake_at(all, link.deadline)
    link.next = NULL
    link.previous = source.latest[<int>state]
    if link.previous != NULL:
        link.previous.next = link
    else:
        source.oldest[<int>state] = link
    source.latest[<int>state] = link
    source.listed[<int>state] += 1
    all.listed[<int>state] += 1


cdef void unlist_link(Associations *all, DtlsLink *link) noexcept nogil:
    """Leave a state; list_link() or remove_association() is to follow."""
    cdef DtlsSource *source = link.source
    if link.state == SERVES:
        return
    if link.previous != NULL:
        link.previous.next = link.next
    else:
        source.oldest[<int>link.state] = link.next
    if link.next != NULL:
        link.next.previous = link.previous
    else:
        source.latest[<int>link.state] = link.previous
    link.next = link.previous = NULL
    source.listed[<int>link.state] -= 1
    all.listed[<int>link.state] -= 1


cdef inline void wake_at(Associations *all, int64_t at) noexcept nogil:
    """Look at timers at this time, or before."""
    if all.look_at == 0 or at < all.look_at:
        all.look_at = at


cdef bint add_association(Associations *all, DtlsLink *link, DtlsSource *source, int64_t now) noexcept nogil:
    """Have an association that is to shake hands found by its addresses, or by the one that it is to replace.

    False when there is no memory.
    """
    cdef DtlsLink *holder = find_association(&all.by_addresses, &link.key)
    if holder != NULL:
        holder.successor = link
        link.predecessor = holder
    elif not index_add(&all.by_addresses, hash_addresses(&link.key), link):
        return False
    link.source = source
    source.count += 1
    all.count += 1
    list_link(all, link, SHAKES, now)
    return True


cdef void remove_association(Associations *all, DtlsLink *link) noexcept nogil:
    """Remove an association, and forget what waits of it. Its successor is found in its place from now on."""
    cdef DtlsDatagram *datagram
    cdef DtlsSource *source = link.source
    unlist_link(all, link)
    if link.is_ready:
        leave_turn(link)
    while link.first != NULL:
        datagram = link.first
        link.first = datagram.next
        free(datagram)
    if link.predecessor != NULL:
        link.predecessor.successor = NULL
    else:
        index_remove(&all.by_addresses, hash_addresses(&link.key), link)
    if link.successor != NULL:
        link.successor.predecessor = NULL
        # There is room: that of the one just removed.
        index_add(&all.by_addresses, hash_addresses(&link.key), link.successor)
    if link.session != NULL:
        link.session.link = NULL
    index_remove(&all.by_key, hash_key(&link.key), link)
    source.count -= 1
    all.count -= 1
    let_source_go(all, source)


cdef DtlsLink *oldest_of(const DtlsSource *source, bint shaking_alone) noexcept nogil:
    """The one without an allocation that came to its state first; NULL when there is none."""
    cdef DtlsLink *shaking = source.oldest[<int>SHAKES]
    cdef DtlsLink *idle = source.oldest[<int>IDLES]
    if idle == NULL or shaking_alone:
        return shaking
    if shaking == NULL or idle.since < shaking.since:
        return idle
    return shaking


cdef DtlsLink *oldest_of_most(const Associations *all, bint shaking_alone) noexcept nogil:
    """The oldest of the source that has most without an allocation; of several such the one that is oldest."""
    cdef DtlsLink *found = NULL
    cdef DtlsLink *oldest
    cdef DtlsSource *source
    cdef uint32_t at, has, most = 0
    if all.sources.slots == NULL:
        return NULL
    for at in range(all.sources.mask + 1):
        source = <DtlsSource *>all.sources.slots[at].item
        if source == NULL:
            continue
        has = source.listed[<int>SHAKES] + (0 if shaking_alone else source.listed[<int>IDLES])
        oldest = oldest_of(source, shaking_alone)
        if oldest != NULL and (has > most or (has == most and oldest.since < found.since)):
            found = oldest
            most = has
    return found


cdef bint has_no_room(const Associations *all, const DtlsSource *source, DtlsLink **goes) noexcept nogil:
    """Whether one of this source must go before there is another; goes: which, NULL where none may."""
    if source.listed[<int>SHAKES] >= HALF_OPEN_OF_SOURCE:
        goes[0] = oldest_of(source, True)
    elif all.listed[<int>SHAKES] >= all.most_shaking:
        goes[0] = oldest_of_most(all, True)
    elif source.count >= all.most_of_source:
        goes[0] = oldest_of(source, False)
    elif all.count >= all.most:
        goes[0] = oldest_of_most(all, False)
    else:
        return False
    return True


cdef bint keep_datagram(DtlsLink *link, const uint8_t *data, uint32_t size) noexcept nogil:
    """Keep one for the client's turn in the handshake; False when there is no room."""
    cdef DtlsDatagram *kept
    if link.datagrams == SHAKING_DATAGRAMS or link.bytes + size > SHAKING_BYTES:
        return False
    kept = <DtlsDatagram *>malloc(sizeof(DtlsDatagram) + size)
    if kept == NULL:
        return False
    kept.next = NULL
    kept.size = size
    memcpy(kept + 1, data, size)
    if link.first != NULL:
        link.last.next = kept
    else:
        link.first = kept
    link.last = kept
    link.datagrams += 1
    link.bytes += size
    return True


cdef DtlsDatagram *next_datagram(DtlsLink *link) noexcept nogil:
    """The first that waits, for the caller to free; NULL when none does."""
    cdef DtlsDatagram *taken = link.first
    if taken != NULL:
        link.first = taken.next
        link.datagrams -= 1
        link.bytes -= taken.size
    return taken


cdef void take_turn(Associations *all, DtlsLink *link) noexcept nogil:
    """Stand in line for a step of the handshake; a link that does already keeps its place."""
    cdef DtlsSource *source = link.source
    if link.is_ready:
        return
    link.is_ready = True
    link.next_ready = NULL
    if source.first_ready != NULL:
        source.last_ready.next_ready = link
    else:
        source.first_ready = link
    source.last_ready = link
    if not source.is_in_ring:
        join_ring(all, source)


cdef void join_ring(Associations *all, DtlsSource *source) noexcept nogil:
    """Stand last among the sources with a step to make."""
    source.is_in_ring = True
    source.next = NULL
    if all.first != NULL:
        all.last.next = source
    else:
        all.first = source
    all.last = source


cdef void leave_turn(DtlsLink *link) noexcept nogil:
    """Give up a place in line. The source keeps its own in the ring, if for nothing."""
    cdef DtlsSource *source = link.source
    cdef DtlsLink *before = NULL
    while (before.next_ready if before != NULL else source.first_ready) != link:
        before = before.next_ready if before != NULL else source.first_ready
    if before != NULL:
        before.next_ready = link.next_ready
    else:
        source.first_ready = link.next_ready
    if source.last_ready == link:
        source.last_ready = before
    link.is_ready = False


cdef DtlsLink *next_in_turn(Associations *all) noexcept nogil:
    """Take the next association out of line, for its step; NULL when none has one to make."""
    cdef DtlsSource *source
    cdef DtlsLink *link
    while all.first != NULL:
        source = all.first
        all.first = source.next
        source.is_in_ring = False
        link = source.first_ready
        if link == NULL:
            let_source_go(all, source)
            continue
        leave_turn(link)
        if source.first_ready != NULL:
            join_ring(all, source)
        return link
    return NULL
