# Sessions that move from one pump to another, as turnsvr/relay/moving.py has it.
#
# A slot whose tenant has moved is served no more: the first event for it takes its descriptor out of epoll. So parting
# costs a look at each slot, and clients that stay do not wait for it.

cdef tuple moving_state(Session *session, int64_t now):
    """Counters, what its buckets hold now, and the bandwidth that is its own or None; under the lane's lock."""
    cdef double of_client = session.from_client.level
    cdef double of_peers = session.to_client.level
    cdef double rate = session.bandwidth
    of_client = min(rate, of_client + max(now - session.from_client.filled_at, <int64_t>0) * rate * 1e-9)
    of_peers = min(rate, of_peers + max(now - session.to_client.filled_at, <int64_t>0) * rate * 1e-9)
    return session_traffic(session), of_client, of_peers, (rate if session.limited_by_itself else None)


cdef void fill_buckets(Session *session, double of_client, double of_peers, int64_t at) noexcept nogil:
    """Let no more pass than what was left at that time, with what has come since."""
    session.from_client.level = min(session.bandwidth, of_client)
    session.to_client.level = min(session.bandwidth, of_peers)
    session.from_client.filled_at = session.to_client.filled_at = at


cdef bint moves(Lane *lane, const Slot *slot) noexcept nogil:
    """Whether the tenant of a slot goes when the lane parts.

    All go but the relays and connections of sessions that stay, and clients over TLS, over DTLS or to peers.
    """
    cdef Session *session
    if slot.kind == IS_LISTENER:
        return not (<Listener *>slot.item).is_apart
    if slot.kind == IS_RELAY:
        return not (<Relay *>slot.item).session.stays
    if slot.kind != IS_STREAM or (<Stream *>slot.item).tls != NULL or (<Stream *>slot.item).splice != NULL:
        return False
    session = find_session(&lane.sessions, &(<Stream *>slot.item).key)
    return session == NULL or not session.stays


cdef void mark_moved(Lane *lane, bint moved) noexcept nogil:
    """Have the lane touch nothing that moves, or all of it again; under its lock."""
    cdef uint32_t at
    cdef Session *session
    cdef Slot *slot
    lane.has_parted = moved
    for at in range(lane.slot_count):
        slot = &lane.slots[at]
        if moved:
            slot.has_moved = moves(lane, slot)
        elif slot.has_moved:
            slot.has_moved = False
            watch_again(lane, at)
    if lane.sessions.slots != NULL:
        for at in range(lane.sessions.mask + 1):
            session = <Session *>lane.sessions.slots[at].item
            if session != NULL:
                session.has_moved = moved and not session.stays


cdef void watch_again(Lane *lane, uint32_t at) noexcept nogil:
    """Have epoll look for what is in a slot, whether it has gone on looking or not."""
    cdef Slot *slot = &lane.slots[at]
    cdef Stream *stream
    if slot.kind == IS_LISTENER:
        watch(lane, at, (<Listener *>slot.item).descriptor, EPOLLIN, EPOLL_CTL_ADD)
    elif slot.kind == IS_RELAY:
        watch(lane, at, (<Relay *>slot.item).descriptor, EPOLLIN, EPOLL_CTL_ADD)
    elif slot.kind == IS_STREAM and not (<Stream *>slot.item).is_over:
        stream = <Stream *>slot.item
        watch(lane, at, stream.descriptor, EPOLLIN, EPOLL_CTL_ADD)
        watch_stream(lane, stream)


