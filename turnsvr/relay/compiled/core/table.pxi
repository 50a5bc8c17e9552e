# What a lane knows: endpoints, sessions with their relays, permissions and channels, and how each is found.
#
# An Index is an open-addressing hash table of pointers: one probe in the common case, at most three quarters full,
# grown as it fills, empty ones cost nothing. Hashes are keyed with random words, so that nobody chooses addresses
# that collide. Only the control thread changes an Index; it does so under the lane's lock.

cdef union Ip:
    uint8_t bytes[16]
    uint64_t words[2]

cdef struct Endpoint:
    # IPv4 takes the first four bytes of ip, the rest is zero. port in host order.
    Ip ip
    uint32_t scope
    uint16_t port
    uint16_t family

cdef enum:
    NO_FAMILY = 0
    IPV4 = 1
    IPV6 = 2

cdef enum:
    UDP = 0
    TCP = 1
    TLS = 2

cdef enum:
    # Ports of which a session remembers by which name it has called them; of two with one place the later stays.
    NAMES = 64

cdef struct FiveTupleKey:
    # As turnsvr.stun.address.FiveTuple: connection tells a stream from the one before at the same addresses.
    Endpoint client
    Endpoint server
    uint32_t transport
    uint32_t connection

cdef struct IndexSlot:
    uint64_t hash
    void *item

cdef struct Index:
    IndexSlot *slots
    uint32_t mask
    uint32_t used

cdef struct Bucket:
    double level
    int64_t filled_at

cdef struct Span:
    # Ports, inclusive.
    uint16_t low
    uint16_t high

cdef struct Permission:
    # For a host; the spans of its ports follow.
    Ip ip
    int64_t deadline
    uint32_t spans
    uint16_t family
    # Whether Python has heard of a packet for another port.
    bint told

cdef struct Home:
    # A host of this server; other: behind one-to-one NAT the host behind an advertised one, or what stands for it.
    Ip ip
    Ip other
    uint16_t family
    bint has_other

cdef struct Channel:
    Endpoint peer
    int64_t deadline
    uint16_t number

cdef struct Traffic:
    uint64_t packets_from_client
    uint64_t bytes_from_client
    uint64_t packets_to_client
    uint64_t bytes_to_client
    uint64_t dropped

cdef struct Session

cdef struct Relay:
    Session *session
    Endpoint host
    Endpoint advertised
    int descriptor
    uint32_t lane
    uint32_t slot
    bint gso
    # How the socket was last told to send; only IPv4 needs telling.
    bint dont_fragment

cdef struct TlsLink

cdef struct ClientQueue

cdef struct Queued:
    # Something that a client sent, and that waits; size bytes follow.
    Queued *next
    uint32_t size
    uint8_t tos
    # For the rules, as far as could be told when it came.
    bint is_message

cdef enum:
    STRANGERS = 0
    SESSIONS = 1
    WAITING_KINDS = 2

cdef struct Source:
    # Whose messages have turns: an address of strangers, or one session. Its clients with a message for the rules.
    Ip ip
    uint16_t family
    uint32_t kind
    uint32_t clients
    int64_t bytes
    bint is_listed
    ClientQueue *first
    ClientQueue *last
    Source *next

cdef struct FairQueue:
    # Sources with a message for the rules, in the order of their turns; and all of those that have anything here.
    Source *first
    Source *last
    Index sources
    int64_t bytes

cdef struct Stream

cdef struct ClientQueue:
    # A client of which something waits, or of whose messages the rules have one: out.
    FiveTupleKey key
    Source *source
    Stream *stream
    Queued *first
    Queued *last
    uint32_t messages
    uint32_t data
    uint32_t bytes
    # In the list of its source, or in that of what went up last, unless the rules keep it for later.
    ClientQueue *next
    bint is_ready
    Queued *out
    bint is_kept
    bint is_gone

cdef struct Stream:
    # A TCP or TLS client whose socket the lane serves. pending are the frames that wait for the rules and the one that
    # has not wholly come, output what is still to be sent.
    FiveTupleKey key
    int descriptor
    # NULL for plain TCP.
    TlsLink *tls
    uint32_t slot
    uint8_t *pending
    uint32_t pending_at
    uint32_t pending_size
    uint8_t *output
    uint32_t output_at
    uint32_t output_size
    uint32_t output_room
    bint wants_write
    bint queued
    # Nothing is read from it any more; dead: nothing is written to it either.
    bint is_over
    bint dead
    Stream *next_queued
    # Not NULL while the rules have a message of it, or will: what follows waits in pending, and nothing is read.
    # is_muted: epoll has been told so. ends: the client ended it behind what is pending.
    ClientQueue *queue
    bint is_muted
    bint ends

