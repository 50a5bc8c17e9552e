# What waits for the rules: one client's messages in order, sources in turn.
#
# The rules have at most one message of a client at a time. What it sends meanwhile waits behind that one: messages, and
# data that the table does not cover yet, perhaps because that message asks for it. Data for the same peer wait behind
# those, so that nothing overtakes. A stream keeps nothing here but that one message: its frames stay where they were
# read, and no more is read.
#
# A session is a source of its own; a client without one belongs to the source of its address, an IPv4 address or an
# IPv6 /64. Sources with something for the rules stand in a ring, clients of one source in a ring of theirs, and each
# turn takes one message. So a client that sends much waits for itself, and one that is alone in its source waits for
# one message of each other source. Sessions and strangers have a queue each and are served alternately: no number of
# invented source addresses keeps a session from the rules.
#
# Everything runs under the lane's lock.

cdef enum:
    # Bytes that may wait in each of the two queues, with what it takes to keep them. A source may take a quarter of
    # what is still free. So one that is alone has a fifth of all, and a further one always finds room.
    WAITING_LIMIT = 4194304
    WAITING_SHARE = 4
    # Messages of one client that may wait, datagrams for peers, and the bytes of both. One more is dropped: data that
    # the table does not cover for their own reason, anything else as OVERLOAD.
    CLIENT_MESSAGES = 64
    CLIENT_DATAGRAMS = 32
    CLIENT_BYTES = 131072
    # Messages that go up together; a source that is first now waits for no more than these.
    MESSAGES_AT_ONCE = 32


cdef inline bint is_queue_of(const void *item, const void *key) noexcept nogil:
    return same_key(&(<const ClientQueue *>item).key, <const FiveTupleKey *>key)


cdef ClientQueue *find_queue(const Index *index, const FiveTupleKey *key) noexcept nogil:
    """index: the lane's queues."""
    if index.used == 0:
        return NULL
    return <ClientQueue *>index_find(index, hash_key(key), is_queue_of, key)


cdef inline ClientQueue *queue_of(Lane *lane, Session *session, const FiveTupleKey *key) noexcept nogil:
    """What waits of this client, NULL when nothing does."""
    return session.queue if session != NULL else find_queue(&lane.queues, key)


cdef inline Ip source_ip(const FiveTupleKey *key) noexcept nogil:
    """What strangers of one source share."""
    cdef Ip ip = key.client.ip
    if key.client.family == IPV6:
        ip.words[1] = 0
    return ip


cdef inline bint is_source_at(const void *item, const void *key) noexcept nogil:
    return (
        same_ip(&(<const WaitingSource *>item).ip, &(<const WaitingSource *>key).ip)
        and (<const WaitingSource *>item).family == (<const WaitingSource *>key).family
    )


cdef WaitingSource *find_source(const Index *index, const Ip *ip, uint16_t family) noexcept nogil:
    """The source of strangers at an address, an IPv6 one without its last 64 bits."""
    cdef WaitingSource wanted
    if index.used == 0:
        return NULL
    wanted.ip = ip[0]
    wanted.family = family
    return <WaitingSource *>index_find(index, hash_ip(ip, family), is_source_at, &wanted)


cdef WaitingSource *source_for(Lane *lane, Session *session, const FiveTupleKey *key) noexcept nogil:
    """The source that this client belongs to, with a place for it; NULL when there is no memory."""
    cdef Ip ip = source_ip(key)
    cdef WaitingSource *source = NULL
    if session == NULL:
        source = find_source(&lane.waiting[STRANGERS].sources, &ip, key.client.family)
    if source == NULL:
        source = <WaitingSource *>calloc(1, sizeof(WaitingSource))
        if source == NULL:
            return NULL
        source.ip = ip
        source.family = key.client.family
        source.kind = STRANGERS if session == NULL else SESSIONS
        if session == NULL and not index_add(
            &lane.waiting[STRANGERS].sources, hash_ip(&ip, source.family), source
        ):
            free(source)
            return NULL
    source.clients += 1
    return source


cdef void leave_source(Lane *lane, WaitingSource *source) noexcept nogil:
    """One client less; the source is freed with its last."""
    source.clients -= 1
    if source.clients == 0:
        if source.kind == STRANGERS:
            index_remove(&lane.waiting[STRANGERS].sources, hash_ip(&source.ip, source.family), source)
        free(source)


cdef ClientQueue *add_queue(Lane *lane, Session *session, Stream *stream, const FiveTupleKey *key) noexcept nogil:
    """A queue for a client that has none; NULL when there is no memory."""
    cdef ClientQueue *queue = <ClientQueue *>calloc(1, sizeof(ClientQueue))
    if queue == NULL:
        return NULL
    queue.key = key[0]
    queue.source = source_for(lane, session, key)
    if queue.source == NULL or not index_add(&lane.queues, hash_key(key), queue):
        if queue.source != NULL:
            leave_source(lane, queue.source)
        free(queue)
        return NULL
    queue.stream = stream
    if session != NULL:
        session.queue = queue
    if stream != NULL:
        stream.queue = queue
    charge(lane, queue, sizeof(ClientQueue))
    return queue


