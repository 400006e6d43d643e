/* SPDX-License-Identifier: Apache-2.0
 * The products of rounded attention without a matrix unit: a tile of 16 rows of 16 pairs times 16 pairs x 16
 * lanes, c += (even chain + odd chain), as the matrix unit sums. */

#if defined(V16_AVX512)
enum { CHAIN_ROWS = 8 }; /* whose two chains fit the registers */
#else
enum { CHAIN_ROWS = 2 };
#endif

/* A tile of bf16 pairs as floats: per row 16 even ones, then 16 odd ones. */
INLINE void widen_tile(float (*to)[2 * LANES], const unsigned char *from)
{
    for (int i = 0; i < LANES; i++) {
        v16_store(to[i], v16_load_bf16_low(from + i * 64));
        v16_store(to[i] + LANES, v16_load_bf16_high(from + i * 64));
    }
}

static void multiply_tile(float *c, float (*a)[2 * LANES], const unsigned char *b)
{
    for (int r = 0; r < LANES; r += CHAIN_ROWS) {
        v16 even[CHAIN_ROWS], odd[CHAIN_ROWS];

        for (int i = 0; i < CHAIN_ROWS; i++)
            even[i] = odd[i] = v16_zero();
        for (int j = 0; j < LANES; j++) {
            v16 low = v16_load_bf16_low(b + j * 64), high = v16_load_bf16_high(b + j * 64);

            for (int i = 0; i < CHAIN_ROWS; i++) {
                even[i] = v16_fma(v16_set(a[r + i][j]), low, even[i]);
                odd[i] = v16_fma(v16_set(a[r + i][LANES + j]), high, odd[i]);
            }
        }
        for (int i = 0; i < CHAIN_ROWS; i++) {
            float *to = c + (r + i) * LANES;

            v16_store(to, v16_add(v16_load(to), v16_add(even[i], odd[i])));
        }
    }
}

static void score_part(struct query_unit *u, const struct pair_step *step, const unsigned char *low,
                       const unsigned char *high, int32_t part)
{
    const unsigned char *const keys[2] = {low, high};
    float                      wide[LANES][2 * LANES];

    for (int h = 0; h < 2; h++) {
        int32_t row = part * PART_TOKENS + h * SUB_TOKENS;

        for (int32_t i = 0; i < step->n; i++)
            memset(u->s[i][row], 0, SUB_TOKENS * sizeof(u->s[i][row]));
        for (int32_t k = 0; k < u->key_blocks; k++) {
            widen_tile(wide, keys[h] + (size_t)k * MATRIX_BYTES);
            for (int32_t i = 0; i < step->n; i++)
                multiply_tile(u->s[i][row], wide, step->tile[i]->q + (size_t)k * MATRIX_BYTES);
        }
    }
}

static void add_parts(struct query_unit *u, const struct pair_step *step, const struct position_block *b,
                       int32_t first, int32_t end)
{
    float wide[LANES][2 * LANES];

    for (int32_t d = 0; d < u->dim_tiles; d++)
        for (int32_t part = first; part < end; part++) {
            widen_tile(wide, (const unsigned char *)b->part[part] + (size_t)d * MATRIX_BYTES);
            for (int32_t i = 0; i < step->n; i++)
                multiply_tile(step->tile[i]->acc + d * LANES * LANES, wide, u->p[i][part]);
        }
}
