# Where packets come from and go to: endpoints and five-tuples, compared and hashed.
#
# Hashes are keyed with random words, so that addresses that collide cannot be chosen.

cdef union Ip:
    uint8_t bytes[16]
    uint64_t words[2]

cdef struct Endpoint:
    # IPv4 takes the first four bytes of ip, the rest is zero. port in host order.
    Ip ip
    uint32_t scope
    uint16_t port
    uint16_t family

cdef enum:
    NO_FAMILY = 0
    IPV4 = 1
    IPV6 = 2

cdef enum:
    UDP = 0
    TCP = 1
    TLS = 2
    DTLS = 3

cdef struct FiveTupleKey:
    # As turnsvr.stun.address.FiveTuple: connection tells a stream or DTLS association from the one before at the same
    # addresses.
    Endpoint client
    Endpoint server
    uint32_t transport
    uint32_t connection

cdef uint64_t _hash_keys[4]
getrandom(_hash_keys, sizeof(_hash_keys), 0)


cdef inline uint64_t hash_ip(const Ip *ip, uint64_t salt) noexcept nogil:
    """salt: what else is to tell one from another."""
    return fold(ip.words[0] ^ _hash_keys[0] ^ salt, ip.words[1] ^ _hash_keys[1])


cdef inline uint64_t hash_endpoint(const Endpoint *endpoint, uint64_t salt) noexcept nogil:
    """As hash_ip(), of address and port; scope and family do not enter, and are compared."""
    return fold(hash_ip(&endpoint.ip, salt) ^ _hash_keys[2], <uint64_t>endpoint.port ^ _hash_keys[3])


cdef inline uint64_t hash_key(const FiveTupleKey *key) noexcept nogil:
    """The hash under which an index has what belongs to a five-tuple."""
    return hash_endpoint(&key.client, hash_endpoint(&key.server, <uint64_t>key.connection << 32 | key.transport))


cdef inline uint64_t hash_number(uint64_t number) noexcept nogil:
    """The hash under which an index has a session by its number."""
    return fold(number ^ _hash_keys[0], _hash_keys[1] | 1)


cdef inline bint is_datagram(uint32_t transport) noexcept nogil:
    """Whether messages over this transport are not framed, and may be lost."""
    return transport == UDP or transport == DTLS


cdef inline bint same_ip(const Ip *one, const Ip *other) noexcept nogil:
    """Whether all 16 bytes are equal; the caller compares families."""
    return one.words[0] == other.words[0] and one.words[1] == other.words[1]


cdef inline bint same_endpoint(const Endpoint *one, const Endpoint *other) noexcept nogil:
    return (
        same_ip(&one.ip, &other.ip)
        and one.port == other.port
        and one.family == other.family
        and one.scope == other.scope
    )


cdef inline bint same_key(const FiveTupleKey *one, const FiveTupleKey *other) noexcept nogil:
    return (
        same_endpoint(&one.client, &other.client)
        and same_endpoint(&one.server, &other.server)
        and one.transport == other.transport
        and one.connection == other.connection
    )
