# How long a lane waits before it looks again. Pure: it sees times and counts, no clock.
#
# A look costs as much as some packets do, whatever it finds. Where packets come so thick that none is alone, the lane
# gives them a moment to gather, as network cards do before they interrupt; else it looks at once. The kernel's buffers
# hold many times of what comes meanwhile.

cdef enum:
    # Nanoseconds over which work is counted: so long that a burst is no load.
    PACE_WINDOW = 10000000
    # Microseconds of work in a millisecond from which on the lane pauses: 60 % of a core, 150,000 datagrams a second.
    PACE_BUSY = 600
    # Nanoseconds: in the shortest come some eight datagrams, the longest is too short to be heard or seen.
    SHORTEST_PAUSE = 50000
    LONGEST_PAUSE = 300000
    # Microseconds that a packet takes when nothing came with it. What GRO has joined has gathered already.
    PACE_DATAGRAM = 4
    PACE_FRAME = 5

cdef struct Pace:
    int64_t since
    int64_t work
    bint busy
    # Whether a read brought all that it had room for: there is more, and no reason to wait.
    bint more


cdef inline bint pace_waits(Pace *pace, int64_t now) noexcept nogil:
    """Whether to wait after the look that began at `now`."""
    cdef int64_t passed = now - pace.since
    cdef bint more = pace.more
    if passed >= PACE_WINDOW:
        # In microseconds, so that no silence is too long for 64 bits.
        pace.busy = pace.work * 1000 >= passed // 1000 * PACE_BUSY
        pace.since = now
        pace.work = 0
    pace.more = False
    return pace.busy and not more


cdef inline int64_t pace_pause(int64_t took) noexcept nogil:
    """Nanoseconds to wait after a look that took so many: half as long, so the next one finds half as much more."""
    return min(max(took // 2, <int64_t>SHORTEST_PAUSE), <int64_t>LONGEST_PAUSE)


def pauses(looks):
    """Nanoseconds of the wait after each look.

    looks: its begin and its duration in nanoseconds, how many datagrams it found, whether there are more.
    """
    cdef Pace pace
    memset(&pace, 0, sizeof(pace))
    waits = []
    for began, took, datagrams, more in looks:
        pace.work += PACE_DATAGRAM * <int64_t>datagrams
        pace.more = more
        waits.append(pace_pause(took) if pace_waits(&pace, began) else 0)
    return waits
