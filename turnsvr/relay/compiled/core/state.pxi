# The lanes and the batches: what a thread that moves packets has, and the locks that guard it.
#
# A lane has its own listeners, relay sockets, table and lock. The lock covers everything that an event of epoll can
# point at. The gate in front of it makes it fair: a lane that has just let go meets a waiting control thread at the
# gate and cannot take the lock twice in a row.

cdef enum:
    # Datagrams that one sending may come of. Deep queues are read so far: the more there is of a flow, the more leaves
    # together.
    RECEIVE_SLOTS = 512
    # Bytes after which no more is read, for what waits should still be in the cache when it leaves.
    RECEIVE_BYTES = 524288
    # Room in front of a received datagram, for the head of what leaves.
    HEADROOM = 64
    # More than a datagram, and no multiple of the cache's stride.
    SLOT_SIZE = 64 + 65536 + 1088
    # Where a head is made when there is no room in front of the data; a whole Binding answer fits in most cases.
    HEAD_ROOM = 128
    CONTROL_SIZE = 192
    CONTROL_WORDS = 24
    SEND_MESSAGES = 64
    SEND_VECTORS = 4096
    EVENTS = 256
    MAX_LISTENERS = 256
    MAX_LANES = 64
    # What is left of a frame, and what one read may bring besides.
    MAX_FRAME = 65556
    STREAM_READ = 131072
    # Of a stream without a session: a stranger's messages are short, and what is read of them may have to be kept.
    STRANGER_READ = 4096
    # The last two are records that OpenSSL has kept, and the room that it wants for one.
    STREAM_INPUT = MAX_FRAME + STREAM_READ + 32768
    FOREIGN_BYTES = 1048576
    # Opened and sealed records until they leave.
    RECORD_BYTES = 1048576
    MAX_ERRORS = 64
    # Challenges that one sending may have.
    CHALLENGES = 64
    # Datagrams of one system call.
    BATCH_LISTENER = 64
    BATCH_RELAY = 16

cdef enum:
    IS_FREE = 0
    IS_LISTENER = 1
    IS_RELAY = 2
    IS_STREAM = 3
    # The peer's end of a stream that is joined.
    IS_PEER = 4

cdef struct Slot:
    # What an event of epoll names: its index, and a generation that tells a new tenant from the one before.
    void *item
    uint32_t generation
    uint32_t kind
    # Another pump serves it.
    bint has_moved

cdef struct Listener:
    Endpoint address
    int descriptor
    uint32_t number
    bint is_wildcard
    bint tells_mapped
    # Whether records of DTLS are looked for among what comes.
    bint takes_dtls
    uint16_t suffix_size
    uint8_t *suffix
    # What plain Allocate requests are answered with; NULL where they go up.
    Challenge *challenge
    # Connected to this client of DTLS, whose association it is for alone: the kernel prefers it to the listener of its
    # number, which another process may read meanwhile. Where it stands in the list of those that are done with.
    bint is_apart
    Endpoint client
    uint32_t slot
    Listener *next

cdef struct Policy:
    double bandwidth
    bint gso
    # Nanoseconds that a lane stays awake after packets, instead of letting more gather; 0 to sleep at once.
    int64_t busy_poll
    uint32_t stream_buffer
    Homes homes

cdef enum:
    OBSERVED_HOSTS = 8

cdef struct Observed:
    # Clients of whom the rules see everything, also what a lane would answer itself; by IP address.
    Endpoint hosts[OBSERVED_HOSTS]
    uint32_t count

cdef struct LaneCounts:
    # bytes and packets of sessions that ended, and what no session has.
    Traffic ended
    uint64_t drops[DROPS]
    uint64_t binding_answers
    uint64_t challenges
    uint64_t challenges_withheld
    uint64_t received
    uint64_t sent_up
    uint64_t batches
    uint64_t sends
    uint64_t segments

cdef struct Shared:
    # What all lanes look up: under its mutex, which is taken last and held for one look-up.
    pthread_mutex_t mutex
    Index relays
    Index sessions
    Index expected
    # The control thread's own.
    Index numbers
    # Relayed transport addresses of this server that another pump serves; items are the index's to free.
    Index elsewhere
    Limiter *limiter
    uint32_t lanes

cdef struct UpQueue:
    pthread_mutex_t mutex
    uint8_t *bytes
    uint32_t used
    uint32_t room
    int event
    # Whether the reader is at work, or has been told.
    int is_signalled

