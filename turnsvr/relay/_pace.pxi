# How long a lane waits before it looks again. Pure: it sees times and counts, no clock.
#
# A look costs as much as some packets do, whatever it finds. Where packets come so thick that none is alone, the lane
# gives them a moment to gather, as network cards do before they interrupt; else it looks at once. The kernel's buffers
# hold many times of what comes meanwhile.

cdef enum:
    # Nanoseconds over which arrivals are counted.
    PACE_WINDOW = 1000000
    # Arrivals in a window from which on the lane pauses: 150,000 a second.
    PACE_BUSY = 150
    # Nanoseconds: some eight packets at the least, and too short for anybody to hear or see.
    PACE_PAUSE = 50000

cdef struct Pace:
    int64_t since
    # Packets that came one by one; those that GRO has joined have gathered already.
    uint32_t arrivals
    int64_t pause
    # Whether a read brought all that it had room for: there is more, and no reason to wait.
    bint more


cdef inline void pace_count(Pace *pace, uint32_t segment) noexcept nogil:
    """Note a datagram; segment is its Arrival's."""
    if segment == 0:
        pace.arrivals += 1


cdef inline int64_t pace_next(Pace *pace, int64_t now) noexcept nogil:
    """Nanoseconds to wait after the look that began at `now`."""
    cdef int64_t passed = now - pace.since
    cdef bint more = pace.more
    if passed >= PACE_WINDOW:
        # In microseconds, so that no silence is too long for 64 bits.
        pace.pause = PACE_PAUSE if pace.arrivals * <int64_t>1000 >= passed // 1000 * PACE_BUSY else 0
        pace.since = now
        pace.arrivals = 0
    pace.more = False
    return 0 if more else pace.pause


def pauses(looks):
    """Nanoseconds of the wait after each look. looks: triples of its time in nanoseconds, arrivals, whether there is more."""
    cdef Pace pace
    memset(&pace, 0, sizeof(pace))
    waits = []
    for now, count, more in looks:
        pace.arrivals += count
        pace.more = more
        waits.append(pace_next(&pace, now))
    return waits
