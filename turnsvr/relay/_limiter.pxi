# At most so many answers a second to one client address: turnsvr.limits.AnswerLimiter, for all lanes, without the GIL.

cdef enum:
    MAX_LIMITED = 65536

cdef struct Limited:
    Ip ip
    uint16_t family
    Bucket bucket

cdef struct Limiter:
    # Two generations: when the young one is full the old one is dropped whole.
    pthread_mutex_t mutex
    double rate
    Index young
    Index old


cdef Limited *find_limited(const Index *index, const Ip *ip, uint64_t hash, uint16_t family) noexcept nogil:
    cdef uint32_t at
    cdef Limited *found
    if index.slots == NULL:
        return NULL
    at = <uint32_t>hash & index.mask
    while index.slots[at].item != NULL:
        found = <Limited *>index.slots[at].item
        if index.slots[at].hash == hash and same_ip(&found.ip, ip) and found.family == family:
            return found
        at = (at + 1) & index.mask
    return NULL


cdef bint limiter_allow(Limiter *limiter, const Endpoint *client, int64_t now) noexcept nogil:
    """Whether one more answer may go to this address; an IPv6 client is its /64."""
    cdef Ip ip = client.ip
    cdef uint64_t hash
    cdef double burst
    cdef Limited *entry
    cdef bint allowed
    if limiter.rate <= 0:
        return True
    if client.family == IPV6:
        ip.words[1] = 0
    hash = hash_ip(&ip, client.family)
    pthread_mutex_lock(&limiter.mutex)
    entry = find_limited(&limiter.young, &ip, hash, client.family)
    if entry == NULL:
        entry = find_limited(&limiter.old, &ip, hash, client.family)
        if entry != NULL:
            index_remove(&limiter.old, hash, entry)
        else:
            entry = <Limited *>calloc(1, sizeof(Limited))
            if entry == NULL:
                pthread_mutex_unlock(&limiter.mutex)
                return False
            entry.ip = ip
            entry.family = client.family
            entry.bucket.level = max(limiter.rate, 1.0)
            entry.bucket.filled_at = now
        if limiter.young.used >= MAX_LIMITED:
            free_items(&limiter.old)
            limiter.old = limiter.young
            memset(&limiter.young, 0, sizeof(Index))
        if not index_add(&limiter.young, hash, entry):
            free(entry)
            pthread_mutex_unlock(&limiter.mutex)
            return False
    burst = max(limiter.rate, 1.0)
    allowed = bucket_take(&entry.bucket, limiter.rate, burst, 1, now)
    pthread_mutex_unlock(&limiter.mutex)
    return allowed


cdef void limiter_set(Limiter *limiter, double rate) noexcept nogil:
    """Another rate; everybody begins anew."""
    pthread_mutex_lock(&limiter.mutex)
    limiter.rate = rate
    free_items(&limiter.young)
    free_items(&limiter.old)
    pthread_mutex_unlock(&limiter.mutex)
