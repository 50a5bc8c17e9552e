# What goes up to Python beside messages for the rules: records in one growing buffer a lane, taken whole by the
# reader, bounded in bytes; and the one way to wake the reader, once for all that waits.

cdef enum:
    UP_FRAME = 1
    UP_PEER_ERROR = 2
    UP_STREAM_CLOSED = 3
    UP_NO_GSO = 4
    UP_FENCED = 5
    UP_ASSOCIATION_CLOSED = 6
    UP_RELAYED = 7

cdef enum:
    UP_LIMIT = 4194304
    # Ends of streams and associations must not be lost; there are no more of them than of these.
    UP_EVENT_LIMIT = 16777216
    UP_FIRST_ROOM = 16384
    # Nanoseconds that Python takes for a message at least, and the most that a lane leaves it in one go.
    UP_JUDGING = 12000
    UP_LONGEST = 600000

cdef struct UpRecord:
    # size bytes follow it, then what lacks to a multiple of eight. session and peer, or stream and reason, by kind.
    # Sessions are named by numbers that are never used again, streams by slot and generation: the reader may come late.
    FiveTupleKey key
    uint64_t session
    uint32_t kind
    uint32_t size
    uint32_t first
    uint32_t second


cdef bint up_room(UpQueue *queue, uint32_t size, uint32_t limit) noexcept nogil:
    """Have room for so many bytes more within the limit; under the queue's mutex."""
    cdef uint32_t room = queue.room if queue.room else UP_FIRST_ROOM
    cdef uint8_t *grown
    if queue.used + size > limit:
        return False
    while room < queue.used + size:
        room *= 2
    if room != queue.room:
        grown = <uint8_t *>realloc(queue.bytes, room)
        if grown == NULL:
            return False
        queue.bytes = grown
        queue.room = room
    return True


cdef bint up_push(
    UpQueue *queue, UpRecord *record, const uint8_t *head, uint32_t head_size, const uint8_t *body, uint32_t body_size,
    uint32_t padding
) noexcept nogil:
    """Queue a record whose data is head, body and so many zeros; False when the queue is full. The reader is woken."""
    cdef uint32_t size = head_size + body_size + padding
    cdef uint32_t whole = sizeof(UpRecord) + ((size + 7) & ~<uint32_t>7)
    cdef uint8_t *to
    cdef bint is_end = record.kind == UP_STREAM_CLOSED or record.kind == UP_ASSOCIATION_CLOSED
    cdef uint32_t limit = UP_EVENT_LIMIT if is_end else UP_LIMIT
    record.size = size
    pthread_mutex_lock(&queue.mutex)
    if not up_room(queue, whole, limit):
        pthread_mutex_unlock(&queue.mutex)
        return False
    to = queue.bytes + queue.used
    queue.used += whole
    memcpy(to, record, sizeof(UpRecord))
    to += sizeof(UpRecord)
    if head_size:
        memcpy(to, head, head_size)
    if body_size:
        memcpy(to + head_size, body, body_size)
    memset(to + head_size + body_size, 0, padding)
    pthread_mutex_unlock(&queue.mutex)
    up_wake(queue)
    return True


cdef void up_wake(UpQueue *queue) noexcept nogil:
    """Wake the reader, unless it has been woken already."""
    cdef bint wake
    pthread_mutex_lock(&queue.mutex)
    wake = not queue.is_signalled
    queue.is_signalled = True
    pthread_mutex_unlock(&queue.mutex)
    if wake:
        eventfd_write(queue.event, 1)


cdef uint8_t *up_drain(UpQueue *queue, uint32_t *used, bint reads_on) noexcept nogil:
    """Everything queued, for the caller to free; NULL when there is nothing.

    Unless the reader reads on then, whatever comes next wakes it again.
    """
    cdef uint8_t *taken
    pthread_mutex_lock(&queue.mutex)
    taken = queue.bytes
    used[0] = queue.used
    queue.bytes = NULL
    queue.used = 0
    queue.room = 0
    if taken == NULL and not reads_on:
        queue.is_signalled = False
    pthread_mutex_unlock(&queue.mutex)
    return taken
