# Which packets leave together: the packets of a batch, as runs, by the socket that they leave from. Pure: it compares
# destinations and sizes. A descriptor is a number here, and a run's session and relay are carried for the code
# that sends it; bytes that packets point to are the caller's, and stay until grouping_reset().
#
# Packets to one destination form a run while they may be one UDP_SEGMENT message: all of one size, save the last,
# which may be shorter. Packets of one destination keep their order; between destinations there is none to keep.

cdef enum:
    MAX_PACKETS = 4096
    MAX_RUNS = 1024
    FLOW_SLOTS = 4096
    VIA_SLOTS = 4096
    # UDP_MAX_SEGMENTS of every kernel that has UDP_SEGMENT; later ones allow more.
    MAX_SEGMENTS = 64
    # What fits a datagram of either family.
    MAX_RUN_BYTES = 65487
    NONE = 0xFFFFFFFF

cdef enum Answer:
    NO_ANSWER
    BINDING_ANSWER
    CHALLENGE
    # Records of DTLS without data of a session: handshakes, alerts, messages of the rules.
    DTLS_RECORDS

cdef struct Destination:
    # Equal in all of this is what makes one message possible. source.family is zero where the socket has one address.
    # Answers of each kind and data are counted apart, so they leave apart.
    Endpoint to
    Endpoint source
    int descriptor
    uint8_t tos
    bint dont_fragment
    Answer answer

cdef struct Packet:
    uint8_t *head
    const uint8_t *body
    uint32_t body_size
    uint16_t head_size
    uint16_t padding
    uint32_t next
    # Bytes of data that count for a session.
    uint32_t payload

cdef struct Run:
    Destination destination
    Session *session
    Relay *relay
    uint32_t first
    uint32_t last
    uint32_t count
    uint32_t size
    uint32_t bytes
    uint32_t payload
    uint32_t next
    bint is_open

cdef struct Via:
    int descriptor
    uint32_t first
    uint32_t last

cdef struct EpochSlot:
    uint32_t epoch
    uint32_t index

cdef struct Grouping:
    # Slots of another epoch are empty: a new batch begins without clearing them.
    uint32_t epoch
    uint32_t packet_count
    uint32_t run_count
    uint32_t via_count
    uint32_t latest
    Packet packets[MAX_PACKETS]
    Run runs[MAX_RUNS]
    Via vias[MAX_RUNS]
    EpochSlot flow_slots[FLOW_SLOTS]
    EpochSlot via_slots[VIA_SLOTS]


cdef void grouping_reset(Grouping *grouping) noexcept nogil:
    """Begin a batch; packets and runs of the one before are gone."""
    grouping.packet_count = 0
    grouping.run_count = 0
    grouping.via_count = 0
    grouping.latest = NONE
    grouping.epoch += 1
    if grouping.epoch == 0:
        memset(grouping.flow_slots, 0, sizeof(grouping.flow_slots))
        memset(grouping.via_slots, 0, sizeof(grouping.via_slots))
        grouping.epoch = 1


cdef inline bint grouping_full(const Grouping *grouping) noexcept nogil:
    """Whether there must be a flush before the next packet."""
    return grouping.packet_count == MAX_PACKETS or grouping.run_count == MAX_RUNS


cdef inline bint same_destination(const Destination *one, const Destination *other) noexcept nogil:
    """Whether packets to both may leave in one message: from one socket, to one endpoint, with one header."""
    return (
        one.descriptor == other.descriptor
        and same_endpoint(&one.to, &other.to)
        and one.tos == other.tos
        and one.dont_fragment == other.dont_fragment
        and one.answer == other.answer
        and same_endpoint(&one.source, &other.source)
    )


cdef inline bint may_join(const Run *run, uint32_t size) noexcept nogil:
    """Whether a packet of this size may leave in this run's message."""
    return (
        run.is_open
        and 0 < size <= run.size
        and run.count < MAX_SEGMENTS
        and run.bytes + size <= MAX_RUN_BYTES
    )


