# What a lane knows of clients: sessions with their relays, permissions and channels, streams, and what waits.
#
# The control thread makes and frees these, under the lane's lock; under it too, the lane's thread looks at them and
# counts.

cdef enum:
    # Ports for which a session remembers the name that it has used; of two ports in one place the later one stays.
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
    # What the socket was last set to, -1 where that is not known; IPv4 alone needs it.
    int dont_fragment

cdef struct TlsLink

cdef struct ClientQueue

cdef struct Queued:
    # Something that a client sent, and that waits; size bytes follow.
    Queued *next
    uint32_t size
    uint8_t tos
    # Whether it is for the rules, as far as could be told when it came.
    bint is_message

cdef enum:
    STRANGERS = 0
    SESSIONS = 1
    WAITING_KINDS = 2

cdef struct WaitingSource:
    # What has turns with the rules: an address of strangers, or one session. It lists its clients with a message.
    Ip ip
    uint16_t family
    uint32_t kind
    uint32_t clients
    int64_t bytes
    bint is_listed
    ClientQueue *first
    ClientQueue *last
    WaitingSource *next

cdef struct FairQueue:
    # Sources with a message for the rules, in the order of their turns; and all of those that have anything here.
    WaitingSource *first
    WaitingSource *last
    Index sources
    int64_t bytes

cdef struct Stream

cdef struct Splice:
    # A stream that is joined with a connection to a peer, and that connection's end. By end, the client's first: what
    # epoll looks for; until when its bandwidth has it wait, 0 where it does not; whether nothing more comes from it;
    # whether it has been told that nothing more comes.
    Stream *stream
    Session *session
    int descriptor
    uint32_t slot
    uint32_t watched[2]
    int64_t resumes[2]
    bint ended[2]
    bint finished[2]
    Splice *next_of_session
    # In the lane's list of those that wait for bandwidth.
    Splice *next_paced
    bint is_paced

cdef struct ClientQueue:
    # A client of which something waits, or of which the rules have a message: out.
    FiveTupleKey key
    WaitingSource *source
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
    # One connection's TLS. The handshake goes over the socket itself; from then on records come from input, which must
    # be read whole, and go to the stream's output.
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
    # is_muted: epoll has been told so. ends: it ends, for this reason, behind what is pending.
    ClientQueue *queue
    bint is_muted
    bint ends
    uint32_t end_reason
    # Not NULL once it is joined: there are no frames then. pending are bytes for the peer, output for the client.
    Splice *splice

cdef enum:
    HELLO_RANDOM = 32

cdef enum LinkState:
    # Hands are being shaken; they are shaken, but there is no allocation; there is an allocation.
    SHAKES
    IDLES
    SERVES
    LISTED_STATES = SERVES

cdef struct Session

cdef struct DtlsSource

cdef struct DtlsDatagram:
    # One that waits for its turn; size bytes follow.
    DtlsDatagram *next
    uint32_t size

cdef struct DtlsLink:
    # One client's association, on a Lane, by a Listener. OpenSSL reads the datagram at input, and what it writes leaves
    # with those of a Batch: for the session `sending`, with so many bytes of data in it, or of its own accord where that
    # is NULL.
    FiveTupleKey key
    LinkState state
    void *ssl
    void *lane
    void *batch
    void *listener
    const uint8_t *input
    uint32_t input_size
    Session *sending
    uint32_t payload
    uint8_t tos
    Session *session
    # Of the ClientHello that it began with: copies of that one begin nothing anew.
    uint8_t random[HELLO_RANDOM]
    # The one whose handshake is to replace this, and the other way round (RFC 6347 section 4.2.8).
    DtlsLink *successor
    DtlsLink *predecessor
    # When it came to its state, and when it ends unless it leaves that.
    int64_t since
    int64_t deadline
    int64_t retransmit_at
    # Among those of its source in the same state, SHAKES or IDLES, the oldest first.
    DtlsSource *source
    DtlsLink *next
    DtlsLink *previous
    DtlsDatagram *first
    DtlsDatagram *last
    uint32_t datagrams
    uint32_t bytes
    bint is_ready
    DtlsLink *next_ready

cdef struct DtlsSource:
    Ip ip
    uint16_t family
    # All of its associations, and those in each state that has a list.
    uint32_t count
    uint32_t listed[LISTED_STATES]
    DtlsLink *oldest[LISTED_STATES]
    DtlsLink *latest[LISTED_STATES]
    # Those with a step of the handshake to make, and its place in the ring of such sources.
    DtlsLink *first_ready
    DtlsLink *last_ready
    bint is_in_ring
    DtlsSource *next

cdef struct Expected:
    # Where a session is about to move: ChannelData from there are for the rules.
    FiveTupleKey key

cdef struct Session:
    uint64_t number
    FiveTupleKey key
    int64_t deadline
    Relay *relays[2]
    Stream *stream
    # The association of a DTLS client, while it lasts.
    DtlsLink *link
    # What waits of the client, NULL when nothing does.
    ClientQueue *queue
    int listener
    uint32_t lane
    # Whether it keeps its pump when others move, and whether it has moved to another one.
    bint stays
    bint has_moved
    # Whether Python hears of each of its packets, and of how many it has not heard since the last.
    bint is_observed
    uint32_t untold
    # The StreamWriter of an attached client, borrowed from PacketEngine.writers; only the control thread calls it.
    void *writer
    bint gso
    Index permissions
    Index channels
    Index channels_by_peer
    # The name that the client has used last of hosts with two names, by port; NULL while it has used none.
    uint32_t *names
    # Its connections to peers that are joined.
    Splice *splices
    # Bytes a second each way, 0 for no limit: its own, or what the settings say.
    double bandwidth
    bint limited_by_itself
    Bucket from_client
    Bucket to_client
    # What the lane counts, and what the control thread counts of frames that it has written.
    Traffic traffic
    Traffic written
