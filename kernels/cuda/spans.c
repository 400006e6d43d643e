/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/spans.h"

#include <string.h>

enum { BLOCK_TOKENS_MIN = 16 };

int32_t phx_cuda_most_keys(const struct phx_spans *spans)
{
    int32_t most = 0;

    for (int32_t i = 0; i < spans->n_seqs; i++)
        if (spans->n_rows[i] > 0 && spans->pos[i] + spans->n_rows[i] > most)
            most = spans->pos[i] + spans->n_rows[i];
    return most;
}

struct cuda_spans phx_cuda_measure_spans(const struct phx_spans *spans, int32_t keys_max)
{
    struct cuda_spans s = {.n_seqs = spans->n_seqs};

    for (int32_t i = 0; i < spans->n_seqs; i++)
        if (spans->n_rows[i] > 0 && spans->row[i] + spans->n_rows[i] > s.n_rows_total)
            s.n_rows_total = spans->row[i] + spans->n_rows[i];
    if (spans->table != NULL) {
        s.table_stride = (keys_max - 1) / BLOCK_TOKENS_MIN + 1;
        s.table_stride = s.table_stride < spans->table_stride ? s.table_stride : spans->table_stride;
    }
    return s;
}

size_t phx_cuda_span_words(const struct cuda_spans *s)
{
    return (size_t)s->n_seqs * (3 + (size_t)s->table_stride) + 2 * (size_t)s->n_rows_total;
}

bool phx_cuda_hold_spans(const int32_t *words, const struct cuda_spans *s, const struct phx_spans *spans)
{
    size_t n = (size_t)spans->n_seqs, bytes = n * sizeof(int32_t);

    if (s->n_seqs != spans->n_seqs || (s->table != NULL) != (spans->table != NULL))
        return false;
    if (n == 0)
        return true;
    if (memcmp(words, spans->row, bytes) != 0 || memcmp(words + n, spans->n_rows, bytes) != 0 ||
        memcmp(words + 2 * n, spans->pos, bytes) != 0)
        return false;
    words += 3 * n;
    for (size_t i = 0; i < n && spans->table != NULL; i++, words += s->table_stride)
        if (memcmp(words, spans->table + i * (size_t)spans->table_stride, (size_t)s->table_stride * sizeof(int32_t)) != 0)
            return false;
    return true;
}

/* row, n_rows, pos, table, seq_of_row, pos_of_row, one behind the other. */
void phx_cuda_fill_spans(int32_t *words, const struct cuda_spans *s, const struct phx_spans *spans)
{
    size_t   n = (size_t)s->n_seqs, bytes = n * sizeof(int32_t);
    int32_t *seq_of_row = words + n * (3 + (size_t)s->table_stride), *pos_of_row = seq_of_row + s->n_rows_total;

    if (n == 0)
        return;
    memcpy(words, spans->row, bytes);
    memcpy(words + n, spans->n_rows, bytes);
    memcpy(words + 2 * n, spans->pos, bytes);
    for (size_t i = 0; i < n && s->table_stride > 0; i++)
        memcpy(words + 3 * n + i * (size_t)s->table_stride, spans->table + i * (size_t)spans->table_stride,
               (size_t)s->table_stride * sizeof(int32_t));
    memset(seq_of_row, 0xff, 2 * (size_t)s->n_rows_total * sizeof(int32_t)); /* -1 */
    for (int32_t i = 0; i < s->n_seqs; i++)
        for (int32_t j = 0; j < spans->n_rows[i]; j++) {
            seq_of_row[spans->row[i] + j] = i;
            pos_of_row[spans->row[i] + j] = spans->pos[i] + j;
        }
}

void phx_cuda_point_spans(struct cuda_spans *s, const int32_t *words, bool has_table)
{
    size_t n = (size_t)s->n_seqs;

    s->row = words;
    s->n_rows = words + n;
    s->pos = words + 2 * n;
    s->table = has_table ? words + 3 * n : NULL;
    s->seq_of_row = words + n * (3 + (size_t)s->table_stride);
    s->pos_of_row = s->seq_of_row + s->n_rows_total;
}
