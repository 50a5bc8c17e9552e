# The hosts of this server, and by which names peers behind one-to-one NAT are called.

cdef struct Home:
    # A host of this server; other: behind one-to-one NAT the host behind an advertised one, or what stands for it.
    Ip ip
    Ip other
    uint16_t family
    bint has_other

cdef struct Homes:
    # Hosts at which sessions are advertised, and hosts behind them that are others. Homes are the index's to free.
    Index advertised
    Index behind


cdef inline bint is_home(const void *item, const void *key) noexcept nogil:
    return (
        same_ip(&(<const Home *>item).ip, &(<const Endpoint *>key).ip)
        and (<const Home *>item).family == (<const Endpoint *>key).family
    )


cdef Home *find_home(const Index *index, const Endpoint *host) noexcept nogil:
    """The port does not matter."""
    return <Home *>index_find(index, hash_ip(&host.ip, host.family), is_home, host)


cdef bint add_home(Index *homes, const Endpoint *host, const Endpoint *other) noexcept nogil:
    """Add a host, or let one that is there have another name; other may be NULL. False when there is no memory."""
    cdef Home *home = find_home(homes, host)
    if home == NULL:
        home = <Home *>calloc(1, sizeof(Home))
        if home == NULL:
            return False
        home.ip = host.ip
        home.family = host.family
        if not index_add(homes, hash_ip(&host.ip, host.family), home):
            free(home)
            return False
    if other != NULL:
        home.other = other.ip
        home.has_other = True
    return True


cdef void forget_others(Index *homes) noexcept nogil:
    """Let every host have one name alone."""
    cdef uint32_t at
    if homes.slots != NULL:
        for at in range(homes.mask + 1):
            if homes.slots[at].item != NULL:
                (<Home *>homes.slots[at].item).has_other = False


cdef void known_as(const Homes *homes, Session *session, Endpoint *peer, int64_t now) noexcept nogil:
    """Rename a peer behind an advertised host as the client calls it.

    Of the names that the client has a permission for, it is the one that the client has used last; the outer one where
    it has used none.
    """
    cdef Home *home
    cdef Endpoint there
    if homes.behind.used == 0:
        return
    home = find_home(&homes.behind, peer)
    if home == NULL:
        return
    there = peer[0]
    there.ip = home.other
    if refusal(session, &there, now) != PASSES:
        return
    if refusal(session, peer, now) == PASSES and is_called(session, peer.port, False):
        return
    peer[0] = there
