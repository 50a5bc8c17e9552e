# Cookies of DTLS (RFC 6347 section 4.2.1): a client that brings one back shows that it receives at its address. They
# are made of nothing but a secret of the lane and the five-tuple, so that nothing is kept of other clients.

cdef enum:
    HELLO_COOKIE_SIZE = 16
    SECRET_SIZE = 32
    # What a cookie is made of: both ends' addresses and ports, and their family.
    ADDRESSES_SIZE = 37

# Nanoseconds for which a secret makes cookies; what it has made holds as long again.
cdef int64_t SECRET_LIFE = 30000000000

cdef struct CookieSecrets:
    # What MACs begin with: of the secret that makes cookies now, and of the one before.
    uint32_t now[8]
    uint32_t before[8]
    int64_t until


cdef bint renew_secret(uint32_t *secret) noexcept nogil:
    """Another secret; False when the system gives no random bytes."""
    cdef uint8_t[SECRET_SIZE] key
    if getrandom(key, SECRET_SIZE, 0) != SECRET_SIZE:
        return False
    blake2_key(secret, key, SECRET_SIZE, <const uint8_t *>b"cookie\0", HELLO_COOKIE_SIZE)
    return True


cdef bint renew_secrets(CookieSecrets *secrets, int64_t now) noexcept nogil:
    """Have secrets that are not too old at this time; False when there are none."""
    cdef bint is_late = now >= secrets.until + SECRET_LIFE
    if now < secrets.until:
        return True
    memcpy(secrets.before, secrets.now, sizeof(secrets.now))
    if not renew_secret(secrets.now) or (is_late and not renew_secret(secrets.before)):
        return False
    secrets.until = now + SECRET_LIFE
    return True


cdef void write_cookie(uint8_t *to, const uint32_t *secret, const FiveTupleKey *key) noexcept nogil:
    """The cookie for a client at this server address; its connection does not matter."""
    cdef uint8_t[ADDRESSES_SIZE] addresses
    memcpy(addresses, key.client.ip.bytes, 16)
    memcpy(addresses + 16, key.server.ip.bytes, 16)
    put16(addresses + 32, key.client.port)
    put16(addresses + 34, key.server.port)
    addresses[36] = <uint8_t>key.client.family
    blake2_end(to, HELLO_COOKIE_SIZE, secret, addresses, ADDRESSES_SIZE)


cdef bint is_cookie(const CookieSecrets *secrets, const FiveTupleKey *key, const uint8_t *said) noexcept nogil:
    """Whether these are the bytes of a cookie that we have given to this client; takes as long whatever they are."""
    cdef uint8_t[HELLO_COOKIE_SIZE] right
    cdef uint8_t wrong = 0
    cdef uint8_t wrong_before = 0
    cdef uint32_t at
    write_cookie(right, secrets.now, key)
    for at in range(<uint32_t>HELLO_COOKIE_SIZE):
        wrong |= right[at] ^ said[at]
    write_cookie(right, secrets.before, key)
    for at in range(<uint32_t>HELLO_COOKIE_SIZE):
        wrong_before |= right[at] ^ said[at]
    return wrong == 0 or wrong_before == 0
