# Receiving: whatever came, of which each packet of this run counts once.

cdef enum:
    RECEIVES = 32
    CALLS = 16
    EVENTS = 64
    DATAGRAM = 65536
    CONTROL = 128
    STREAM = 262144
    HISTOGRAM = 28 * 32 + 32
    WINDOW_BITS = 1 << 25
    MIN_WINDOW = 1 << 14

cdef enum:
    RAW = 0
    CLIENT = 1
    BINDING = 2

assert _HISTOGRAM_SIZE == HISTOGRAM
assert (Framing.RAW, Framing.CLIENT, Framing.BINDING) == (RAW, CLIENT, BINDING)

cdef struct Inlet:
    int descriptor
    bint stream
    int arrival
    void *tls
    uint8_t *rest
    size_t rest_size

cdef struct Flow:
    uint32_t ahead
    uint64_t *seen

cdef inline uint32_t get16(const uint8_t *at) noexcept nogil:
    return <uint32_t>at[0] << 8 | at[1]

cdef inline int bucket_of(uint32_t ticks) noexcept nogil:
    """The histogram's bucket: exact below 64 ticks, 32 to each doubling from there."""
    cdef int shift = 0
    while ticks >> shift >= 64:
        shift += 1
    return shift * 32 + <int>(ticks >> shift)


