// The program for native XDP: frames as the driver has them, before the kernel makes anything of them.

#include "rewrite.h"

// Sum of at most three bytes behind the data, which leave the datagram.
INLINE u32 trailing_sum(struct xdp_md *ctx, const struct way *way)
{
    u32 sum = 0;
    for (u32 i = 0; i < MOST_TRAILING; i++) {
        u8 byte = 0;
        if (i >= way->tail || bpf_xdp_load_bytes(ctx, way->old_head + way->size + i, &byte, 1))
            break;
        sum += HTONS((i + way->size) & 1 ? byte : byte << 8);
    }
    return fold(sum);
}

INLINE int write_frame(u8 *data, u8 *end, const struct way *way, net16 check)
{
    u8 *rest;
    if (data + ETHERNET_HEAD + IPV4_HEAD + UDP_HEAD > end)
        return 0;
    write_ethernet(data, way);
    if (way->flow->family == 4) {
        write_ipv4(data + ETHERNET_HEAD, way);
        rest = data + ETHERNET_HEAD + IPV4_HEAD;
    } else {
        if (data + ETHERNET_HEAD + IPV6_HEAD + UDP_HEAD > end)
            return 0;
        write_ipv6(data + ETHERNET_HEAD, way);
        rest = data + ETHERNET_HEAD + IPV6_HEAD;
        OPAQUE(rest);
    }
    write_udp(rest, way, check);
    if (way->flow->channel) {
        if (rest + UDP_HEAD + CHANNEL_HEAD > end)
            return 0;
        write_channel(rest + UDP_HEAD, way);
    }
    return 1;
}

// Change a frame of so many bytes. Nothing is changed where it goes up: the head moves first, and only that may fail.
INLINE enum verdict rewrite(struct xdp_md *ctx, const struct way *way, u32 size)
{
    u32 trailing = way->tail ? trailing_sum(ctx, way) : 0;
    net16 check = new_check(way, trailing);
    if (bpf_xdp_adjust_head(ctx, (int)way->old_head - (int)way->new_head))
        return GOES_UP;
    // Behind the data: what fills an Ethernet frame or a datagram up.
    int surplus = (int)size - (int)(way->old_head + way->size);
    if (surplus > 0 && bpf_xdp_adjust_tail(ctx, -surplus))
        return IS_DROPPED;
    u8 *data = (u8 *)(long)ctx->data, *end = (u8 *)(long)ctx->data_end;
    return write_frame(data, end, way, check) ? IS_CARRIED : IS_DROPPED;
}

SECTION("xdp") int carry_xdp(struct xdp_md *ctx)
{
    const u8 *data = (const u8 *)(long)ctx->data, *end = (const u8 *)(long)ctx->data_end;
    struct packet packet = {};
    struct way way = {};
    // Subtracting one pointer from the other would take one capability more, CAP_PERFMON.
    u32 size = bpf_xdp_get_buff_len(ctx);
    if (!parse(&packet, data, end, size))
        return XDP_PASS;
    way.flow = find_flow(&packet);
    if (!way.flow)
        return XDP_PASS;
    u32 slot = way.flow->session;
    struct session *session = bpf_map_lookup_elem(&sessions, &slot);
    if (!session)
        return XDP_PASS;
    u64 now = bpf_ktime_get_boot_ns();
    u32 interface = ctx->ingress_ifindex;
    u32 reason = judge_flow(&packet, &way, session, interface, now);
    if (reason == CARRIED && !(way.hop->flags & (way.hop->interface == interface ? RETURNS_FRAMES : TAKES_FRAMES)))
        reason = NO_TRANSMIT;
    if (UNLIKELY(reason != CARRIED)) {
        hold(way.flow, reason, now);
        return XDP_PASS;
    }
    if (is_held(way.flow, now))
        return XDP_PASS;
    way.check = packet.check;
    way.tos = packet.tos;
    if (!pays(&way, session, slot, now))
        return XDP_DROP;
    enum verdict verdict = rewrite(ctx, &way, size);
    if (verdict == GOES_UP) {
        hold(way.flow, NO_ROOM, now);
        return XDP_PASS;
    }
    if (verdict == IS_DROPPED)
        return XDP_DROP;
    account(&way, slot);
    return way.hop->interface == interface ? XDP_TX : bpf_redirect(way.hop->interface, 0);
}

char SECTION("license") licence[] = "Dual BSD/GPL";
