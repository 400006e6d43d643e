/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/gpu/small/sodium.h"

#include <string.h>

static uint64_t load64(const unsigned char *p)
{
    uint64_t x = 0;

    for (int i = 7; i >= 0; i--)
        x = x << 8 | p[i];
    return x;
}

static void store64(unsigned char *p, uint64_t x)
{
    for (int i = 0; i < 8; i++)
        p[i] = (unsigned char)(x >> (8 * i));
}

static uint64_t right(uint64_t x, int n)
{
    return x >> n | x << (64 - n);
}

static uint64_t left(uint64_t x, int n)
{
    return right(x, 64 - n);
}

/* ---- BLAKE2b -------------------------------------------------------------------------------- */

static const uint64_t start[8] = {
    0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
    0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
};

static const unsigned char order[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
};

static void mix(uint64_t v[16], const int at[4], uint64_t x, uint64_t y)
{
    uint64_t *a = &v[at[0]], *b = &v[at[1]], *c = &v[at[2]], *d = &v[at[3]];

    *a += *b + x;
    *d = right(*d ^ *a, 32);
    *c += *d;
    *b = right(*b ^ *c, 24);
    *a += *b + y;
    *d = right(*d ^ *a, 16);
    *c += *d;
    *b = right(*b ^ *c, 63);
}

static void compress(crypto_generichash_state *s, uint64_t is_last)
{
    static const int columns[8][4] = {{0, 4, 8, 12}, {1, 5, 9, 13}, {2, 6, 10, 14}, {3, 7, 11, 15},
                                      {0, 5, 10, 15}, {1, 6, 11, 12}, {2, 7, 8, 13}, {3, 4, 9, 14}};
    uint64_t m[16], v[16];

    for (int i = 0; i < 16; i++)
        m[i] = load64(s->block + 8 * i);
    for (int i = 0; i < 8; i++) {
        v[i] = s->h[i];
        v[i + 8] = start[i];
    }
    v[12] ^= s->n_bytes;
    v[14] ^= is_last ? ~(uint64_t)0 : 0;
    for (int round = 0; round < 12; round++)
        for (int i = 0; i < 8; i++)
            mix(v, columns[i], m[order[round % 10][2 * i]], m[order[round % 10][2 * i + 1]]);
    for (int i = 0; i < 8; i++)
        s->h[i] ^= v[i] ^ v[i + 8];
}

int crypto_generichash_init(crypto_generichash_state *state, const unsigned char *key, size_t key_bytes, size_t out_bytes)
{
    if (key != NULL || key_bytes != 0 || out_bytes < 1 || out_bytes > 64)
        return -1;
    memset(state, 0, sizeof(*state));
    memcpy(state->h, start, sizeof(start));
    state->h[0] ^= 0x01010000 ^ out_bytes;
    return 0;
}

int crypto_generichash_update(crypto_generichash_state *state, const unsigned char *data, unsigned long long size)
{
    for (unsigned long long i = 0; i < size; i++) {
        if (state->n_block == SMALL_BLAKE2B_BLOCK) {
            state->n_bytes += SMALL_BLAKE2B_BLOCK;
            compress(state, 0);
            state->n_block = 0;
        }
        state->block[state->n_block++] = data[i];
    }
    return 0;
}

int crypto_generichash_final(crypto_generichash_state *state, unsigned char *out, size_t out_bytes)
{
    unsigned char all[64];

    if (out_bytes < 1 || out_bytes > sizeof(all))
        return -1;
    state->n_bytes += state->n_block;
    memset(state->block + state->n_block, 0, SMALL_BLAKE2B_BLOCK - state->n_block);
    compress(state, 1);
    for (int i = 0; i < 8; i++)
        store64(all + 8 * i, state->h[i]);
    memcpy(out, all, out_bytes);
    return 0;
}

/* ---- SipHash-2-4 ---------------------------------------------------------------------------- */

static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = left(v[1], 13) ^ v[0];
    v[0] = left(v[0], 32);
    v[2] += v[3];
    v[3] = left(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = left(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = left(v[1], 17) ^ v[2];
    v[2] = left(v[2], 32);
}

static void sip_word(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    sip_round(v);
    sip_round(v);
    v[0] ^= word;
}

int crypto_shorthash(unsigned char *out, const unsigned char *data, unsigned long long size, const unsigned char *key)
{
    uint64_t           k0 = load64(key), k1 = load64(key + 8);
    uint64_t           v[4] = {k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261, k1 ^ 0x7465646279746573};
    unsigned char      tail[8] = {0};
    unsigned long long whole = size - size % 8;

    for (unsigned long long i = 0; i < whole; i += 8)
        sip_word(v, load64(data + i));
    memcpy(tail, data + whole, (size_t)(size - whole));
    tail[7] = (unsigned char)size;
    sip_word(v, load64(tail));
    v[2] ^= 0xff;
    for (int i = 0; i < 4; i++)
        sip_round(v);
    store64(out, v[0] ^ v[1] ^ v[2] ^ v[3]);
    return 0;
}
