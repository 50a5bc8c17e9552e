# cython: language_level=3, boundscheck=True, wraparound=False, cdivision=True
# distutils: define_macros=_GNU_SOURCE=1
"""The load generator's fast core: sends paced packets of many flows and counts what arrives.

It runs in one thread without the GIL.

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
    TURN = 32
    # Packets that a late sender sends between two looks at what arrived, so that each look finds more.
    BEHIND = 128
    MAX_FLOWS = 1 << 16

assert _TAG_SIZE == TAG

cdef int64_t MOST_DEBT = 500_000
"""Nanoseconds that sending may lag behind, or eight packets or bursts if that is longer. What is due beyond is not sent
and counts as lagged: sent all at once it would be another load than the one that was ordered."""
cdef int64_t NAP = 300_000
"""The thread sleeps when nothing is due for so many nanoseconds."""

ctypedef int (*tls_write_t)(void *, const void *, int) noexcept nogil
ctypedef int (*tls_read_t)(void *, void *, int) noexcept nogil
ctypedef int (*tls_error_t)(const void *, int) noexcept nogil

cdef inline int64_t clock_ns(int clock) noexcept nogil:
    cdef timespec now
    clock_gettime(clock, &now)
    return now.tv_sec * 1_000_000_000 + now.tv_nsec

cdef inline uint32_t ticks_of(int64_t ns) noexcept nogil:
    """A time as tags carry it: units of 100 ns, modulo 2**32."""
    return <uint32_t>(ns // 100)

include "_load_sending.pxi"
include "_load_receiving.pxi"


cdef class _Run(_Receiving):
    """Senders and receivers, paced by one loop."""

    cdef void loop(
        self, double rate, int64_t duration, int64_t warm_up, int64_t settle, int64_t quiet, bint streams_timed
    ) noexcept nogil:
        """Send for `duration` nanoseconds at `rate` packets a second, then wait for stragglers.

        streams_timed: connections are read after each burst, since reading them tells when their packets arrived.
        """
        cdef int64_t start = clock_ns(CLOCK_MONOTONIC)
        cdef int64_t now = start
        cdef int64_t end = start + duration
        cdef int64_t quiet_since
        cdef double a_unit = 0 if isinf(rate) else 1e9 * self.burst / rate
        cdef double due_at = start
        cdef int64_t most = 1 if streams_timed else max(1, TURN // <int64_t>self.burst)
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
            if due == most and unseen < BEHIND and not streams_timed:
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
            self.send_rests()
            if self.drain():
                quiet_since = now
            else:
                self.nap(1_000_000)
            now = clock_ns(CLOCK_MONOTONIC)

    cdef void nap(self, int64_t ns) noexcept nogil:
        """Sleep that long, or until a receiver has something."""
        cdef pollfd waited
        cdef timespec patience
        if ns <= 0:
            return
        waited.fd, waited.events, waited.revents = self.epoll, POLLIN, 0
        patience.tv_sec, patience.tv_nsec = ns // 1_000_000_000, ns % 1_000_000_000
        ppoll(&waited, 1, &patience, NULL)


def _check(senders, receivers, load, tls):
    """Raises ValueError for a load that cannot be."""
    if not 0 < len(senders) <= MAX_FLOWS or not receivers:
        raise ValueError("a run needs 1 to 65536 senders and a receiver")
    if load.size < TAG or not 0 < load.burst <= 64:
        raise ValueError("a payload has at least 12 bytes, a burst 1 to 64 packets")
    longest = max(len(sender.prefix) for sender in senders)
    if longest > MAX_PREFIX:
        raise ValueError("prefix too long")
    packets = load.burst if load.segments else 1
    if packets * (longest + load.size) > 65507:
        raise ValueError("a datagram or train would exceed 65507 bytes")
    if tls is None and any(each.tls for each in (*senders, *receivers)):
        raise ValueError("TLS connections need the functions of their library")
    if not load.rate > 0:
        raise ValueError("the rate must be positive")


def exchange(senders, receivers, load, tls=None):
    """Send `load` from the senders, one flow each and in turn, and count what the receivers get.

    tls: addresses of SSL_write, SSL_read and SSL_get_error, where connections are TLS. Sockets must not block.
    Raises OSError when the kernel lacks UDP_SEGMENT, ValueError for a load that cannot be.
    """
    _check(senders, receivers, load, tls)
    cdef _Run run = _Run(senders, receivers, load, tls)
    cdef bint streams_timed = load.kernel_times and any(receiver.stream for receiver in receivers)
    cdef double rate = load.rate
    cdef int64_t duration = int(load.seconds * 1e9)
    cdef int64_t warm_up = int(load.seconds * _WARM_UP * 1e9)
    cdef int64_t settle = int(load.settle * 1e9)
    cdef int64_t quiet = int(load.quiet * 1e9)
    with nogil:
        run.loop(rate, duration, warm_up, settle, quiet, streams_timed)
    return LoadCounts(
        sent=run.sent, delivered=run.delivered, in_window=run.in_window, window=load.seconds * (1 - _WARM_UP),
        duplicates=run.duplicates, reordered=run.reordered, foreign=run.foreign, lagged=run.lagged,
        blocked=run.blocked, refused=run.refused, overrun=0, latency=tuple(run.latency),
    )