cdef inline void charge(Lane *lane, ClientQueue *queue, int64_t bytes) noexcept nogil:
    """Count bytes that are kept for a client of datagrams, less than none when they are let go of.

    Streams keep one message each, in the place of bytes that they would keep themselves: their number bounds them.
    """
    if is_datagram(queue.key.transport):
        queue.source.bytes += bytes
        lane.waiting[<int>queue.source.kind].bytes += bytes


cdef bint has_room(
    Lane *lane, Session *session, ClientQueue *queue, const FiveTupleKey *key, uint32_t size, bint is_message
) noexcept nogil:
    """Whether one more datagram of this client may wait."""
    cdef FairQueue *fair
    cdef WaitingSource *source = NULL
    cdef int64_t whole = sizeof(Queued) + size
    cdef Ip ip
    if not is_datagram(key.transport):
        return True
    if queue != NULL:
        if queue.bytes + size > CLIENT_BYTES:
            return False
        if queue.messages >= CLIENT_MESSAGES if is_message else queue.data >= CLIENT_DATAGRAMS:
            return False
        source = queue.source
        fair = &lane.waiting[<int>source.kind]
    else:
        whole += sizeof(ClientQueue)
        fair = &lane.waiting[STRANGERS if session == NULL else SESSIONS]
        if session == NULL:
            ip = source_ip(key)
            source = find_source(&fair.sources, &ip, key.client.family)
    return whole + (source.bytes if source != NULL else 0) <= (WAITING_LIMIT - fair.bytes) // WAITING_SHARE


cdef bint is_repeated(const ClientQueue *queue, const uint8_t *message, uint32_t size) noexcept nogil:
    """Whether this is a retransmission of what the rules have, or will have."""
    cdef const Queued *queued = queue.first
    if queue.out != NULL and is_same(queue.out, message, size):
        return True
    while queued != NULL:
        if is_same(queued, message, size):
            return True
        queued = queued.next
    return False


cdef inline bint is_same(const Queued *queued, const uint8_t *message, uint32_t size) noexcept nogil:
    """Whether this message waits here, byte for byte."""
    return queued.is_message and queued.size == size and memcmp(queued_bytes(queued), message, size) == 0


cdef inline uint8_t *queued_bytes(const Queued *queued) noexcept nogil:
    """The size bytes that follow the head; they live as long as it does."""
    return <uint8_t *>queued + sizeof(Queued)


cdef bint enqueue(
    Lane *lane, Session *session, Stream *stream, ClientQueue *queue, const FiveTupleKey *key, const uint8_t *data,
    uint32_t size, uint8_t tos, bint is_message
) noexcept nogil:
    """Keep what a client sent until its turn; False when there is no room. queue: what waits of it already, or NULL."""
    cdef Queued *queued = NULL
    if has_room(lane, session, queue, key, size, is_message):
        queued = <Queued *>malloc(sizeof(Queued) + size)
    if queued != NULL and queue == NULL:
        queue = add_queue(lane, session, stream, key)
    if queued == NULL or queue == NULL:
        free(queued)
        return False
    queued.next = NULL
    queued.size = size
    queued.tos = tos
    queued.is_message = is_message
    memcpy(queued_bytes(queued), data, size)
    if queue.last != NULL:
        queue.last.next = queued
    else:
        queue.first = queued
    queue.last = queued
    queue.messages += is_message
    queue.bytes += size
    queue.data += not is_message
    charge(lane, queue, sizeof(Queued) + size)
    if is_message:
        lane.counts.sent_up += 1
        lane.messages += 1
    if queue.first == queued and queue.out == NULL:
        make_ready(lane, queue)
    return True


cdef Queued *pop_first(Lane *lane, ClientQueue *queue) noexcept nogil:
    """What came first of this client, which is the caller's to free."""
    cdef Queued *queued = queue.first
    queue.first = queued.next
    if queue.first == NULL:
        queue.last = NULL
    queued.next = NULL
    queue.messages -= queued.is_message
    queue.bytes -= queued.size
    queue.data -= not queued.is_message
    lane.messages -= queued.is_message
    charge(lane, queue, -<int64_t>(sizeof(Queued) + queued.size))
    return queued


cdef void make_ready(Lane *lane, ClientQueue *queue) noexcept nogil:
    """A message of this client is first, and the rules have none of it: stand in line."""
    cdef WaitingSource *source = queue.source
    queue.is_ready = True
    queue.next = NULL
    if source.last != NULL:
        source.last.next = queue
    else:
        source.first = queue
    source.last = queue
    if not source.is_listed:
        list_source(&lane.waiting[<int>source.kind], source)
    up_wake(&lane.up)


cdef void list_source(FairQueue *fair, WaitingSource *source) noexcept nogil:
    """Have a source stand last in its queue's ring."""
    source.is_listed = True
    source.next = NULL
    if fair.last != NULL:
        fair.last.next = source
    else:
        fair.first = source
    fair.last = source


