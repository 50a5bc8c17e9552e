# cython: language_level=3, boundscheck=True, wraparound=False, cdivision=True
# distutils: define_macros=_GNU_SOURCE=1
"""The load generator's fast core: sends paced packets of many flows and counts what arrives, in one thread without the GIL.

Every packet carries a tag: run and flow (16 bits each), sequence number and time stamp (32 bits each). Only tags of
this run are counted, each once. load_plain.py does the same in Python, and the same tests hold for both.
"""

from libc.math cimport isinf
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memmove, memset

import socket
import struct

from turnsvr.client._load_system cimport *
from turnsvr.client.load_values import HISTOGRAM_SIZE as _HISTOGRAM_SIZE
from turnsvr.client.load_values import TAG_SIZE as _TAG_SIZE
from turnsvr.client.load_values import WARM_UP as _WARM_UP
from turnsvr.client.load_values import Framing, LoadCounts

cdef enum:
    TAG = 12
    SENDS = 64
    TURN = 32
    # Packets that a sender who is behind sends between two looks at what arrived, so that each finds more.
    BEHIND = 128
    RECEIVES = 32
    CALLS = 16
    EVENTS = 64
    DATAGRAM = 65536
    CONTROL = 128
    STREAM = 262144
    MAX_PREFIX = 64
    HISTOGRAM = 28 * 32 + 32
    WINDOW_BITS = 1 << 25
    MIN_WINDOW = 1 << 14
    MAX_FLOWS = 1 << 16

cdef enum:
    RAW = 0
    CLIENT = 1
    BINDING = 2

assert (_TAG_SIZE, _HISTOGRAM_SIZE) == (TAG, HISTOGRAM)
assert (Framing.RAW, Framing.CLIENT, Framing.BINDING) == (RAW, CLIENT, BINDING)

cdef int64_t MOST_DEBT = 500_000
"""Nanoseconds that sending may lag behind, eight packets or bursts if that is longer; what is due beyond is given up
and counted as lagged, for sent all at once it would be another load than the one asked for."""
cdef int64_t NAP = 300_000
"""Nanoseconds of idleness from which on the thread sleeps."""

ctypedef int (*tls_write_t)(void *, const void *, int) noexcept nogil
ctypedef int (*tls_read_t)(void *, void *, int) noexcept nogil
ctypedef int (*tls_error_t)(const void *, int) noexcept nogil

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

cdef inline int64_t clock_ns(int clock) noexcept nogil:
    cdef timespec now
    clock_gettime(clock, &now)
    return now.tv_sec * 1_000_000_000 + now.tv_nsec

