# The answer to a plain Allocate request: 401 with a nonce for this client, as the rules would give it at this time.

cdef enum:
    ALLOCATE_REQUEST = 0x0003
    ALLOCATE_ERROR = 0x0113
    MESSAGE_INTEGRITY = 0x0008
    REALM = 0x0014
    MESSAGE_INTEGRITY_SHA256 = 0x001C
    ORIGIN = 0x802F
    # More attributes than any client sends go up.
    MAX_ATTRIBUTES = 128
    EXPIRY_SIZE = 4
    MAC_SIZE = 12
    TOKEN_SIZE = 22
    # What the longest REALM leaves room for.
    CHALLENGE_ROOM = 1024

cdef struct Challenge:
    # An answer that lacks its transaction id and its token, and what tokens are made with.
    double lifetime
    uint32_t mac[8]
    uint32_t size
    uint32_t token_at
    uint8_t answer[CHALLENGE_ROOM]

cdef uint8_t *_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


cdef bint is_plain_allocate(const uint8_t *message, uint32_t size, bint *has_fingerprint) noexcept nogil:
    """Whether the rules would answer this with a challenge for any sender; False also where only they can tell."""
    cdef uint32_t at = HEADER_SIZE
    cdef uint32_t count = 0
    cdef uint32_t number, length
    has_fingerprint[0] = False
    if not is_possible(message, size) or size % 4:
        return False
    if get16(message) != ALLOCATE_REQUEST or get32(message + 4) != COOKIE:
        return False
    while at < size:
        number = get16(message + at)
        length = get16(message + at + 2)
        if length > size - at - 4:
            return False
        if number == FINGERPRINT:
            has_fingerprint[0] = True
            return is_fingerprint(message, at, size)
        if number == MESSAGE_INTEGRITY or number == MESSAGE_INTEGRITY_SHA256 or number == REALM or number == ORIGIN:
            return False
        count += 1
        if count > MAX_ATTRIBUTES:
            return False
        at += 4 + ((length + 3) & ~<uint32_t>3)
    return True


cdef void write_token(uint8_t *to, const Challenge *challenge, const Endpoint *client, double now) noexcept nogil:
    """What ends the nonce for this client: turnsvr.plane.Challenge."""
    cdef uint8_t[EXPIRY_SIZE + 2 + 16] signed
    cdef uint8_t[EXPIRY_SIZE + MAC_SIZE + 2] raw
    cdef uint32_t at, bits
    cdef uint32_t ip_size = 4 if client.family == IPV4 else 16
    put32(signed, <uint32_t>(now + challenge.lifetime) + 1)
    put16(signed + EXPIRY_SIZE, client.port)
    memcpy(signed + EXPIRY_SIZE + 2, client.ip.bytes, ip_size)
    memset(raw, 0, sizeof(raw))
    memcpy(raw, signed, EXPIRY_SIZE)
    blake2_end(raw + EXPIRY_SIZE, MAC_SIZE, challenge.mac, signed, EXPIRY_SIZE + 2 + ip_size)
    for at in range(<uint32_t>TOKEN_SIZE):
        # Six bits of the two bytes that they are in.
        bits = get16(raw + 6 * at // 8)
        to[at] = _BASE64[bits >> (10 - 6 * at % 8) & 63]


cdef uint32_t write_challenge(
    uint8_t *to, const Challenge *challenge, const Endpoint *client, double now, const uint8_t *request,
    bint has_fingerprint
) noexcept nogil:
    """The answer to a plain Allocate request, of at most CHALLENGE_ROOM bytes; returns its size. now in seconds."""
    cdef uint32_t size = challenge.size
    memcpy(to, challenge.answer, size)
    memcpy(to + 8, request + 8, 12)
    write_token(to + challenge.token_at, challenge, client, now)
    if has_fingerprint:
        put16(to + 2, size + FINGERPRINT_SIZE - HEADER_SIZE)
        put16(to + size, FINGERPRINT)
        put16(to + size + 2, 4)
        put32(to + size + 4, fingerprint(to, size))
        size += FINGERPRINT_SIZE
    return size


cdef Challenge *challenge_new(challenge) except? NULL:
    """Of a turnsvr.plane.Challenge, to be freed; NULL for None, and for one that is too large. Raises ValueError."""
    cdef Challenge *made
    cdef bytes before, after
    if challenge is None:
        return NULL
    before = challenge.before
    after = challenge.after
    if HEADER_SIZE + len(before) + TOKEN_SIZE + len(after) + FINGERPRINT_SIZE > CHALLENGE_ROOM:
        return NULL
    made = <Challenge *>calloc(1, sizeof(Challenge))
    if made == NULL:
        raise MemoryError
    try:
        made.lifetime = challenge.lifetime
        blake2_begin(made.mac, challenge.key, challenge.person, MAC_SIZE)
    except BaseException:
        free(made)
        raise
    made.token_at = HEADER_SIZE + <uint32_t>len(before)
    made.size = made.token_at + TOKEN_SIZE + <uint32_t>len(after)
    put16(made.answer, ALLOCATE_ERROR)
    put16(made.answer + 2, made.size - HEADER_SIZE)
    put32(made.answer + 4, COOKIE)
    memcpy(made.answer + HEADER_SIZE, <const uint8_t *>before, len(before))
    memcpy(made.answer + made.token_at + TOKEN_SIZE, <const uint8_t *>after, len(after))
    return made
