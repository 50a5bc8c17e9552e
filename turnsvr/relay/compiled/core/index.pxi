# An Index: an open-addressing hash table of pointers to items that others own.
#
# One probe in the common case, at most three quarters full, grown as it fills; an empty one costs nothing. It takes no
# lock: its owner says which lock guards it.

cdef struct IndexSlot:
    uint64_t hash
    void *item

cdef struct Index:
    IndexSlot *slots
    uint32_t mask
    uint32_t used


ctypedef bint (*item_test)(const void *item, const void *key) noexcept nogil


cdef inline void *index_find(const Index *index, uint64_t hash, item_test is_it, const void *key) noexcept nogil:
    """The item of this hash that is_it says has this key; NULL when there is none.

    The one probe of every index. It is compiled into each find_… below with that one's test in place.
    """
    cdef uint32_t at
    if index.slots == NULL:
        return NULL
    at = <uint32_t>hash & index.mask
    while index.slots[at].item != NULL:
        if index.slots[at].hash == hash and is_it(index.slots[at].item, key):
            return index.slots[at].item
        at = (at + 1) & index.mask
    return NULL


cdef inline void *index_any(const Index *index) noexcept nogil:
    """Any item of an index that has one."""
    cdef uint32_t at = 0
    while index.slots[at].item == NULL:
        at += 1
    return index.slots[at].item


cdef bint index_grow(Index *index) noexcept nogil:
    """Have room for twice as many; False when there is no memory, and then nothing has changed."""
    cdef uint32_t size = 4 if index.slots == NULL else (index.mask + 1) * 2
    cdef IndexSlot *slots = <IndexSlot *>calloc(size, sizeof(IndexSlot))
    cdef IndexSlot *old = index.slots
    cdef uint32_t at, to
    if slots == NULL:
        return False
    if old != NULL:
        for at in range(index.mask + 1):
            if old[at].item != NULL:
                to = <uint32_t>old[at].hash & (size - 1)
                while slots[to].item != NULL:
                    to = (to + 1) & (size - 1)
                slots[to] = old[at]
        free(old)
    index.slots = slots
    index.mask = size - 1
    return True


cdef bint index_add(Index *index, uint64_t hash, void *item) noexcept nogil:
    """Add an item that is not there yet; False when there is no memory."""
    if index.slots == NULL or (index.used + 1) * 4 > (index.mask + 1) * 3:
        if not index_grow(index):
            return False
    cdef uint32_t at = <uint32_t>hash & index.mask
    while index.slots[at].item != NULL:
        at = (at + 1) & index.mask
    index.slots[at].hash = hash
    index.slots[at].item = item
    index.used += 1
    return True


cdef void index_remove(Index *index, uint64_t hash, const void *item) noexcept nogil:
    """Remove an item; the slots behind it move up, so that no probe meets a hole."""
    cdef uint32_t at, hole, home
    if index.slots == NULL:
        return
    at = <uint32_t>hash & index.mask
    while index.slots[at].item != item:
        if index.slots[at].item == NULL:
            return
        at = (at + 1) & index.mask
    index.used -= 1
    hole = at
    while True:
        at = (at + 1) & index.mask
        if index.slots[at].item == NULL:
            break
        home = <uint32_t>index.slots[at].hash & index.mask
        if ((at - home) & index.mask) >= ((at - hole) & index.mask):
            index.slots[hole] = index.slots[at]
            hole = at
    index.slots[hole].item = NULL


cdef void index_free(Index *index) noexcept nogil:
    """Free the table, not the items."""
    free(index.slots)
    index.slots = NULL
    index.mask = 0
    index.used = 0


cdef void free_items(Index *index) noexcept nogil:
    """Free the items and the table."""
    cdef uint32_t at
    if index.slots != NULL:
        for at in range(index.mask + 1):
            free(index.slots[at].item)
    index_free(index)
