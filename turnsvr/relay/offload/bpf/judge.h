// Whose packet it is, and whether it may pass: the law of compiled/path/routes.pxi, and what only the pump can judge.
#pragma once

#include "order.h"
#include "parse.h"

// What becomes of a packet.
enum verdict {
    GOES_UP,
    IS_DROPPED,
    IS_CARRIED,
};

// A packet on its way, once it is known whose it is.
struct way {
    struct flow *flow;
    struct hop *hop;
    // Bytes of data; what stands in front of them when they come and when they leave; what stands behind them.
    u32 size;
    u32 old_head;
    u32 new_head;
    u32 tail;
    net16 check;
    u8 tos;
};

// A second's worth at once, as the pump has it.
#define BURST 1000000000ULL
#define ATTEMPTS 4

INLINE int is_channel_data(net16 word)
{
    return (NTOHS(word) & 0xC000) == 0x4000;
}

// ChannelData of a client first, then what a peer sends, which may look like it.
INLINE struct flow *find_flow(struct packet *packet)
{
    struct flow *flow = 0;
    if (packet->size >= CHANNEL_HEAD && is_channel_data(packet->words[0])) {
        packet->key.channel = packet->words[0];
        flow = bpf_map_lookup_elem(&flows, &packet->key);
        packet->key.channel = 0;
    }
    return flow ? flow : bpf_map_lookup_elem(&flows, &packet->key);
}

INLINE int is_same_address(const u8 *one, const u8 *other)
{
    u32 a, b;
    u16 c, d;
    __builtin_memcpy(&a, one, 4);
    __builtin_memcpy(&b, other, 4);
    __builtin_memcpy(&c, one + 4, 2);
    __builtin_memcpy(&d, other + 4, 2);
    return a == b && c == d;
}

// A token bucket as the time at which all is paid for; it shares its budget with the pump's by the debt.
INLINE int take_bandwidth(u64 price, u64 debt, u64 *paid_until, u32 size, u64 now)
{
    u64 cost = price * size >> 16;
    for (int i = 0; i < ATTEMPTS; i++) {
        u64 old = *paid_until;
        u64 paid = old + debt;
        if ((s64)(paid - now) < 0)
            paid = now;
        if (paid + cost > now + BURST)
            return 0;
        if (__sync_val_compare_and_swap(paid_until, old, paid + cost - debt) == old)
            return 1;
    }
    return 0;
}

// What is in front of the data and behind them, when they come and when they leave.
INLINE int measure(const struct packet *packet, struct way *way)
{
    const struct flow *flow = way->flow;
    way->old_head = packet->head;
    way->size = packet->size;
    way->tail = 0;
    if (flow->direction == FROM_CLIENT) {
        u32 size = NTOHS(packet->words[1]);
        way->old_head += CHANNEL_HEAD;
        way->size -= CHANNEL_HEAD;
        if (size > way->size || way->size - size >= 4)
            return LENGTHS;
        way->tail = way->size - size;
        way->size = size;
    }
    way->new_head = ETHERNET_HEAD + (flow->family == 4 ? IPV4_HEAD : IPV6_HEAD) + UDP_HEAD;
    if (flow->channel)
        way->new_head += CHANNEL_HEAD;
    if (way->new_head + way->size < LEAST_FRAME)
        return TOO_SMALL;
    if (way->new_head - ETHERNET_HEAD + way->size > flow->mtu)
        return TOO_LARGE;
    return CARRIED;
}

// Why a packet cannot be carried, or CARRIED. interface: where it came in.
INLINE u32 judge_flow(
    const struct packet *packet, struct way *way, const struct session *session, u32 interface, u64 now)
{
    const struct flow *flow = way->flow;
    u32 zero = 0, came_by = flow->came_by, leaves_by = flow->leaves_by;
    const struct rules *rule = bpf_map_lookup_elem(&rules, &zero);
    if (!rule || flow->generation != rule->generation || flow->number != session->number)
        return OLD;
    if (now > session->until || now > flow->permission_until || now > flow->channel_until)
        return EXPIRED;
    const struct hop *came = bpf_map_lookup_elem(&hops, &came_by);
    way->hop = bpf_map_lookup_elem(&hops, &leaves_by);
    if (!came || !came->interface || !way->hop || !way->hop->interface)
        return UNKNOWN_HOP;
    if (came->interface != interface || !is_same_address(came->own, packet->own))
        return OTHER_INTERFACE;
    if (!packet->check)
        return NO_CHECKSUM;
    if (packet->check == packet->pseudo)
        return PARTIAL_CHECKSUM;
    return measure(packet, way);
}

// Where a direction's number stands in an array of two.
INLINE u64 *of_direction(u64 *numbers, const struct way *way)
{
    if (way->flow->direction == FROM_CLIENT)
        return numbers;
    numbers += TO_CLIENT;
    OPAQUE(numbers);
    return numbers;
}

// Whether the bandwidth has room for it; else it is counted as dropped.
INLINE int pays(const struct way *way, struct session *session, u32 slot, u64 now)
{
    struct bucket *bucket;
    struct traffic *counted;
    if (!session->price)
        return 1;
    bucket = bpf_map_lookup_elem(&buckets, &slot);
    if (bucket && take_bandwidth(session->price, *of_direction(session->debts, way),
            of_direction(bucket->paid_until, way), way->size, now))
        return 1;
    for (u32 i = 0; i < 2; i++) {
        counted = bpf_map_lookup_elem(&traffic, &slot);
        if (counted)
            counted->dropped += 1;
        slot = ALL;
    }
    count(OVER_BANDWIDTH);
    return 0;
}

INLINE void account_at(const struct way *way, u32 slot)
{
    struct traffic *counted = bpf_map_lookup_elem(&traffic, &slot);
    if (counted) {
        *of_direction(counted->packets, way) += 1;
        *of_direction(counted->bytes, way) += way->size;
    }
}

INLINE void account(const struct way *way, u32 slot)
{
    account_at(way, slot);
    account_at(way, ALL);
    count(CARRIED);
}
