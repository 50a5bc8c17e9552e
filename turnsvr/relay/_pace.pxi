# How long a lane waits before it looks again. Pure: it sees times and counts, no clock.
#
# A look costs as much as some packets do, whatever it finds. Where packets come so thick that none is alone, the lane
# gives them a moment to gather, as network cards do before they interrupt; else it looks at once. The kernel's buffers
# hold many times of what comes meanwhile.

cdef enum:
    # Nanoseconds over which work is counted.
    PACE_WINDOW = 1000000
    # Microseconds of work in a window from which on the lane pauses: 60 % of a core, 150,000 datagrams a second.
    PACE_BUSY = 600
    # Nanoseconds: some eight datagrams at the least, and too short for anybody to hear or see.
    PACE_PAUSE = 50000
    # Microseconds that a packet takes when nothing came with it. What GRO has joined has gathered already.
    PACE_DATAGRAM = 4
    PACE_FRAME = 6

cdef struct Pace:
    int64_t since
    int64_t work
    int64_t pause
    # Whether a read brought all that it had room for: there is more, and no reason to wait.
    bint more


cdef inline int64_t pace_next(Pace *pace, int64_t now) noexcept nogil:
    """Nanoseconds to wait after the look that began at `now`."""
    cdef int64_t passed = now - pace.since
    cdef bint more = pace.more
    if passed >= PACE_WINDOW:
        # In microseconds, so that no silence is too long for 64 bits.
        pace.pause = PACE_PAUSE if pace.work * 1000 >= passed // 1000 * PACE_BUSY else 0
        pace.since = now
        pace.work = 0
    pace.more = False
    return 0 if more else pace.pause


def pauses(looks):
    """Nanoseconds of the wait after each look. looks: triples of its time in nanoseconds, datagrams, whether there is more."""
    cdef Pace pace
    memset(&pace, 0, sizeof(pace))
    waits = []
    for now, datagrams, more in looks:
        pace.work += PACE_DATAGRAM * <int64_t>datagrams
        pace.more = more
        waits.append(pace_next(&pace, now))
    return waits
