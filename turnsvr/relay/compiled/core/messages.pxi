# The few messages that a pump reads and writes by itself. A raw index stands behind one guard on the size.

cdef enum:
    HEADER_SIZE = 20
    COOKIE = 0x2112A442
    BINDING_REQUEST = 0x0001
    SEND_INDICATION = 0x0016
    DATA_INDICATION = 0x0017
    BINDING_SUCCESS = 0x0101
    XOR_PEER_ADDRESS = 0x0012
    DATA = 0x0013
    DONT_FRAGMENT = 0x001A
    MAPPED_ADDRESS = 0x0001
    XOR_MAPPED_ADDRESS = 0x0020
    SOFTWARE = 0x8022
    FINGERPRINT = 0x8028
    FINGERPRINT_SIZE = 8
    FINGERPRINT_XOR = 0x5354554E
    MAX_DATA = 65507
    # A Data indication before its data: header, an IPv6 XOR-PEER-ADDRESS, the header of DATA.
    MAX_HEAD = 48

cdef struct SendIndication:
    Endpoint peer
    const uint8_t *data
    uint32_t size
    bint dont_fragment


cdef inline bint is_possible(const uint8_t *message, size_t size) noexcept nogil:
    """Whether a message whose first byte is below 0x40 is as long as its STUN header says."""
    return size >= HEADER_SIZE and get16(message + 2) + <size_t>HEADER_SIZE == size


cdef inline bint is_plain_binding(const uint8_t *message, size_t size) noexcept nogil:
    """Whether this is a Binding request without attributes, which a lane answers itself."""
    return size == HEADER_SIZE and get32(message) == BINDING_REQUEST << 16 and get32(message + 4) == COOKIE


cdef bint read_xor_address(Endpoint *address, const uint8_t *value, uint32_t size, const uint8_t *mask) noexcept nogil:
    """The address in a XOR-… value (RFC 8489 section 14.2); mask has 16 bytes. False when it is none."""
    cdef uint32_t ip_size, at
    if size < 4:
        return False
    if value[1] == IPV4 and size == 8:
        ip_size = 4
    elif value[1] == IPV6 and size == 20:
        ip_size = 16
    else:
        return False
    memset(address, 0, sizeof(Endpoint))
    address.family = value[1]
    address.port = get16(value + 2) ^ get16(mask)
    for at in range(ip_size):
        address.ip.bytes[at] = value[4 + at] ^ mask[at]
    return True


cdef uint32_t write_xor_address(
    uint8_t *to, uint32_t number, const Endpoint *address, const uint8_t *mask
) noexcept nogil:
    """A XOR-… attribute, 12 or 24 bytes; returns its size."""
    cdef uint32_t ip_size = 4 if address.family == IPV4 else 16
    cdef uint32_t at
    put16(to, number)
    put16(to + 2, 4 + ip_size)
    put16(to + 4, address.family)
    put16(to + 6, address.port ^ get16(mask))
    for at in range(ip_size):
        to[8 + at] = address.ip.bytes[at] ^ mask[at]
    return 8 + ip_size


cdef inline uint32_t fingerprint(const uint8_t *message, uint32_t size) noexcept nogil:
    """FINGERPRINT's value over the bytes before it (RFC 8489 section 14.7)."""
    return crc32(message, size) ^ <uint32_t>FINGERPRINT_XOR


cdef inline bint is_fingerprint(const uint8_t *message, uint32_t at, uint32_t size) noexcept nogil:
    """Whether the attribute at this place ends the message and is its right FINGERPRINT (RFC 8489 section 14.7)."""
    return (
        size - at == FINGERPRINT_SIZE
        and get16(message + at + 2) == 4
        and get32(message + at + 4) == fingerprint(message, at)
    )


cdef bint read_send_indication(SendIndication *found, const uint8_t *message, uint32_t size) noexcept nogil:
    """The plain Send indication in a possible message; False when the rules must look at it.

    Plain: exactly one XOR-PEER-ADDRESS and one DATA, besides them nothing but DONT-FRAGMENT and SOFTWARE, and at the
    end perhaps a FINGERPRINT, which is right.
    """
    cdef uint32_t at = HEADER_SIZE
    cdef uint32_t number, start, length
    found.peer.family = NO_FAMILY
    found.data = NULL
    found.dont_fragment = False
    if get32(message + 4) != COOKIE:
        return False
    while at < size:
        if size - at < 4:
            return False
        number = get16(message + at)
        length = get16(message + at + 2)
        start = at + 4
        if length > size - start:
            return False
        if number == DATA and found.data == NULL:
            found.data = message + start
            found.size = length
        elif number == XOR_PEER_ADDRESS and found.peer.family == NO_FAMILY:
            if not read_xor_address(&found.peer, message + start, length, message + 4):
                return False
        elif number == DONT_FRAGMENT and length == 0:
            found.dont_fragment = True
        elif number == FINGERPRINT:
            if not is_fingerprint(message, at, size):
                return False
        elif number != SOFTWARE:
            return False
        at = start + ((length + 3) & ~<uint32_t>3)
    return at == size and found.data != NULL and found.peer.family != NO_FAMILY


cdef uint32_t data_indication_head(
    uint8_t *to, const uint8_t *transaction_id, const Endpoint *peer, uint32_t size
) noexcept nogil:
    """A Data indication up to its data, which the caller pads to four bytes; 36 or 48 bytes."""
    cdef uint32_t attribute
    put16(to, DATA_INDICATION)
    put32(to + 4, COOKIE)
    memcpy(to + 8, transaction_id, 12)
    attribute = write_xor_address(to + HEADER_SIZE, XOR_PEER_ADDRESS, peer, to + 4)
    put16(to + 2, attribute + 4 + ((size + 3) & ~<uint32_t>3))
    put16(to + HEADER_SIZE + attribute, DATA)
    put16(to + HEADER_SIZE + attribute + 2, size)
    return HEADER_SIZE + attribute + 4


cdef uint32_t binding_success(
    uint8_t *to, const uint8_t *request, const Endpoint *client, bint tell_mapped, uint32_t suffix_size
) noexcept nogil:
    """The answer to a plain Binding request, up to the suffix; 32 to 68 bytes. to may be where the request is."""
    cdef uint8_t[16] unmasked
    cdef uint32_t attribute
    memmove(to + 4, request + 4, 16)
    attribute = write_xor_address(to + HEADER_SIZE, XOR_MAPPED_ADDRESS, client, to + 4)
    if tell_mapped:
        memset(unmasked, 0, sizeof(unmasked))
        attribute += write_xor_address(to + HEADER_SIZE + attribute, MAPPED_ADDRESS, client, unmasked)
    put16(to, BINDING_SUCCESS)
    put16(to + 2, attribute + suffix_size)
    return HEADER_SIZE + attribute


cdef int64_t frame_size(const uint8_t *data, size_t size) noexcept nogil:
    """Size of the stream frame that begins with these bytes, at least four of them; -1 when it is none."""
    cdef uint32_t length = get16(data + 2)
    cdef uint32_t known, at
    if 0x40 <= data[0] <= 0x7F:
        return 4 + ((length + 3) & ~<uint32_t>3)
    if data[0] > 0x7F or length % 4:
        return -1
    known = <uint32_t>min(size, <size_t>8)
    for at in range(4, known):
        if data[at] != (<uint32_t>COOKIE >> (8 * (7 - at)) & 0xFF):
            return -1
    return HEADER_SIZE + <int64_t>length
