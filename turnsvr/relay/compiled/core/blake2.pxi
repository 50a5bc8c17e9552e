# BLAKE2s under a key, of as little as one block holds (RFC 7693): what a nonce is authenticated with.

cdef enum:
    BLAKE2_BLOCK = 64
    BLAKE2_KEY = 32
    BLAKE2_DIGEST = 32
    BLAKE2_PERSON = 8
    BLAKE2_ROUNDS = 10

# RFC 7693 sections 2.6 and 2.7, the latter row after row.
cdef uint32_t[8] _BLAKE2_START = [
    0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19,
]

cdef uint8_t[160] _BLAKE2_ORDER = [
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
    14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3,
    11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4,
    7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8,
    9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13,
    2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9,
    12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11,
    13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10,
    6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5,
    10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0,
]


cdef inline uint32_t little32(const uint8_t *at) noexcept nogil:
    return at[0] | <uint32_t>at[1] << 8 | <uint32_t>at[2] << 16 | <uint32_t>at[3] << 24


cdef inline uint32_t rotated(uint32_t word, uint32_t right) noexcept nogil:
    return word >> right | word << (32 - right)


cdef inline void blake2_mix(
    uint32_t *v, uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint32_t x, uint32_t y
) noexcept nogil:
    """The function G of RFC 7693 section 3.1."""
    v[a] += v[b] + x
    v[d] = rotated(v[d] ^ v[a], 16)
    v[c] += v[d]
    v[b] = rotated(v[b] ^ v[c], 12)
    v[a] += v[b] + y
    v[d] = rotated(v[d] ^ v[a], 8)
    v[c] += v[d]
    v[b] = rotated(v[b] ^ v[c], 7)


cdef void blake2_compress(uint32_t *state, const uint8_t *block, uint32_t offset, bint is_last) noexcept nogil:
    """The function F of section 3.2; offset: bytes up to the end of this block."""
    cdef uint32_t[16] v
    cdef uint32_t[16] words
    cdef uint32_t at
    cdef const uint8_t *order = _BLAKE2_ORDER
    for at in range(16):
        words[at] = little32(block + 4 * at)
    for at in range(8):
        v[at] = state[at]
        v[8 + at] = _BLAKE2_START[at]
    v[12] ^= offset
    if is_last:
        v[14] = ~v[14]
    for at in range(<uint32_t>BLAKE2_ROUNDS):
        blake2_mix(v, 0, 4, 8, 12, words[order[0]], words[order[1]])
        blake2_mix(v, 1, 5, 9, 13, words[order[2]], words[order[3]])
        blake2_mix(v, 2, 6, 10, 14, words[order[4]], words[order[5]])
        blake2_mix(v, 3, 7, 11, 15, words[order[6]], words[order[7]])
        blake2_mix(v, 0, 5, 10, 15, words[order[8]], words[order[9]])
        blake2_mix(v, 1, 6, 11, 12, words[order[10]], words[order[11]])
        blake2_mix(v, 2, 7, 8, 13, words[order[12]], words[order[13]])
        blake2_mix(v, 3, 4, 9, 14, words[order[14]], words[order[15]])
        order += 16
    for at in range(8):
        state[at] ^= v[at] ^ v[8 + at]


cdef void blake2_key(
    uint32_t *state, const uint8_t *key, uint32_t key_size, const uint8_t *person, uint32_t digest_size
) noexcept nogil:
    """What the MACs under a key have in common; person has BLAKE2_PERSON bytes, the sizes are those of section 2.1."""
    cdef uint8_t[BLAKE2_BLOCK] block
    memset(block, 0, sizeof(block))
    memcpy(block, key, key_size)
    memcpy(state, _BLAKE2_START, sizeof(_BLAKE2_START))
    state[0] ^= 0x01010000 | key_size << 8 | digest_size
    state[6] ^= little32(person)
    state[7] ^= little32(person + 4)
    blake2_compress(state, block, BLAKE2_BLOCK, False)


cdef int blake2_begin(uint32_t *state, bytes key, bytes person, uint32_t digest_size) except -1:
    """As blake2_key(), with a person of at most BLAKE2_PERSON bytes. Raises ValueError for sizes that are none."""
    cdef uint8_t[BLAKE2_PERSON] personal
    if not 0 < len(key) <= BLAKE2_KEY or len(person) > BLAKE2_PERSON or not 0 < digest_size <= BLAKE2_DIGEST:
        raise ValueError(f"BLAKE2s with a key of {len(key)} bytes, person of {len(person)}, digest of {digest_size}")
    memset(personal, 0, sizeof(personal))
    memcpy(personal, <const uint8_t *>person, len(person))
    blake2_key(state, <const uint8_t *>key, <uint32_t>len(key), personal, digest_size)
    return 0


cdef void blake2_end(
    uint8_t *digest, uint32_t digest_size, const uint32_t *begun, const uint8_t *data, uint32_t size
) noexcept nogil:
    """The MAC over 1 to 64 bytes; digest_size as it was begun with."""
    cdef uint32_t[8] state
    cdef uint8_t[BLAKE2_BLOCK] block
    cdef uint32_t at
    memcpy(state, begun, sizeof(state))
    memset(block, 0, sizeof(block))
    memcpy(block, data, size)
    blake2_compress(state, block, BLAKE2_BLOCK + size, True)
    for at in range(digest_size):
        digest[at] = <uint8_t>(state[at // 4] >> 8 * (at % 4))


def blake2s(bytes data not None, *, bytes key not None, bytes person not None, uint32_t digest_size):
    """As hashlib's, over 1 to 64 bytes under a key of 1 to 32; raises ValueError."""
    cdef uint32_t[8] state
    cdef uint8_t[BLAKE2_DIGEST] digest
    if not 0 < len(data) <= BLAKE2_BLOCK:
        raise ValueError(f"BLAKE2s over {len(data)} bytes")
    blake2_begin(state, key, person, digest_size)
    blake2_end(digest, digest_size, state, <const uint8_t *>data, <uint32_t>len(data))
    return digest[:digest_size]