cdef int connect_association(Lane *lane, DtlsLink *link, bint gro, int room) except -1:
    """Have an association be read at a socket of its own from here on; what came before is read where it came to.

    Raises OSError where there is no room for one, or the address may not be shared with it. Under the lane's lock.
    """
    cdef const Listener *shared = <const Listener *>link.listener
    cdef Listener *apart = <Listener *>calloc(1, sizeof(Listener))
    cdef int64_t slot = -1
    if apart == NULL:
        raise OSError(ENOMEM, "association")
    apart.descriptor = -1
    try:
        apart.suffix = <uint8_t *>malloc(shared.suffix_size + 1)
        if apart.suffix == NULL:
            raise OSError(ENOMEM, "association")
        memcpy(apart.suffix, shared.suffix, shared.suffix_size)
        apart.suffix_size = shared.suffix_size
        apart.tells_mapped = shared.tells_mapped
        apart.takes_dtls = apart.is_apart = True
        apart.address = link.key.server
        apart.client = link.key.client
        apart.number = shared.number
        apart.descriptor = open_connected(&link.key, shared.descriptor, gro, room)
        slot = take_slot(lane, IS_LISTENER, apart)
        if slot < 0 or not watch(lane, <uint32_t>slot, apart.descriptor, EPOLLIN, EPOLL_CTL_ADD):
            raise OSError(errno, "association")
        apart.slot = <uint32_t>slot
    except BaseException:
        if slot >= 0:
            release_slot(lane, <uint32_t>slot)
        if apart.descriptor >= 0:
            c_close(apart.descriptor)
        free_listener(apart)
        raise
    link.listener = apart
    if link.successor != NULL:
        link.successor.listener = apart
    return 0


cdef list queued_of(const ClientQueue *queue):
    """What waits of a client, the message that the rules have before all else."""
    cdef const Queued *queued = queue.first
    cdef list found = []
    if queue.out != NULL:
        found.append(queued_bytes(queue.out)[: queue.out.size])
    while queued != NULL:
        found.append(queued_bytes(queued)[: queued.size])
        queued = queued.next
    return found


