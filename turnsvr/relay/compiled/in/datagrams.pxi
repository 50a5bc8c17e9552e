# Datagrams as they arrive: received many at a time, each taken apart and put on its path. Under the lane's lock.

cdef struct Arrival:
    # What came with a datagram besides its bytes. segment: size of each packet when GRO has joined several, else 0.
    uint32_t segment
    uint8_t tos
    Endpoint local


cdef uint32_t receive(Lane *lane, Batch *batch, int descriptor, uint32_t most) noexcept nogil:
    """Fill so many free slots as there are datagrams; returns how many. They are the last ones of slots_used."""
    cdef uint32_t first = batch.slots_used
    cdef uint32_t at
    cdef int count
    most = min(most, RECEIVE_SLOTS - first)
    for at in range(first, first + most):
        batch.received[at].msg_hdr.msg_namelen = sizeof(sockaddr_in6)
        batch.received[at].msg_hdr.msg_controllen = CONTROL_SIZE
    count = recvmmsg(descriptor, &batch.received[first], most, MSG_DONTWAIT, NULL)
    if count <= 0:
        return 0
    batch.slots_used = first + <uint32_t>count
    lane.counts.batches += 1
    if <uint32_t>count == most:
        lane.pace.more = True
    return <uint32_t>count


cdef void read_arrival(Arrival *arrival, msghdr *header) noexcept nogil:
    """Read the control messages of a received datagram."""
    cdef cmsghdr *control = CMSG_FIRSTHDR(header)
    cdef in_pktinfo *ipv4
    cdef in6_pktinfo *ipv6
    arrival.segment = 0
    arrival.tos = 0
    arrival.local.family = NO_FAMILY
    while control != NULL:
        if control.cmsg_level == SOL_UDP and control.cmsg_type == UDP_GRO:
            arrival.segment = <uint32_t>max((<int *>CMSG_DATA(control))[0], 0)
        elif control.cmsg_level == IPPROTO_IP and control.cmsg_type == IP_TOS:
            arrival.tos = (<uint8_t *>CMSG_DATA(control))[0]
        elif control.cmsg_level == IPPROTO_IPV6 and control.cmsg_type == IPV6_TCLASS:
            arrival.tos = <uint8_t>(<int *>CMSG_DATA(control))[0]
        elif control.cmsg_level == IPPROTO_IP and control.cmsg_type == IP_PKTINFO:
            ipv4 = <in_pktinfo *>CMSG_DATA(control)
            memset(&arrival.local, 0, sizeof(Endpoint))
            memcpy(arrival.local.ip.bytes, &ipv4.ipi_addr, 4)
            arrival.local.family = IPV4
        elif control.cmsg_level == IPPROTO_IPV6 and control.cmsg_type == IPV6_PKTINFO:
            ipv6 = <in6_pktinfo *>CMSG_DATA(control)
            memset(&arrival.local, 0, sizeof(Endpoint))
            memcpy(arrival.local.ip.bytes, &ipv6.ipi6_addr, 16)
            if arrival.local.ip.bytes[0] == 0xFE and arrival.local.ip.bytes[1] & 0xC0 == 0x80:
                arrival.local.scope = ipv6.ipi6_ifindex
            arrival.local.family = IPV6
        control = CMSG_NXTHDR(header, control)


cdef inline Listener *hears(Lane *lane, Listener *listener, const Endpoint *client) noexcept nogil:
    """Whose a client is that was read at this listener: one that is another's came in before that was connected.

    NULL where another process has the listener of all.
    """
    if not listener.is_apart or same_endpoint(&listener.client, client):
        return listener
    return lane.listeners[listener.number] if lane.listener_count else NULL


cdef inline bint is_left(const Lane *lane, const Listener *listener) noexcept nogil:
    """Whether a listener is there for records alone, since another process serves the rest of that address."""
    return listener.is_apart and (lane.has_parted or lane.listener_count == 0)


