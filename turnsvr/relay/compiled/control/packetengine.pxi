# The PacketEngine: what Python sends to clients and peers, and with that all that the control thread may do.

cdef class PacketEngine(Upward):
    """Lanes, their clients and sessions, what goes up, and what goes out.

    It owns no descriptor but its lanes' own and those of adopted streams: the caller closes the sockets that it has
    opened, after the engine has let go of them.
    """

    # Datagrams to clients that wait for one another, and their bytes.
    cdef Sends sends
    cdef list sent
    cdef bint holds

    def __cinit__(self):
        self.sent = []

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
        if key.transport == DTLS:
            self.send_record(lane, &key, data)
            return
        stream = find_stream(&lane.streams, &key)
        if stream != NULL:
            lane_lock(lane)
            sent = stream_queue(lane, self.batch, stream, NULL, 0, <const uint8_t *>data, <uint32_t>len(data), 0)
            flush_streams(lane, self.batch)
            self.counts.drops[<int>(SEND_FAILED if stream.dead else SLOW_CLIENT)] += not sent
            lane_unlock(lane)
            return
        write = self.writers.get(five_tuple)
        if write is None:
            self.counts.drops[<int>SEND_FAILED] += 1
        elif not write(data):
            self.counts.drops[<int>SLOW_CLIENT] += 1

    cdef int send_datagram(self, Lane *lane, const FiveTupleKey *key, bytes data) except -1:
        """Send, or have it wait for others while hold() is on; without the lane's lock, by a batch of its own."""
        cdef Listener *listener = listener_of(lane, &key.server)
        if listener == NULL:
            self.counts.drops[<int>SEND_FAILED] += 1
            return 0
        if self.sends.count and self.sends.descriptor != listener.descriptor:
            self.flush_sends()
        self.sent.append(data)  # first, so that nothing is sent that is not there any more
        put_send(&self.sends, listener, key, <const uint8_t *>data, len(data))
        if not self.holds or self.sends.count == SENDS:
            self.flush_sends()
        return 0

    cdef int send_record(self, Lane *lane, const FiveTupleKey *key, bytes data) except -1:
        """Send to a DTLS client; takes the lane's lock."""
        cdef DtlsLink *link
        lane_lock(lane)
        link = find_link(&lane.dtls.by_key, key)
        if link == NULL or not seal_record(
            link, self.batch, NULL, NULL, 0, <const uint8_t *>data, <uint32_t>len(data), 0, 0
        ):
            self.counts.drops[<int>SEND_FAILED] += 1
        flush(lane, self.batch)
        lane_unlock(lane)
        return 0

    cdef int flush_sends(self) except -1:
        """Send the datagrams that wait, and let go of their bytes."""
        send_all(&self.sends, &self.counts)
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
            self.counts.drops[<int>NO_SESSION] += 1
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
                lane.counts.received += 1
                if shows_move(lane, session, &key, <const uint8_t *>frame, <uint32_t>len(frame)) or not from_client(
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
