/* SPDX-License-Identifier: Apache-2.0
 * The products of rounded attention without a matrix unit: a tile of 16 rows of 16 pairs times 16 pairs x 16
 * lanes, c += (even chain + odd chain), as the matrix unit sums. */

#if defined(V16_AVX512)
enum { CHAIN_ROWS = 8, FEW_TOGETHER = 4 }; /* whose two chains fit the registers */
#else
enum { CHAIN_ROWS = 2, FEW_TOGETHER = 2 };
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

enum { FEW_LANES = 4 };

/* The same for the first few lanes only: rows become lanes, and back. */
static void multiply_few(float *c, const unsigned char *a, const unsigned char *b)
{
    float                      wide[LANES][2 * LANES];
    _Alignas(64) unsigned char rows[MATRIX_BYTES];
    v16                        r[LANES];

    for (int i = 0; i < LANES; i++)
        r[i] = v16_load((const float *)(const void *)(a + i * 64));
    v16_transpose(r);
    for (int i = 0; i < LANES; i++)
        v16_store((float *)(void *)(rows + i * 64), r[i]);
    widen_tile(wide, b);
    for (int q = 0; q < FEW_LANES; q += FEW_TOGETHER) {
        v16 even[FEW_TOGETHER], odd[FEW_TOGETHER];

        for (int i = 0; i < FEW_TOGETHER; i++)
            even[i] = odd[i] = v16_zero();
        for (int j = 0; j < LANES; j++) {
            v16 low = v16_load_bf16_low(rows + j * 64), high = v16_load_bf16_high(rows + j * 64);

            for (int i = 0; i < FEW_TOGETHER; i++) {
                even[i] = v16_fma(v16_set(wide[j][q + i]), low, even[i]);
                odd[i] = v16_fma(v16_set(wide[j][LANES + q + i]), high, odd[i]);
            }
        }
        for (int i = 0; i < FEW_TOGETHER; i++)
            r[q + i] = v16_add(even[i], odd[i]);
    }
    for (int i = FEW_LANES; i < LANES; i++)
        r[i] = v16_zero();
    v16_transpose(r);
    for (int i = 0; i < LANES; i++)
        v16_store(c + i * LANES, v16_add(v16_load(c + i * LANES), r[i]));
}

/* a times what each tile of the step has at b[i], into c[i]. */
static void multiply_step(const struct pair_step *step, float *const *c, const unsigned char *a,
                          const unsigned char *const *b)
{
    float wide[LANES][2 * LANES];

    if (step->n == 1 && step->tile[0]->n <= FEW_LANES) {
        multiply_few(c[0], a, b[0]);
        return;
    }
    widen_tile(wide, a);
    for (int32_t i = 0; i < step->n; i++)
        multiply_tile(c[i], wide, b[i]);
}

static void score_part(struct query_unit *u, const struct pair_step *step, const unsigned char *low,
                       const unsigned char *high, int32_t part)
{
    for (int h = 0; h < 2; h++) {
        const unsigned char *keys = h == 0 ? low : high, *q[PAIR_TILES];
        float               *s[PAIR_TILES];

        for (int32_t i = 0; i < step->n; i++) {
            s[i] = u->s[i][part * PART_TOKENS + h * SUB_TOKENS];
            memset(s[i], 0, SUB_TOKENS * LANES * sizeof(float));
        }
        for (int32_t k = 0; k < u->key_blocks; k++) {
            for (int32_t i = 0; i < step->n; i++)
                q[i] = step->tile[i]->q + (size_t)k * MATRIX_BYTES;
            multiply_step(step, s, keys + (size_t)k * MATRIX_BYTES, q);
        }
    }
}

static void add_parts(struct query_unit *u, const struct pair_step *step, const struct position_block *b,
                      int32_t first, int32_t end)
{
    for (int32_t d = 0; d < u->dim_tiles; d++)
        for (int32_t part = first; part < end; part++) {
            const unsigned char *p[PAIR_TILES];
            float               *acc[PAIR_TILES];

            for (int32_t i = 0; i < step->n; i++) {
                p[i] = u->p[i][part];
                acc[i] = step->tile[i]->acc + d * LANES * LANES;
            }
            multiply_step(step, acc, (const unsigned char *)b->part[part] + (size_t)d * MATRIX_BYTES, p);
        }
}
