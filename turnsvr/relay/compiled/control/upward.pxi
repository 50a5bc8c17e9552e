# What goes up: messages for the rules with their turns, events, and frames for writers.

cdef class Upward(Sessions):
    """Sessions, and what lanes send up to Python."""

    # Messages that drain() is reading, each with its client's queue.
    cdef ClientQueue *whose[MESSAGES_AT_ONCE]
    cdef Queued *taken[MESSAGES_AT_ONCE]

    def drain(self):
        """What lanes have sent up: messages as (five-tuple, bytes), at most one of a client, and the other events.

        judged() is to follow before the next call. Events: ("error", session, peer, type, code, data), ("fenced",
        session, peer), ("relayed", session, peer, from the client, data, size, untold before), ("closed", five-tuple, reason, name), ("parted", five-tuple, reason) of a DTLS association that
        is gone, ("no_gso", errno). A client that is closed can be sent answers to what it said before, until hang_up().
        Messages of streams that were hung up are left out.
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
            count = self.pop_messages_of(self.lanes[at])
            taken = up_drain(&self.lanes[at].up, &used, count > 0)
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

    cdef uint32_t pop_messages_of(self, Lane *lane) noexcept:
        """Take a lane's next messages into whose and taken; under the lane's lock."""
        return pop_messages(lane, self.whose, self.taken, max(1, MESSAGES_AT_ONCE // self.lane_count))

    cdef int read_messages(self, uint32_t count, list messages) except -1:
        """Append the messages just taken; no lock is held."""
        cdef uint32_t at
        for at in range(count):
            # A queue whose message is out is freed by this thread alone.
            messages.append(
                (five_tuple_of(&self.whose[at].key), queued_bytes(self.taken[at])[: self.taken[at].size])
            )
        return 0

    def pop_message_of(self, five_tuple):
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
            taken = pop_message(lane, queue)
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
        cdef bint is_framed = not is_datagram(queue.key.transport)
        cdef bint is_attached = is_framed and queue.stream == NULL and not queue.is_gone
        five_tuple = five_tuple_of(&queue.key) if is_attached else None
        go_on(lane, self.batch, queue)
        if is_attached:
            resumed.append(five_tuple)
        return 0

    def proceed(self, five_tuple):
        """The rules are done with a client that judged() kept; others are fine. Returns as judged() does."""
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
            elif record.kind == UP_RELAYED:
                events.append(
                    (
                        "relayed", record.session, address_of(&record.key.client), record.first != 0, data,
                        record.key.connection, record.second,
                    )
                )
            elif record.kind == UP_STREAM_CLOSED:
                events.append(("closed", five_tuple_of(&record.key), record.first, record.session))
            elif record.kind == UP_ASSOCIATION_CLOSED:
                five_tuple = five_tuple_of(&record.key)
                self.abandon(five_tuple)
                events.append(("parted", five_tuple, record.first))
            elif record.kind == UP_NO_GSO:
                events.append(("no_gso", record.first))
        return 0

    cdef int write_frame(self, const UpRecord *record, bytes frame) except -1:
        """Give a frame to its client's writer, and count what came of it; no lock is held."""
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
        traffic = &session.written if session != NULL else &self.counts.ended
        if written:
            traffic.packets_to_client += 1
            traffic.bytes_to_client += record.first
        else:
            traffic.dropped += 1
            self.counts.drops[<int>reason] += 1
        return 0

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
