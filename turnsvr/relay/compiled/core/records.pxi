# What a lane knows of clients: sessions with their relays, permissions and channels, streams, and what waits.
#
# The control thread makes and frees these, under the lane's lock; under it too, the lane's thread looks at them and
# counts.

cdef enum:
    # Ports of which a session remembers by which name it has called them; of two with one place the later stays.
    NAMES = 64

cdef struct Bucket:
    double level
    int64_t filled_at

cdef struct Span:
    # Ports, inclusive.
    uint16_t low
    uint16_t high

cdef struct Permission:
    # For a host; the spans of its ports follow.
    Ip ip
    int64_t deadline
    uint32_t spans
    uint16_t family
    # Whether Python has heard of a packet for another port.
    bint told

cdef struct Channel:
    Endpoint peer
    int64_t deadline
    uint16_t number

cdef struct Traffic:
    uint64_t packets_from_client
    uint64_t bytes_from_client
    uint64_t packets_to_client
    uint64_t bytes_to_client
    uint64_t dropped

cdef struct Session

cdef struct Relay:
    Session *session
    Endpoint host
    Endpoint advertised
    int descriptor
    uint32_t lane
    uint32_t slot
    bint gso
    # How the socket was last told to send; only IPv4 needs telling.
    bint dont_fragment

cdef struct TlsLink

cdef struct ClientQueue

cdef struct Queued:
    # Something that a client sent, and that waits; size bytes follow.
    Queued *next
    uint32_t size
    uint8_t tos
    # For the rules, as far as could be told when it came.
    bint is_message

cdef enum:
    STRANGERS = 0
    SESSIONS = 1
    WAITING_KINDS = 2

cdef struct Source:
    # Whose messages have turns: an address of strangers, or one session. Its clients with a message for the rules.
    Ip ip
    uint16_t family
    uint32_t kind
    uint32_t clients
    int64_t bytes
    bint is_listed
    ClientQueue *first
    ClientQueue *last
    Source *next

cdef struct FairQueue:
    # Sources with a message for the rules, in the order of their turns; and all of those that have anything here.
    Source *first
    Source *last
    Index sources
    int64_t bytes

cdef struct Stream

cdef struct ClientQueue:
    # A client of which something waits, or of whose messages the rules have one: out.
    FiveTupleKey key
    Source *source
    Stream *stream
    Queued *first
    Queued *last
    uint32_t messages
    uint32_t data
    uint32_t bytes
    # In the list of its source, or in that of what went up last, unless the rules keep it for later.
    ClientQueue *next
    bint is_ready
    Queued *out
    bint is_kept
    bint is_gone

cdef struct TlsLink:
    # One connection's TLS. Hands are shaken over the socket itself; from then on records come from input, which must
    # be taken whole, and go to the stream's output.
    void *ssl
    int descriptor
    Stream *stream
    const uint8_t *input
    uint32_t input_size
    uint32_t output_limit

cdef struct Stream:
    # A TCP or TLS client whose socket the lane serves. pending are the frames that wait for the rules and the one that
    # has not wholly come, output what is still to be sent.
    FiveTupleKey key
    int descriptor
    # NULL for plain TCP.
    TlsLink *tls
    uint32_t slot
    uint8_t *pending
    uint32_t pending_at
    uint32_t pending_size
    uint8_t *output
    uint32_t output_at
    uint32_t output_size
    uint32_t output_room
    bint wants_write
    bint queued
    # Nothing is read from it any more; dead: nothing is written to it either.
    bint is_over
    bint dead
    Stream *next_queued
    # Not NULL while the rules have a message of it, or will: what follows waits in pending, and nothing is read.
    # is_muted: epoll has been told so; is_unwatched: it looks for nothing, not even errors. ends: it ends, for this
    # reason, behind what is pending.
    ClientQueue *queue
    bint is_muted
    bint is_unwatched
    bint ends
    uint32_t end_reason

cdef struct Session:
    uint64_t number
    FiveTupleKey key
    int64_t deadline
    Relay *relays[2]
    Stream *stream
    # What waits of the client, NULL when nothing does.
    ClientQueue *queue
    int listener
    uint32_t lane
    # The StreamWriter of an attached client, borrowed from Engine.writers; only the control thread calls it.
    void *writer
    bint gso
    Index permissions
    Index channels
    Index channels_by_peer
    # By which name the client has called hosts of two names last, by port; NULL while it has called none.
    uint32_t *names
    # Bytes a second each way, 0 for no limit: its own, or what the settings say.
    double bandwidth
    bint limited_by_itself
    Bucket from_client
    Bucket to_client
    # What the lane counts, and what the control thread counts of frames that it has written.
    Traffic traffic
    Traffic written
