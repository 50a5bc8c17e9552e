// What the programs take from the kernel: types, the helpers that they call, and nothing else.
// Written out so that clang and the kernel's own headers are all that a build needs.
#pragma once

#include <linux/bpf.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s64 s64;

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
// Have the compiler forget where a pointer comes from: else it may add a number that is not constant to another one,
// which the verifier lets no program do that may not trace (CAP_PERFMON).
#define OPAQUE(x) asm volatile("" : "+r"(x))

static void *(*const bpf_map_lookup_elem)(const void *map, const void *key) = (void *)1;
static u32 (*const bpf_get_prandom_u32)(void) = (void *)7;
static long (*const bpf_skb_store_bytes)(struct __sk_buff *skb, u32 offset, const void *from, u32 size, u64 flags) =
    (void *)9;
static long (*const bpf_redirect)(u32 ifindex, u64 flags) = (void *)23;
static long (*const bpf_skb_change_proto)(struct __sk_buff *skb, u16 protocol, u64 flags) = (void *)31;
static long (*const bpf_skb_change_tail)(struct __sk_buff *skb, u32 size, u64 flags) = (void *)38;
static long (*const bpf_skb_pull_data)(struct __sk_buff *skb, u32 size) = (void *)39;
static long (*const bpf_skb_load_bytes)(const void *skb, u32 offset, void *to, u32 size) = (void *)26;
static long (*const bpf_xdp_adjust_head)(struct xdp_md *ctx, int delta) = (void *)44;
static long (*const bpf_skb_adjust_room)(struct __sk_buff *skb, int delta, u32 mode, u64 flags) = (void *)50;
static long (*const bpf_xdp_adjust_tail)(struct xdp_md *ctx, int delta) = (void *)65;
static u64 (*const bpf_xdp_get_buff_len)(struct xdp_md *ctx) = (void *)188;
static long (*const bpf_xdp_load_bytes)(struct xdp_md *ctx, u32 offset, void *to, u32 size) = (void *)189;
static u64 (*const bpf_ktime_get_boot_ns)(void) = (void *)125;

#define HTONS(x) __builtin_bswap16((u16)(x))
#define NTOHS(x) __builtin_bswap16((u16)(x))

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#undef HTONS
#undef NTOHS
#define HTONS(x) ((u16)(x))
#define NTOHS(x) ((u16)(x))
#endif
