# The lanes as a whole: how they are made, run, configured, counted and freed. Clients and sessions are not here.

cdef class Lanes:
    """Threads that move packets, each with its part of the table.

    event: an eventfd that is written when a lane has sent something up. budget: of answers to strangers.
    """

    cdef Lane *lanes[MAX_LANES]
    cdef Batch *batches[MAX_LANES]
    cdef Shared shared
    # The control thread's own: what it sends with, and what it counts.
    cdef Batch *batch
    cdef LaneCounts counts
    cdef AnswerBudget budget
    cdef TlsContext dtls_context
    cdef uint32_t lane_count

    def __cinit__(self, int lanes, int event, AnswerBudget budget not None):
        """Make lanes that nothing runs yet. Raises ValueError, OSError, MemoryError."""
        cdef uint32_t at
        if not 1 <= lanes <= MAX_LANES:
            raise ValueError(f"lanes: {lanes} is not within 1 to {MAX_LANES}")
        pthread_mutex_init(&self.shared.mutex, NULL)
        self.budget = budget
        self.shared.limiter = &budget.limiter
        self.shared.lanes = lanes
        self.batch = batch_new(NONE)
        if self.batch == NULL:
            raise MemoryError
        for at in range(<uint32_t>lanes):
            self.add_lane(at, event)

    cdef int add_lane(self, uint32_t number, int event) except -1:
        """Make a lane; what fails half made is freed by __dealloc__(). Raises OSError, MemoryError."""
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
        """No thread is in run() any more. Relays' and listeners' descriptors stay the caller's, those of streams close."""
        cdef uint32_t at
        cdef Lane *lane
        cdef Session *session
        for at in range(self.lane_count):
            lane = self.lanes[at]
            while lane.sessions.used:
                session = <Session *>index_any(&lane.sessions)
                end_relays(lane, session, NO_FAMILY)
                end_session(lane, session)
            while lane.streams.used:
                end_connection(lane, <Stream *>index_any(&lane.streams))
            close_lane(lane)
            free_lane(lane)
            batch_free(self.batches[at])
        batch_free(self.batch)
        index_free(&self.shared.numbers)
        free_items(&self.shared.elsewhere)
        index_free(&self.shared.relays)
        index_free(&self.shared.sessions)
        free_items(&self.shared.expected)

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
        return self.lanes[lane_number_of(client, self.lane_count)]

    # Settings and listeners

    def configure(
        self, double bandwidth, double answers, bint gso, double busy_poll, uint32_t stream_buffer, homes,
        uint32_t associations, uint32_t associations_per_address, double idle_timeout, double handshake_timeout
    ):
        """From now on: bytes a second for sessions without a limit of their own, answers a second, seconds awake after
        packets, bytes that may wait for a stream, and hosts that are advertised as others: (host, advertised). DTLS
        associations at once, those of one client address, of which each lane has its part, seconds that one may
        stay without a session, and that its handshake may take.
        """
        cdef uint32_t at
        cdef Lane *lane
        cdef bint changed
        self.budget.rate = answers
        for at in range(self.lane_count):
            lane = self.lanes[at]
            changed = bandwidth != lane.policy.bandwidth
            lane_lock(lane)
            try:
                lane.policy.bandwidth = bandwidth
                lane.policy.gso = gso
                lane.policy.busy_poll = nanoseconds(busy_poll)
                lane.policy.stream_buffer = stream_buffer
                lane.dtls.most = part_of(associations, self.lane_count)
                lane.dtls.most_of_source = part_of(associations_per_address, self.lane_count)
                lane.dtls.most_shaking = part_of(HALF_OPEN, self.lane_count)
                lane.dtls.longest[<int>IDLES] = nanoseconds(idle_timeout)
                lane.dtls.longest[<int>SHAKES] = nanoseconds(handshake_timeout)
                know_homes(lane, homes)
                if changed:
                    limit_sessions(lane, monotonic())
            finally:
                lane_unlock(lane)

    def observe(self, hosts):
        """Answer nothing of clients at these IP addresses from now on; raises ValueError for more than there is room."""
        cdef uint32_t at
        cdef Observed observed
        if len(hosts) > OBSERVED_HOSTS:
            raise ValueError(f"{len(hosts)} hosts are more than {OBSERVED_HOSTS}")
        memset(&observed, 0, sizeof(observed))
        for host in hosts:
            read_peer(&observed.hosts[observed.count], host, 0)
            observed.count += 1
        for at in range(self.lane_count):
            lane_lock(self.lanes[at])
            self.lanes[at].observed = observed
            lane_unlock(self.lanes[at])

    def add_listener(
        self, uint32_t lane, int descriptor, address, bytes suffix not None, bint mapped_address, bint dtls
    ):
        """Serve a bound UDP socket; each lane has the same listeners in the same order. Raises OSError.

        dtls: whether records of DTLS are served there too, once secure() has said with which context.
        """
        self.put_listener(lane, descriptor, address, suffix, mapped_address, dtls, True)

    cdef int put_listener(
        self, uint32_t lane, int descriptor, address, bytes suffix, bint mapped_address, bint dtls, bint reads
    ) except -1:
        """As add_listener(); reads: whether the lane receives there, too."""
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
        listener.takes_dtls = dtls
        listener.descriptor = descriptor
        listener.number = served.listener_count
        listener.is_wildcard = listener.address.ip.words[0] == 0 and listener.address.ip.words[1] == 0
        lane_lock(served)
        slot = take_slot(served, IS_LISTENER, listener) if reads else 0
        served.listeners[served.listener_count] = listener
        served.listener_count += 1
        lane_unlock(served)
        if slot < 0 or (reads and not watch(served, <uint32_t>slot, descriptor, EPOLLIN, EPOLL_CTL_ADD)):
            raise OSError(errno, "listener")
        return 0

    def secure(self, TlsContext context not None):
        """Begin DTLS associations with this context from now on, one for datagrams. Present ones keep theirs."""
        cdef uint32_t at
        cdef Lane *lane
        if not context.is_for_datagrams:
            raise ValueError("the context is one for streams")
        for at in range(self.lane_count):
            lane = self.lanes[at]
            lane_lock(lane)
            if lane.dtls.scrap == NULL:
                lane.dtls.scrap = _libssl.BIO_ADDR_new()
            association_free(lane.dtls.door)
            lane.dtls.door = NULL
            lane.dtls.context = context.context if lane.dtls.scrap != NULL else NULL
            lane_unlock(lane)
        self.dtls_context = context

    def challenge(self, listener, challenge):
        """What plain Allocate requests that come in there are answered with from now on; None for nothing."""
        cdef Endpoint address
        cdef Challenge *made
        cdef Challenge *old
        cdef uint32_t at, number
        read_host(&address, listener[0], listener[1])
        for at in range(self.lane_count):
            for number in range(self.lanes[at].listener_count):
                if not same_endpoint(&self.lanes[at].listeners[number].address, &address):
                    continue
                made = challenge_new(challenge)
                lane_lock(self.lanes[at])
                old = self.lanes[at].listeners[number].challenge
                self.lanes[at].listeners[number].challenge = made
                lane_unlock(self.lanes[at])
                free(old)

    cdef int advertise(self, const Endpoint *host) except -1:
        """Have every lane know a host at which sessions are advertised."""
        cdef uint32_t at
        cdef bint added = True
        if find_home(&self.lanes[self.lane_count - 1].policy.homes.advertised, host) != NULL:
            return 0
        for at in range(self.lane_count):
            lane_lock(self.lanes[at])
            added = added and add_home(&self.lanes[at].policy.homes.advertised, host, NULL)
            lane_unlock(self.lanes[at])
        if not added:
            raise MemoryError
        return 0

    def shutdown(self):
        """Close adopted connections and the lanes' own descriptors. run() must have returned; figures stay."""
        cdef uint32_t at
        for at in range(self.lane_count):
            while self.lanes[at].streams.used:
                end_connection(self.lanes[at], <Stream *>index_any(&self.lanes[at].streams))
            lane_lock(self.lanes[at])
            end_associations(self.lanes[at], self.batch)
            flush(self.lanes[at], self.batch)
            free_done(self.lanes[at])
            lane_unlock(self.lanes[at])
            close_lane(self.lanes[at])

    # Figures

    def totals(self):
        """The fields of Totals: those of Counters, drops in the order of Drop, then the numbers. No lane is stopped."""
        cdef LaneCounts total = self.counts
        cdef LaneCounts *counts
        cdef uint32_t at, reason, waiting = 0
        for at in range(self.lane_count):
            counts = &self.lanes[at].counts
            waiting += self.lanes[at].messages
            add_traffic(&total.ended, &counts.ended)
            for reason in range(DROPS):
                total.drops[reason] += counts.drops[reason]
            total.binding_answers += counts.binding_answers
            total.challenges += counts.challenges
            total.challenges_withheld += counts.challenges_withheld
            total.received += counts.received
            total.sent_up += counts.sent_up
            total.batches += counts.batches
            total.sends += counts.sends
            total.segments += counts.segments
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
            total.challenges,
            total.challenges_withheld,
        )

    def associations(self):
        """The fields of Associations. No lane is stopped."""
        cdef uint64_t[7] sums
        cdef Associations *all
        cdef uint32_t at
        memset(sums, 0, sizeof(sums))
        for at in range(self.lane_count):
            all = &self.lanes[at].dtls
            sums[0] += all.count
            sums[1] += all.listed[<int>SHAKES]
            sums[2] += all.cookies
            sums[3] += all.handshakes
            sums[4] += all.failures
            sums[5] += all.evicted
            sums[6] += all.refused
        return tuple([sums[at] for at in range(7)])

    def __len__(self):
        """Sessions."""
        return self.shared.numbers.used
