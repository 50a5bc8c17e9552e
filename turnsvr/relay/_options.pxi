# What sockets are told before lanes serve them.

cdef int set_number(int descriptor, int level, int option, int value) except -1:
    if setsockopt(descriptor, level, option, &value, sizeof(value)) < 0:
        raise OSError(errno, "setsockopt")
    return 0


cdef bint try_number(int descriptor, int level, int option, int value):
    return setsockopt(descriptor, level, option, &value, sizeof(value)) == 0


cdef int enlarge(int descriptor, int size) except -1:
    """Have room for so many received bytes, or for as many as the system grants."""
    if size and not try_number(descriptor, SOL_SOCKET, SO_RCVBUFFORCE, size):
        try_number(descriptor, SOL_SOCKET, SO_RCVBUF, size)
    return 0


def prepare_relay(int descriptor, bint ipv6, bint gro, int room):
    """Set on a relay socket what the engine expects; raises OSError. room: bytes to receive, 0 as it is."""
    enlarge(descriptor, room)
    if ipv6:
        set_number(descriptor, IPPROTO_IPV6, IPV6_RECVERR, 1)
        set_number(descriptor, IPPROTO_IPV6, IPV6_RECVTCLASS, 1)
    else:
        set_number(descriptor, IPPROTO_IP, IP_RECVERR, 1)
        set_number(descriptor, IPPROTO_IP, IP_RECVTOS, 1)
        set_number(descriptor, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
    if gro:
        try_number(descriptor, SOL_UDP, UDP_GRO, 1)


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
    """Make a SO_REUSEPORT group of so many sockets choose as Engine does; raises OSError."""
    if steer(descriptor, lanes) < 0:
        raise OSError(errno, "SO_ATTACH_REUSEPORT_CBPF")


def has_segmentation(int descriptor):
    """Whether the kernel knows UDP_SEGMENT, asked of any UDP socket."""
    return try_number(descriptor, SOL_UDP, UDP_SEGMENT, 0)
