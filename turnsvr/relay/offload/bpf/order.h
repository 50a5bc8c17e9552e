// One flow keeps its order, though some of its packets take the pump's way, which is the longer one.
//
// From the kernel's way to the pump's a flow may change at any time. Back it changes when it has been silent for so long
// that the pump has sent what it had. One that is never silent goes back after a while without a reason, unless GRO has
// joined packets of it: those will come again, and each change back could overtake some.
#pragma once

#include "tables.h"

// Nanoseconds.
#define SILENCE 5000000ULL
#define WHILE 1000000000ULL

INLINE void count(u32 reason)
{
    u64 *counter = bpf_map_lookup_elem(&reasons, &reason);
    if (counter)
        *counter += 1;
}

INLINE void hold(struct flow *flow, u32 reason, u64 now)
{
    flow->held_at = flow->held_since = now;
    flow->train |= reason == TRAIN;
    count(reason);
}

INLINE int is_held(struct flow *flow, u64 now)
{
    if (!flow->held_at)
        return 0;
    if (now - flow->held_at >= SILENCE || (!flow->train && now - flow->held_since >= WHILE)) {
        flow->held_at = 0;
        flow->train = 0;
        return 0;
    }
    flow->held_at = now;
    count(WAITS);
    return 1;
}
