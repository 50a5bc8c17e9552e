# Sending: bursts of the flows in turn, as datagrams or on connections.

cdef enum:
    SENDS = 64
    MAX_PREFIX = 64

cdef struct Outlet:
    int descriptor
    bint stream
    void *tls
    uint8_t address[28]
    socklen_t address_size
    uint8_t prefix[MAX_PREFIX]
    size_t prefix_size
    uint32_t sequence
    uint8_t *rest
    size_t rest_size


cdef class _Sending:
    """The senders of a run, one flow each, and what they have sent."""

    cdef Outlet *outlets
    cdef uint8_t *out_buffers
    cdef int outlet_count
    cdef size_t size, burst, slot_size, packets_a_message
    cdef bint segments, kernel_times
    cdef uint16_t run
    cdef int next_flow
    cdef tls_write_t tls_write
    cdef tls_error_t tls_error
    cdef mmsghdr out_messages[SENDS]
    cdef iovec out_vectors[SENDS]
    cdef uint64_t sent, lagged, blocked, refused

    def __cinit__(self, senders, receivers, load, tls):
        cdef int i
        self.outlet_count = len(senders)
        self.size, self.burst, self.segments = load.size, load.burst, load.segments
        self.kernel_times = load.kernel_times
        self.run = load.run & 0xFFFF
        self.packets_a_message = self.burst if self.segments or any(s.stream for s in senders) else 1
        self.slot_size = self.packets_a_message * (MAX_PREFIX + self.size + 3)
        self.outlets = <Outlet *>calloc(self.outlet_count, sizeof(Outlet))
        self.out_buffers = <uint8_t *>calloc(SENDS, self.slot_size)
        if not (self.outlets and self.out_buffers):
            raise MemoryError
        if tls is not None:
            self.tls_write = <tls_write_t><size_t>tls[0]
            self.tls_error = <tls_error_t><size_t>tls[2]
        self._take_senders(senders)
        for i in range(SENDS):
            self.out_vectors[i].iov_base = self.out_buffers + i * self.slot_size
            self.out_messages[i].msg_hdr.msg_iov = &self.out_vectors[i]
            self.out_messages[i].msg_hdr.msg_iovlen = 1

    def __dealloc__(self):
        cdef int i
        if self.outlets:
            for i in range(self.outlet_count):
                free(self.outlets[i].rest)
        free(self.outlets)
        free(self.out_buffers)

    cdef _take_senders(self, senders):
        """Copy what each sender is, and set its socket. Raises OSError, MemoryError."""
        cdef Outlet *outlet
        cdef bytes address
        cdef bytes prefix
        cdef int segment
        for i, sender in enumerate(senders):
            outlet = &self.outlets[i]
            outlet.descriptor, outlet.stream = sender.descriptor, sender.stream
            outlet.tls = <void *><size_t>sender.tls
            prefix = sender.prefix
            memcpy(outlet.prefix, <const uint8_t *>prefix, len(prefix))
            outlet.prefix_size = len(prefix)
            if sender.to is not None:
                address = _socket_address(*sender.to)
                memcpy(outlet.address, <const uint8_t *>address, len(address))
                outlet.address_size = <socklen_t>len(address)
            if outlet.stream:
                outlet.rest = <uint8_t *>malloc(self.slot_size)
                if not outlet.rest:
                    raise MemoryError
            elif self.segments:
                segment = <int>(outlet.prefix_size + self.size)
                if setsockopt(outlet.descriptor, SOL_UDP, UDP_SEGMENT, &segment, sizeof(segment)):
                    raise OSError(errno, "UDP_SEGMENT")
            else:
                segment = 0
                setsockopt(outlet.descriptor, SOL_UDP, UDP_SEGMENT, &segment, sizeof(segment))

    cdef void send_units(self, int64_t units) noexcept nogil:
        """Send that many bursts, of one flow after the other; neighbours on one socket go in one call."""
        cdef Outlet *outlet
        cdef int count = 0
        cdef int descriptor = -1
        cdef size_t i
        cdef uint32_t ticks = ticks_of(clock_ns(CLOCK_REALTIME))
        while units > 0:
            units -= 1
            outlet = &self.outlets[self.next_flow]
            if outlet.stream:
                self.send_stream(outlet, ticks)
                ticks = ticks_of(clock_ns(CLOCK_REALTIME))
            else:
                if count and (outlet.descriptor != descriptor or count + self.burst > SENDS):
                    self.flush(descriptor, count)
                    count = 0
                    ticks = ticks_of(clock_ns(CLOCK_REALTIME))
                descriptor = outlet.descriptor
                i = 0
                while i < self.burst:
                    self.put_message(outlet, count, ticks)
                    count += 1
                    if self.kernel_times:
                        # A stamp that a batch shares would make its last packets late by what the others take to send.
                        self.flush(descriptor, count)
                        count = 0
                        ticks = ticks_of(clock_ns(CLOCK_REALTIME))
                    i += self.packets_a_message
            self.next_flow += 1
            if self.next_flow == self.outlet_count:
                self.next_flow = 0
        if count:
            self.flush(descriptor, count)

    cdef size_t put_packets(self, Outlet *outlet, uint8_t *at, uint32_t ticks) noexcept nogil:
        """Write one message's packets; only prefix and tag change, the body is zeros. Answers the size."""
        cdef size_t frame = outlet.prefix_size + self.size
        cdef size_t i
        cdef uint16_t flow = <uint16_t>self.next_flow
        if outlet.stream:
            frame = (frame + 3) & ~<size_t>3
        for i in range(self.packets_a_message):
            memcpy(at, outlet.prefix, outlet.prefix_size)
            memcpy(at + outlet.prefix_size, &self.run, 2)
            memcpy(at + outlet.prefix_size + 2, &flow, 2)
            memcpy(at + outlet.prefix_size + 4, &outlet.sequence, 4)
            memcpy(at + outlet.prefix_size + 8, &ticks, 4)
            outlet.sequence += 1
            at += frame
        return frame * self.packets_a_message

    cdef void put_message(self, Outlet *outlet, int slot, uint32_t ticks) noexcept nogil:
        """Prepare one datagram, or one train for UDP_SEGMENT, in the slot of this number below SENDS."""
        cdef msghdr *header = &self.out_messages[slot].msg_hdr
        self.out_vectors[slot].iov_len = self.put_packets(outlet, self.out_buffers + slot * self.slot_size, ticks)
        header.msg_name = outlet.address if outlet.address_size else NULL
        header.msg_namelen = outlet.address_size

    cdef void flush(self, int descriptor, int count) noexcept nogil:
        """Send the first messages prepared, all through one socket; what finds no room counts as blocked."""
        cdef int at = 0
        cdef int done
        while at < count:
            if count == 1:
                done = self.send_alone(descriptor)
            else:
                done = sendmmsg(descriptor, &self.out_messages[at], count - at, MSG_DONTWAIT | MSG_NOSIGNAL)
            if done > 0:
                self.sent += done * self.packets_a_message
                at += done
            elif errno == EAGAIN or errno == ENOBUFS:
                self.blocked += (count - at) * self.packets_a_message
                return
            elif errno != EINTR:
                self.refused += 1
                self.sent += self.packets_a_message
                at += 1

    cdef int send_alone(self, int descriptor) noexcept nogil:
        """Send the only message, for which this call costs less; 1, or -1 with errno."""
        cdef msghdr *header = &self.out_messages[0].msg_hdr
        return 1 if sendto(
            descriptor, self.out_buffers, self.out_vectors[0].iov_len, MSG_DONTWAIT | MSG_NOSIGNAL,
            <const sockaddr *>header.msg_name, header.msg_namelen,
        ) >= 0 else -1

    cdef void send_stream(self, Outlet *outlet, uint32_t ticks) noexcept nogil:
        """Write one burst to a connection unless an earlier one is still under way: then the flow is blocked."""
        cdef uint8_t *buffer = self.out_buffers
        cdef size_t size
        cdef ssize_t done
        if outlet.descriptor < 0:
            self.blocked += self.burst
            return
        if outlet.rest_size:
            self.send_rest(outlet)
            if outlet.rest_size:
                self.blocked += self.burst
                return
        size = self.put_packets(outlet, buffer, ticks)
        done = self.write(outlet, buffer, size)
        if done < 0:
            self.lose(outlet)
            done = <ssize_t>size
        self.sent += self.burst
        outlet.rest_size = size - done
        if outlet.rest_size:
            memcpy(outlet.rest, buffer + done, outlet.rest_size)

    cdef void send_rest(self, Outlet *outlet) noexcept nogil:
        """Write of a burst that is under way as much as the connection takes."""
        cdef ssize_t done = self.write(outlet, outlet.rest, outlet.rest_size)
        if done < 0:
            self.lose(outlet)
        elif done > 0:
            outlet.rest_size -= done
            memmove(outlet.rest, outlet.rest + done, outlet.rest_size)

    cdef void send_rests(self) noexcept nogil:
        """The same for each connection, when no burst follows any more."""
        cdef size_t i
        for i in range(self.outlet_count):
            if self.outlets[i].rest_size:
                self.send_rest(&self.outlets[i])

    cdef void lose(self, Outlet *outlet) noexcept nogil:
        """The connection has failed: its flow is blocked from now on."""
        self.refused += 1
        outlet.descriptor = -1
        outlet.rest_size = 0

    cdef ssize_t write(self, Outlet *outlet, const uint8_t *data, size_t size) noexcept nogil:
        """Bytes taken, 0 when the connection is full, -1 when it is gone."""
        cdef ssize_t done
        if outlet.tls:
            done = self.tls_write(outlet.tls, data, <int>size)
            if done > 0:
                return done
            return 0 if self.tls_error(outlet.tls, <int>done) in (2, 3) else -1
        done = send(outlet.descriptor, data, size, MSG_DONTWAIT | MSG_NOSIGNAL)
        if done < 0:
            return 0 if errno == EAGAIN or errno == EINTR else -1
        return done


def _socket_address(host, port):
    """sockaddr_in or sockaddr_in6 as bytes."""
    if ":" in host:
        return struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", port, 0) + socket.inet_pton(
            socket.AF_INET6, host
        ) + bytes(4)
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(host) + bytes(8)