cdef class MovingEngine(PacketEngine):
    """A PacketEngine whose sessions can move."""

    cdef bint is_frozen

    # The giver

    cdef uint32_t pop_messages_of(self, Lane *lane) noexcept:
        """None while frozen."""
        return 0 if self.is_frozen else PacketEngine.pop_messages_of(self, lane)

    def freeze(self, bint frozen):
        """Have drain() return no messages, or return them again."""
        self.is_frozen = frozen

    def state(self, uint64_t number):
        """(fields of Counters, level from the client, level to it, own bandwidth) now; None for an unknown session."""
        cdef Session *session = find_number(&self.shared.numbers, number)
        cdef Lane *lane
        if session == NULL:
            return None
        lane = self.lanes[session.lane]
        lane_lock(lane)
        state = moving_state(session, monotonic())
        lane_unlock(lane)
        return state

    def plain_streams(self):
        """(five-tuple, descriptor) of each adopted connection without TLS that is not over."""
        cdef uint32_t at, lane
        cdef Stream *stream
        cdef list found = []
        for lane in range(self.lane_count):
            lane_lock(self.lanes[lane])
            for at in range(self.lanes[lane].slot_count):
                if self.lanes[lane].slots[at].kind == IS_STREAM:
                    stream = <Stream *>self.lanes[lane].slots[at].item
                    if stream.tls == NULL and not stream.is_over:
                        found.append((five_tuple_of(&stream.key), stream.descriptor))
            lane_unlock(self.lanes[lane])
        return found

    def set_apart(self, numbers, bint gro, int room):
        """Give the DTLS clients of these sessions sockets of their own, connected to them.

        Returns the numbers of those of DTLS that could not be given one. room: bytes to receive at least.
        """
        cdef Session *session
        cdef Lane *lane
        cdef list left = []
        for number in numbers:
            session = find_number(&self.shared.numbers, number)
            if session == NULL or session.key.transport != DTLS:
                continue
            lane = self.lanes[session.lane]
            lane_lock(lane)
            try:
                if session.link == NULL:
                    left.append(number)
                elif not (<Listener *>session.link.listener).is_apart:
                    connect_association(lane, session.link, gro, room)
            except OSError:
                left.append(number)
            finally:
                lane_unlock(lane)
        return left

    def part(self, stays):
        """Touch from here on nothing but these sessions and connections over TLS."""
        cdef Session *session
        cdef uint32_t at
        for number in stays:
            session = find_number(&self.shared.numbers, number)
            if session != NULL:
                lane_lock(self.lanes[session.lane])
                session.stays = True
                lane_unlock(self.lanes[session.lane])
        for at in range(self.lane_count):
            lane_lock(self.lanes[at])
            mark_moved(self.lanes[at], True)
            lane_unlock(self.lanes[at])

    def rejoin(self):
        """Take back what part() let go of."""
        cdef uint32_t at, session
        cdef Lane *lane
        for at in range(self.lane_count):
            lane = self.lanes[at]
            lane_lock(lane)
            mark_moved(lane, False)
            if lane.sessions.slots != NULL:
                for session in range(lane.sessions.mask + 1):
                    if lane.sessions.slots[session].item != NULL:
                        (<Session *>lane.sessions.slots[session].item).stays = False
            lane_unlock(lane)

    def rest(self):
        """After part(): what waits of connections, and of UDP and attached clients.

        Returns two lists, of (five-tuple, pending, output) and of (five-tuple, messages).
        """
        cdef uint32_t at, lane
        cdef Stream *stream
        cdef ClientQueue *queue
        cdef bytes pending
        cdef list streams = []
        cdef list waiting = []
        for lane in range(self.lane_count):
            lane_lock(self.lanes[lane])
            for at in range(self.lanes[lane].slot_count):
                if self.lanes[lane].slots[at].kind != IS_STREAM or not self.lanes[lane].slots[at].has_moved:
                    continue
                stream = <Stream *>self.lanes[lane].slots[at].item
                pending = b"" if stream.queue == NULL else b"".join(queued_of(stream.queue))
                if stream.pending_size:
                    pending += (stream.pending + stream.pending_at)[: stream.pending_size]
                if pending or stream.output_size:
                    output = (stream.output + stream.output_at)[: stream.output_size] if stream.output_size else b""
                    streams.append((five_tuple_of(&stream.key), pending, output))
            if self.lanes[lane].queues.slots != NULL:
                for at in range(self.lanes[lane].queues.mask + 1):
                    queue = <ClientQueue *>self.lanes[lane].queues.slots[at].item
                    if queue != NULL and queue.stream == NULL:
                        waiting.append((five_tuple_of(&queue.key), queued_of(queue)))
            lane_unlock(self.lanes[lane])
        return streams, waiting

    def forget(self, uint64_t number):
        """Let go of a session that has moved, with its relays' descriptors, and of its figures.

        Returns the fields of its Counters, None for an unknown one.
        """
        cdef Session *session = find_number(&self.shared.numbers, number)
        cdef Lane *lane
        cdef Endpoint advertised
        cdef int family
        if session == NULL:
            return None
        lane = self.lanes[session.lane]
        lane_lock(lane)
        fields = session_traffic(session)
        for family in range(2):
            if session.relays[family] != NULL:
                advertised = session.relays[family].advertised
                put_elsewhere(&self.shared, &advertised, True)
        end_relays(lane, session, NO_FAMILY)
        memset(&session.traffic, 0, sizeof(Traffic))
        memset(&session.written, 0, sizeof(Traffic))
        end_session(lane, session)
        lane_unlock(lane)
        return fields

    def leave(self):
        """Close the connections that have moved, forget UDP clients, and let go of the listeners' descriptors."""
        cdef uint32_t at, lane
        cdef list gone = []
        for five_tuple, _ in self.plain_streams():
            if self.has_moved(five_tuple):
                gone.append(five_tuple)
        for five_tuple in gone:
            self.hang_up(five_tuple)
        for lane in range(self.lane_count):
            lane_lock(self.lanes[lane])
            self.leave_listeners(self.lanes[lane])
            for at in range(self.lanes[lane].slot_count):
                self.lanes[lane].slots[at].has_moved = False
            self.lanes[lane].has_parted = False
            lane_unlock(self.lanes[lane])
        return gone

    cdef bint has_moved(self, five_tuple) except -1:
        """Whether part() has let go of this adopted connection."""
        cdef FiveTupleKey key
        cdef Stream *stream
        cdef Lane *lane
        read_five_tuple(&key, five_tuple)
        lane = self.lane_of(&key.client)
        stream = find_stream(&lane.streams, &key)
        return stream != NULL and lane.slots[stream.slot].has_moved

    cdef int leave_listeners(self, Lane *lane) except -1:
        """Let go of listeners and of what waits of UDP clients, which the taker has; end the DTLS clients that do not stay.

        Under the lane's lock.
        """
        cdef uint32_t at
        cdef ClientQueue *queue
        part_from_all(lane, self.batch)
        flush(lane, self.batch)
        for at in range(lane.slot_count):
            if lane.slots[at].kind == IS_LISTENER and not (<Listener *>lane.slots[at].item).is_apart:
                watch(lane, at, (<Listener *>lane.slots[at].item).descriptor, 0, EPOLL_CTL_DEL)
                release_slot(lane, at)
        for at in range(lane.listener_count):
            free_listener(lane.listeners[at])
        lane.listener_count = 0
        at = 0
        while lane.queues.slots != NULL and at <= lane.queues.mask:
            queue = <ClientQueue *>lane.queues.slots[at].item
            if queue != NULL and queue.key.transport == UDP:
                abandon_queue(lane, queue)
                at = 0
            else:
                at += 1
        return 0

    # The taker

    def share_listener(self, uint32_t lane, int descriptor, address):
        """Have a lane send, but not receive, on a socket that another lane reads; as add_listener() for the others."""
        self.put_listener(lane, descriptor, address, b"", False, False, False)

    def restore(self, uint64_t number, fields, double of_client, double of_peers, double at):
        """Have a session that has just been opened go on from these Counters and levels."""
        cdef Session *session = find_number(&self.shared.numbers, number)
        cdef int family
        if session == NULL:
            return
        lane_lock(self.lanes[session.lane])
        for family in range(2):
            if session.relays[family] != NULL:
                session.relays[family].dont_fragment = -1  # the giver sends until it parts
        add_fields(&session.traffic, fields)
        fill_buckets(session, of_client, of_peers, nanoseconds(at))
        lane_unlock(self.lanes[session.lane])

    def settle(self, uint64_t number, fields):
        """Add what was relayed by another pump, and take it off what may pass at once."""
        cdef Session *session = find_number(&self.shared.numbers, number)
        cdef Traffic more
        if session == NULL:
            return
        memset(&more, 0, sizeof(Traffic))
        add_fields(&more, fields)
        lane_lock(self.lanes[session.lane])
        add_traffic(&session.traffic, &more)
        session.from_client.level -= <double>more.bytes_from_client
        session.to_client.level -= <double>more.bytes_to_client
        lane_unlock(self.lanes[session.lane])

    def feed(self, five_tuple, bytes pending not None, bytes output not None):
        """Go on with an adopted connection: send the output before all else, and judge what is pending."""
        cdef FiveTupleKey key
        cdef Stream *stream
        cdef Lane *lane
        read_five_tuple(&key, five_tuple)
        lane = self.lane_of(&key.client)
        stream = find_stream(&lane.streams, &key)
        if stream == NULL:
            return
        lane_lock(lane)
        self.batch.now = monotonic()
        if len(output) and output_room(stream, <uint32_t>len(output)):
            memcpy(stream.output + stream.output_at + stream.output_size, <const uint8_t *>output, len(output))
            stream.output_size += <uint32_t>len(output)
            stream_write(lane, stream)
        if not stream.is_over:
            feed_stream(lane, self.batch, stream, <const uint8_t *>pending, len(pending))
        lane_unlock(lane)
        flush_foreign(self.lanes, self.batch)

    def receive(self, five_tuple, bytes data not None):
        """Serve a datagram of a UDP client that another process has read."""
        cdef FiveTupleKey key
        cdef Lane *lane
        cdef Route route
        read_five_tuple(&key, five_tuple)
        lane = self.lane_of(&key.client)
        route.number = NONE
        lane_lock(lane)
        self.batch.now = monotonic()
        lane.counts.received += 1
        from_udp_client(
            lane, self.batch, NULL, find_session(&lane.sessions, &key), &key, <const uint8_t *>data,
            <uint32_t>len(data), 0, False, &route,
        )
        flush(lane, self.batch)
        lane_unlock(lane)
        flush_foreign(self.lanes, self.batch)

    def know(self, advertised, bint elsewhere):
        """Whether a relayed transport address of this server is another pump's."""
        cdef Endpoint endpoint
        read_peer(&endpoint, advertised[0], advertised[1])
        if elsewhere:
            self.advertise(&endpoint)
        if not put_elsewhere(&self.shared, &endpoint, elsewhere):
            raise MemoryError


cdef int add_fields(Traffic *traffic, fields) except -1:
    """Add the fields of a Counters, in their order."""
    packets_from_client, bytes_from_client, packets_to_client, bytes_to_client, dropped = fields
    traffic.packets_from_client += packets_from_client
    traffic.bytes_from_client += bytes_from_client
    traffic.packets_to_client += packets_to_client
    traffic.bytes_to_client += bytes_to_client
    traffic.dropped += dropped
    return 0