cdef struct Session:
    uint64_t number
    FiveTupleKey key
    int64_t deadline
    Relay *relays[2]
    Stream *stream
    # What waits of the client, NULL when nothing does.
    ClientQueue *queue
    int listener
    uint32_t lane
    # The StreamWriter of an attached client, borrowed from Engine.writers; only the control thread calls it.
    void *writer
    bint gso
    Index permissions
    Index channels
    Index channels_by_peer
    # By which name the client has called hosts of two names last, by port; NULL while it has called none.
    uint32_t *names
    # Bytes a second each way, 0 for no limit: its own, or what the settings say.
    double bandwidth
    bint limited_by_itself
    Bucket from_client
    Bucket to_client
    # What the lane counts, and what the control thread counts of frames that it has written.
    Traffic traffic
    Traffic written

cdef uint64_t _hash_keys[4]
getrandom(_hash_keys, sizeof(_hash_keys), 0)


cdef inline uint64_t hash_ip(const Ip *ip, uint64_t salt) noexcept nogil:
    return fold(ip.words[0] ^ _hash_keys[0] ^ salt, ip.words[1] ^ _hash_keys[1])


cdef inline uint64_t hash_endpoint(const Endpoint *endpoint, uint64_t salt) noexcept nogil:
    return fold(hash_ip(&endpoint.ip, salt) ^ _hash_keys[2], <uint64_t>endpoint.port ^ _hash_keys[3])


cdef inline uint64_t hash_key(const FiveTupleKey *key) noexcept nogil:
    return hash_endpoint(&key.client, hash_endpoint(&key.server, <uint64_t>key.connection << 32 | key.transport))


cdef inline uint64_t hash_number(uint64_t number) noexcept nogil:
    return fold(number ^ _hash_keys[0], _hash_keys[1] | 1)


cdef inline bint same_ip(const Ip *one, const Ip *other) noexcept nogil:
    return one.words[0] == other.words[0] and one.words[1] == other.words[1]


cdef inline bint same_endpoint(const Endpoint *one, const Endpoint *other) noexcept nogil:
    return (
        same_ip(&one.ip, &other.ip)
        and one.port == other.port
        and one.family == other.family
        and one.scope == other.scope
    )


cdef inline bint same_key(const FiveTupleKey *one, const FiveTupleKey *other) noexcept nogil:
    return (
        same_endpoint(&one.client, &other.client)
        and same_endpoint(&one.server, &other.server)
        and one.transport == other.transport
        and one.connection == other.connection
    )


cdef bint index_grow(Index *index) noexcept nogil:
    cdef uint32_t size = 4 if index.slots == NULL else (index.mask + 1) * 2
    cdef IndexSlot *slots = <IndexSlot *>calloc(size, sizeof(IndexSlot))
    cdef IndexSlot *old = index.slots
    cdef uint32_t at, to
    if slots == NULL:
        return False
    if old != NULL:
        for at in range(index.mask + 1):
            if old[at].item != NULL:
                to = <uint32_t>old[at].hash & (size - 1)
                while slots[to].item != NULL:
                    to = (to + 1) & (size - 1)
                slots[to] = old[at]
        free(old)
    index.slots = slots
    index.mask = size - 1
    return True


cdef bint index_add(Index *index, uint64_t hash, void *item) noexcept nogil:
    """Add an item that is not there yet; False when there is no memory."""
    if index.slots == NULL or (index.used + 1) * 4 > (index.mask + 1) * 3:
        if not index_grow(index):
            return False
    cdef uint32_t at = <uint32_t>hash & index.mask
    while index.slots[at].item != NULL:
        at = (at + 1) & index.mask
    index.slots[at].hash = hash
    index.slots[at].item = item
    index.used += 1
    return True


cdef void index_remove(Index *index, uint64_t hash, const void *item) noexcept nogil:
    """Remove an item; the slots behind it move up, so that no probe meets a hole."""
    cdef uint32_t at, hole, home
    if index.slots == NULL:
        return
    at = <uint32_t>hash & index.mask
    while index.slots[at].item != item:
        if index.slots[at].item == NULL:
            return
        at = (at + 1) & index.mask
    index.used -= 1
    hole = at
    while True:
        at = (at + 1) & index.mask
        if index.slots[at].item == NULL:
            break
        home = <uint32_t>index.slots[at].hash & index.mask
        if ((at - home) & index.mask) >= ((at - hole) & index.mask):
            index.slots[hole] = index.slots[at]
            hole = at
    index.slots[hole].item = NULL


cdef void index_free(Index *index) noexcept nogil:
    """Free the table, not the items."""
    free(index.slots)
    index.slots = NULL
    index.mask = 0
    index.used = 0


cdef Session *find_session(const Index *index, const FiveTupleKey *key) noexcept nogil:
    cdef uint64_t hash
    cdef uint32_t at
    if index.slots == NULL:
        return NULL
    hash = hash_key(key)
    at = <uint32_t>hash & index.mask
    while index.slots[at].item != NULL:
        if index.slots[at].hash == hash and same_key(&(<Session *>index.slots[at].item).key, key):
            return <Session *>index.slots[at].item
        at = (at + 1) & index.mask
    return NULL


cdef Session *find_number(const Index *index, uint64_t number) noexcept nogil:
    cdef uint64_t hash
    cdef uint32_t at
    if index.slots == NULL:
        return NULL
    hash = hash_number(number)
    at = <uint32_t>hash & index.mask
    while index.slots[at].item != NULL:
        if (<Session *>index.slots[at].item).number == number:
            return <Session *>index.slots[at].item
        at = (at + 1) & index.mask
    return NULL


