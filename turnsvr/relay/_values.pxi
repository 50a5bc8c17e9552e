# Between Python's values and the table's.

cdef dict _TRANSPORTS = {Transport.UDP: UDP, Transport.TCP: TCP, Transport.TLS: TLS}
cdef list _TRANSPORT_OF = [Transport.UDP, Transport.TCP, Transport.TLS]


cdef int64_t nanoseconds(double seconds) noexcept:
    """A time of time.monotonic(); what is out of range is the end of the range."""
    if not seconds < 9e9:
        return 9000000000000000000
    if seconds < -9e9:
        return -9000000000000000000
    return <int64_t>(seconds * 1e9)


cdef int read_host(Endpoint *to, str host, int64_t port) except -1:
    """An IP address in text, with a zone or without; raises OSError."""
    cdef str zone
    cdef bytes packed
    memset(to, 0, sizeof(Endpoint))
    host, _, zone = host.partition("%")
    if ":" in host:
        packed = socket.inet_pton(socket.AF_INET6, host)
        to.family = IPV6
    else:
        packed = socket.inet_pton(socket.AF_INET, host)
        to.family = IPV4
    memcpy(to.ip.bytes, <const uint8_t *>packed, len(packed))
    if zone:
        to.scope = int(zone) if zone.isdecimal() else socket.if_nametoindex(zone)
    to.port = <uint16_t>port
    return 0


cdef int read_peer(Endpoint *to, str host, int64_t port) except -1:
    """A peer's address, which has no zone on the wire."""
    read_host(to, host.partition("%")[0], port)
    return 0


cdef int read_five_tuple(FiveTupleKey *to, five_tuple) except -1:
    transport, client, server = five_tuple
    read_host(&to.client, client[0], client[1])
    read_host(&to.server, server[0], server[1])
    to.transport = _TRANSPORTS[transport]
    return 0


cdef object address_of(const Endpoint *endpoint):
    cdef str host
    if endpoint.family == IPV4:
        host = socket.inet_ntop(socket.AF_INET, endpoint.ip.bytes[:4])
    else:
        host = socket.inet_ntop(socket.AF_INET6, endpoint.ip.bytes[:16])
        if endpoint.scope:
            try:
                host = f"{host}%{socket.if_indextoname(endpoint.scope)}"
            except OSError:
                host = f"{host}%{endpoint.scope}"
    return Address(host, endpoint.port)


cdef object five_tuple_of(const FiveTupleKey *key):
    return FiveTuple(_TRANSPORT_OF[key.transport], address_of(&key.client), address_of(&key.server))


cdef tuple traffic_of(const Traffic *traffic):
    """The fields of turnsvr.relay.api.Counters, in order."""
    return (
        traffic.packets_from_client,
        traffic.bytes_from_client,
        traffic.packets_to_client,
        traffic.bytes_to_client,
        traffic.dropped,
    )


cdef tuple session_traffic(const Session *session):
    cdef Traffic total = session.traffic
    add_traffic(&total, &session.written)
    return traffic_of(&total)


cdef void add_traffic(Traffic *total, const Traffic *traffic) noexcept nogil:
    total.packets_from_client += traffic.packets_from_client
    total.bytes_from_client += traffic.bytes_from_client
    total.packets_to_client += traffic.packets_to_client
    total.bytes_to_client += traffic.bytes_to_client
    total.dropped += traffic.dropped
