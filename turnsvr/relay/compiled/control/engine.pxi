# The Engine: what the control thread may do to the lanes.

cdef class Engine(Lanes):
    """Lanes, their sessions, and what goes between them and Python.

    It owns no descriptor but its lanes' own and those of adopted streams: whoever opened a socket closes it, after
    the engine has let go of it.
    """

    cdef dict writers
    # Datagrams to clients that wait for one another, and their bytes.
    cdef Sends sends
    cdef list sent
    cdef bint holds
    # Messages that drain() is reading, and whose they are.
    cdef ClientQueue *whose[MESSAGES_AT_ONCE]
    cdef Queued *taken[MESSAGES_AT_ONCE]

    def __cinit__(self):
        self.writers = {}
        self.sent = []

    # Sessions

    def open(self, uint64_t number, five_tuple, double deadline, relays, bandwidth=None):
        """Begin a session. relays: (descriptor, host address, advertised address), at most one of a family.

        bandwidth in bytes a second each way, 0 for no limit, None for what configure() says.

        Raises RuntimeError when the number or the five-tuple has one already, OSError when there is no room; then
        the engine has let go of the descriptors.
        """
        cdef FiveTupleKey key
        cdef Session *session
        cdef Lane *lane
        cdef Listener *listener
        cdef Endpoint advertised
        read_five_tuple(&key, five_tuple)
        lane = self.lane_of(&key.client)
        if find_number(&self.shared.numbers, number) != NULL or find_session(&lane.sessions, &key) != NULL:
            raise RuntimeError(f"session {number} or its five-tuple is open already")
        for _, _, address in relays:
            read_host(&advertised, address[0], 0)
            self.advertise(&advertised)
        session = <Session *>calloc(1, sizeof(Session))
        if session == NULL:
            raise MemoryError
        session.number = number
        session.key = key
        session.deadline = nanoseconds(deadline)
        session.lane = lane.number
        session.gso = True
        listener = listener_of(lane, &key.server) if key.transport == UDP else NULL
        session.listener = <int>listener.number if listener != NULL else -1
        session.writer = <void *>self.writers[five_tuple] if five_tuple in self.writers else NULL
        session.limited_by_itself = bandwidth is not None
        limit_session(session, lane.policy.bandwidth if bandwidth is None else bandwidth, monotonic())
        lane_lock(lane)
        try:
            session.stream = find_stream(&lane.streams, &key)
            session.queue = find_queue(&lane.queues, &key)
            if not add_session(lane, session):
                raise OSError(ENOMEM, "session")
            for descriptor, host, address in relays:
                add_relay(lane, session, descriptor, host, address)
        except BaseException:
            end_relays(lane, session, NO_FAMILY)
            end_session(lane, session)
            raise
        finally:
            lane_unlock(lane)

    def close(self, uint64_t number, int family):
        """End a session, or with a family (1 or 2) its relay of that one.

        Returns the fields of its Counters, None for an unknown one.
        The engine has let go of the relays' descriptors then.
        """
        cdef Session *session = find_number(&self.shared.numbers, number)
        cdef Lane *lane
        if session == NULL:
            return None
        lane = self.lanes[session.lane]
        lane_lock(lane)
        end_relays(lane, session, family)
        if family:
            forget(session, 0, family)
        fields = session_traffic(session)
        if session.relays[0] == NULL and session.relays[1] == NULL:
            end_session(lane, session)
        lane_unlock(lane)
        return fields

    def refresh(self, uint64_t number, double deadline):
        """Another deadline, in seconds of time.monotonic(); an unknown session is fine."""
        cdef Session *session = find_number(&self.shared.numbers, number)
        if session != NULL:
            lane_lock(self.lanes[session.lane])
            session.deadline = nanoseconds(deadline)
            lane_unlock(self.lanes[session.lane])

    def permit(self, uint64_t number, str host not None, double deadline, tuple ports not None, uint32_t most):
        """ports: spans as (low, high). Raises RuntimeError when there are `most` live permissions already."""
        cdef Session *session = find_number(&self.shared.numbers, number)
        cdef Lane *lane
        cdef Permission *permission
        cdef Endpoint peer
        cdef bint added
        read_peer(&peer, host, 0)
        if session == NULL:
            return
        permission = permission_of(&peer, nanoseconds(deadline), ports)
        lane = self.lanes[session.lane]
        lane_lock(lane)
        added = put_permission(session, permission, most, monotonic())
        lane_unlock(lane)
        if not added:
            raise RuntimeError(f"more than {most} permissions in session {number}")

    def bind_channel(self, uint64_t number, uint32_t channel, peer, double deadline, uint32_t most):
        """Raises RuntimeError when there are `most` live channels already."""
        cdef Session *session = find_number(&self.shared.numbers, number)
        cdef Lane *lane
        cdef Endpoint endpoint
        cdef bint added
        read_peer(&endpoint, peer[0], peer[1])
        if session == NULL:
            return
        lane = self.lanes[session.lane]
        lane_lock(lane)
        remove_channel(session, find_channel(&session.channels, channel))
        remove_channel(session, find_channel_of(&session.channels_by_peer, &endpoint))
        if session.channels.used >= most:
            forget(session, monotonic(), NO_FAMILY)
        added = session.channels.used < most and add_channel(session, channel, &endpoint, nanoseconds(deadline))
        lane_unlock(lane)
        if not added:
            raise RuntimeError(f"more than {most} channels in session {number}")

    def counters(self, uint64_t number):
        """The fields of a session's Counters, None when unknown. Lanes are not stopped."""
        cdef Session *session = find_number(&self.shared.numbers, number)
        return None if session == NULL else session_traffic(session)

    # Messages and packets

    def send(self, five_tuple, bytes data not None):
        """Send a message to a UDP client or an adopted one; to any other through its writer."""
        cdef FiveTupleKey key
        cdef Stream *stream
        cdef Lane *lane
        cdef bint sent
        read_five_tuple(&key, five_tuple)
        lane = self.lane_of(&key.client)
        if key.transport == UDP:
            self.send_datagram(lane, &key, data)
            return
        stream = find_stream(&lane.streams, &key)
        if stream != NULL:
            lane_lock(lane)
            sent = stream_queue(lane, self.batch, stream, NULL, 0, <const uint8_t *>data, <uint32_t>len(data), 0)
            flush_streams(lane, self.batch)
            self.tally.drops[<int>(SEND_FAILED if stream.dead else SLOW_CLIENT)] += not sent
            lane_unlock(lane)
            return
        write = self.writers.get(five_tuple)
        if write is None:
            self.tally.drops[<int>SEND_FAILED] += 1
        elif not write(data):
            self.tally.drops[<int>SLOW_CLIENT] += 1

    cdef int send_datagram(self, Lane *lane, const FiveTupleKey *key, bytes data) except -1:
        """Send, or have it wait for others while hold() is on; without the lane's lock, by a batch of its own."""
        cdef Listener *listener = listener_of(lane, &key.server)
        if listener == NULL:
            self.tally.drops[<int>SEND_FAILED] += 1
            return 0
        if self.sends.count and self.sends.descriptor != listener.descriptor:
            self.flush_sends()
        self.sent.append(data)  # first, so that nothing is sent that is not there any more
        put_send(&self.sends, listener, key, <const uint8_t *>data, len(data))
        if not self.holds or self.sends.count == SENDS:
            self.flush_sends()
        return 0

    cdef int flush_sends(self) except -1:
        """Send the datagrams that wait, and let go of their bytes."""
        send_all(&self.sends, &self.tally)
        self.sent.clear()
        return 0

    def hold(self):
        """Have datagrams to clients wait for one another, until release()."""
        self.holds = True

    def release(self):
        """Send what waits, and each as it comes from here on."""
        self.holds = False
        self.flush_sends()

    def send_to_peer(self, uint64_t number, peer, bytes data not None, bint dont_fragment):
        """Send from the session's relay as its client would; takes the lane's lock."""
        cdef Session *session = find_number(&self.shared.numbers, number)
        cdef Endpoint endpoint
        cdef Lane *lane
        if session == NULL:
            self.tally.drops[<int>NO_SESSION] += 1
            return
        read_peer(&endpoint, peer[0], peer[1])
        lane = self.lanes[session.lane]
        lane_lock(lane)
        self.batch.now = monotonic()
        if len(data) > MAX_DATA:
            drop_packet(lane, session, MALFORMED)
        else:
            to_peer(
                lane, self.batch, session, &endpoint, <const uint8_t *>data, <uint32_t>len(data), 0, dont_fragment,
                False, outward(session, &endpoint, self.batch.now),
            )
        flush(lane, self.batch)
        lane_unlock(lane)
        flush_foreign(self.lanes, self.batch)

    def relay(self, five_tuple, frames):
        """Take an attached client's frames as far as the first for the rules, none while they have one.

        Returns how many were taken; judged() or proceed() tells when to go on.
        """
        cdef FiveTupleKey key
        cdef Session *session
        cdef Lane *lane
        cdef Route route
        cdef bytes frame
        cdef uint32_t taken = 0
        read_five_tuple(&key, five_tuple)
        lane = self.lane_of(&key.client)
        route.number = NONE
        lane_lock(lane)
        try:
            self.batch.now = monotonic()
            session = find_session(&lane.sessions, &key)
            for frame in frames:
                if queue_of(lane, session, &key) != NULL:
                    break
                taken += 1
                lane.tally.received += 1
                if not from_client(
                    lane, self.batch, session, <const uint8_t *>frame, <uint32_t>len(frame), 0, False, &route
                ):
                    if not enqueue(
                        lane, session, NULL, NULL, &key, <const uint8_t *>frame, <uint32_t>len(frame), 0, True
                    ):
                        drop_packet(lane, session, OVERLOAD)
        finally:
            flush(lane, self.batch)
            lane_unlock(lane)
        flush_foreign(self.lanes, self.batch)
        return taken

    def waits(self, five_tuple):
        """Whether Python has, or will have, a message of this attached client."""
        cdef FiveTupleKey key
        cdef Lane *lane
        cdef bint found
        read_five_tuple(&key, five_tuple)
        lane = self.lane_of(&key.client)
        lane_lock(lane)
        found = find_queue(&lane.queues, &key) != NULL
        lane_unlock(lane)
        return found

    # Stream clients

    def attach(self, five_tuple, write):
        """Have frames for this stream client go to write, which is kept alive until detach()."""
        # The one before is let go of when nothing points to it any more.
        replaced = self.writers.get(five_tuple)
        self.writers[five_tuple] = write
        self.set_writer(five_tuple, <void *>write)

    def detach(self, five_tuple):
        """Let go of a client's writer, and of what waits of the client."""
        if five_tuple in self.writers:
            self.set_writer(five_tuple, NULL)
            del self.writers[five_tuple]
            self.abandon(five_tuple)

    cdef int abandon(self, five_tuple) except -1:
        """Forget what waits of a client that is gone."""
        cdef FiveTupleKey key
        cdef ClientQueue *queue
        cdef Lane *lane
        read_five_tuple(&key, five_tuple)
        lane = self.lane_of(&key.client)
        lane_lock(lane)
        queue = find_queue(&lane.queues, &key)
        if queue != NULL:
            abandon_queue(lane, queue)
        lane_unlock(lane)
        return 0

    cdef int set_writer(self, five_tuple, void *write) except -1:
        """Have the client's session borrow the writer, or none; takes the lane's lock."""
        cdef FiveTupleKey key
        cdef Session *session
        cdef Lane *lane
        read_five_tuple(&key, five_tuple)
        lane = self.lane_of(&key.client)
        lane_lock(lane)
        session = find_session(&lane.sessions, &key)
        if session != NULL:
            session.writer = write
        lane_unlock(lane)
        return 0

    def adopt(self, int descriptor, five_tuple, bytes first not None, TlsHandshake tls=None):
        """Serve a connected TCP socket and own it, over TLS where hands were shaken, which is used up then.

        Raises OSError, and RuntimeError when it serves one of that five-tuple; then the caller still owns it.
        """
        cdef FiveTupleKey key
        cdef Stream *stream
        cdef Session *session
        cdef Lane *lane
        cdef int64_t slot
        cdef bint added = False
        if tls is not None and (tls.link == NULL or tls.link.descriptor != descriptor or not tls.is_done):
            raise ValueError("the handshake is another connection's, used up or not over")
        set_number(descriptor, IPPROTO_TCP, TCP_NODELAY, 1)
        read_five_tuple(&key, five_tuple)
        lane = self.lane_of(&key.client)
        if find_stream(&lane.streams, &key) != NULL:
            raise RuntimeError("a connection of that five-tuple is served already")
        stream = <Stream *>calloc(1, sizeof(Stream))
        if stream == NULL:
            raise MemoryError
        stream.key = key
        stream.descriptor = descriptor
        lane_lock(lane)
        slot = take_slot(lane, IS_STREAM, stream)
        if slot >= 0:
            stream.slot = <uint32_t>slot
            added = index_add(&lane.streams, hash_key(&key), stream)
            if not added or not watch(lane, stream.slot, descriptor, EPOLLIN, EPOLL_CTL_ADD):
                index_remove(&lane.streams, hash_key(&key), stream)
                give_slot(lane, stream.slot)
                added = False
        if added:
            session = find_session(&lane.sessions, &key)
            if session != NULL:
                session.stream = stream
            self.batch.now = monotonic()
            if tls is not None:
                tls.give(stream)
            feed_stream(lane, self.batch, stream, <const uint8_t *>first, len(first))
            if tls is not None and not stream.is_over:
                open_records(lane, self.batch, stream, NULL, 0)
        lane_unlock(lane)
        if not added:
            free(stream)
            raise OSError(ENOMEM, "stream")
        flush_foreign(self.lanes, self.batch)

    def hang_up(self, five_tuple, name=None):
        """Close an adopted connection, without a word to the Handler; with a name only the one that drain() told of.

        Whether there was one.
        """
        cdef FiveTupleKey key
        cdef Stream *stream
        cdef Lane *lane
        read_five_tuple(&key, five_tuple)
        lane = self.lane_of(&key.client)
        stream = find_stream(&lane.streams, &key)
        if stream == NULL or (name is not None and name != stream_name(lane, stream)):
            return False
        end_connection(lane, stream)
        return True

    # What goes up

    def drain(self):
        """What lanes have sent up: messages as (five-tuple, bytes), at most one of a client, and the other events.

        judged() is to follow before the next call. Events: ("error", session, peer, type, code, data), ("fenced",
        session, peer), ("closed", five-tuple, reason, name), ("no_gso", errno). Whoever is closed can be sent answers
        to what it said before, until hang_up(). Messages of streams that were hung up are left out.
        Frames for attached clients have gone to their writers. None when there was nothing; only then will the next
        that comes write the eventfd.
        """
        cdef uint32_t at, used, count
        cdef uint8_t *taken
        cdef bint is_empty = True
        cdef list messages = []
        cdef list events = []
        for at in range(self.lane_count):
            lane_lock(self.lanes[at])
            count = self.take_messages_of(self.lanes[at])
            taken = up_take(&self.lanes[at].up, &used, count > 0)
            lane_unlock(self.lanes[at])
            if count:
                is_empty = False
                self.read_messages(count, messages)
            if taken == NULL:
                continue
            is_empty = False
            try:
                self.read_records(self.lanes[at], taken, used, events)
            finally:
                free(taken)
        return None if is_empty else (messages, events)

    cdef uint32_t take_messages_of(self, Lane *lane) noexcept:
        """Take a lane's next messages into whose and taken; under the lane's lock."""
        return take_messages(lane, self.whose, self.taken, max(1, MESSAGES_AT_ONCE // self.lane_count))

    cdef int read_messages(self, uint32_t count, list messages) except -1:
        """Append the messages just taken; no lock is held."""
        cdef uint32_t at
        for at in range(count):
            # A queue whose message is out is freed by this thread alone.
            messages.append(
                (five_tuple_of(&self.whose[at].key), queued_bytes(self.taken[at])[: self.taken[at].size])
            )
        return 0

    def take(self, five_tuple):
        """The message of an attached client that waits, out of turn; None when there is none. judged() is to follow."""
        cdef FiveTupleKey key
        cdef Lane *lane
        cdef ClientQueue *queue
        cdef Queued *taken = NULL
        read_five_tuple(&key, five_tuple)
        lane = self.lane_of(&key.client)
        lane_lock(lane)
        queue = find_queue(&lane.queues, &key)
        if queue != NULL and queue.is_ready:
            leave_line(lane, queue)
            taken = take_message(lane, queue)
        lane_unlock(lane)
        return None if taken == NULL else queued_bytes(taken)[: taken.size]

    def judged(self, keeps):
        """The rules are done with what drain() gave, but for what they still have of the clients `keeps`.

        Returns the attached clients of which more may be relayed now.
        """
        cdef uint32_t at
        cdef Lane *lane
        cdef ClientQueue *queue
        cdef list resumed = []
        for five_tuple in keeps:
            self.keep(five_tuple)
        for at in range(self.lane_count):
            lane = self.lanes[at]
            if lane.out == NULL:
                continue
            lane_lock(lane)
            self.batch.now = monotonic()
            while lane.out != NULL:
                queue = lane.out
                lane.out = queue.next
                queue.next = NULL
                if not queue.is_kept:
                    self.resume(lane, queue, resumed)
            flush(lane, self.batch)
            lane_unlock(lane)
            flush_foreign(self.lanes, self.batch)
        return resumed

    cdef int keep(self, five_tuple) except -1:
        """Mark the client's message as one that the rules keep beyond judged(); takes each lane's lock."""
        cdef FiveTupleKey key
        cdef uint32_t at
        cdef ClientQueue *queue
        read_five_tuple(&key, five_tuple)
        for at in range(self.lane_count):
            lane_lock(self.lanes[at])
            queue = find_queue(&self.lanes[at].queues, &key)
            if queue != NULL and queue.out != NULL:
                queue.is_kept = True
            lane_unlock(self.lanes[at])
        return 0

    cdef int resume(self, Lane *lane, ClientQueue *queue, list resumed) except -1:
        """Go on with a client; under the lane's lock, and the caller flushes. The queue may be freed."""
        cdef bint is_attached = queue.key.transport != UDP and queue.stream == NULL and not queue.is_gone
        five_tuple = five_tuple_of(&queue.key) if is_attached else None
        go_on(lane, self.batch, queue)
        if is_attached:
            resumed.append(five_tuple)
        return 0

    def proceed(self, five_tuple):
        """The rules are done with a client whom judged() kept; others are fine. Returns as judged() does."""
        cdef FiveTupleKey key
        cdef uint32_t at
        cdef ClientQueue *queue
        cdef list resumed = []
        read_five_tuple(&key, five_tuple)
        for at in range(self.lane_count):
            lane_lock(self.lanes[at])
            self.batch.now = monotonic()
            queue = find_queue(&self.lanes[at].queues, &key)
            if queue != NULL and queue.is_kept:
                self.resume(self.lanes[at], queue, resumed)
            flush(self.lanes[at], self.batch)
            lane_unlock(self.lanes[at])
        flush_foreign(self.lanes, self.batch)
        return resumed

    cdef int read_records(self, Lane *lane, uint8_t *taken, uint32_t used, list events) except -1:
        """Make events of what a lane has sent up; no lock is held, for writers may call the engine."""
        cdef uint32_t at = 0
        cdef UpRecord *record
        cdef bytes data
        while at < used:
            record = <UpRecord *>(taken + at)
            data = (taken + at + sizeof(UpRecord))[:record.size]
            at += sizeof(UpRecord) + ((record.size + 7) & ~<uint32_t>7)
            if record.kind == UP_FRAME:
                self.write_frame(record, data)
            elif record.kind == UP_PEER_ERROR:
                events.append(
                    ("error", record.session, address_of(&record.key.client), record.first, record.second, data)
                )
            elif record.kind == UP_FENCED:
                events.append(("fenced", record.session, address_of(&record.key.client)))
            elif record.kind == UP_STREAM_CLOSED:
                events.append(("closed", five_tuple_of(&record.key), record.first, record.session))
            elif record.kind == UP_NO_GSO:
                events.append(("no_gso", record.first))
        return 0

    cdef int write_frame(self, const UpRecord *record, bytes frame) except -1:
        """Give a frame to its client's writer, and count what came of it."""
        cdef Session *session = find_number(&self.shared.numbers, record.session)
        cdef Traffic *traffic
        cdef Drop reason = SEND_FAILED
        cdef bint written = False
        if session != NULL and session.writer != NULL:
            write = <object>session.writer
            written = write(frame)
            reason = SLOW_CLIENT
            # The writer may have ended the session.
            session = find_number(&self.shared.numbers, record.session)
        traffic = &session.written if session != NULL else &self.tally.ended
        if written:
            traffic.packets_to_client += 1
            traffic.bytes_to_client += record.first
        else:
            traffic.dropped += 1
            self.tally.drops[<int>reason] += 1
        return 0
