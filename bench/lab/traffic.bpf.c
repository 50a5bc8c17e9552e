// What makes packets at one far end and counts them at the other. A packet is a UDP datagram over IPv4 that is marked and
// stamped; it leaves when it is due, of one flow after the other. Each begins with the plan's head, for the memory of one
// that has arrived is used again, as the server left it.

#include "parse.h"

static u64 (*const bpf_ktime_get_ns)(void) = (void *)5;

enum {
    FLOWS = 256,
    HEAD = 64,
    // Where the mark is without a channel's header; the stamp follows it.
    MARK_AT = ETHERNET_HEAD + IPV4_HEAD + UDP_HEAD,
    MARK_SIZE = 8,
    // 32 buckets to each power of two of 100 ns, as the load generator counts.
    STEP_BITS = 5,
    BUCKETS = 29 << STEP_BITS,
    NANOSECONDS_A_TICK = 100,
    // A sender that is late makes up for so many nanoseconds.
    LATE = 50000,
};
#define MARK 0x62614c7276736e74ULL

struct ports {
    net16 source;
    net16 destination;
};

// head: with ports and stamp of zero. gap: nanoseconds from one packet to the next.
struct plan {
    u64 gap;
    u64 due;
    u64 sent;
    u32 interface;
    u32 flows;
    u32 in_channel;
    u32 unused;
    u8 head[HEAD];
    struct ports ports[FLOWS];
};

struct table SECTION("tables") plans = {BPF_MAP_TYPE_ARRAY, sizeof(u32), sizeof(struct plan), 1, 0};
struct table SECTION("tables") arrived = {BPF_MAP_TYPE_PERCPU_ARRAY, sizeof(u32), sizeof(u64), BUCKETS, 0};

SECTION("sender") int send(struct xdp_md *ctx)
{
    u8 *data = (u8 *)(long)ctx->data, *end = (u8 *)(long)ctx->data_end;
    u32 zero = 0;
    u64 now = bpf_ktime_get_ns();
    struct plan *plan = bpf_map_lookup_elem(&plans, &zero);
    if (!plan || now < plan->due || data + HEAD > end)
        return XDP_DROP;
    plan->due += plan->gap;
    if (plan->due + LATE < now)
        plan->due = now - LATE;
    __builtin_memcpy(data, plan->head, HEAD);
    __builtin_memcpy(data + MARK_AT + (plan->in_channel ? CHANNEL_HEAD : 0) + MARK_SIZE, &now, sizeof(now));
    struct udp *udp = (void *)(data + ETHERNET_HEAD + IPV4_HEAD);
    struct ports *ports = &plan->ports[plan->sent++ % plan->flows % FLOWS];
    udp->source = ports->source;
    udp->destination = ports->destination;
    net16 check = ~fold((u64)(u16)~udp->check + ports->source + ports->destination + sum_of_four(&now));
    udp->check = check ? check : 0xFFFF;
    return bpf_redirect(plan->interface, 0);
}

INLINE u32 bucket_of(u64 ticks)
{
    u32 shift = 0;
    for (u32 step = 16; step; step /= 2)
        if (ticks >> (shift + step + STEP_BITS))
            shift += step;
    u32 bucket = (shift << STEP_BITS) + (ticks >> shift);
    return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

SECTION("counter") int count(struct xdp_md *ctx)
{
    u8 *data = (u8 *)(long)ctx->data, *end = (u8 *)(long)ctx->data_end;
    u64 mark, stamp, now = bpf_ktime_get_ns();
    if (data + HEAD > end)
        return XDP_PASS;
    __builtin_memcpy(&mark, data + MARK_AT, sizeof(mark));
    __builtin_memcpy(&stamp, data + MARK_AT + MARK_SIZE, sizeof(stamp));
    if (mark != MARK) {
        __builtin_memcpy(&mark, data + MARK_AT + CHANNEL_HEAD, sizeof(mark));
        __builtin_memcpy(&stamp, data + MARK_AT + CHANNEL_HEAD + MARK_SIZE, sizeof(stamp));
    }
    if (mark != MARK)
        return XDP_PASS;
    u32 bucket = bucket_of((now - stamp) / NANOSECONDS_A_TICK);
    u64 *counted = bpf_map_lookup_elem(&arrived, &bucket);
    if (counted)
        *counted += 1;
    return XDP_DROP;
}

char SECTION("license") licence[] = "Dual BSD/GPL";
