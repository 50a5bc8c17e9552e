/* What the pump needs of C itself: constants that old headers lack, arithmetic and atomics that Cython lacks. */
#ifndef TURNSVR_NATIVE_H
#define TURNSVR_NATIVE_H

#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <linux/filter.h>

#ifndef SOL_UDP
#define SOL_UDP 17
#endif
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif
#ifndef SO_ATTACH_REUSEPORT_CBPF
#define SO_ATTACH_REUSEPORT_CBPF 51
#endif
#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

/* Both halves of the 128-bit product: what keyed hashes of a few words are made of. */
static inline uint64_t turnsvr_fold(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint16_t turnsvr_get16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static inline void turnsvr_put16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static inline uint32_t turnsvr_get32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static inline void turnsvr_put32(uint8_t *at, uint32_t value)
{
    turnsvr_put16(at, value >> 16);
    turnsvr_put16(at + 2, value);
}

/* CRC-32 of ISO 3309, as FINGERPRINT has it (RFC 8489 section 14.7): eight bytes a step, each with a table of its own. */
static uint32_t turnsvr_crc32_tables[8][256];

static inline void turnsvr_crc32_prepare(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t rest = byte;
        for (int bit = 0; bit < 8; bit++)
            rest = rest >> 1 ^ (rest & 1 ? 0xEDB88320u : 0);
        turnsvr_crc32_tables[0][byte] = rest;
    }
    for (int table = 1; table < 8; table++)
        for (int byte = 0; byte < 256; byte++) {
            uint32_t rest = turnsvr_crc32_tables[table - 1][byte];
            turnsvr_crc32_tables[table][byte] = rest >> 8 ^ turnsvr_crc32_tables[0][rest & 0xFF];
        }
}

static inline uint32_t turnsvr_crc32(const uint8_t *at, uint32_t size)
{
    uint32_t (*tables)[256] = turnsvr_crc32_tables;
    uint32_t rest = 0xFFFFFFFFu;
    for (; size >= 8; at += 8, size -= 8) {
        rest ^= at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
        rest = tables[7][rest & 0xFF] ^ tables[6][rest >> 8 & 0xFF] ^ tables[5][rest >> 16 & 0xFF]
            ^ tables[4][rest >> 24] ^ tables[3][at[4]] ^ tables[2][at[5]] ^ tables[1][at[6]] ^ tables[0][at[7]];
    }
    for (; size; at++, size--)
        rest = rest >> 8 ^ tables[0][(rest ^ *at) & 0xFF];
    return ~rest;
}

/* Has a TCP connection be reset when it is closed: the system forgets it at once. */
static inline void turnsvr_reset_when_closed(int descriptor)
{
    struct linger linger = {1, 0};
    setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

static inline int turnsvr_load(const int *flag)
{
    return __atomic_load_n(flag, __ATOMIC_ACQUIRE);
}

static inline void turnsvr_store(int *flag, int value)
{
    __atomic_store_n(flag, value, __ATOMIC_RELEASE);
}

/* Which of `lanes` receives from this client: the arithmetic of turnsvr_steer(), for Python's side.
   address: the last 32 bits of the IP address; both in host order. */
static inline uint32_t turnsvr_lane(uint32_t address, uint32_t port, uint32_t lanes)
{
    return (((address + port) * 0x9E3779B1u) >> 16) % lanes;
}

/* Makes a SO_REUSEPORT group choose its socket by turnsvr_lane(); 0, or -1 with errno. */
static inline int turnsvr_steer(int descriptor, uint32_t lanes)
{
    const uint32_t net = (uint32_t)SKF_NET_OFF;
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, net),
        BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 4),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 6, 4, 0),
        BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, net),
        BPF_STMT(BPF_LD | BPF_H | BPF_IND, net),
        BPF_STMT(BPF_MISC | BPF_TAX, 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, net + 12),
        BPF_STMT(BPF_JMP | BPF_JA, 3),
        BPF_STMT(BPF_LD | BPF_H | BPF_ABS, net + 40),
        BPF_STMT(BPF_MISC | BPF_TAX, 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, net + 20),
        BPF_STMT(BPF_ALU | BPF_ADD | BPF_X, 0),
        BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, 0x9E3779B1u),
        BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 16),
        BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, lanes),
        BPF_STMT(BPF_RET | BPF_A, 0),
    };
    struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};
    return setsockopt(descriptor, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof(program));
}

#endif
