# The clock that lanes go by, and the memory of their batches.

cdef inline int64_t monotonic() noexcept nogil:
    """Nanoseconds of the clock that deadlines and buckets go by."""
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return time.tv_sec * 1000000000 + time.tv_nsec


cdef void *batch_map(size_t size) noexcept nogil:
    """Zeroed memory that is not there until it is used, for munmap(); NULL when there is none."""
    cdef void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    return NULL if memory == <void *>-1 else memory


cdef Batch *batch_new(uint32_t lane) noexcept nogil:
    """A Batch, mostly of memory that is not there until it is used; NULL when there is none."""
    cdef Batch *batch = <Batch *>batch_map(sizeof(Batch))
    cdef uint32_t at
    if batch == NULL:
        return NULL
    batch.lane = lane
    batch.memory = <uint8_t *>batch_map(RECEIVE_SLOTS * SLOT_SIZE)
    batch.stream_input = <uint8_t *>batch_map(STREAM_INPUT)
    batch.frame = <uint8_t *>batch_map(MAX_FRAME)
    batch.records = <uint8_t *>batch_map(STREAM_READ)
    batch.foreign = <uint8_t *>batch_map(FOREIGN_BYTES)
    batch.opened = <uint8_t *>batch_map(RECORD_BYTES)
    if NULL in (batch.memory, batch.stream_input, batch.frame, batch.records, batch.foreign, batch.opened):
        batch_free(batch)
        return NULL
    if getrandom(&batch.random, sizeof(batch.random), 0) != sizeof(batch.random):
        batch.random = <uint64_t>monotonic()
    for at in range(<uint32_t>RECEIVE_SLOTS):
        batch.received_vectors[at].iov_base = batch.memory + at * SLOT_SIZE + HEADROOM
        batch.received_vectors[at].iov_len = 65535
        batch.received[at].msg_hdr.msg_iov = &batch.received_vectors[at]
        batch.received[at].msg_hdr.msg_iovlen = 1
        batch.received[at].msg_hdr.msg_name = &batch.received_names[at]
        batch.received[at].msg_hdr.msg_control = &batch.received_controls[at][0]
    grouping_reset(&batch.grouping)
    return batch


cdef void batch_free(Batch *batch) noexcept nogil:
    """Free a batch that no thread uses any more; NULL is fine."""
    if batch == NULL:
        return
    if batch.memory != NULL:
        munmap(batch.memory, RECEIVE_SLOTS * SLOT_SIZE)
    if batch.stream_input != NULL:
        munmap(batch.stream_input, STREAM_INPUT)
    if batch.frame != NULL:
        munmap(batch.frame, MAX_FRAME)
    if batch.records != NULL:
        munmap(batch.records, STREAM_READ)
    if batch.foreign != NULL:
        munmap(batch.foreign, FOREIGN_BYTES)
    if batch.opened != NULL:
        munmap(batch.opened, RECORD_BYTES)
    munmap(batch, sizeof(Batch))