cdef EpochSlot *flow_slot(Grouping *grouping, const Destination *destination) noexcept nogil:
    """Where the latest run of a destination is kept, or an empty slot."""
    cdef uint64_t hash = hash_endpoint(&destination.to, <uint64_t><unsigned int>destination.descriptor)
    cdef uint32_t at = <uint32_t>hash & (FLOW_SLOTS - 1)
    cdef EpochSlot *slot
    while True:
        slot = &grouping.flow_slots[at]
        if slot.epoch != grouping.epoch:
            return slot
        if same_destination(&grouping.runs[slot.index].destination, destination):
            return slot
        at = (at + 1) & (FLOW_SLOTS - 1)


cdef void chain_run(Grouping *grouping, uint32_t index) noexcept nogil:
    """Append a run to those of its socket."""
    cdef int descriptor = grouping.runs[index].destination.descriptor
    cdef uint32_t at = <uint32_t>descriptor & (VIA_SLOTS - 1)
    cdef EpochSlot *slot
    cdef Via *via
    while True:
        slot = &grouping.via_slots[at]
        if slot.epoch != grouping.epoch:
            slot.epoch = grouping.epoch
            slot.index = grouping.via_count
            via = &grouping.vias[grouping.via_count]
            via.descriptor = descriptor
            via.first = index
            via.last = index
            grouping.via_count += 1
            return
        via = &grouping.vias[slot.index]
        if via.descriptor == descriptor:
            grouping.runs[via.last].next = index
            via.last = index
            return
        at = (at + 1) & (VIA_SLOTS - 1)


cdef Run *grouping_join(Grouping *grouping, const Destination *destination, uint32_t size, bint gso) noexcept nogil:
    """Add the next packet, of this size, to a run; the caller fills in packets[packet_count - 1]. Not when full."""
    cdef EpochSlot *slot
    cdef uint32_t index = grouping.packet_count
    cdef Run *run
    grouping.packet_count += 1
    grouping.packets[index].next = NONE
    if gso and grouping.latest != NONE:
        run = &grouping.runs[grouping.latest]
        if may_join(run, size) and same_destination(&run.destination, destination):
            return append_packet(grouping, run, index, size)
    slot = flow_slot(grouping, destination)
    if gso and slot.epoch == grouping.epoch and may_join(&grouping.runs[slot.index], size):
        grouping.latest = slot.index
        return append_packet(grouping, &grouping.runs[slot.index], index, size)
    slot.epoch = grouping.epoch
    slot.index = grouping.run_count
    grouping.latest = grouping.run_count
    run = &grouping.runs[grouping.run_count]
    grouping.run_count += 1
    run.destination = destination[0]
    run.session = NULL
    run.relay = NULL
    run.first = index
    run.last = index
    run.count = 1
    run.size = size
    run.bytes = size
    run.payload = 0
    run.next = NONE
    run.is_open = gso and size > 0
    chain_run(grouping, slot.index)
    return run


cdef inline Run *append_packet(Grouping *grouping, Run *run, uint32_t index, uint32_t size) noexcept nogil:
    """Add the packet of this index to a run that it may join."""
    grouping.packets[run.last].next = index
    run.last = index
    run.count += 1
    run.bytes += size
    if size < run.size:
        run.is_open = False
    return run


def group(arrivals, *, bint gso=True):
    """The runs that packets form: lists of positions, in the order in which they leave.

    arrivals: pairs of a destination (a number below 65,536) and a size, at most 1024 of them.
    """
    cdef Grouping *grouping = <Grouping *>calloc(1, sizeof(Grouping))
    cdef Destination destination
    cdef uint32_t via, run, packet
    if grouping == NULL:
        raise MemoryError
    if len(arrivals) > MAX_RUNS:
        free(grouping)
        raise ValueError(f"more than {MAX_RUNS} arrivals")
    memset(&destination, 0, sizeof(destination))
    runs = []
    try:
        grouping_reset(grouping)
        for number, size in arrivals:
            destination.descriptor = number % 7
            destination.to.port = number
            grouping_join(grouping, &destination, size, gso)
        for via in range(grouping.via_count):
            run = grouping.vias[via].first
            while run != NONE:
                packets = []
                packet = grouping.runs[run].first
                while packet != NONE:
                    packets.append(packet)
                    packet = grouping.packets[packet].next
                runs.append(packets)
                run = grouping.runs[run].next
    finally:
        free(grouping)
    return runs