cdef class _Receiving(_Sending):
    """The receivers of a run besides, and what they have counted."""

    cdef Inlet *inlets
    cdef Flow *flows
    cdef uint64_t *bitmaps
    cdef uint8_t *in_buffers
    cdef int inlet_count, epoll
    cdef uint32_t window_mask
    cdef bint counting
    cdef tls_read_t tls_read
    cdef mmsghdr in_messages[RECEIVES]
    cdef iovec in_vectors[RECEIVES]
    cdef uint8_t in_controls[RECEIVES][CONTROL]
    cdef uint64_t delivered, in_window, duplicates, reordered, foreign
    cdef uint64_t latency[HISTOGRAM]

    def __cinit__(self, senders, receivers, load, tls):
        cdef int i
        cdef uint32_t window = MIN_WINDOW
        self.epoll = -1
        self.inlet_count = len(receivers)
        while window * 2 * self.outlet_count <= WINDOW_BITS:
            window *= 2
        self.window_mask = window - 1
        self.inlets = <Inlet *>calloc(self.inlet_count, sizeof(Inlet))
        self.flows = <Flow *>calloc(self.outlet_count, sizeof(Flow))
        self.bitmaps = <uint64_t *>calloc(<size_t>self.outlet_count * (window // 64), sizeof(uint64_t))
        self.in_buffers = <uint8_t *>malloc(RECEIVES * DATAGRAM)
        if not (self.inlets and self.flows and self.bitmaps and self.in_buffers):
            raise MemoryError
        if tls is not None:
            self.tls_read = <tls_read_t><size_t>tls[1]
        self._take_receivers(receivers)
        for i in range(self.outlet_count):
            self.flows[i].seen = self.bitmaps + <size_t>i * (window // 64)
        for i in range(RECEIVES):
            self.in_vectors[i].iov_base = self.in_buffers + i * DATAGRAM
            self.in_vectors[i].iov_len = DATAGRAM
            self.in_messages[i].msg_hdr.msg_iov = &self.in_vectors[i]
            self.in_messages[i].msg_hdr.msg_iovlen = 1
            self.in_messages[i].msg_hdr.msg_control = self.in_controls[i]

    def __dealloc__(self):
        cdef int i
        if self.epoll >= 0:
            close(self.epoll)
        if self.inlets:
            for i in range(self.inlet_count):
                free(self.inlets[i].rest)
        free(self.inlets)
        free(self.flows)
        free(self.bitmaps)
        free(self.in_buffers)

    cdef _take_receivers(self, receivers):
        """Watch each receiver, and set its socket. Raises OSError, MemoryError."""
        cdef Inlet *inlet
        cdef epoll_event event
        cdef int on = 1
        cdef int times = self.kernel_times
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll < 0:
            raise OSError(errno, "epoll_create1")
        for i, receiver in enumerate(receivers):
            inlet = &self.inlets[i]
            inlet.descriptor, inlet.stream, inlet.arrival = receiver.descriptor, receiver.stream, receiver.arrival
            inlet.tls = <void *><size_t>receiver.tls
            if inlet.stream:
                inlet.rest = <uint8_t *>malloc(STREAM)
                if not inlet.rest:
                    raise MemoryError
            else:
                setsockopt(inlet.descriptor, SOL_UDP, UDP_GRO, &on, sizeof(on))
                setsockopt(inlet.descriptor, SOL_SOCKET, SO_TIMESTAMPNS, &times, sizeof(times))
            memset(&event, 0, sizeof(event))
            event.events = EPOLLIN
            event.data.u32 = i
            if epoll_ctl(self.epoll, EPOLL_CTL_ADD, inlet.descriptor, &event):
                raise OSError(errno, "epoll_ctl")

    cdef int drain(self) noexcept nogil:
        """Take what has arrived, a bounded part at a time; answers how many sockets had something."""
        cdef epoll_event events[EVENTS]
        cdef int ready = epoll_wait(self.epoll, events, EVENTS, 0)
        cdef int i, calls
        cdef Inlet *inlet
        for i in range(ready):
            inlet = &self.inlets[events[i].data.u32]
            if inlet.stream:
                self.drain_stream(inlet)
            else:
                calls = CALLS
                while calls and self.drain_datagrams(inlet) == RECEIVES:
                    calls -= 1
        return max(ready, 0)

    cdef int drain_datagrams(self, Inlet *inlet) noexcept nogil:
        """Take up to RECEIVES messages; answers how many there were."""
        cdef int i, count
        cdef uint32_t ticks
        cdef size_t at, size, segment
        cdef uint8_t *data
        for i in range(RECEIVES):
            self.in_messages[i].msg_hdr.msg_controllen = CONTROL
        count = recvmmsg(inlet.descriptor, self.in_messages, RECEIVES, MSG_DONTWAIT, NULL)
        if count < 0:
            if errno != EAGAIN and errno != EINTR:
                self.refused += 1
            return 0
        ticks = ticks_of(clock_ns(CLOCK_REALTIME))
        for i in range(count):
            size = self.in_messages[i].msg_len
            segment = size
            self.read_control(&self.in_messages[i].msg_hdr, &segment, &ticks)
            data = self.in_buffers + i * DATAGRAM
            at = 0
            while at < size:
                self.take(inlet, data + at, min(segment, size - at), ticks)
                at += segment
        return count

    cdef void read_control(self, msghdr *header, size_t *segment, uint32_t *ticks) noexcept nogil:
        """Segment size of a coalesced datagram, and the time at which the kernel had it."""
        cdef cmsghdr *control = CMSG_FIRSTHDR(header)
        cdef int size
        cdef timespec came
        while control:
            if control.cmsg_level == SOL_UDP and control.cmsg_type == UDP_GRO:
                memcpy(&size, CMSG_DATA(control), sizeof(size))
                if size > 0:
                    segment[0] = <size_t>size
            elif control.cmsg_level == SOL_SOCKET and control.cmsg_type == SCM_TIMESTAMPNS:
                memcpy(&came, CMSG_DATA(control), sizeof(came))
                ticks[0] = ticks_of(came.tv_sec * 1_000_000_000 + came.tv_nsec)
            control = CMSG_NXTHDR(header, control)

    cdef void drain_stream(self, Inlet *inlet) noexcept nogil:
        """Read a connection once, over TLS until it has no more. Its end counts as refused, each time it is seen."""
        cdef ssize_t got
        cdef int more = 1
        while more:
            if inlet.tls:
                got = self.tls_read(inlet.tls, inlet.rest + inlet.rest_size, <int>(STREAM - inlet.rest_size))
                if got <= 0:
                    if self.tls_error(inlet.tls, <int>got) in (2, 3):
                        return
            else:
                got = recv(inlet.descriptor, inlet.rest + inlet.rest_size, STREAM - inlet.rest_size, MSG_DONTWAIT)
                if got < 0 and (errno == EAGAIN or errno == EINTR):
                    return
                more = 0
            if got <= 0:
                self.refused += 1
                return
            inlet.rest_size += got
            self.take_frames(inlet)

    cdef void take_frames(self, Inlet *inlet) noexcept nogil:
        """Cut frames off a stream (RFC 8656 section 12.5); what is no frame ends the stream's counting."""
        cdef size_t at = 0
        cdef size_t length, frame
        cdef uint8_t *data = inlet.rest
        cdef uint32_t ticks = ticks_of(clock_ns(CLOCK_REALTIME))
        while inlet.rest_size - at >= 4:
            length = get16(data + at + 2)
            if data[at] & 0xC0 == 0x40:
                frame = 4 + length
            else:
                frame = 20 + length
            if inlet.rest_size - at < (frame + 3) & ~<size_t>3:
                break
            self.take(inlet, data + at, frame, ticks)
            at += (frame + 3) & ~<size_t>3
        inlet.rest_size -= at
        memmove(data, data + at, inlet.rest_size)

    cdef size_t payload_at(self, int arrival, const uint8_t *data, size_t size, size_t *length) noexcept nogil:
        """Where the payload begins and how long it is; length 0 for what is no packet of ours."""
        cdef size_t at, value
        length[0] = 0
        if arrival == RAW:
            length[0] = size
            return 0
        if arrival == BINDING:
            if size >= 20 and data[0] == 1 and data[1] == 1:
                length[0] = TAG
            return 8
        if size < 4:
            return 0
        if data[0] & 0xC0 == 0x40:
            value = get16(data + 2)
            if value <= size - 4:
                length[0] = value
            return 4
        if size < 20 or data[0] != 0x00 or data[1] != 0x17:
            return 0
        at = 20
        while at + 4 <= size:
            value = get16(data + at + 2)
            if at + 4 + value > size:
                return 0
            if get16(data + at) == 0x0013:
                length[0] = value
                return at + 4
            at += 4 + ((value + 3) & ~<size_t>3)
        return 0

    cdef void take(self, Inlet *inlet, const uint8_t *data, size_t size, uint32_t ticks) noexcept nogil:
        """Count one packet that arrived."""
        cdef size_t length
        cdef size_t at = self.payload_at(inlet.arrival, data, size, &length)
        cdef uint16_t run, flow
        cdef uint32_t sequence, stamp
        if length != self.size:
            self.foreign += 1
            return
        memcpy(&run, data + at, 2)
        memcpy(&flow, data + at + 2, 2)
        memcpy(&sequence, data + at + 4, 4)
        memcpy(&stamp, data + at + 8, 4)
        if run != self.run or flow >= self.outlet_count or not self.is_new(&self.flows[flow], flow, sequence):
            return
        self.delivered += 1
        self.in_window += self.counting
        stamp = ticks - stamp
        if stamp >= <uint32_t>1 << 31:
            stamp = 0
        self.latency[bucket_of(stamp)] += 1

    cdef bint is_new(self, Flow *flow, int number, uint32_t sequence) noexcept nogil:
        """Note the sequence number in the flow's sliding window; what is older than the window is foreign."""
        cdef uint32_t mask = self.window_mask
        cdef uint32_t i
        cdef uint64_t bit
        if sequence >= self.outlets[number].sequence:
            self.foreign += 1
            return False
        if sequence >= flow.ahead:
            if sequence - flow.ahead > mask:
                memset(flow.seen, 0, (mask + 1) // 8)
            else:
                i = flow.ahead
                while i < sequence:
                    flow.seen[(i & mask) >> 6] &= ~(<uint64_t>1 << (i & 63))
                    i += 1
            flow.ahead = sequence + 1
            flow.seen[(sequence & mask) >> 6] |= <uint64_t>1 << (sequence & 63)
            return True
        if flow.ahead - sequence > mask:
            self.foreign += 1
            return False
        bit = <uint64_t>1 << (sequence & 63)
        if flow.seen[(sequence & mask) >> 6] & bit:
            self.duplicates += 1
            return False
        flow.seen[(sequence & mask) >> 6] |= bit
        self.reordered += 1
        return True
