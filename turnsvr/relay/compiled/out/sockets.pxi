# What the kernel is told in its own words: addresses, control messages, and what epoll looks for.

cdef bint watch(Lane *lane, uint32_t slot, int descriptor, uint32_t events, int operation) noexcept nogil:
    """Tell epoll what to look for; operation: an EPOLL_CTL_…. False with errno."""
    cdef epoll_event event
    event.events = events
    event.data.u64 = <uint64_t>lane.slots[slot].generation << 32 | slot
    return epoll_ctl(lane.epoll, operation, descriptor, &event) == 0


cdef socklen_t put_name(sockaddr_in6 *name, const Endpoint *endpoint) noexcept nogil:
    """The endpoint as the kernel takes it; returns its size."""
    cdef sockaddr_in *ipv4 = <sockaddr_in *>name
    memset(name, 0, sizeof(sockaddr_in6))
    if endpoint.family == IPV4:
        ipv4.sin_family = AF_INET
        ipv4.sin_port = htons(endpoint.port)
        memcpy(&ipv4.sin_addr, endpoint.ip.bytes, 4)
        return sizeof(sockaddr_in)
    name.sin6_family = AF_INET6
    name.sin6_port = htons(endpoint.port)
    memcpy(&name.sin6_addr, endpoint.ip.bytes, 16)
    name.sin6_scope_id = endpoint.scope
    return sizeof(sockaddr_in6)


cdef void read_name(Endpoint *endpoint, const sockaddr_in6 *name) noexcept nogil:
    """The endpoint as the kernel gave it."""
    cdef const sockaddr_in *ipv4 = <const sockaddr_in *>name
    endpoint.ip.words[0] = 0
    endpoint.ip.words[1] = 0
    endpoint.scope = 0
    if name.sin6_family == AF_INET:
        endpoint.family = IPV4
        endpoint.port = ntohs(ipv4.sin_port)
        memcpy(endpoint.ip.bytes, &ipv4.sin_addr, 4)
    else:
        endpoint.family = IPV6
        endpoint.port = ntohs(name.sin6_port)
        memcpy(endpoint.ip.bytes, &name.sin6_addr, 16)
        endpoint.scope = name.sin6_scope_id


cdef uint32_t put_control(
    uint8_t *controls, uint32_t used, int level, int kind, const void *data, uint32_t size
) noexcept nogil:
    """Append a control message; returns the bytes used then. There must be room."""
    cdef cmsghdr *control = <cmsghdr *>(controls + used)
    control.cmsg_level = level
    control.cmsg_type = kind
    control.cmsg_len = CMSG_LEN(size)
    memcpy(CMSG_DATA(control), data, size)
    return used + <uint32_t>CMSG_SPACE(size)


cdef uint32_t put_source(uint8_t *controls, uint32_t used, const Endpoint *source) noexcept nogil:
    """Have a datagram leave from this address; as put_control()."""
    cdef in_pktinfo ipv4
    cdef in6_pktinfo ipv6
    if source.family == IPV4:
        memset(&ipv4, 0, sizeof(ipv4))
        memcpy(&ipv4.ipi_spec_dst, source.ip.bytes, 4)
        return put_control(controls, used, IPPROTO_IP, IP_PKTINFO, &ipv4, sizeof(ipv4))
    memset(&ipv6, 0, sizeof(ipv6))
    memcpy(&ipv6.ipi6_addr, source.ip.bytes, 16)
    ipv6.ipi6_ifindex = source.scope
    return put_control(controls, used, IPPROTO_IPV6, IPV6_PKTINFO, &ipv6, sizeof(ipv6))
