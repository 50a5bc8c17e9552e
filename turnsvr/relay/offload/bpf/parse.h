// Bytes to a packet: one UDP datagram of an Ethernet frame, whole and without anything unusual, or nothing.
// No table, no clock.
#pragma once

#include "tables.h"

struct ethernet {
    u8 to[6];
    u8 from[6];
    net16 protocol;
} __attribute__((packed));

struct ipv4 {
    u8 version_and_size;
    u8 tos;
    net16 size;
    net16 id;
    net16 fragment;
    u8 ttl;
    u8 protocol;
    net16 check;
    u8 source[4];
    u8 destination[4];
};

struct ipv6 {
    u32 class_and_label;
    net16 size;
    u8 next;
    u8 hops;
    u8 source[16];
    u8 destination[16];
};

struct udp {
    net16 source;
    net16 destination;
    net16 size;
    net16 check;
};

#define IPV4_PROTOCOL HTONS(0x0800)
#define IPV6_PROTOCOL HTONS(0x86DD)
#define MORE_FRAGMENTS_OR_OFFSET HTONS(0x3FFF)
enum { IS_UDP = 17 };

struct packet {
    struct flow_key key;
    // Bytes in front of the UDP data, and of these.
    u32 head;
    u32 size;
    net16 check;
    // Sum of the pseudo-header, folded.
    net16 pseudo;
    // First four bytes of the data where there are so many; else 0.
    net16 words[2] __attribute__((aligned(4)));
    u8 tos;
    u8 own[6];
};

INLINE u32 fold(u64 sum)
{
    sum = (sum & 0xFFFFFFFF) + (sum >> 32);
    sum = (sum & 0xFFFF) + (sum >> 16);
    sum = (sum & 0xFFFF) + (sum >> 16);
    sum = (sum & 0xFFFF) + (sum >> 16);
    return sum;
}

// Sums of 16-bit words, without loops: a verifier that trusts us less wants no pointer that depends on a number.
INLINE u64 sum_of_four(const void *at)
{
    const u16 *word = at;
    return (u64)word[0] + word[1] + word[2] + word[3];
}

INLINE u64 sum_of_ipv4_head(const struct ipv4 *ip)
{
    const u16 *word = (const void *)ip;
    return sum_of_four(word) + word[4] + word[5] + sum_of_four(word + 6);
}

INLINE u64 sum_of_ipv6_addresses(const struct ipv6 *ip)
{
    return sum_of_four(ip->source) + sum_of_four(ip->source + 8) + sum_of_four(ip->destination)
        + sum_of_four(ip->destination + 8);
}

// What is left of an IP packet behind its header: size bytes of UDP. False where that is not all of it.
INLINE int parse_udp(struct packet *packet, const u8 *data, const u8 *end, u32 at, u32 size, u32 frame_size)
{
    const struct udp *udp = (const void *)(data + at);
    if ((const u8 *)(udp + 1) > end || NTOHS(udp->size) != size || size < UDP_HEAD || at + size > frame_size)
        return 0;
    packet->key.from_port = udp->source;
    packet->key.to_port = udp->destination;
    packet->check = udp->check;
    packet->head = at + UDP_HEAD;
    packet->size = size - UDP_HEAD;
    if (packet->size >= CHANNEL_HEAD) {
        const u32 *words = (const void *)(udp + 1);
        if ((const u8 *)(words + 1) > end)
            return 0;
        *(u32 *)packet->words = *words;
    }
    return 1;
}

INLINE int parse_ipv4(struct packet *packet, const u8 *data, const u8 *end, u32 frame_size)
{
    const struct ipv4 *ip = (const void *)(data + ETHERNET_HEAD);
    if ((const u8 *)(ip + 1) > end || ip->version_and_size != 0x45 || ip->protocol != IS_UDP)
        return 0;
    if ((ip->fragment & MORE_FRAGMENTS_OR_OFFSET) || ip->ttl <= 1 || fold(sum_of_ipv4_head(ip)) != 0xFFFF)
        return 0;
    if (NTOHS(ip->size) < IPV4_HEAD + UDP_HEAD)
        return 0;
    packet->tos = ip->tos;
    packet->key.from[10] = packet->key.from[11] = packet->key.to[10] = packet->key.to[11] = 0xFF;
    __builtin_memcpy(packet->key.from + 12, ip->source, 4);
    __builtin_memcpy(packet->key.to + 12, ip->destination, 4);
    packet->pseudo = fold(sum_of_four(ip->source) + HTONS(IS_UDP) + HTONS(NTOHS(ip->size) - IPV4_HEAD));
    return parse_udp(packet, data, end, ETHERNET_HEAD + IPV4_HEAD, NTOHS(ip->size) - IPV4_HEAD, frame_size);
}

INLINE int parse_ipv6(struct packet *packet, const u8 *data, const u8 *end, u32 frame_size)
{
    const struct ipv6 *ip = (const void *)(data + ETHERNET_HEAD);
    const u8 *bytes = (const void *)ip;
    if ((const u8 *)(ip + 1) > end || bytes[0] >> 4 != 6 || ip->next != IS_UDP || ip->hops <= 1)
        return 0;
    packet->tos = bytes[0] << 4 | bytes[1] >> 4;
    __builtin_memcpy(packet->key.from, ip->source, 16);
    __builtin_memcpy(packet->key.to, ip->destination, 16);
    packet->pseudo = fold(sum_of_ipv6_addresses(ip) + HTONS(IS_UDP) + ip->size);
    return parse_udp(packet, data, end, ETHERNET_HEAD + IPV6_HEAD, NTOHS(ip->size), frame_size);
}

// frame_size: of the whole frame, of which data to end is what can be read at once.
INLINE int parse(struct packet *packet, const u8 *data, const u8 *end, u32 frame_size)
{
    const struct ethernet *ethernet = (const void *)data;
    if ((const u8 *)(ethernet + 1) > end)
        return 0;
    __builtin_memcpy(packet->own, ethernet->to, 6);
    if (ethernet->protocol == IPV4_PROTOCOL)
        return parse_ipv4(packet, data, end, frame_size);
    if (ethernet->protocol == IPV6_PROTOCOL)
        return parse_ipv6(packet, data, end, frame_size);
    return 0;
}