cdef ClientQueue *next_ready(FairQueue *fair) noexcept nogil:
    """Take the next client out of line; NULL when none stands in it."""
    cdef WaitingSource *source = fair.first
    cdef ClientQueue *queue
    if source == NULL:
        return NULL
    fair.first = source.next
    if fair.first == NULL:
        fair.last = NULL
    queue = source.first
    source.first = queue.next
    if source.first == NULL:
        source.last = NULL
        source.is_listed = False
    else:
        list_source(fair, source)
    queue.is_ready = False
    queue.next = NULL
    return queue


cdef void leave_line(Lane *lane, ClientQueue *queue) noexcept nogil:
    """Give up a place in line."""
    cdef WaitingSource *source = queue.source
    cdef FairQueue *fair = &lane.waiting[<int>source.kind]
    cdef ClientQueue *before = NULL
    cdef WaitingSource *earlier = NULL
    while (before.next if before != NULL else source.first) != queue:
        before = before.next if before != NULL else source.first
    if before != NULL:
        before.next = queue.next
    else:
        source.first = queue.next
    if source.last == queue:
        source.last = before
    queue.next = NULL
    queue.is_ready = False
    if source.first != NULL:
        return
    while (earlier.next if earlier != NULL else fair.first) != source:
        earlier = earlier.next if earlier != NULL else fair.first
    if earlier != NULL:
        earlier.next = source.next
    else:
        fair.first = source.next
    if fair.last == source:
        fair.last = earlier
    source.is_listed = False


cdef Queued *pop_message(Lane *lane, ClientQueue *queue) noexcept nogil:
    """The message that is first of this client, which the rules have from now on."""
    queue.out = pop_first(lane, queue)
    queue.next = lane.out
    lane.out = queue
    return queue.out


cdef uint32_t pop_messages(Lane *lane, ClientQueue **whose, Queued **taken, uint32_t most) noexcept nogil:
    """At most so many messages for the rules, one of a client, sessions and strangers alternately; returns how many."""
    cdef uint32_t count = 0
    cdef uint32_t misses = 0
    cdef ClientQueue *queue
    while count < most and misses < WAITING_KINDS:
        lane.next_kind = (lane.next_kind + 1) % WAITING_KINDS
        queue = next_ready(&lane.waiting[lane.next_kind])
        if queue == NULL:
            misses += 1
            continue
        misses = 0
        if queue.is_gone:
            free_queue(lane, queue)
            continue
        whose[count] = queue
        taken[count] = pop_message(lane, queue)
        count += 1
    lane.handed = count
    return count


cdef int64_t backlog(const Lane *lane) noexcept nogil:
    """Nanoseconds that the rules still need for what they have, at the least: nothing that comes meanwhile is late."""
    return min(<int64_t>(lane.messages + lane.handed // 2) * UP_JUDGING, <int64_t>UP_LONGEST)


cdef void remove_queue(Lane *lane, ClientQueue *queue) noexcept nogil:
    """Have the client's queue found no more."""
    cdef Session *session = find_session(&lane.sessions, &queue.key)
    index_remove(&lane.queues, hash_key(&queue.key), queue)
    if session != NULL and session.queue == queue:
        session.queue = NULL
    if queue.stream != NULL:
        queue.stream.queue = NULL
        queue.stream = NULL


cdef void free_queue(Lane *lane, ClientQueue *queue) noexcept nogil:
    """Free a queue that nothing finds any more, with what is left in it."""
    free(queue.out)
    while queue.first != NULL:
        free(pop_first(lane, queue))
    charge(lane, queue, -<int64_t>sizeof(ClientQueue))
    leave_source(lane, queue.source)
    free(queue)


cdef void abandon_queue(Lane *lane, ClientQueue *queue) noexcept nogil:
    """The client is gone: forget what waits of it. The owner of the list that the queue is in frees it."""
    remove_queue(lane, queue)
    while queue.first != NULL:
        free(pop_first(lane, queue))
    queue.is_gone = True
    if not queue.is_ready and (queue.out == NULL or queue.is_kept):
        free_queue(lane, queue)


cdef void free_queues(Lane *lane) noexcept nogil:
    """Free everything that waits, when the lane is not used any more."""
    cdef uint32_t kind, at = 0
    cdef ClientQueue *queue
    for kind in range(<uint32_t>WAITING_KINDS):
        while lane.waiting[kind].first != NULL:
            queue = next_ready(&lane.waiting[kind])
            if not queue.is_gone:
                remove_queue(lane, queue)
            free_queue(lane, queue)
    while lane.out != NULL:
        queue = lane.out
        lane.out = queue.next
        if not queue.is_gone:
            remove_queue(lane, queue)
        free_queue(lane, queue)
    while lane.queues.used:
        while lane.queues.slots[at].item == NULL:
            at += 1
        queue = <ClientQueue *>lane.queues.slots[at].item
        remove_queue(lane, queue)
        free_queue(lane, queue)
        at = 0
    index_free(&lane.queues)
    for kind in range(<uint32_t>WAITING_KINDS):
        index_free(&lane.waiting[kind].sources)
