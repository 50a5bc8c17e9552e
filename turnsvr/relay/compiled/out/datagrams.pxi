# Runs of datagrams out: as messages with UDP_SEGMENT, many in one system call, one by one where the kernel refuses it.
# Under the lane's lock, for runs point at its sessions and relays.

cdef uint8_t _ZEROS[8]


cdef uint32_t put_packet(Batch *batch, uint32_t at, const Packet *packet) noexcept nogil:
    """The packet as at most three vectors; returns where the next one goes."""
    if packet.head_size and packet.head + packet.head_size == packet.body:
        batch.vectors[at].iov_base = packet.head
        batch.vectors[at].iov_len = packet.head_size + packet.body_size
        at += 1
    else:
        if packet.head_size:
            batch.vectors[at].iov_base = packet.head
            batch.vectors[at].iov_len = packet.head_size
            at += 1
        if packet.body_size:
            batch.vectors[at].iov_base = <void *>packet.body
            batch.vectors[at].iov_len = packet.body_size
            at += 1
    if packet.padding:
        batch.vectors[at].iov_base = &_ZEROS[0]
        batch.vectors[at].iov_len = packet.padding
        at += 1
    return at


cdef uint32_t put_run(Batch *batch, uint32_t message, uint32_t vector, Run *run) noexcept nogil:
    """The run as one message; returns where the next one's vectors go."""
    cdef msghdr *header = &batch.sending[message].msg_hdr
    cdef Destination *destination = &run.destination
    cdef uint8_t *controls = <uint8_t *>&batch.sending_controls[message][0]
    cdef uint32_t used = 0
    cdef uint32_t at = vector
    cdef uint32_t packet = run.first
    cdef int number
    cdef uint16_t segment = <uint16_t>run.size
    while packet != NONE:
        at = put_packet(batch, at, &batch.grouping.packets[packet])
        packet = batch.grouping.packets[packet].next
    if destination.source.family:
        used = put_source(controls, used, &destination.source)
    if destination.tos:
        number = destination.tos
        if destination.to.family == IPV4:
            used = put_control(controls, used, IPPROTO_IP, IP_TOS, &number, sizeof(number))
        else:
            used = put_control(controls, used, IPPROTO_IPV6, IPV6_TCLASS, &number, sizeof(number))
    if destination.dont_fragment and destination.to.family == IPV6:
        number = 1
        used = put_control(controls, used, IPPROTO_IPV6, IPV6_DONTFRAG, &number, sizeof(number))
    batch.sending_lone_control[message] = used
    if run.count > 1:
        used = put_control(controls, used, SOL_UDP, UDP_SEGMENT, &segment, sizeof(segment))
    header.msg_name = &batch.sending_names[message]
    header.msg_namelen = put_name(&batch.sending_names[message], &destination.to)
    header.msg_iov = &batch.vectors[vector]
    header.msg_iovlen = at - vector
    header.msg_control = controls if used else NULL
    header.msg_controllen = used
    header.msg_flags = 0
    batch.sending_runs[message] = run
    return at


cdef void set_dont_fragment(Relay *relay, bint wanted) noexcept nogil:
    """Have what leaves from here on carry DF, or not; it stays so, as the kernel drops errors about the other kind."""
    cdef int mode = IP_PMTUDISC_DO if wanted else IP_PMTUDISC_DONT
    if relay.host.family == IPV4 and relay.dont_fragment != wanted:
        relay.dont_fragment = wanted
        setsockopt(relay.descriptor, IPPROTO_IP, IP_MTU_DISCOVER, &mode, sizeof(mode))


cdef void account(Lane *lane, Run *run, uint32_t packets, uint32_t payload) noexcept nogil:
    """Count what left."""
    lane.counts.segments += packets
    if run.destination.answer == BINDING_ANSWER:
        lane.counts.binding_answers += packets
    elif run.destination.answer == CHALLENGE:
        lane.counts.challenges += packets
    elif run.destination.answer == DTLS_RECORDS:
        return
    elif run.relay != NULL:
        run.session.traffic.packets_from_client += packets
        run.session.traffic.bytes_from_client += payload
    else:
        run.session.traffic.packets_to_client += packets
        run.session.traffic.bytes_to_client += payload


cdef void lose(Lane *lane, Run *run, uint32_t packets) noexcept nogil:
    """Count packets of a run that the kernel did not take."""
    lane.counts.drops[<int>SEND_FAILED] += packets
    if run.session != NULL:
        run.session.traffic.dropped += packets


cdef void give_up_gso(Lane *lane, Run *run, int error) noexcept nogil:
    """Send packets of this path one by one from here on; tell once."""
    cdef UpRecord record
    if run.relay != NULL:
        run.relay.gso = False
    elif run.session != NULL:
        run.session.gso = False
    else:
        lane.answers_alone = True
    if lane.gso_told:
        return
    lane.gso_told = True
    memset(&record, 0, sizeof(record))
    record.kind = UP_NO_GSO
    record.first = <uint32_t>error
    up_push(&lane.up, &record, NULL, 0, NULL, 0, 0)


