// What userspace and the programs share. Each table has one writer: userspace writes `rules`, `flows`, `sessions` and
// `hops`; the programs write `buckets`, `traffic`, `reasons`, and the last part of a flow.
//
// Numbers are in the host's byte order unless they are called net16. Times are nanoseconds of CLOCK_BOOTTIME. IPv4
// addresses are written as IPv6 ones (::ffff:a.b.c.d) in keys, and as the first four of 16 bytes in `source` and `destination`.
#pragma once

#include "kernel.h"

typedef u16 net16;

enum {
    ETHERNET_HEAD = 14,
    IPV4_HEAD = 20,
    IPV6_HEAD = 40,
    UDP_HEAD = 8,
    CHANNEL_HEAD = 4,
    LEAST_FRAME = 60,
};

struct rules {
    // Flows of another generation are unknown: what their routes were found by has changed. 0 carries nothing.
    u32 generation;
    u32 unused;
};

// The five-tuple less the protocol, and the channel: 0 for what a peer sends.
struct flow_key {
    u8 from[16];
    u8 to[16];
    net16 from_port;
    net16 to_port;
    net16 channel;
    net16 zero;
};

enum {
    FROM_CLIENT = 0,
    TO_CLIENT = 1,
    DIRECTIONS = 2,
};

// One direction of a bound channel.
struct flow {
    u64 channel_until;
    u64 permission_until;
    u64 number;
    u32 session;
    // Where it comes from, and where it leaves for: of `hops`.
    u32 came_by;
    u32 leaves_by;
    u32 generation;
    u8 source[16];
    u8 destination[16];
    net16 source_port;
    net16 destination_port;
    // What is put in front of the data; 0 for nothing.
    net16 channel;
    // Sum of what is constant in the new checksum less that in the old one: addresses, ports, the channel's number.
    net16 change;
    // In network order, 20 bits.
    u32 label;
    // Bytes of the largest IP packet that leaves.
    u16 mtu;
    u8 ttl;
    // 4 or 6, of what leaves.
    u8 family;
    u8 direction;
    u8 unused[7];
    // The programs' own: see order.h.
    u64 held_at;
    u64 held_since;
    u64 train;
};

struct session {
    u64 until;
    // As in the flow: a slot that another session has now is none of its business.
    u64 number;
    // Nanoseconds of its bandwidth that a byte takes, in 1/65,536; 0 for no limit.
    u64 price;
    // Nanoseconds of bandwidth, ever growing, that the pump has spent of the same budget.
    u64 debts[DIRECTIONS];
};

// When all that has been carried is paid for, less the debt.
struct bucket {
    u64 paid_until[DIRECTIONS];
};

// The slot of `traffic` in which everything is counted; no session has it.
enum { ALL = 0 };

struct traffic {
    u64 packets[DIRECTIONS];
    u64 bytes[DIRECTIONS];
    u64 dropped;
};

enum {
    // XDP: frames may leave by this interface where they have come in by it, and where by another.
    RETURNS_FRAMES = 1,
    TAKES_FRAMES = 2,
};

// A neighbour, and the interface that it is reached by. 0 for the interface: not known.
struct hop {
    u32 interface;
    u32 flags;
    u8 own[6];
    u8 neighbour[6];
};

// Why a packet of a known flow went to the pump; the order of turnsvr.relay.offload.layout.Reason.
enum reason {
    WAITS,
    OLD,
    EXPIRED,
    UNKNOWN_HOP,
    OTHER_INTERFACE,
    TRAIN,
    PARTIAL_CHECKSUM,
    NO_CHECKSUM,
    LENGTHS,
    TOO_LARGE,
    TOO_SMALL,
    NO_ROOM,
    NO_TRANSMIT,
    CARRIED,
    OVER_BANDWIDTH,
    REASONS,
};

// Read by the loader: the symbol's name is the table's. 0 entries: as many as userspace says.
struct table {
    u32 type;
    u32 key_size;
    u32 value_size;
    u32 entries;
    u32 flags;
};

#define TABLE(name, kind, key, value, count, options) \
    struct table SECTION("tables") name = {kind, sizeof(key), sizeof(value), count, options}

TABLE(rules, BPF_MAP_TYPE_ARRAY, u32, struct rules, 1, 0);
TABLE(flows, BPF_MAP_TYPE_HASH, struct flow_key, struct flow, 0, BPF_F_NO_PREALLOC);
TABLE(sessions, BPF_MAP_TYPE_ARRAY, u32, struct session, 0, 0);
TABLE(buckets, BPF_MAP_TYPE_ARRAY, u32, struct bucket, 0, 0);
TABLE(traffic, BPF_MAP_TYPE_PERCPU_ARRAY, u32, struct traffic, 0, 0);
TABLE(hops, BPF_MAP_TYPE_ARRAY, u32, struct hop, 0, 0);
TABLE(reasons, BPF_MAP_TYPE_PERCPU_ARRAY, u32, u64, REASONS, 0);
