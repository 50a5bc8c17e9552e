# The end of each batch: what was gathered leaves. Under the lane's lock.

cdef void flush(Lane *lane, Batch *batch) noexcept nogil:
    """Send everything that was gathered. What it points to, received bytes too, may be overwritten after it."""
    cdef uint32_t at
    for at in range(batch.grouping.via_count):
        flush_via(lane, batch, &batch.grouping.vias[at])
    if batch.grouping.packet_count:
        grouping_reset(&batch.grouping)
    batch.challenges_used = 0
    flush_streams(lane, batch)