cdef void serve_datagram(Lane *lane, Batch *batch, Listener *listener, uint32_t slot) noexcept nogil:
    """Everything in one received datagram of a client: one packet, or those that GRO has joined."""
    cdef uint8_t *data = <uint8_t *>batch.received_vectors[slot].iov_base
    cdef uint32_t left = batch.received[slot].msg_len
    cdef uint32_t size, home
    cdef uint64_t number = 0
    cdef FiveTupleKey key
    cdef Arrival arrival
    cdef Session *session
    cdef Route route
    read_arrival(&arrival, &batch.received[slot].msg_hdr)
    lane.pace.work += 0 if arrival.segment else PACE_DATAGRAM
    read_name(&key.client, &batch.received_names[slot])
    key.server = listener.address
    if arrival.local.family and listener.is_wildcard:
        key.server = arrival.local
        key.server.port = listener.address.port
    key.transport = UDP
    key.connection = 0
    listener = hears(lane, listener, &key.client)
    session = find_session(&lane.sessions, &key)
    home = lane.number
    if session == NULL and lane.shared.lanes > 1:
        home = home_of(lane, &key, &number)
    route.number = NONE
    while True:
        size = min(left, arrival.segment) if arrival.segment else left
        lane.counts.received += 1
        if listener == NULL or (is_left(lane, listener) and not is_record(data, size)):
            drop_packet(lane, NULL, NO_SESSION)
        elif listener.takes_dtls and is_record(data, size):
            serve_records(lane, batch, listener, &key, data, size, arrival.tos)
        elif is_plain_binding(data, size) and not is_observed(lane, &key.client):
            answer_binding(lane, batch, listener, &key, data)
        elif home != lane.number:
            put_foreign(lane, batch, home, number, listener, &key, NULL, NULL, data, size, arrival.tos)
        else:
            from_udp_client(lane, batch, listener, session, &key, data, size, arrival.tos, True, &route)
        data += size
        left -= size
        if left == 0:
            return


cdef void serve_records(
    Lane *lane, Batch *batch, Listener *listener, const FiveTupleKey *key, const uint8_t *data, uint32_t size,
    uint8_t tos
) noexcept nogil:
    """A datagram of DTLS, on the lane that its client's association is on or would be."""
    cdef uint32_t home = lane_number_of(&key.client, lane.shared.lanes)
    cdef FiveTupleKey addresses
    if home == lane.number:
        from_dtls_client(lane, batch, listener, key, data, size, tos)
    else:
        addresses = key[0]
        addresses.transport = DTLS
        put_foreign(lane, batch, home, 0, listener, &addresses, NULL, NULL, data, size, tos)


cdef void read_listener(Lane *lane, Batch *batch, Listener *listener) noexcept nogil:
    """Serve what clients have sent to this socket, as far as the slots reach; epoll tells of the rest again."""
    cdef uint32_t first, at
    cdef uint32_t count = BATCH_LISTENER
    cdef size_t bytes = 0
    make_room(lane, batch, BATCH_LISTENER)
    while count == BATCH_LISTENER and bytes < RECEIVE_BYTES and batch.slots_used + BATCH_LISTENER <= RECEIVE_SLOTS:
        first = batch.slots_used
        count = receive(lane, batch, listener.descriptor, BATCH_LISTENER)
        for at in range(first, first + count):
            bytes += batch.received[at].msg_len
            serve_datagram(lane, batch, listener, at)


cdef void read_relay(Lane *lane, Batch *batch, Relay *relay) noexcept nogil:
    """Serve what peers have sent to this socket, at most BATCH_RELAY datagrams."""
    cdef uint32_t first, at, count
    cdef uint32_t left, size, headroom
    cdef uint8_t *data
    cdef Arrival arrival
    cdef Endpoint peer
    cdef Route route
    make_room(lane, batch, BATCH_RELAY)
    first = batch.slots_used
    count = receive(lane, batch, relay.descriptor, BATCH_RELAY)
    for at in range(first, first + count):
        read_arrival(&arrival, &batch.received[at].msg_hdr)
        lane.pace.work += 0 if arrival.segment else PACE_DATAGRAM
        read_name(&peer, &batch.received_names[at])
        peer.scope = 0
        known_as(&lane.policy.homes, relay.session, &peer, batch.now)
        find_reply(relay.session, &peer, batch.now, is_elsewhere(lane, &peer), &route)
        data = <uint8_t *>batch.received_vectors[at].iov_base
        left = batch.received[at].msg_len
        headroom = HEADROOM
        while True:
            size = min(left, arrival.segment) if arrival.segment else left
            lane.counts.received += 1
            to_client(lane, batch, relay.session, &peer, data, size, arrival.tos, headroom, &route)
            headroom = 0
            data += size
            left -= size
            if left == 0:
                break


cdef inline void make_room(Lane *lane, Batch *batch, uint32_t slots) noexcept nogil:
    """Send what was received before, unless so many more datagrams make no more than one read of a listener."""
    if batch.slots_used + slots > BATCH_LISTENER:
        flush(lane, batch)
        batch.slots_used = 0
        batch.opened_used = 0
