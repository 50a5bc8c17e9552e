# One client's bytes in order: what follows a message for the rules waits until they have judged it. Every function runs
# under its lane's lock.

cdef enum Wait:
    PASSES_NOW
    # The table does not cover it yet; it is covered, and would overtake; it is for the rules.
    WAITS_FOR_TABLE
    WAITS_BEHIND
    WAITS_AS_MESSAGE


cdef bint would_overtake(
    Session *session, const ClientQueue *queue, uint32_t number, const Endpoint *peer
) noexcept nogil:
    """Whether data for this peer wait, or on this channel."""
    cdef const Queued *queued = queue.first
    cdef const Channel *channel
    cdef SendIndication indication
    cdef uint32_t other
    while queued != NULL:
        if not queued.is_message and queued_bytes(queued)[0] >= 0x40:
            other = get16(queued_bytes(queued))
            channel = find_channel(&session.channels, other)
            if other == number or (channel != NULL and same_endpoint(&channel.peer, peer)):
                return True
        elif not queued.is_message and read_send_indication(&indication, queued_bytes(queued), queued.size):
            if same_endpoint(&indication.peer, peer):
                return True
        queued = queued.next
    return False


cdef Wait must_wait(
    Session *session, const ClientQueue *queue, const uint8_t *data, uint32_t size, int64_t now
) noexcept nogil:
    """Whether what a client of this queue sends now stays behind what it sent before.

    Data that the table covers pass unless they would overtake others: they need no judgement.
    """
    cdef SendIndication indication
    cdef Route route
    cdef uint32_t first = data[0] if size else 0xFF
    if 0x40 <= first <= 0x7F:
        if size < 4 or get16(data + 2) > size - 4:
            return PASSES_NOW
        if session == NULL:
            return WAITS_FOR_TABLE
        find_route(session, get16(data), now, &route)
        if route.verdict != PASSES and route.verdict != INSIDE:
            return WAITS_FOR_TABLE
        if queue.data and would_overtake(session, queue, get16(data), &route.channel.peer):
            return WAITS_BEHIND
        return PASSES_NOW
    if first > 0x7F or not is_possible(data, size):
        return PASSES_NOW
    if session == NULL or get16(data) != SEND_INDICATION or not read_send_indication(&indication, data, size):
        return WAITS_AS_MESSAGE
    if refusal(session, &indication.peer, now) != PASSES:
        return WAITS_FOR_TABLE
    if queue.data and would_overtake(session, queue, 0, &indication.peer):
        return WAITS_BEHIND
    return PASSES_NOW


cdef void from_udp_client(
    Lane *lane, Batch *batch, Listener *listener, Session *session, const FiveTupleKey *key, const uint8_t *data,
    uint32_t size, uint8_t tos, bint may_write, Route *route
) noexcept nogil:
    """Relay, answer, drop or keep for the rules what a client of this lane sent. listener: NULL where none answers."""
    cdef ClientQueue *queue = queue_of(lane, session, key)
    cdef Wait wait = PASSES_NOW
    if queue != NULL:
        wait = must_wait(session, queue, data, size, batch.now)
    if wait == WAITS_FOR_TABLE and enqueue(lane, session, NULL, queue, key, data, size, tos, False):
        return
    if wait == PASSES_NOW or wait == WAITS_FOR_TABLE:
        if not shows_move(lane, session, key, data, size) and from_client(
            lane, batch, session, data, size, tos, may_write, route
        ):
            return
        wait = WAITS_AS_MESSAGE
    if wait == WAITS_AS_MESSAGE:
        if (
            listener != NULL
            and not is_observed(lane, &key.client)
            and answer_allocate(lane, batch, listener, key, data, size)
        ):
            return
        if queue != NULL and is_repeated(queue, data, size):
            lane.counts.sent_up += 1
            return
    if not enqueue(lane, session, NULL, queue, key, data, size, tos, wait == WAITS_AS_MESSAGE):
        drop_packet(lane, session, OVERLOAD)


cdef bint release_first(Lane *lane, Batch *batch, Session *session, ClientQueue *queue) noexcept nogil:
    """Relay or drop what waits first of a client; False when it is for the rules."""
    cdef Queued *queued = queue.first
    cdef Route route
    cdef uint32_t home = lane.number
    cdef uint64_t number = 0
    if session == NULL and lane.shared.lanes > 1 and queue.key.transport == UDP:
        home = home_of(lane, &queue.key, &number)
    route.number = NONE
    if home != lane.number:
        put_foreign(
            lane, batch, home, number, NULL, &queue.key, NULL, NULL, queued_bytes(queued), queued.size, queued.tos
        )
    elif shows_move(lane, session, &queue.key, queued_bytes(queued), queued.size) or not from_client(
        lane, batch, session, queued_bytes(queued), queued.size, queued.tos, False, &route
    ):
        if not queued.is_message:
            queued.is_message = True
            queue.data -= 1
            queue.messages += 1
            lane.messages += 1
            lane.counts.sent_up += 1
        return False
    if queued.is_message:
        lane.counts.sent_up -= 1
    return True


cdef void go_on(Lane *lane, Batch *batch, ClientQueue *queue) noexcept nogil:
    """Serve what came behind a message that the rules have judged, as far as the next one; the queue may be freed."""
    cdef Session *session = find_session(&lane.sessions, &queue.key)
    cdef Queued *done = NULL
    cdef Queued *queued
    cdef Stream *stream
    queue.is_kept = False
    while queue.first != NULL and release_first(lane, batch, session, queue):
        queued = pop_first(lane, queue)
        queued.next = done
        done = queued
    if done != NULL:
        flush(lane, batch)
    while done != NULL:
        queued = done
        done = queued.next
        free(queued)
    free(queue.out)
    queue.out = NULL
    if queue.is_gone:
        free_queue(lane, queue)
    elif queue.first != NULL:
        make_ready(lane, queue)
    else:
        stream = queue.stream
        remove_queue(lane, queue)
        free_queue(lane, queue)
        if stream != NULL:
            resume_stream(lane, batch, stream)
