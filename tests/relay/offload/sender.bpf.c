// Sends frames of many flows by one interface: the source port of a UDP datagram over IPv4 is that of one flow after the
// other, and its checksum is changed with it.

#include "parse.h"

struct plan {
    u32 interface;
    u32 flows;
    u32 first_port;
    u32 sent;
};

struct table SECTION("tables") plans = {BPF_MAP_TYPE_ARRAY, sizeof(u32), sizeof(struct plan), 1, 0};

SECTION("xdp") int send(struct xdp_md *ctx)
{
    u8 *data = (u8 *)(long)ctx->data, *end = (u8 *)(long)ctx->data_end;
    struct udp *udp = (void *)(data + ETHERNET_HEAD + IPV4_HEAD);
    u32 zero = 0;
    struct plan *plan = bpf_map_lookup_elem(&plans, &zero);
    if (!plan || (u8 *)(udp + 1) > end)
        return XDP_DROP;
    net16 old = udp->source, port = HTONS(plan->first_port + plan->sent++ % plan->flows);
    net16 check = ~fold((u64)(u16)~udp->check + (u16)~old + port);
    udp->source = port;
    udp->check = check ? check : 0xFFFF;
    return bpf_redirect(plan->interface, 0);
}

char SECTION("license") licence[] = "Dual BSD/GPL";
