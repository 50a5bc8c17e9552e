# Messages of the rules to UDP clients. Those that answer one batch leave together: a client process that
# the first wakes finds the others there, where each would have woken it anew.

cdef enum:
    # So many that the first waits for no more than some tenths of a millisecond of judging.
    SENDS = 16

cdef struct Sends:
    # Messages through one socket that have not left yet.
    int descriptor
    uint32_t count
    mmsghdr messages[SENDS]
    iovec vectors[SENDS]
    sockaddr_in6 names[SENDS]
    uint64_t controls[SENDS][CONTROL_WORDS]


cdef void put_send(
    Sends *sends, const Listener *listener, const FiveTupleKey *key, const uint8_t *data, size_t size
) noexcept nogil:
    """Add a message, which must stay where it is; there must be room, and the others' socket must be the same."""
    cdef uint32_t at = sends.count
    cdef msghdr *header = &sends.messages[at].msg_hdr
    sends.descriptor = listener.descriptor
    sends.vectors[at].iov_base = <void *>data
    sends.vectors[at].iov_len = size
    header.msg_name = &sends.names[at]
    header.msg_namelen = put_name(&sends.names[at], &key.client)
    header.msg_iov = &sends.vectors[at]
    header.msg_iovlen = 1
    header.msg_control = NULL
    header.msg_controllen = 0
    header.msg_flags = 0
    if listener.is_wildcard and not same_ip(&key.server.ip, &listener.address.ip):
        header.msg_control = &sends.controls[at][0]
        header.msg_controllen = put_source(<uint8_t *>&sends.controls[at][0], 0, &key.server)
    sends.count = at + 1


cdef void send_all(Sends *sends, LaneCounts *counts) noexcept nogil:
    """Send what there is; one that the kernel refuses is counted and hinders no other."""
    cdef uint32_t at = 0
    cdef int sent
    while at < sends.count:
        sent = sendmmsg(sends.descriptor, &sends.messages[at], sends.count - at, MSG_DONTWAIT)
        counts.sends += 1
        if sent > 0:
            counts.segments += <uint32_t>sent
            at += <uint32_t>sent
        elif errno != EINTR:
            counts.drops[<int>SEND_FAILED] += 1
            at += 1
    sends.count = 0
