# What lanes answer to strangers: its budget, and one answer for tests, as Python sees them.

cdef class AnswerBudget:
    """The budget as a turnsvr.limits.AdjustableAnswerLimit."""

    cdef Limiter limiter

    def __cinit__(self, double rate):
        pthread_mutex_init(&self.limiter.mutex, NULL)
        self.rate = rate

    def __dealloc__(self):
        free(self.limiter.paid_until)

    @property
    def rate(self):
        """Answers a second, 0 for no limit."""
        return self.limiter.rate

    @rate.setter
    def rate(self, double rate):
        if not limiter_set(&self.limiter, rate):
            raise MemoryError

    def allow(self, bytes packed_host not None, double now):
        """Whether one more answer may go to this address, 4 or 16 bytes; now in seconds."""
        cdef Endpoint client
        cdef size_t size = len(packed_host)
        if size != 4 and size != 16:
            raise ValueError("an address has 4 or 16 bytes")
        memset(&client, 0, sizeof(client))
        client.family = IPV4 if size == 4 else IPV6
        memcpy(client.ip.bytes, <const uint8_t *>packed_host, size)
        return limiter_allow(&self.limiter, &client, nanoseconds(now))


def challenge_to(challenge, client, double now, bytes request not None):
    """What a lane answers to this client's datagram at this time; None when it does not."""
    cdef Challenge *made
    cdef Endpoint endpoint
    cdef uint8_t[CHALLENGE_ROOM] to
    cdef uint32_t size
    cdef bint has_fingerprint
    read_host(&endpoint, client[0], client[1])
    if not is_plain_allocate(<const uint8_t *>request, <uint32_t>len(request), &has_fingerprint):
        return None
    made = challenge_new(challenge)
    if made == NULL:
        return None
    size = write_challenge(to, made, &endpoint, now, <const uint8_t *>request, has_fingerprint)
    free(made)
    return to[:size]