cdef struct Lane:
    uint32_t number
    int epoll
    int wake
    int is_stopping
    pthread_mutex_t gate
    pthread_mutex_t lock
    Shared *shared
    Slot *slots
    uint32_t slot_count
    uint32_t slot_room
    uint32_t free_slot
    Listener *listeners[MAX_LISTENERS]
    uint32_t listener_count
    Index sessions
    Index streams
    Associations dtls
    # Messages for the rules, by client and in the order of turns; those that went up and are not judged; the kind that
    # had the last turn; how many messages wait, and how many went up last.
    Index queues
    FairQueue waiting[WAITING_KINDS]
    ClientQueue *out
    uint32_t next_kind
    uint32_t messages
    uint32_t handed
    Policy policy
    Observed observed
    LaneCounts counts
    Pace pace
    UpQueue up
    bint gso_told
    bint answers_alone
    # Whether some of its sessions have moved to another pump, but for being forgotten here.
    bint has_parted
    # Joined connections that wait for bandwidth, and when the first of them may go on; 0 where none waits.
    Splice *paced
    int64_t paced_until
    # Listeners of clients that have gone, to be freed once nothing that is to be sent names them.
    Listener *done

cdef struct Batch:
    # What one thread needs to move packets, whichever lane's table they are looked up in.
    Grouping grouping
    int64_t now
    uint64_t random
    uint32_t lane
    uint32_t slots_used
    uint32_t foreign_used
    uint32_t challenges_used
    uint32_t opened_used
    Stream *queued
    uint8_t *memory
    uint8_t *stream_input
    # A frame of which head and data are in two places, and records as they come.
    uint8_t *frame
    uint8_t *records
    uint8_t *opened
    uint8_t *foreign
    mmsghdr received[RECEIVE_SLOTS]
    iovec received_vectors[RECEIVE_SLOTS]
    sockaddr_in6 received_names[RECEIVE_SLOTS]
    uint64_t received_controls[RECEIVE_SLOTS][CONTROL_WORDS]
    mmsghdr sending[SEND_MESSAGES]
    Run *sending_runs[SEND_MESSAGES]
    sockaddr_in6 sending_names[SEND_MESSAGES]
    uint64_t sending_controls[SEND_MESSAGES][CONTROL_WORDS]
    uint32_t sending_lone_control[SEND_MESSAGES]
    iovec vectors[SEND_VECTORS]
    uint8_t heads[MAX_PACKETS][HEAD_ROOM]
    uint8_t challenges[CHALLENGES][CHALLENGE_ROOM]


cdef inline void lane_lock(Lane *lane) noexcept nogil:
    """Take the lane's lock. No other lane's may be held, nor a mutex of Shared or UpQueue."""
    pthread_mutex_lock(&lane.gate)
    pthread_mutex_lock(&lane.lock)
    pthread_mutex_unlock(&lane.gate)


cdef inline void lane_unlock(Lane *lane) noexcept nogil:
    """Let go of the lane's lock; the caller has flushed its batch."""
    pthread_mutex_unlock(&lane.lock)


cdef inline void drop_packet(Lane *lane, Session *session, Drop reason) noexcept nogil:
    """Count a packet that goes no further; session: the one that it belonged to, or NULL. Under the lane's lock."""
    lane.counts.drops[<int>reason] += 1
    if session != NULL:
        session.traffic.dropped += 1


cdef int64_t take_slot(Lane *lane, uint32_t kind, void *item) noexcept nogil:
    """A slot for something that epoll watches; -1 when there is no memory."""
    cdef uint32_t at, room
    cdef Slot *grown
    if lane.free_slot != NONE:
        at = lane.free_slot
        lane.free_slot = <uint32_t><uintptr_t>lane.slots[at].item
    else:
        if lane.slot_count == lane.slot_room:
            room = lane.slot_room * 2 if lane.slot_room else 64
            grown = <Slot *>realloc(lane.slots, room * sizeof(Slot))
            if grown == NULL:
                return -1
            lane.slots = grown
            lane.slot_room = room
        at = lane.slot_count
        lane.slots[at].generation = 0
        lane.slot_count += 1
    lane.slots[at].kind = kind
    lane.slots[at].item = item
    lane.slots[at].has_moved = False
    return at


cdef void release_slot(Lane *lane, uint32_t at) noexcept nogil:
    """Free a slot that epoll no longer watches; events already read name another generation."""
    lane.slots[at].kind = IS_FREE
    lane.slots[at].generation += 1
    lane.slots[at].item = <void *><uintptr_t>lane.free_slot
    lane.free_slot = at
