# What sockets are told before lanes serve them.

cdef int set_number(int descriptor, int level, int option, int value) except -1:
    """Raises OSError."""
    if setsockopt(descriptor, level, option, &value, sizeof(value)) < 0:
        raise OSError(errno, "setsockopt")
    return 0


cdef bint try_number(int descriptor, int level, int option, int value):
    """Whether the kernel took it."""
    return setsockopt(descriptor, level, option, &value, sizeof(value)) == 0


cdef int enlarge(int descriptor, int size) except -1:
    """Have room for so many received bytes, or for as many as the system grants."""
    if size and not try_number(descriptor, SOL_SOCKET, SO_RCVBUFFORCE, size):
        try_number(descriptor, SOL_SOCKET, SO_RCVBUF, size)
    return 0


cdef extern from "<sys/socket.h>" nogil:
    const int SOCK_DGRAM
    const int SOCK_CLOEXEC
    const int SOCK_NONBLOCK
    const int SO_SNDBUF
    int c_socket "socket"(int, int, int)
    const int SO_REUSEPORT
    int c_bind "bind"(int, const void *, unsigned int)
    int c_connect "connect"(int, const void *, unsigned int)


def open_relay(address, bint gro, int buffer, int room):
    """Descriptor of a UDP socket at exactly this address, as the engine expects it; raises OSError.

    buffer: bytes to ask for each way, 0 as the system has it. room: bytes to receive at least, by force where allowed.
    """
    cdef Endpoint endpoint
    cdef sockaddr_in6 name
    cdef int descriptor
    read_host(&endpoint, address[0], address[1])
    descriptor = c_socket(
        AF_INET if endpoint.family == IPV4 else AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0
    )
    if descriptor < 0:
        raise OSError(errno, "socket")
    try:
        if buffer:
            set_number(descriptor, SOL_SOCKET, SO_RCVBUF, buffer)
            set_number(descriptor, SOL_SOCKET, SO_SNDBUF, buffer)
        if endpoint.family == IPV6:
            set_number(descriptor, IPPROTO_IPV6, IPV6_V6ONLY, 1)
        prepare_relay(descriptor, endpoint.family == IPV6, gro, room)
        if c_bind(descriptor, &name, put_name(&name, &endpoint)) < 0:
            raise OSError(errno, "bind")
    except BaseException:
        c_close(descriptor)
        raise
    return descriptor


def prepare_relay(int descriptor, bint ipv6, bint gro, int room):
    """Set on a relay socket what the engine expects, and keep multicast from coming back to this host, as open_udp().

    Raises OSError. room: as for open_relay().
    """
    enlarge(descriptor, room)
    if ipv6:
        set_number(descriptor, IPPROTO_IPV6, IPV6_RECVTCLASS, 1)
        set_number(descriptor, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, 0)
    else:
        set_number(descriptor, IPPROTO_IP, IP_MULTICAST_LOOP, 0)
        set_number(descriptor, IPPROTO_IP, IP_RECVTOS, 1)
        set_number(descriptor, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
    if gro:
        try_number(descriptor, SOL_UDP, UDP_GRO, 1)


cdef int open_connected(const FiveTupleKey *key, int shared, bint gro, int room) except -1:
    """A UDP socket between these addresses, the first of which the listener `shared` has as well; raises OSError.

    From here on the kernel gives it what the client sends. Until it is connected it may be given anybody's.
    """
    cdef sockaddr_in6 name
    cdef bint ipv6 = key.server.family == IPV6
    cdef int descriptor = c_socket(AF_INET6 if ipv6 else AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)
    if descriptor < 0:
        raise OSError(errno, "socket")
    try:
        if ipv6:
            set_number(descriptor, IPPROTO_IPV6, IPV6_V6ONLY, 1)
        set_number(shared, SOL_SOCKET, SO_REUSEPORT, 1)
        set_number(descriptor, SOL_SOCKET, SO_REUSEPORT, 1)
        prepare_listener(descriptor, ipv6, False, gro, room)
        if c_bind(descriptor, &name, put_name(&name, &key.server)) < 0:
            raise OSError(errno, "bind")
        if c_connect(descriptor, &name, put_name(&name, &key.client)) < 0:
            raise OSError(errno, "connect")
    except BaseException:
        c_close(descriptor)
        raise
    return descriptor


def prepare_listener(int descriptor, bint ipv6, bint wildcard, bint gro, int room):
    """Set on a listener what the engine expects; raises OSError. room: bytes to receive, 0 as it is."""
    enlarge(descriptor, room)
    if ipv6:
        set_number(descriptor, IPPROTO_IPV6, IPV6_RECVTCLASS, 1)
        if wildcard:
            set_number(descriptor, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
    else:
        set_number(descriptor, IPPROTO_IP, IP_RECVTOS, 1)
        set_number(descriptor, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
        if wildcard:
            set_number(descriptor, IPPROTO_IP, IP_PKTINFO, 1)
    if gro:
        try_number(descriptor, SOL_UDP, UDP_GRO, 1)


def steer_group(int descriptor, int lanes):
    """Make a SO_REUSEPORT group of so many sockets choose as PacketEngine does; raises OSError."""
    if steer(descriptor, lanes) < 0:
        raise OSError(errno, "SO_ATTACH_REUSEPORT_CBPF")


def has_segmentation(int descriptor):
    """Whether the kernel knows UDP_SEGMENT, asked of any UDP socket."""
    return try_number(descriptor, SOL_UDP, UDP_SEGMENT, 0)