cdef inline uint32_t ticks_of(int64_t ns) noexcept nogil:
    return <uint32_t>(ns // 100)

cdef inline uint32_t get16(const uint8_t *at) noexcept nogil:
    return <uint32_t>at[0] << 8 | at[1]

cdef inline int bucket_of(uint32_t ticks) noexcept nogil:
    cdef int shift = 0
    while ticks >> shift >= 64:
        shift += 1
    return shift * 32 + <int>(ticks >> shift)


cdef class _Run:
    cdef Outlet *outlets
    cdef Inlet *inlets
    cdef Flow *flows
    cdef uint64_t *bitmaps
    cdef uint8_t *out_buffers
    cdef uint8_t *in_buffers
    cdef int outlet_count, inlet_count, epoll
    cdef uint32_t window_mask
    cdef size_t size, burst, slot_size, packets_a_message
    cdef bint segments, kernel_times, streams_timed, counting
    cdef uint16_t run
    cdef int next_flow
    cdef tls_write_t tls_write
    cdef tls_read_t tls_read
    cdef tls_error_t tls_error
    cdef mmsghdr out_messages[SENDS]
    cdef iovec out_vectors[SENDS]
    cdef mmsghdr in_messages[RECEIVES]
    cdef iovec in_vectors[RECEIVES]
    cdef uint8_t in_controls[RECEIVES][CONTROL]
    cdef uint64_t sent, delivered, in_window, duplicates, reordered, foreign, lagged, blocked, refused
    cdef uint64_t latency[HISTOGRAM]

    def __cinit__(self, senders, receivers, load, tls):
        self.epoll = -1
        self.outlet_count = len(senders)
        self.inlet_count = len(receivers)
        if not 0 < self.outlet_count <= MAX_FLOWS or self.inlet_count < 1:
            raise ValueError("a run needs 1 to 65536 senders and a receiver")
        self.size, self.burst, self.segments = load.size, load.burst, load.segments
        self.kernel_times = load.kernel_times
        self.streams_timed = load.kernel_times and any(r.stream for r in receivers)
        self.run = load.run & 0xFFFF
        if self.size < TAG or not 0 < self.burst <= 64:
            raise ValueError("a payload has at least 12 bytes, a burst 1 to 64 packets")
        self.packets_a_message = self.burst if self.segments or any(s.stream for s in senders) else 1
        self.slot_size = self.packets_a_message * (MAX_PREFIX + self.size + 3)
        if max(len(s.prefix) for s in senders) + self.size > 65507 or (
            self.segments and self.packets_a_message * (max(len(s.prefix) for s in senders) + self.size) > 65507
        ):
            raise ValueError("a datagram or train would exceed 65507 bytes")
        cdef uint32_t window = MIN_WINDOW
        while window * 2 * self.outlet_count <= WINDOW_BITS:
            window *= 2
        self.window_mask = window - 1
        self.outlets = <Outlet *>calloc(self.outlet_count, sizeof(Outlet))
        self.inlets = <Inlet *>calloc(self.inlet_count, sizeof(Inlet))
        self.flows = <Flow *>calloc(self.outlet_count, sizeof(Flow))
        self.bitmaps = <uint64_t *>calloc(<size_t>self.outlet_count * (window // 64), sizeof(uint64_t))
        self.out_buffers = <uint8_t *>calloc(SENDS, self.slot_size)
        self.in_buffers = <uint8_t *>malloc(RECEIVES * DATAGRAM)
        if not (self.outlets and self.inlets and self.flows and self.bitmaps and self.out_buffers and self.in_buffers):
            raise MemoryError
        if tls is not None:
            self.tls_write = <tls_write_t><size_t>tls[0]
            self.tls_read = <tls_read_t><size_t>tls[1]
            self.tls_error = <tls_error_t><size_t>tls[2]
        elif any(s.tls for s in senders) or any(r.tls for r in receivers):
            raise ValueError("TLS connections need the functions of their library")
        self._take_senders(senders)
        self._take_receivers(receivers)
        cdef int i
        for i in range(self.outlet_count):
            self.flows[i].seen = self.bitmaps + <size_t>i * (window // 64)
        for i in range(SENDS):
            self.out_vectors[i].iov_base = self.out_buffers + i * self.slot_size
            self.out_messages[i].msg_hdr.msg_iov = &self.out_vectors[i]
            self.out_messages[i].msg_hdr.msg_iovlen = 1
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
        if self.outlets:
            for i in range(self.outlet_count):
                free(self.outlets[i].rest)
        if self.inlets:
            for i in range(self.inlet_count):
                free(self.inlets[i].rest)
        free(self.outlets)
        free(self.inlets)
        free(self.flows)
        free(self.bitmaps)
        free(self.out_buffers)
        free(self.in_buffers)

    cdef _take_senders(self, senders):
        cdef Outlet *outlet
        cdef bytes address
        cdef bytes prefix
        cdef int segment
        for i, sender in enumerate(senders):
            outlet = &self.outlets[i]
            outlet.descriptor, outlet.stream = sender.descriptor, sender.stream
            outlet.tls = <void *><size_t>sender.tls
            prefix = sender.prefix
            if len(prefix) > MAX_PREFIX:
                raise ValueError("prefix too long")
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

    cdef _take_receivers(self, receivers):
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

    cdef void loop(self, double rate, int64_t duration, int64_t warm_up, int64_t settle, int64_t quiet) noexcept nogil:
        """Send for `duration` nanoseconds at `rate` packets a second, then wait for stragglers."""
        cdef int64_t start = clock_ns(CLOCK_MONOTONIC)
        cdef int64_t now = start
        cdef int64_t end = start + duration
        cdef int64_t quiet_since
        cdef double a_unit = 0 if isinf(rate) else 1e9 * self.burst / rate
        cdef double due_at = start
        # Where reading tells the time of arrival, what is overdue must not keep it waiting.
        cdef int64_t most = 1 if self.streams_timed else max(1, TURN // <int64_t>self.burst)
        cdef int64_t due, lost
        cdef int64_t most_debt = max(MOST_DEBT, <int64_t>(8 * a_unit))
        cdef int64_t unseen = 0
        cdef int got
        while now < end:
            self.counting = now - start >= warm_up
            if a_unit > 0:
                due = <int64_t>((now - due_at) / a_unit) + 1 if now >= due_at else 0
                lost = <int64_t>((now - due_at - most_debt) / a_unit)
                if lost > 0:
                    self.lagged += lost * self.burst
                    due_at += lost * a_unit
                    due -= lost
                due = min(due, most)
                due_at += due * a_unit
            else:
                due = most
            if due > 0:
                self.send_units(due)
            unseen += due * self.burst
            if due == most and unseen < BEHIND and not self.streams_timed:
                now = clock_ns(CLOCK_MONOTONIC)
                continue
            unseen = 0
            got = self.drain()
            now = clock_ns(CLOCK_MONOTONIC)
            if got == 0 and a_unit > 0 and due_at - now > NAP:
                self.nap(min(<int64_t>due_at, end) - now - NAP // 3)
                now = clock_ns(CLOCK_MONOTONIC)
        self.counting = False
        quiet_since = now
        end = now + settle
        while now < end and now - quiet_since < quiet and self.delivered < self.sent:
            if self.drain():
                quiet_since = now
            else:
                self.nap(1_000_000)
            now = clock_ns(CLOCK_MONOTONIC)

    cdef void nap(self, int64_t ns) noexcept nogil:
        cdef pollfd waited
        cdef timespec patience
        if ns <= 0:
            return
        waited.fd, waited.events, waited.revents = self.epoll, POLLIN, 0
        patience.tv_sec, patience.tv_nsec = ns // 1_000_000_000, ns % 1_000_000_000
        ppoll(&waited, 1, &patience, NULL)

    cdef void send_units(self, int64_t units) noexcept nogil:
        """Send that many bursts, each of the flow whose turn it is; neighbours on one socket go in one call."""
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
        cdef msghdr *header = &self.out_messages[slot].msg_hdr
        self.out_vectors[slot].iov_len = self.put_packets(outlet, self.out_buffers + slot * self.slot_size, ticks)
        header.msg_name = outlet.address if outlet.address_size else NULL
        header.msg_namelen = outlet.address_size

    cdef void flush(self, int descriptor, int count) noexcept nogil:
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
            done = self.write(outlet, outlet.rest, outlet.rest_size)
            if done < 0:
                self.lose(outlet)
            elif done > 0:
                outlet.rest_size -= done
                memmove(outlet.rest, outlet.rest + done, outlet.rest_size)
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

    cdef void lose(self, Outlet *outlet) noexcept nogil:
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


def _socket_address(host, port):
    """sockaddr_in or sockaddr_in6 as bytes."""
    if ":" in host:
        return struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", port, 0) + socket.inet_pton(
            socket.AF_INET6, host
        ) + bytes(4)
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(host) + bytes(8)


def exchange(senders, receivers, load, tls=None):
    """Send `load` from the senders, one flow each and in turn, and count what the receivers get.

    tls: addresses of SSL_write, SSL_read and SSL_get_error, where connections are TLS. Sockets must not block.
    Raises OSError when the kernel lacks UDP_SEGMENT, ValueError for a load that cannot be.
    """
    cdef _Run run = _Run(senders, receivers, load, tls)
    cdef double rate = load.rate
    cdef int64_t duration = int(load.seconds * 1e9)
    cdef int64_t warm_up = int(load.seconds * _WARM_UP * 1e9)
    cdef int64_t settle = int(load.settle * 1e9)
    cdef int64_t quiet = int(load.quiet * 1e9)
    if not rate > 0:
        raise ValueError("the rate must be positive")
    with nogil:
        run.loop(rate, duration, warm_up, settle, quiet)
    return LoadCounts(
        sent=run.sent, delivered=run.delivered, in_window=run.in_window, window=load.seconds * (1 - _WARM_UP),
        duplicates=run.duplicates, reordered=run.reordered, foreign=run.foreign, lagged=run.lagged,
        blocked=run.blocked, refused=run.refused, overrun=0, latency=tuple(run.latency),
    )
