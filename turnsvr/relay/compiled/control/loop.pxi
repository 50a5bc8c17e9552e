# The loop of a lane: wait, take the lock, read what is ready, send what came of it, let go.

cdef void unwatch_moved(Lane *lane, const Slot *slot, uint32_t at) noexcept nogil:
    """Have epoll watch no more what another pump serves."""
    if slot.kind == IS_LISTENER:
        watch(lane, at, (<Listener *>slot.item).descriptor, 0, EPOLL_CTL_DEL)
    elif slot.kind == IS_RELAY:
        watch(lane, at, (<Relay *>slot.item).descriptor, 0, EPOLL_CTL_DEL)
    elif slot.kind == IS_STREAM:
        watch(lane, at, (<Stream *>slot.item).descriptor, 0, EPOLL_CTL_DEL)


cdef void serve_slot(Lane *lane, Batch *batch, uint64_t name, uint32_t events) noexcept nogil:
    """Serve what an event names, unless its tenant has changed since."""
    cdef uint32_t at = <uint32_t>name
    cdef Slot *slot
    cdef Stream *stream
    if at >= lane.slot_count:
        return
    slot = &lane.slots[at]
    if slot.generation != <uint32_t>(name >> 32):
        return
    if slot.has_moved:
        unwatch_moved(lane, slot, at)
    elif slot.kind == IS_LISTENER:
        read_listener(lane, batch, <Listener *>slot.item)
    elif slot.kind == IS_RELAY:
        if events & EPOLLERR:
            report_errors(lane, batch, <Relay *>slot.item)
        read_relay(lane, batch, <Relay *>slot.item)
    elif slot.kind == IS_STREAM or slot.kind == IS_PEER:
        stream = <Stream *>slot.item
        if stream.is_over:
            return
        if stream.splice != NULL:
            serve_splice(lane, batch, stream, CLIENT_END if slot.kind == IS_STREAM else PEER_END, events)
        else:
            read_stream(lane, batch, stream, events)


cdef void free_listener(Listener *listener) noexcept nogil:
    """Free a listener that no slot names any more."""
    free(listener.suffix)
    free(listener.challenge)
    free(listener)


cdef void free_done(Lane *lane) noexcept nogil:
    """Close the sockets of DTLS clients that have gone; what was to leave by them has left."""
    cdef Listener *listener
    while lane.done != NULL:
        listener = lane.done
        lane.done = listener.next
        watch(lane, listener.slot, listener.descriptor, 0, EPOLL_CTL_DEL)
        release_slot(lane, listener.slot)
        c_close(listener.descriptor)
        free_listener(listener)


cdef enum:
    # No slot has this name: it would be the last of four thousand million.
    WAKE = 0xFFFFFFFF


cdef inline uint64_t packets_of(const Lane *lane) noexcept nogil:
    """All that came so far but messages for the rules, and those that were answered in their place."""
    return lane.counts.received - lane.counts.sent_up - lane.counts.challenges


cdef int wait_for_events(Lane *lane, epoll_event *events, int64_t awake_until, int64_t due) noexcept nogil:
    """As epoll_wait(), but it looks without sleeping until awake_until, then sleeps until due; each 0 for never."""
    cdef int count
    cdef int64_t left = -1
    while awake_until and monotonic() < awake_until:
        count = epoll_wait(lane.epoll, events, EVENTS, 0)
        if count:
            return count
    if due:
        left = min(max((due - monotonic() + 999999) // 1000000, <int64_t>0), <int64_t>60000)
    return epoll_wait(lane.epoll, events, EVENTS, <int>left)


cdef int64_t pause_after(Lane *lane, int64_t began, uint64_t packets) noexcept nogil:
    """Nanoseconds to wait after a look that found so many packets beside messages for the rules."""
    if pace_waits(&lane.pace, began):
        return pace_pause(monotonic() - began)
    # Another look would take the core from the loop's thread, for which the messages of this one wait.
    return 0 if packets else backlog(lane)


cdef enum:
    # Nanoseconds of handshakes in a look, and how many times as long none follows: relayed packets have the rest.
    SHAKING = 1000000
    SHAKING_REST = 2


cdef int64_t shake_hands(Lane *lane, Batch *batch) noexcept nogil:
    """Make steps of handshakes, one at the least where it is time, and serve timers; returns when to do so next.

    0 for when something comes.
    """
    cdef Associations *all = &lane.dtls
    cdef int64_t ends
    look_at_timers(lane, batch)
    if all.first != NULL and batch.now >= all.rests_until:
        ends = batch.now + SHAKING
        while make_step(lane, batch) and monotonic() < ends:
            pass
        all.rests_until = monotonic()
        all.rests_until += SHAKING_REST * (all.rests_until - batch.now)
    if all.first == NULL or (all.look_at and all.look_at < all.rests_until):
        return all.look_at
    return all.rests_until


cdef inline int64_t sooner(int64_t one, int64_t other) noexcept nogil:
    """Of two times, each 0 for never."""
    if one == 0 or other == 0:
        return one + other
    return min(one, other)


cdef void run_lane(Lane *lane, Batch *batch, Lane **lanes) noexcept nogil:
    """Serve until is_stopping. The lane's thread, without the GIL; it holds the lane's lock for each look."""
    cdef epoll_event events[EVENTS]
    cdef int count, at
    cdef uint64_t ignored, packets
    cdef int64_t awake_until = 0
    cdef int64_t due = 0
    cdef timespec pause
    # Else the kernel rounds a short sleep up by as much again.
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    pause.tv_sec = 0
    while not load(&lane.is_stopping):
        count = wait_for_events(lane, events, awake_until, due)
        if count < 0 or (count == 0 and not due):
            continue
        lane_lock(lane)
        batch.now = monotonic()
        batch.slots_used = 0
        batch.opened_used = 0
        packets = packets_of(lane)
        for at in range(count):
            if events[at].data.u64 == WAKE:
                eventfd_read(lane.wake, &ignored)
            else:
                serve_slot(lane, batch, events[at].data.u64, events[at].events)
        due = sooner(shake_hands(lane, batch), resume_paced(lane, batch.now))
        flush(lane, batch)
        free_done(lane)
        packets = packets_of(lane) - packets
        awake_until = batch.now + lane.policy.busy_poll if packets and lane.policy.busy_poll else 0
        lane_unlock(lane)
        if batch.foreign_used:
            flush_foreign(lanes, batch)
        pause.tv_nsec = 0 if awake_until else pause_after(lane, batch.now, packets)
        if pause.tv_nsec:
            nanosleep(&pause, NULL)
