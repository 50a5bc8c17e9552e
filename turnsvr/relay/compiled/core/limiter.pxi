# At most so many answers a second to one client address: turnsvr.limits.AnswerLimiter, for all lanes, without the GIL,
# and for the rules.

cdef enum:
    LIMITER_SLOTS = 262144

# turnsvr.limits.ANSWERS_SAVED: seconds of answers that may go out at once.
cdef double SAVED = ANSWERS_SAVED

# Nanoseconds, some eleven days: what a slower rate comes to.
cdef double LONGEST_INTERVAL = 1e15

cdef struct Limiter:
    # A client is a slot of a table that never grows; the slot says until when its answers are paid for.
    pthread_mutex_t mutex
    double rate
    int64_t interval
    int64_t ahead
    int64_t *paid_until


cdef bint limiter_allow(Limiter *limiter, const Endpoint *client, int64_t now) noexcept nogil:
    """Whether one more answer may go to this address; an IPv6 client is its /64. now in nanoseconds."""
    cdef Ip ip = client.ip
    cdef int64_t *paid_until
    cdef bint allowed
    if limiter.rate <= 0:
        return True
    if client.family == IPV6:
        ip.words[1] = 0
    pthread_mutex_lock(&limiter.mutex)
    paid_until = &limiter.paid_until[hash_ip(&ip, client.family) % LIMITER_SLOTS]
    allowed = paid_until[0] <= now + limiter.ahead
    if allowed:
        paid_until[0] = max(paid_until[0], now) + limiter.interval
    pthread_mutex_unlock(&limiter.mutex)
    return allowed


cdef bint limiter_set(Limiter *limiter, double rate) noexcept nogil:
    """Another rate from now on, 0 for no limit; False when there is no memory for the table."""
    cdef bint ready = True
    cdef double interval
    pthread_mutex_lock(&limiter.mutex)
    if rate > 0 and limiter.paid_until == NULL:
        limiter.paid_until = <int64_t *>calloc(LIMITER_SLOTS, sizeof(int64_t))
        ready = limiter.paid_until != NULL
    if ready:
        limiter.rate = rate
        if rate > 0:
            interval = min(1e9 / rate, LONGEST_INTERVAL)
            limiter.interval = <int64_t>interval
            limiter.ahead = <int64_t>((max(rate * SAVED, 1.0) - 0.99) * interval)
    pthread_mutex_unlock(&limiter.mutex)
    return ready
