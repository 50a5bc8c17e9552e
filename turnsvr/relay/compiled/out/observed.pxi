# What an operator observes: packets of some sessions, told to Python as copies; and clients of whom Python sees all.

cdef enum:
    # Bytes of a packet that are told, and bytes that wait for Python at the most, so that frames find room beside them.
    TOLD_BYTES = 2048
    TOLD_WAITING = UP_LIMIT // 4


cdef inline bint is_observed(const Lane *lane, const Endpoint *client) noexcept nogil:
    """Whether the lane is to answer nothing of this client itself."""
    cdef uint32_t at
    for at in range(lane.observed.count):
        if lane.observed.hosts[at].family == client.family and same_ip(&lane.observed.hosts[at].ip, &client.ip):
            return True
    return False


cdef void tell_relayed(
    Lane *lane, Session *session, const Endpoint *peer, const uint8_t *data, uint32_t size, bint is_of_client
) noexcept nogil:
    """Have Python hear of a packet of an observed session, or of how many it has not heard of."""
    cdef UpRecord record
    memset(&record, 0, sizeof(record))
    record.kind = UP_RELAYED
    record.session = session.number
    record.key.client = peer[0]
    record.key.connection = size
    record.first = is_of_client
    record.second = session.untold
    if lane.up.used < TOLD_WAITING and up_push(&lane.up, &record, NULL, 0, data, min(size, TOLD_BYTES), 0):
        session.untold = 0
    else:
        session.untold += 1
