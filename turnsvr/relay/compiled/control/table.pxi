# Sessions: begun, changed and ended as the rules say, each under the lock of its lane.

cdef class Sessions(Clients):
    """Clients, and their sessions. The descriptors of relays stay the caller's."""

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
            join_association(lane, session)
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

    def expect(self, five_tuple, bint expected):
        """Whether ChannelData from here, where no session is, go up, since one is about to move here."""
        cdef FiveTupleKey key
        read_five_tuple(&key, five_tuple)
        if not set_expected(&self.shared, &key, expected):
            raise MemoryError

    def move(self, uint64_t number, five_tuple):
        """Have a session's client be here, in another lane perhaps, where it is expected no more.

        Raises RuntimeError when another one is here. An unknown session is fine.
        """
        cdef FiveTupleKey key
        cdef Session *session = find_number(&self.shared.numbers, number)
        cdef Lane *lane
        cdef Listener *listener
        cdef bint added
        read_five_tuple(&key, five_tuple)
        lane = self.lane_of(&key.client)
        set_expected(&self.shared, &key, False)
        if session == NULL:
            return
        if find_session(&lane.sessions, &key) != NULL:
            raise RuntimeError(f"where session {number} moves another one is open")
        lane_lock(self.lanes[session.lane])
        leave_lane(self.lanes[session.lane], session)
        lane_unlock(self.lanes[session.lane])
        # No thread finds it now, so that no lock is needed.
        session.key = key
        listener = listener_of(lane, &key.server) if key.transport == UDP else NULL
        session.listener = <int>listener.number if listener != NULL else -1
        session.writer = <void *>self.writers[five_tuple] if five_tuple in self.writers else NULL
        lane_lock(lane)
        added = enter_lane(lane, session)
        lane_unlock(lane)
        if not added:
            raise MemoryError

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

    def tell(self, uint64_t number, bint wanted):
        """Whether Python hears of each packet of a session; an unknown session is fine."""
        cdef Session *session = find_number(&self.shared.numbers, number)
        if session != NULL:
            lane_lock(self.lanes[session.lane])
            session.is_observed = wanted
            session.untold = 0
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

    def count_bytes(self, uint64_t number, uint32_t size, bint from_client):
        """Count bytes of a connection to a peer that asyncio moves, and take them from the session's bandwidth.

        Seconds until more may come, None where the session has ended.
        """
        cdef Session *session = find_number(&self.shared.numbers, number)
        cdef int64_t now = monotonic()
        cdef int64_t debt
        if session == NULL or now > session.deadline:
            return None
        self.counts.received += 1
        self.counts.batches += 1
        lane_lock(self.lanes[session.lane])
        debt = move_bytes(session, from_client, size, now)
        lane_unlock(self.lanes[session.lane])
        return debt / 1e9

    def counters(self, uint64_t number):
        """The fields of a session's Counters, None when unknown. Lanes are not stopped."""
        cdef Session *session = find_number(&self.shared.numbers, number)
        return None if session == NULL else session_traffic(session)
