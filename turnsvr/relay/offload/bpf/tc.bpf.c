// The program for TC: packets as the kernel has made them of what any driver brings, after GRO.

#include "rewrite.h"

#ifndef TCX_NEXT
enum { TCX_NEXT = -1, TCX_DROP = 2 };
#endif

enum {
    LARGEST_HEAD = ETHERNET_HEAD + IPV6_HEAD + UDP_HEAD + CHANNEL_HEAD,
    ROOM_BEHIND_NETWORK_HEADER = 0,
};

// Sum of at most three bytes behind the data, which leave the datagram.
INLINE u32 trailing_sum(struct __sk_buff *skb, const struct way *way)
{
    u32 sum = 0;
    for (u32 i = 0; i < MOST_TRAILING; i++) {
        u8 byte = 0;
        if (i >= way->tail || bpf_skb_load_bytes(skb, way->old_head + way->size + i, &byte, 1))
            break;
        sum += HTONS((i + way->size) & 1 ? byte : byte << 8);
    }
    return fold(sum);
}

// Have as many bytes between the network's header and the data as leave. Nothing is changed by the first that fails.
INLINE enum verdict resize(struct __sk_buff *skb, const struct way *way)
{
    int room = way->flow->channel ? CHANNEL_HEAD : 0;
    enum verdict failed = GOES_UP;
    net16 protocol = way->flow->family == 4 ? IPV4_PROTOCOL : IPV6_PROTOCOL;
    if (way->flow->direction == FROM_CLIENT)
        room -= CHANNEL_HEAD;
    if (skb->protocol != protocol) {
        if (bpf_skb_change_proto(skb, protocol, 0))
            return GOES_UP;
        failed = IS_DROPPED;
    }
    if (room && bpf_skb_adjust_room(skb, room, ROOM_BEHIND_NETWORK_HEADER, 0))
        return failed;
    if (skb->len > way->new_head + way->size && bpf_skb_change_tail(skb, way->new_head + way->size, 0))
        return IS_DROPPED;
    return IS_CARRIED;
}

// By a helper, which keeps the checksum that a network card may have computed of the whole packet.
INLINE int write_heads(struct __sk_buff *skb, const struct way *way, net16 check)
{
    u8 room[LARGEST_HEAD + 6] __attribute__((aligned(8))) = {};
    u8 *heads = room + 2;  // so that the network's header is aligned
    u64 how = BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH;
    int is_ipv4 = way->flow->family == 4;
    write_ethernet(heads, way);
    if (is_ipv4) {
        write_ipv4(heads + ETHERNET_HEAD, way);
        write_udp(heads + ETHERNET_HEAD + IPV4_HEAD, way, check);
        write_channel(heads + ETHERNET_HEAD + IPV4_HEAD + UDP_HEAD, way);
        if (way->flow->channel)
            return bpf_skb_store_bytes(skb, 0, heads, ETHERNET_HEAD + IPV4_HEAD + UDP_HEAD + CHANNEL_HEAD, how);
        return bpf_skb_store_bytes(skb, 0, heads, ETHERNET_HEAD + IPV4_HEAD + UDP_HEAD, how);
    }
    write_ipv6(heads + ETHERNET_HEAD, way);
    write_udp(heads + ETHERNET_HEAD + IPV6_HEAD, way, check);
    write_channel(heads + ETHERNET_HEAD + IPV6_HEAD + UDP_HEAD, way);
    if (way->flow->channel)
        return bpf_skb_store_bytes(skb, 0, heads, LARGEST_HEAD, how);
    return bpf_skb_store_bytes(skb, 0, heads, LARGEST_HEAD - CHANNEL_HEAD, how);
}

INLINE enum verdict rewrite(struct __sk_buff *skb, const struct way *way)
{
    u32 trailing = way->tail ? trailing_sum(skb, way) : 0;
    net16 check = new_check(way, trailing);
    enum verdict verdict = resize(skb, way);
    if (verdict != IS_CARRIED)
        return verdict;
    return write_heads(skb, way, check) ? IS_DROPPED : IS_CARRIED;
}

// A client's or a peer's packet, which may have only its first bytes at hand.
INLINE int read(struct __sk_buff *skb, struct packet *packet)
{
    const u8 *data = (const u8 *)(long)skb->data, *end = (const u8 *)(long)skb->data_end;
    if (data + LARGEST_HEAD > end) {
        if (bpf_skb_pull_data(skb, skb->len < LARGEST_HEAD ? skb->len : LARGEST_HEAD))
            return 0;
        data = (const u8 *)(long)skb->data;
        end = (const u8 *)(long)skb->data_end;
    }
    return parse(packet, data, end, skb->len);
}

SECTION("tc") int carry_tc(struct __sk_buff *skb)
{
    struct packet packet = {};
    struct way way = {};
    if (skb->vlan_present || (skb->protocol != IPV4_PROTOCOL && skb->protocol != IPV6_PROTOCOL) || !read(skb, &packet))
        return TCX_NEXT;
    way.flow = find_flow(&packet);
    if (!way.flow)
        return TCX_NEXT;
    u32 slot = way.flow->session;
    struct session *session = bpf_map_lookup_elem(&sessions, &slot);
    if (!session)
        return TCX_NEXT;
    u64 now = bpf_ktime_get_boot_ns();
    u32 reason = skb->gso_size ? TRAIN : judge_flow(&packet, &way, session, skb->ingress_ifindex, now);
    if (UNLIKELY(reason != CARRIED)) {
        hold(way.flow, reason, now);
        return TCX_NEXT;
    }
    if (is_held(way.flow, now))
        return TCX_NEXT;
    way.check = packet.check;
    way.tos = packet.tos;
    if (!pays(&way, session, slot, now))
        return TCX_DROP;
    enum verdict verdict = rewrite(skb, &way);
    if (verdict == GOES_UP) {
        hold(way.flow, NO_ROOM, now);
        return TCX_NEXT;
    }
    if (verdict == IS_DROPPED)
        return TCX_DROP;
    account(&way, slot);
    return bpf_redirect(way.hop->interface, 0);
}

char SECTION("license") licence[] = "Dual BSD/GPL";
