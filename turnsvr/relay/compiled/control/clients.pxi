# Stream clients: the connections that a lane serves, and the writers of those that asyncio does.

cdef class Clients(Lanes):
    """Lanes, and their stream clients. It owns the descriptors of adopted connections until they are hung up."""

    cdef dict writers

    def __cinit__(self):
        self.writers = {}

    def attach(self, five_tuple, write):
        """Have frames for this stream client go to write, which is kept alive until detach()."""
        # The local name keeps the replaced writer alive until the session points to the new one.
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
                release_slot(lane, stream.slot)
                added = False
        if added:
            session = find_session(&lane.sessions, &key)
            if session != NULL:
                session.stream = stream
            self.batch.now = monotonic()
            if tls is not None:
                tls.hand_to(stream)
            feed_stream(lane, self.batch, stream, <const uint8_t *>first, len(first))
            if tls is not None and not stream.is_over:
                open_records(lane, self.batch, stream, NULL, 0)
        lane_unlock(lane)
        if not added:
            free(stream)
            raise OSError(ENOMEM, "stream")
        flush_foreign(self.lanes, self.batch)

    cdef Lane *lane_with(self, const FiveTupleKey *key) noexcept:
        """The lane that serves this client's stream, which may be a joined one; any where none does."""
        cdef Lane *lane = self.lane_of(&key.client)
        cdef uint32_t at
        if find_stream(&lane.streams, key) == NULL:
            for at in range(self.lane_count):
                if find_stream(&self.lanes[at].streams, key) != NULL:
                    return self.lanes[at]
        return lane

    def join(self, uint64_t number, five_tuple, int descriptor):
        """Join an adopted connection with one to a peer of this session, and own that descriptor.

        False where there is no such session or connection, or it is over; then the caller still owns it. Raises
        MemoryError, and then the client's connection is gone.
        """
        cdef FiveTupleKey key
        cdef Session *session = find_number(&self.shared.numbers, number)
        cdef Stream *stream
        cdef Splice *splice
        cdef Lane *lane
        read_five_tuple(&key, five_tuple)
        lane = self.lane_of(&key.client)
        stream = find_stream(&lane.streams, &key)
        if session == NULL or stream == NULL or stream.splice != NULL:
            return False
        splice = <Splice *>calloc(1, sizeof(Splice))
        if splice == NULL:
            raise MemoryError
        splice.stream = stream
        splice.descriptor = descriptor
        if not take_stream_off(lane, stream):
            free(splice)
            return False
        if not put_on_lane(self.lanes[session.lane], stream, splice, session, monotonic()):
            free(splice)
            free_stream(stream)
            raise MemoryError
        return True

    def hang_up(self, five_tuple, name=None):
        """Close an adopted connection, without a word to the Handler; with a name only the one that drain() told of.

        Whether there was one.
        """
        cdef FiveTupleKey key
        cdef Stream *stream
        cdef Lane *lane
        read_five_tuple(&key, five_tuple)
        lane = self.lane_with(&key)
        stream = find_stream(&lane.streams, &key)
        if stream == NULL or (name is not None and name != stream_name(lane, stream)):
            return False
        end_connection(lane, stream)
        return True
