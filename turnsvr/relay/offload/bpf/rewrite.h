// The headers in front of the data as they leave: those that the kernel would write for the pump.
#pragma once

#include "judge.h"

// Bytes behind the data: ChannelData over UDP may be filled up to a multiple of four.
enum { MOST_TRAILING = 3 };

// A checksum, changed by what changes in the datagram; never zero, which would say that there is none.
// trailing: sum of the bytes behind the data, which do not leave.
INLINE net16 new_check(const struct way *way, u32 trailing)
{
    const struct flow *flow = way->flow;
    u32 had = way->size + way->tail + UDP_HEAD + (flow->direction == FROM_CLIENT ? CHANNEL_HEAD : 0);
    u32 has = way->size + UDP_HEAD + (flow->channel ? CHANNEL_HEAD : 0);
    // The length stands in the pseudo-header and in the header, that of the data in the channel's.
    u64 sum = (u16)~way->check + (u64)flow->change + (u64)2 * HTONS(has) + (u64)2 * (u16)~HTONS(had) + (u16)~trailing;
    if (flow->direction == FROM_CLIENT)
        sum += (u16)~HTONS(way->size);
    if (flow->channel)
        sum += HTONS(way->size);
    net16 check = ~fold(sum);
    return check ? check : 0xFFFF;
}

INLINE void write_ethernet(u8 *at, const struct way *way)
{
    struct ethernet *ethernet = (void *)at;
    __builtin_memcpy(ethernet->to, way->hop->neighbour, 6);
    __builtin_memcpy(ethernet->from, way->hop->own, 6);
    ethernet->protocol = way->flow->family == 4 ? IPV4_PROTOCOL : IPV6_PROTOCOL;
}

INLINE void write_udp(u8 *at, const struct way *way, net16 check)
{
    struct udp *udp = (void *)at;
    udp->source = way->flow->source_port;
    udp->destination = way->flow->destination_port;
    udp->size = HTONS(way->size + UDP_HEAD + (way->flow->channel ? CHANNEL_HEAD : 0));
    udp->check = check;
}

// The identification may not repeat soon, for DF is not set and the packet may be fragmented on its way.
INLINE void write_ipv4(u8 *at, const struct way *way)
{
    struct ipv4 *ip = (void *)at;
    ip->version_and_size = 0x45;
    ip->tos = way->tos;
    ip->size = HTONS(way->new_head + way->size - ETHERNET_HEAD);
    ip->id = bpf_get_prandom_u32();
    ip->fragment = 0;
    ip->ttl = way->flow->ttl;
    ip->protocol = IS_UDP;
    ip->check = 0;
    __builtin_memcpy(ip->source, way->flow->source, 4);
    __builtin_memcpy(ip->destination, way->flow->destination, 4);
    ip->check = ~fold(sum_of_ipv4_head(ip));
}

INLINE void write_ipv6(u8 *at, const struct way *way)
{
    struct ipv6 *ip = (void *)at;
    u8 *bytes = at;
    ip->class_and_label = way->flow->label;
    bytes[0] = 0x60 | way->tos >> 4;
    bytes[1] = way->tos << 4 | (bytes[1] & 0x0F);
    ip->size = HTONS(way->new_head + way->size - ETHERNET_HEAD - IPV6_HEAD);
    ip->next = IS_UDP;
    ip->hops = way->flow->ttl;
    __builtin_memcpy(ip->source, way->flow->source, 16);
    __builtin_memcpy(ip->destination, way->flow->destination, 16);
}

INLINE void write_channel(u8 *at, const struct way *way)
{
    net16 *words = (void *)at;
    words[0] = way->flow->channel;
    words[1] = HTONS(way->size);
}
