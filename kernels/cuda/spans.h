/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: the rows of a step in device memory. */
#ifndef PHX_KERNELS_CUDA_SPANS_H
#define PHX_KERNELS_CUDA_SPANS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rows that belong to no sequence have seq_of_row -1. */
struct cuda_spans {
    int32_t        n_seqs;
    int32_t        n_rows_total;  /* T: one past the last row of any sequence */
    const int32_t *row, *n_rows, *pos;         /* [n_seqs] */
    const int32_t *table;                      /* [n_seqs][table_stride], NULL when the step has none */
    int32_t        table_stride;               /* may be below the caller's: what no row reaches is left out */
    const int32_t *seq_of_row, *pos_of_row;    /* [n_rows_total] */
};

/* Sizes for these spans, and for all of the same row counts whose sequences have at most keys_max keys; no pointers. */
struct cuda_spans phx_cuda_measure_spans(const struct phx_spans *spans, int32_t keys_max);
/* The most keys of a sequence. */
int32_t phx_cuda_most_keys(const struct phx_spans *spans);
size_t  phx_cuda_span_words(const struct cuda_spans *s);
/* Writes all arrays, phx_cuda_span_words() of them, as the device shall see them. */
void phx_cuda_fill_spans(int32_t *words, const struct cuda_spans *s, const struct phx_spans *spans);
/* Sets the pointers to arrays that begin at words. */
void phx_cuda_point_spans(struct cuda_spans *s, const int32_t *words, bool has_table);
/* Whether words hold these very spans, whose measure is s. */
bool phx_cuda_hold_spans(const int32_t *words, const struct cuda_spans *s, const struct phx_spans *spans);

#ifdef __cplusplus
}
#endif
#endif
