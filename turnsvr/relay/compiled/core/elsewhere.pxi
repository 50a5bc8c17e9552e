# Relayed transport addresses of this server that another pump of this host serves, while sessions move to it or from it
# (turnsvr/relay/moving.py). Permissions cover them as they cover our own.

cdef inline bint is_endpoint(const void *item, const void *key) noexcept nogil:
    return same_endpoint(<const Endpoint *>item, <const Endpoint *>key)


cdef bint put_elsewhere(Shared *shared, const Endpoint *advertised, bint known) noexcept nogil:
    """Have an address known as another pump's, or not any more; False when there is no memory."""
    cdef uint64_t hashed = hash_endpoint(advertised, 0)
    cdef Endpoint *found
    cdef Endpoint *made = NULL
    cdef bint done = True
    pthread_mutex_lock(&shared.mutex)
    found = <Endpoint *>index_find(&shared.elsewhere, hashed, is_endpoint, advertised)
    if known and found == NULL:
        made = <Endpoint *>malloc(sizeof(Endpoint))
        done = made != NULL
        if done:
            made[0] = advertised[0]
            done = index_add(&shared.elsewhere, hashed, made)
            if not done:
                free(made)
    elif not known and found != NULL:
        index_remove(&shared.elsewhere, hashed, found)
        free(found)
    pthread_mutex_unlock(&shared.mutex)
    return done


cdef bint is_elsewhere(Lane *lane, const Endpoint *advertised) noexcept nogil:
    """Whether another pump serves this address: it was said so, or a session of ours has moved there just now."""
    cdef Relay *relay
    cdef bint found
    if not (lane.has_parted or lane.shared.elsewhere.used):
        return False
    pthread_mutex_lock(&lane.shared.mutex)
    found = index_find(&lane.shared.elsewhere, hash_endpoint(advertised, 0), is_endpoint, advertised) != NULL
    if not found:
        relay = find_relay(&lane.shared.relays, advertised)
        found = relay != NULL and relay.session.has_moved
    pthread_mutex_unlock(&lane.shared.mutex)
    return found
