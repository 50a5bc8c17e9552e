# ICMP errors about what a relay socket has sent: read from its error queue, sent up where a client may hear of them.
# Under the lane's lock.

cdef bint tell_error(
    Lane *lane, Batch *batch, Relay *relay, const sock_extended_err *error, const Endpoint *peer
) noexcept nogil:
    """Send an ICMP error up when a client may hear of it (RFC 8656 section 11.5)."""
    cdef UpRecord record
    cdef uint8_t data[4]
    cdef bint too_big
    memset(&record, 0, sizeof(record))
    if error.ee_origin == SO_EE_ORIGIN_ICMP and relay.host.family == IPV4:
        if error.ee_type != 3 and error.ee_type != 11:
            return False
        too_big = error.ee_type == 3 and error.ee_code == 4
    elif error.ee_origin == SO_EE_ORIGIN_ICMP6 and relay.host.family == IPV6:
        if not 1 <= error.ee_type <= 3:
            return False
        too_big = error.ee_type == 2 and error.ee_code == 0
    else:
        return False
    if refusal(relay.session, peer, batch.now) != PASSES:
        return False
    put32(data, error.ee_info if too_big else 0)
    record.kind = UP_PEER_ERROR
    record.session = relay.session.number
    record.key.client = peer[0]
    record.first = error.ee_type
    record.second = error.ee_code
    return up_push(&lane.up, &record, NULL, 0, data, 4, 0)


cdef void report_errors(Lane *lane, Batch *batch, Relay *relay) noexcept nogil:
    """Empty the relay socket's error queue."""
    cdef sockaddr_in6 name
    cdef uint64_t controls[64]
    cdef msghdr header
    cdef cmsghdr *control
    cdef Endpoint peer
    cdef uint32_t at
    for at in range(<uint32_t>MAX_ERRORS):
        memset(&header, 0, sizeof(header))
        header.msg_name = &name
        header.msg_namelen = sizeof(name)
        header.msg_control = controls
        header.msg_controllen = sizeof(controls)
        if c_recvmsg(relay.descriptor, &header, MSG_ERRQUEUE | MSG_DONTWAIT) < 0:
            return
        if header.msg_namelen < sizeof(sockaddr_in):
            continue
        read_name(&peer, &name)
        peer.scope = 0
        known_as(&lane.policy.homes, relay.session, &peer, batch.now)
        control = CMSG_FIRSTHDR(&header)
        while control != NULL:
            if (control.cmsg_level == IPPROTO_IP and control.cmsg_type == IP_RECVERR) or (
                control.cmsg_level == IPPROTO_IPV6 and control.cmsg_type == IPV6_RECVERR
            ):
                tell_error(lane, batch, relay, <sock_extended_err *>CMSG_DATA(control), &peer)
            control = CMSG_NXTHDR(&header, control)
