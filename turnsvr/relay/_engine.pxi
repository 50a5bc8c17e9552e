# The Engine: what the control thread may do to the lanes.

cdef class Engine:
    """Lanes, their sessions, and what goes between them and Python.

    event: an eventfd that is written when drain() has work.

    It owns no descriptor but its lanes' own and those of adopted streams: whoever opened a socket closes it, after
    the engine has let go of it.
    """

    cdef Lane *lanes[MAX_LANES]
    cdef Batch *batches[MAX_LANES]
    cdef Shared shared
    cdef Batch *batch
    cdef Tally tally
    cdef Policy policy
    cdef uint32_t lane_count
    cdef dict writers

    def __cinit__(self, int lanes, int event):
        cdef uint32_t at
        if not 1 <= lanes <= MAX_LANES:
            raise ValueError(f"lanes: {lanes} is not within 1 to {MAX_LANES}")
        self.writers = {}
        pthread_mutex_init(&self.shared.mutex, NULL)
        pthread_mutex_init(&self.shared.limiter.mutex, NULL)
        self.shared.lanes = lanes
        self.batch = batch_new(NONE)
        if self.batch == NULL:
            raise MemoryError
        for at in range(<uint32_t>lanes):
            self.add_lane(at, event)

    cdef int add_lane(self, uint32_t number, int event) except -1:
        cdef Lane *lane = <Lane *>calloc(1, sizeof(Lane))
        cdef epoll_event wake
        if lane == NULL:
            raise MemoryError
        self.lanes[number] = lane
        self.lane_count = number + 1
        lane.number = number
        lane.shared = &self.shared
        lane.free_slot = NONE
        lane.up.event = event
        lane.epoll = epoll_create1(EPOLL_CLOEXEC)
        lane.wake = c_eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        pthread_mutex_init(&lane.gate, NULL)
        pthread_mutex_init(&lane.lock, NULL)
        pthread_mutex_init(&lane.up.mutex, NULL)
        self.batches[number] = batch_new(number)
        wake.events = EPOLLIN
        wake.data.u64 = WAKE
        if lane.epoll < 0 or lane.wake < 0 or epoll_ctl(lane.epoll, EPOLL_CTL_ADD, lane.wake, &wake) < 0:
            raise OSError(errno, "epoll")
        if self.batches[number] == NULL:
            raise MemoryError
        return 0

    def __dealloc__(self):
        cdef uint32_t at
        cdef Lane *lane
        cdef Session *session
        for at in range(self.lane_count):
            lane = self.lanes[at]
            while lane.sessions.used:
                session = first_session(&lane.sessions)
                end_relays(lane, session, NO_FAMILY)
                end_session(lane, session)
            while lane.streams.used:
                end_connection(lane, first_stream(&lane.streams))
            close_lane(lane)
            free_lane(lane)
            batch_free(self.batches[at])
        batch_free(self.batch)
        index_free(&self.shared.numbers)
        index_free(&self.shared.relays)
        index_free(&self.shared.sessions)
        free(self.shared.limiter.paid_until)

    def run(self, uint32_t lane):
        """Serve a lane until stop(). The GIL is not held."""
        if lane >= self.lane_count:
            raise ValueError(f"lane {lane}")
        cdef Lane *served = self.lanes[lane]
        cdef Batch *batch = self.batches[lane]
        with nogil:
            run_lane(served, batch, self.lanes)

    def stop(self):
        """Make run() return."""
        cdef uint32_t at
        for at in range(self.lane_count):
            store(&self.lanes[at].is_stopping, True)
            eventfd_write(self.lanes[at].wake, 1)

    cdef inline Lane *lane_of(self, const Endpoint *client) noexcept:
        """Where the kernel delivers this client's datagrams, and where its session is."""
        cdef uint32_t address = get32(client.ip.bytes) if client.family == IPV4 else get32(client.ip.bytes + 12)
        return self.lanes[steered_lane(address, client.port, self.lane_count)]

    # Settings and listeners

    def configure(self, double bandwidth, double answers, bint gso, uint32_t stream_buffer, fenced):
        """Bytes a second for sessions without a limit of their own, answers a second, bytes, and hosts: from now on."""
        cdef uint32_t at
        cdef Lane *lane
        cdef Endpoint host
        cdef bint changed
        if not limiter_set(&self.shared.limiter, answers):
            raise MemoryError
        for at in range(self.lane_count):
            lane = self.lanes[at]
            changed = bandwidth != lane.policy.bandwidth
            lane_lock(lane)
            try:
                lane.policy.bandwidth = bandwidth
                lane.policy.gso = gso
                lane.policy.stream_buffer = stream_buffer
                free_items(&lane.policy.fenced)
                for name in fenced:
                    read_peer(&host, name, 0)
                    if find_permission(&lane.policy.fenced, &host) != NULL:
                        continue
                    if not add_host(&lane.policy.fenced, &host, 0):
                        raise MemoryError
                if changed:
                    limit_sessions(lane, monotonic())
            finally:
                lane_unlock(lane)

    def add_listener(
        self, uint32_t lane, int descriptor, address, bytes suffix not None, bint mapped_address
    ):
        """Serve a bound UDP socket; each lane has the same listeners in the same order. Raises OSError."""
        cdef Lane *served = self.lanes[lane]
        cdef Listener *listener
        cdef int64_t slot
        if served.listener_count == MAX_LISTENERS:
            raise OSError(ENOMEM, f"more than {MAX_LISTENERS} listeners")
        listener = <Listener *>calloc(1, sizeof(Listener))
        if listener == NULL:
            raise MemoryError
        listener.suffix = <uint8_t *>malloc(len(suffix) + 1)
        if listener.suffix == NULL:
            free(listener)
            raise MemoryError
        try:
            read_host(&listener.address, address[0], address[1])
        except BaseException:
            free(listener.suffix)
            free(listener)
            raise
        memcpy(listener.suffix, <const uint8_t *>suffix, len(suffix))
        listener.suffix_size = <uint16_t>len(suffix)
        listener.tells_mapped = mapped_address
        listener.descriptor = descriptor
        listener.number = served.listener_count
        listener.is_wildcard = listener.address.ip.words[0] == 0 and listener.address.ip.words[1] == 0
        lane_lock(served)
        slot = take_slot(served, IS_LISTENER, listener)
        served.listeners[served.listener_count] = listener
        served.listener_count += 1
        lane_unlock(served)
        if slot < 0 or not watch(served, <uint32_t>slot, descriptor, EPOLLIN, EPOLL_CTL_ADD):
            raise OSError(errno, "listener")

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

    cdef int advertise(self, const Endpoint *host) except -1:
        """Have every lane know a host at which sessions are advertised."""
        cdef uint32_t at
        cdef bint added = True
        if find_permission(&self.lanes[self.lane_count - 1].policy.advertised, host) != NULL:
            return 0
        for at in range(self.lane_count):
            lane_lock(self.lanes[at])
            if find_permission(&self.lanes[at].policy.advertised, host) == NULL:
                added = added and add_host(&self.lanes[at].policy.advertised, host, 0)
            lane_unlock(self.lanes[at])
        if not added:
            raise MemoryError
        return 0

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
        cdef Session *session = find_number(&self.shared.numbers, number)
        if session != NULL:
            lane_lock(self.lanes[session.lane])
            session.deadline = nanoseconds(deadline)
            lane_unlock(self.lanes[session.lane])

    def permit(self, uint64_t number, str host not None, double deadline, uint32_t most):
        """Raises RuntimeError when there are `most` live permissions already."""
        cdef Session *session = find_number(&self.shared.numbers, number)
        cdef Lane *lane
        cdef Permission *permission
        cdef Endpoint peer
        cdef bint added = True
        read_peer(&peer, host, 0)
        if session == NULL:
            return
        lane = self.lanes[session.lane]
        lane_lock(lane)
        permission = find_permission(&session.permissions, &peer)
        if permission != NULL:
            permission.deadline = nanoseconds(deadline)
        else:
            if session.permissions.used >= most:
                forget(session, monotonic(), NO_FAMILY)
            added = session.permissions.used < most and add_host(&session.permissions, &peer, nanoseconds(deadline))
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
            sent = self.send_datagram(lane, &key, data)
            self.tally.drops[<int>SEND_FAILED] += not sent
            return
        stream = find_stream(&lane.streams, &key)
        if stream != NULL:
            lane_lock(lane)
            sent = stream_queue(lane, self.batch, stream, NULL, 0, <const uint8_t *>data, <uint32_t>len(data), 0)
            flush_streams(lane, self.batch)
            lane_unlock(lane)
            self.tally.drops[<int>SLOW_CLIENT] += not sent
            return
        write = self.writers.get(five_tuple)
        if write is None:
            self.tally.drops[<int>SEND_FAILED] += 1
        elif not write(data):
            self.tally.drops[<int>SLOW_CLIENT] += 1

    cdef bint send_datagram(self, Lane *lane, const FiveTupleKey *key, bytes data):
        cdef Listener *listener = listener_of(lane, &key.server)
        cdef sockaddr_in6 name
        cdef uint64_t controls[CONTROL_WORDS]
        cdef iovec vector
        cdef msghdr header
        cdef bint sent
        if listener == NULL:
            return False
        memset(&header, 0, sizeof(header))
        vector.iov_base = <void *><const uint8_t *>data
        vector.iov_len = len(data)
        header.msg_name = &name
        header.msg_namelen = put_name(&name, &key.client)
        header.msg_iov = &vector
        header.msg_iovlen = 1
        if listener.is_wildcard and not same_ip(&key.server.ip, &listener.address.ip):
            header.msg_control = controls
            header.msg_controllen = put_source(<uint8_t *>&controls[0], 0, &key.server)
        sent = c_sendmsg(listener.descriptor, &header, MSG_DONTWAIT) >= 0
        self.tally.sends += 1
        self.tally.segments += sent
        return sent

    def send_to_peer(self, uint64_t number, peer, bytes data not None, bint dont_fragment):
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
                False, refusal(session, &endpoint, self.batch.now),
            )
        flush(lane, self.batch)
        lane_unlock(lane)
        flush_foreign(self.lanes, self.batch)

    def relay(self, five_tuple, frames):
        """Relay what is covered of an attached client's frames; returns the others, in order."""
        cdef FiveTupleKey key
        cdef Session *session
        cdef Lane *lane
        cdef Route route
        cdef bytes frame
        cdef list up = []
        read_five_tuple(&key, five_tuple)
        lane = self.lane_of(&key.client)
        route.number = NONE
        lane_lock(lane)
        try:
            self.batch.now = monotonic()
            session = find_session(&lane.sessions, &key)
            for frame in frames:
                lane.tally.received += 1
                if not from_client(
                    lane, self.batch, session, <const uint8_t *>frame, <uint32_t>len(frame), 0, False, &route
                ):
                    up.append(frame)
            lane.tally.sent_up += len(up)
        finally:
            flush(lane, self.batch)
            lane_unlock(lane)
        flush_foreign(self.lanes, self.batch)
        return up

    # Stream clients

    def attach(self, five_tuple, write):
        # The one before is let go of when nothing points to it any more.
        replaced = self.writers.get(five_tuple)
        self.writers[five_tuple] = write
        self.set_writer(five_tuple, <void *>write)

    def detach(self, five_tuple):
        if five_tuple in self.writers:
            self.set_writer(five_tuple, NULL)
            del self.writers[five_tuple]

    cdef int set_writer(self, five_tuple, void *write) except -1:
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

    def adopt(self, int descriptor, five_tuple, bytes first not None):
        """Serve a connected TCP socket and own it. Raises OSError; then the caller still owns it."""
        cdef FiveTupleKey key
        cdef Stream *stream
        cdef Session *session
        cdef Lane *lane
        cdef int64_t slot
        cdef bint added = False
        set_number(descriptor, IPPROTO_TCP, TCP_NODELAY, 1)
        read_five_tuple(&key, five_tuple)
        lane = self.lane_of(&key.client)
        stream = find_stream(&lane.streams, &key)
        if stream != NULL:
            end_connection(lane, stream)
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
            feed_stream(lane, self.batch, stream, <const uint8_t *>first, len(first))
        lane_unlock(lane)
        if not added:
            free(stream)
            raise OSError(ENOMEM, "stream")
        flush_foreign(self.lanes, self.batch)

    def hang_up(self, five_tuple):
        """Close an adopted connection, without a word to the Handler. Unknown ones are fine."""
        cdef FiveTupleKey key
        cdef Stream *stream
        cdef Lane *lane
        read_five_tuple(&key, five_tuple)
        lane = self.lane_of(&key.client)
        stream = find_stream(&lane.streams, &key)
        if stream != NULL:
            end_connection(lane, stream)

    def shutdown(self):
        """Close adopted connections and the lanes' own descriptors. run() must have returned; figures stay."""
        cdef uint32_t at
        for at in range(self.lane_count):
            while self.lanes[at].streams.used:
                end_connection(self.lanes[at], first_stream(&self.lanes[at].streams))
            close_lane(self.lanes[at])

    # What goes up

    def drain(self):
        """What lanes have sent up: messages as (five-tuple, bytes), and the other events, in order.

        Events: ("error", session, peer, type, code, data), ("closed", five-tuple, reason), ("no_gso", errno).
        Frames for attached clients have gone to their writers. None when there was nothing; only then will the next
        that comes write the eventfd.
        """
        cdef uint32_t at, used
        cdef uint8_t *taken
        cdef bint is_empty = True
        cdef list messages = []
        cdef list events = []
        for at in range(self.lane_count):
            taken = up_take(&self.lanes[at].up, &used)
            if taken == NULL:
                continue
            is_empty = False
            try:
                self.read_records(self.lanes[at], taken, used, messages, events)
            finally:
                free(taken)
        return None if is_empty else (messages, events)

    cdef int read_records(self, Lane *lane, uint8_t *taken, uint32_t used, list messages, list events) except -1:
        cdef uint32_t at = 0
        cdef UpRecord *record
        cdef bytes data
        while at < used:
            record = <UpRecord *>(taken + at)
            data = (taken + at + sizeof(UpRecord))[:record.size]
            at += sizeof(UpRecord) + ((record.size + 7) & ~<uint32_t>7)
            if record.kind == UP_MESSAGE:
                messages.append((five_tuple_of(&record.key), data))
            elif record.kind == UP_FRAME:
                self.write_frame(record, data)
            elif record.kind == UP_PEER_ERROR:
                events.append(
                    ("error", record.session, address_of(&record.key.client), record.first, record.second, data)
                )
            elif record.kind == UP_STREAM_CLOSED:
                self.read_closed(lane, record, events)
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

    cdef int read_closed(self, Lane *lane, const UpRecord *record, list events) except -1:
        """Free a stream that has ended, unless it was hung up meanwhile."""
        cdef uint32_t at = <uint32_t>record.session
        cdef Slot *slot = &lane.slots[at]
        if slot.kind != IS_STREAM or slot.generation != <uint32_t>(record.session >> 32):
            return 0
        events.append(("closed", five_tuple_of(&record.key), record.first))
        end_connection(lane, <Stream *>slot.item)
        return 0

    # Figures

    def counters(self, uint64_t number):
        """The fields of a session's Counters, None when unknown. Lanes are not stopped."""
        cdef Session *session = find_number(&self.shared.numbers, number)
        return None if session == NULL else session_traffic(session)

    def totals(self):
        """The fields of Totals: those of Counters, drops in the order of Drop, then the numbers. Lanes are not stopped."""
        cdef Tally total = self.tally
        cdef Tally *tally
        cdef uint32_t at, reason, waiting = 0
        for at in range(self.lane_count):
            tally = &self.lanes[at].tally
            waiting += self.lanes[at].up.messages
            add_traffic(&total.ended, &tally.ended)
            for reason in range(DROPS):
                total.drops[reason] += tally.drops[reason]
            total.binding_answers += tally.binding_answers
            total.received += tally.received
            total.sent_up += tally.sent_up
            total.batches += tally.batches
            total.sends += tally.sends
            total.segments += tally.segments
        if self.shared.numbers.slots != NULL:
            for at in range(self.shared.numbers.mask + 1):
                if self.shared.numbers.slots[at].item != NULL:
                    add_traffic(&total.ended, &(<Session *>self.shared.numbers.slots[at].item).traffic)
                    add_traffic(&total.ended, &(<Session *>self.shared.numbers.slots[at].item).written)
        return (
            traffic_of(&total.ended),
            tuple([total.drops[reason] for reason in range(DROPS)]),
            total.binding_answers,
            total.received,
            total.sent_up,
            total.batches,
            total.sends,
            total.segments,
            waiting,
        )

    def __len__(self):
        """Sessions."""
        return self.shared.numbers.used