cdef void send_singly(Lane *lane, Batch *batch, uint32_t message, Run *run) noexcept nogil:
    """Send the packets of a run one by one, from the vectors of its message."""
    cdef msghdr header = batch.sending[message].msg_hdr
    cdef iovec *vectors = header.msg_iov
    cdef uint32_t packet = run.first
    cdef uint32_t count
    cdef Packet *entry
    header.msg_controllen = batch.sending_lone_control[message]
    if header.msg_controllen == 0:
        header.msg_control = NULL
    while packet != NONE:
        entry = &batch.grouping.packets[packet]
        count = vectors_of(entry)
        header.msg_iov = vectors
        header.msg_iovlen = count
        lane.counts.sends += 1
        if send_again(lane, batch, run, &header):
            account(lane, run, 1, entry.payload)
        else:
            lose(lane, run, 1)
        vectors += count
        packet = entry.next


cdef inline uint32_t vectors_of(const Packet *packet) noexcept nogil:
    """How many vectors put_packet() has made of this one."""
    if packet.head_size and packet.head + packet.head_size == packet.body:
        return 2 if packet.padding else 1
    return <uint32_t>(packet.head_size > 0) + <uint32_t>(packet.body_size > 0) + <uint32_t>(packet.padding > 0)


cdef bint send_again(Lane *lane, Batch *batch, Run *run, const msghdr *header) noexcept nogil:
    """Send one message; a pending ICMP error that is reported in its place does not count as its failure."""
    cdef uint32_t attempt
    for attempt in range(2):
        if c_sendmsg(run.destination.descriptor, header, MSG_DONTWAIT) >= 0:
            return True
        if errno == EAGAIN or run.relay == NULL:
            return False
        report_errors(lane, batch, run.relay)
    return False


cdef void send_failed(Lane *lane, Batch *batch, uint32_t message, int error) noexcept nogil:
    """The kernel refused a message: find out whether GSO is why, and lose no more than must be."""
    cdef Run *run = batch.sending_runs[message]
    if error == EAGAIN:
        lose(lane, run, run.count)
        return
    if run.relay != NULL:
        report_errors(lane, batch, run.relay)
        lane.counts.sends += 1
        if c_sendmsg(run.destination.descriptor, &batch.sending[message].msg_hdr, MSG_DONTWAIT) >= 0:
            account(lane, run, run.count, run.payload)
            return
        error = errno
    if run.count > 1 and (error == EINVAL or error == EIO or error == EMSGSIZE):
        give_up_gso(lane, run, error)
        send_singly(lane, batch, message, run)
    else:
        lose(lane, run, run.count)


cdef void send_messages(Lane *lane, Batch *batch, uint32_t count) noexcept nogil:
    """Send so many prepared messages, all of one socket."""
    cdef int descriptor = batch.sending_runs[0].destination.descriptor
    cdef uint32_t at = 0
    cdef uint32_t end
    cdef int sent
    while at < count:
        lane.counts.sends += 1
        sent = sendmmsg(descriptor, &batch.sending[at], count - at, MSG_DONTWAIT)
        if sent > 0:
            end = at + <uint32_t>sent
            while at < end:
                account(lane, batch.sending_runs[at], batch.sending_runs[at].count, batch.sending_runs[at].payload)
                at += 1
        elif errno != EINTR:
            send_failed(lane, batch, at, errno)
            at += 1


cdef bint send_alone(Lane *lane, Batch *batch, Run *run) noexcept nogil:
    """Send a lone packet the short way, which costs less than its part of a sendmmsg; False when it was not sent."""
    cdef Packet *packet = &batch.grouping.packets[run.first]
    cdef Destination *destination = &run.destination
    cdef const uint8_t *data = packet.body
    cdef sockaddr_in6 name
    cdef socklen_t size
    if packet.head_size:
        data = packet.head
    if (
        run.count > 1 or packet.padding or data + packet.head_size != packet.body
        or destination.tos or destination.dont_fragment or destination.source.family
    ):
        return False
    size = put_name(&name, &destination.to)
    lane.counts.sends += 1
    if c_sendto(
        destination.descriptor, data, packet.head_size + packet.body_size, MSG_DONTWAIT, <const sockaddr *>&name, size
    ) < 0:
        return False
    account(lane, run, 1, run.payload)
    return True


cdef void flush_via(Lane *lane, Batch *batch, Via *via) noexcept nogil:
    """Send all runs of one socket."""
    cdef uint32_t index = via.first
    cdef uint32_t count, vector
    cdef Run *run
    while index != NONE:
        count = 0
        vector = 0
        run = &batch.grouping.runs[index]
        if run.relay != NULL:
            set_dont_fragment(run.relay, run.destination.dont_fragment)
        if send_alone(lane, batch, run):
            index = run.next
            continue
        while (
            index != NONE and count < SEND_MESSAGES and vector + 3 * MAX_SEGMENTS <= SEND_VECTORS
            and batch.grouping.runs[index].destination.dont_fragment == run.destination.dont_fragment
        ):
            vector = put_run(batch, count, vector, &batch.grouping.runs[index])
            index = batch.grouping.runs[index].next
            count += 1
        send_messages(lane, batch, count)