cdef Stream *find_stream(const Index *index, const FiveTupleKey *key) noexcept nogil:
    cdef uint64_t hash
    cdef uint32_t at
    if index.slots == NULL:
        return NULL
    hash = hash_key(key)
    at = <uint32_t>hash & index.mask
    while index.slots[at].item != NULL:
        if index.slots[at].hash == hash and same_key(&(<Stream *>index.slots[at].item).key, key):
            return <Stream *>index.slots[at].item
        at = (at + 1) & index.mask
    return NULL


cdef Relay *find_relay(const Index *index, const Endpoint *advertised) noexcept nogil:
    cdef uint64_t hash
    cdef uint32_t at
    if index.slots == NULL:
        return NULL
    hash = hash_endpoint(advertised, 0)
    at = <uint32_t>hash & index.mask
    while index.slots[at].item != NULL:
        if index.slots[at].hash == hash and same_endpoint(&(<Relay *>index.slots[at].item).advertised, advertised):
            return <Relay *>index.slots[at].item
        at = (at + 1) & index.mask
    return NULL


cdef Permission *find_permission(const Index *index, const Endpoint *peer) noexcept nogil:
    """The port does not matter."""
    cdef uint64_t hash
    cdef uint32_t at
    cdef Permission *found
    if index.slots == NULL:
        return NULL
    hash = hash_ip(&peer.ip, peer.family)
    at = <uint32_t>hash & index.mask
    while index.slots[at].item != NULL:
        found = <Permission *>index.slots[at].item
        if index.slots[at].hash == hash and same_ip(&found.ip, &peer.ip) and found.family == peer.family:
            return found
        at = (at + 1) & index.mask
    return NULL


cdef Home *find_home(const Index *index, const Endpoint *host) noexcept nogil:
    """The port does not matter."""
    cdef uint64_t hash
    cdef uint32_t at
    cdef Home *found
    if index.slots == NULL:
        return NULL
    hash = hash_ip(&host.ip, host.family)
    at = <uint32_t>hash & index.mask
    while index.slots[at].item != NULL:
        found = <Home *>index.slots[at].item
        if index.slots[at].hash == hash and same_ip(&found.ip, &host.ip) and found.family == host.family:
            return found
        at = (at + 1) & index.mask
    return NULL


cdef inline bint covers(const Permission *permission, uint16_t port) noexcept nogil:
    """Whether this port of the host is permitted, too."""
    cdef const Span *spans = <const Span *>(permission + 1)
    cdef uint32_t at
    for at in range(permission.spans):
        if spans[at].low <= port <= spans[at].high:
            return True
    return False


cdef void remember_name(Session *session, uint16_t port, bint is_outer) noexcept nogil:
    """The client has sent to this port of a host of two names, by the outer one or by the inner one."""
    if session.names == NULL:
        session.names = <uint32_t *>calloc(NAMES, sizeof(uint32_t))
        if session.names == NULL:
            return
    session.names[port % NAMES] = (<uint32_t>port << 1) + <uint32_t>is_outer


cdef inline bint is_called(const Session *session, uint16_t port, bint is_outer) noexcept nogil:
    """Whether that was the last name."""
    return session.names != NULL and session.names[port % NAMES] == (<uint32_t>port << 1) + <uint32_t>is_outer


cdef inline Channel *find_channel(const Index *index, uint32_t number) noexcept nogil:
    cdef uint32_t at
    if index.slots == NULL:
        return NULL
    at = number & index.mask
    while index.slots[at].item != NULL:
        if index.slots[at].hash == number:
            return <Channel *>index.slots[at].item
        at = (at + 1) & index.mask
    return NULL


cdef Channel *find_channel_of(const Index *index, const Endpoint *peer) noexcept nogil:
    cdef uint64_t hash
    cdef uint32_t at
    if index.slots == NULL:
        return NULL
    hash = hash_endpoint(peer, 0)
    at = <uint32_t>hash & index.mask
    while index.slots[at].item != NULL:
        if index.slots[at].hash == hash and same_endpoint(&(<Channel *>index.slots[at].item).peer, peer):
            return <Channel *>index.slots[at].item
        at = (at + 1) & index.mask
    return NULL


cdef bint add_permission(Index *permissions, Permission *added) noexcept nogil:
    """Add one for a host that has none; False when there is no memory."""
    return index_add(permissions, hash_ip(&added.ip, added.family), added)


cdef void remove_permission(Index *permissions, Permission *removed) noexcept nogil:
    index_remove(permissions, hash_ip(&removed.ip, removed.family), removed)
    free(removed)


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


cdef void free_items(Index *index) noexcept nogil:
    """Free the items and the table."""
    cdef uint32_t at
    if index.slots != NULL:
        for at in range(index.mask + 1):
            free(index.slots[at].item)
    index_free(index)


cdef bint add_channel(Session *session, uint32_t number, const Endpoint *peer, int64_t deadline) noexcept nogil:
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
