# Between Python's values and the table's.

cdef dict _TRANSPORTS = {Transport.UDP: UDP, Transport.TCP: TCP, Transport.TLS: TLS, Transport.DTLS: DTLS}

cdef list _TRANSPORT_OF = [Transport.UDP, Transport.TCP, Transport.TLS, Transport.DTLS]

cdef extern from "<arpa/inet.h>" nogil:
    int inet_pton(int, const char *, void *)
    const char *inet_ntop(int, const void *, char *, unsigned int)

cdef enum:
    HOST_ROOM = 64
    # Five-tuples kept as values; when there are so many, all go.
    MAX_KNOWN = 4096

cdef dict _known = {}

# A named tuple from its fields, without the call of a Python function that its own constructor is.
cdef object _new_tuple = tuple.__new__


cdef inline uint32_t part_of(uint32_t all, uint32_t lanes) noexcept:
    """What each lane may have of a bound, so that there is at least as much as that says."""
    return all // lanes + (all % lanes > 0)


cdef int64_t nanoseconds(double seconds) noexcept:
    """A time of time.monotonic(); what is out of range is the end of the range."""
    if not seconds < 9e9:
        return 9000000000000000000
    if seconds < -9e9:
        return -9000000000000000000
    return <int64_t>(seconds * 1e9)


cdef int read_host(Endpoint *to, str host, int64_t port) except -1:
    """An IP address in text, with a zone or without; raises OSError."""
    cdef Py_ssize_t size
    cdef const char *text = PyUnicode_AsUTF8AndSize(host, &size)
    cdef const char *percent = <const char *>memchr(text, 37, size)
    cdef char plain[HOST_ROOM]
    memset(to, 0, sizeof(Endpoint))
    if percent != NULL:
        to.scope = read_zone(host)
        size = percent - text
    if size >= HOST_ROOM:
        raise OSError("an address of too many characters")
    memcpy(plain, text, size)
    plain[size] = 0
    to.family = IPV4 if memchr(plain, 58, size) == NULL else IPV6
    if strlen(plain) != <size_t>size or inet_pton(AF_INET if to.family == IPV4 else AF_INET6, plain, to.ip.bytes) != 1:
        raise OSError("no IP address")
    to.port = <uint16_t>port
    return 0


cdef uint32_t read_zone(str host) except? 0xFFFFFFFF:
    """The scope id of a host with a zone, 0 without one. Raises OSError, ValueError."""
    cdef str zone = host.partition("%")[2]
    if not zone:
        return 0
    return int(zone) if zone.isdecimal() else socket.if_nametoindex(zone)


cdef int read_peer(Endpoint *to, str host, int64_t port) except -1:
    """A peer's address, which has no zone on the wire."""
    read_host(to, host.partition("%")[0], port)
    return 0


cdef int read_five_tuple(FiveTupleKey *to, five_tuple) except -1:
    """Raises OSError for what are no IP addresses."""
    transport, client, server, connection = five_tuple
    read_host(&to.client, client[0], client[1])
    read_host(&to.server, server[0], server[1])
    to.transport = _TRANSPORTS[transport]
    to.connection = connection
    return 0


cdef object address_of(const Endpoint *endpoint):
    """A turnsvr.stun.address.Address; its zone is a name where the interface has one."""
    cdef char text[HOST_ROOM]
    cdef str host
    inet_ntop(AF_INET if endpoint.family == IPV4 else AF_INET6, endpoint.ip.bytes, text, HOST_ROOM)
    host = text.decode("ascii")
    if endpoint.scope:
        try:
            host = f"{host}%{socket.if_indextoname(endpoint.scope)}"
        except OSError:
            host = f"{host}%{endpoint.scope}"
    return _new_tuple(Address, (host, endpoint.port))


cdef object five_tuple_of(const FiveTupleKey *key):
    """The value; the same object again for a client that has sent lately."""
    cdef bytes name = (<const uint8_t *>key)[: sizeof(FiveTupleKey)]
    cdef tuple fields
    known = _known.get(name)
    if known is None:
        fields = (_TRANSPORT_OF[key.transport], address_of(&key.client), address_of(&key.server), key.connection)
        known = _new_tuple(FiveTuple, fields)
        if not key.client.scope and not key.server.scope:  # names of interfaces may change
            if len(_known) >= MAX_KNOWN:
                _known.clear()
            _known[name] = known
    return known


cdef tuple traffic_of(const Traffic *traffic):
    """The fields of turnsvr.relay.counts.Counters, in order."""
    return (
        traffic.packets_from_client,
        traffic.bytes_from_client,
        traffic.packets_to_client,
        traffic.bytes_to_client,
        traffic.dropped,
    )


cdef tuple session_traffic(const Session *session):
    """As traffic_of(), of all that went through the session. No lock: each figure is one word."""
    cdef Traffic total = session.traffic
    add_traffic(&total, &session.written)
    return traffic_of(&total)


cdef void add_traffic(Traffic *total, const Traffic *traffic) noexcept nogil:
    """Add figures to a total."""
    total.packets_from_client += traffic.packets_from_client
    total.bytes_from_client += traffic.bytes_from_client
    total.packets_to_client += traffic.packets_to_client
    total.bytes_to_client += traffic.bytes_to_client
    total.dropped += traffic.dropped
