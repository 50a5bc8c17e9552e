# Datagrams of DTLS clients: which association they belong to, if any (RFC 6347 section 4.2.8). Under the lane's lock.
#
# A client that begins anew at the addresses of its association, after a crash say, keeps the old one until hands are
# shaken once more: a forged source address cannot end it. Until then both may have what comes in a later epoch.

cdef enum:
    # The first bytes of what is DTLS (RFC 7983), and what records and handshake messages begin with.
    FIRST_RECORD = 20
    LAST_RECORD = 63
    HANDSHAKE_RECORD = 22
    CLIENT_HELLO = 1


cdef inline bint is_record(const uint8_t *data, uint32_t size) noexcept nogil:
    """Whether a datagram is one of DTLS, to judge by its first byte."""
    return size > 0 and FIRST_RECORD <= data[0] <= LAST_RECORD


cdef inline bint is_hello(const uint8_t *data, uint32_t size) noexcept nogil:
    """Whether a datagram begins with a ClientHello that is not encrypted, or with the first fragment of one."""
    return (
        size >= RANDOM_AT + HELLO_RANDOM
        and data[0] == HANDSHAKE_RECORD
        and get16(data + 3) == 0
        and data[RECORD_HEADER] == CLIENT_HELLO
        and data[RECORD_HEADER + 6] == 0
        and get16(data + RECORD_HEADER + 7) == 0
    )


cdef inline bint began_with(const DtlsLink *link, const uint8_t *hello) noexcept nogil:
    """Whether this ClientHello is a copy of the link's."""
    return link != NULL and memcmp(link.random, hello + RANDOM_AT, HELLO_RANDOM) == 0


cdef void to_handshake(Lane *lane, DtlsLink *link, const uint8_t *data, uint32_t size) noexcept nogil:
    """Keep a datagram for the client's turn."""
    if keep_datagram(link, data, size):
        take_turn(&lane.dtls, link)
    else:
        drop_packet(lane, NULL, OVERLOAD)


cdef void from_dtls_client(
    Lane *lane, Batch *batch, Listener *listener, const FiveTupleKey *key, const uint8_t *data, uint32_t size,
    uint8_t tos
) noexcept nogil:
    """Serve a datagram of records. key: the addresses; its connection does not matter."""
    cdef DtlsLink *link = find_association(&lane.dtls.by_addresses, key)
    cdef DtlsLink *shaking = link
    if link != NULL and link.state != SHAKES:
        shaking = link.successor
    if size < RECORD_HEADER:
        drop_packet(lane, NULL, MALFORMED)
        return
    if is_hello(data, size):
        if began_with(shaking, data):
            to_handshake(lane, shaking, data, size)
        elif not began_with(link, data):
            hear_hello(lane, batch, listener if link == NULL else <Listener *>link.listener, key, data, size)
        return
    if link == NULL:
        drop_packet(lane, NULL, NO_SESSION)
        return
    if shaking != NULL:
        to_handshake(lane, shaking, data, size)
    if link != shaking and (shaking == NULL or get16(data + 3)):
        open_datagram(lane, batch, link, data, size, tos)
