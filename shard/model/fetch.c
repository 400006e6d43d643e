/* SPDX-License-Identifier: Apache-2.0
 * What the host gets of a step's logits.  In place, it has them; else they stay on the device but for rows that are wanted
 * whole, and everything small comes in one download. */
#include <math.h>
#include <string.h>

#include "rpc/base/mem.h"
#include "shard/model/state.h"

/* Where the best of a class lie among what is small, in floats. */
struct small {
    size_t at[PHX_LOGITS_CLASSES]; /* 0, draws, is the first */
    size_t end;                    /* of what is not split */
};

static bool is_split(int class)
{
    return class == PHX_LOGITS_SPLIT_BEST || class == PHX_LOGITS_SPLIT_BESTS;
}

static int32_t count_rows(const struct phx_logits_order *o, int class)
{
    return o->first[class + 1] - o->first[class];
}

static struct small lay_out(const struct phx_logits_order *o)
{
    struct small s;
    size_t       at = (size_t)o->n_draws * PHX_DRAW_WIDTH * 2;

    s.end = at;
    for (int c = 0; c < PHX_LOGITS_CLASSES; c++) {
        s.at[c] = at;
        if (o->n_best[c] > 0 && c != PHX_LOGITS_WHOLE)
            at += (size_t)count_rows(o, c) * (size_t)phx_logits_best_width(o->n_best[c]);
        if (!is_split(c))
            s.end = at;
    }
    return s;
}

static struct phx_tensor rows_of(struct phx_tensor x, int32_t first, int32_t n)
{
    x.data = (float *)x.data + first * x.stride0;
    return phx_rows(x, n);
}

/* The best of these rows to `at`: ids, logits and sum of a row side by side.  What is there now. */
static struct phx_tensor take_best(struct phx_model *m, struct phx_tensor logits, int32_t n_best, size_t at)
{
    int32_t           k = n_best < logits.dim[1] ? n_best : logits.dim[1];
    struct phx_tensor row = phx_view((float *)m->small.data + at, logits.dim[0], phx_logits_best_width(k));
    struct phx_tensor ids = phx_columns(row, 0, k);

    ids.dtype = PHX_DTYPE_I32;
    phx_top(m->backend, ids, phx_columns(row, k, k), phx_columns(row, 2 * k, 1), logits);
    return row;
}

/* ---- vocabularies that are split -------------------------------------------------------------- */

static struct phx_logits_shape shape_of(const struct phx_model *m)
{
    return (struct phx_logits_shape){.vocab_size = m->config->vocab_size, .tp_size = m->part.tp_size,
                                     .vocab_n = m->vocab_n, .is_in_place = phx_backend_is_host(m->backend),
                                     .is_queued = phx_transit_is_queued(&m->transit)};
}

/* The rows that tp 0 needs complete: on its device, or else in its host memory. */
static void gather_complete(struct phx_model *m, struct phx_tensor logits)
{
    int32_t           n = m->order.first[PHX_LOGITS_SPLIT_BEST];
    struct phx_tensor out = phx_rows(logits, n);
    int               code;

    if (n == 0)
        return;
    if (phx_transit_is_queued(&m->transit))
        out.data = NULL; /* what is wanted of it is fetched later */
    code = phx_transit_gather(&m->transit, out, phx_rows(m->logits, n), phx_rows(m->part_logits, n), m->vocab_first,
                              m->vocab_n);
    if (code != 0)
        phx_forward_fail(m, code, "gather of logits", phx_err_text(code));
}

/* The best of each rank's columns become the best of all, on tp 0.  On their way they lie where the rows' logits would. */
static void gather_best(struct phx_model *m, struct phx_tensor logits, int class, size_t at)
{
    const struct phx_logits_shape shape = shape_of(m);
    int32_t           n = count_rows(&m->order, class), k = m->order.n_best[class], first = m->order.first[class];
    int32_t           begin[PHX_TP_MAX], width[PHX_TP_MAX], end = 0;
    struct phx_tensor out = {0}, all = {0}, part;
    int               code;

    if (n == 0)
        return;
    for (int32_t i = 0; i < shape.tp_size; i++) {
        begin[i] = end;
        width[i] = phx_logits_best_width(k < m->vocab_n[i] ? k : m->vocab_n[i]);
        end += width[i];
    }
    if (m->part.tp == 0) {
        out = phx_view((float *)logits.data + first * logits.stride0, n, end);
        all = phx_view((float *)m->logits.data + first * m->logits.stride0, n, end);
    }
    part = take_best(m, rows_of(m->part_logits, first, n), k, at);
    code = phx_transit_gather(&m->transit, out, all, part, begin, width);
    if (code != 0)
        phx_forward_fail(m, code, "gather of the best logits", phx_err_text(code));
    for (int32_t i = 0; i < n && m->part.tp == 0 && m->failure == 0; i++)
        phx_logits_merge((float *)out.data + (size_t)i * (size_t)end, &shape, m->vocab_first, k,
                         m->small_host + at + (size_t)i * (size_t)phx_logits_best_width(k));
}

/* ---- on the rank that reads ------------------------------------------------------------------- */

/* The draws of all rows that are not whole, in the batch's order. */
static void draw_all(struct phx_model *m, const struct phx_batch *batch, struct phx_tensor complete)
{
    struct phx_tensor out = {m->small.data, PHX_DTYPE_F64, {m->order.n_draws, PHX_DRAW_WIDTH}, PHX_DRAW_WIDTH};
    int32_t           n = 0;

    for (int32_t i = 0; i < batch->n_logits && m->order.n_draws > 0; i++)
        for (int32_t j = 0; j < batch->wants[i].n_draws && m->order.place[i] >= m->order.first[PHX_LOGITS_DRAWN]; j++)
            m->draws[n++] = (struct phx_draw_row){m->order.place[i], batch->wants[i].draws[j].temperature,
                                                  batch->wants[i].draws[j].share};
    if (n > 0)
        phx_draw(m->backend, out, complete, m->draws);
}

/* From logits that are complete on the device. */
static void read_device(struct phx_model *m, const struct phx_batch *batch, struct phx_tensor logits,
                        const struct small *small)
{
    const struct phx_logits_order *o = &m->order;
    int32_t                        n_whole = o->first[PHX_LOGITS_DRAWN];

    draw_all(m, batch, phx_rows(m->logits, o->first[PHX_LOGITS_SPLIT_BEST]));
    for (int c = PHX_LOGITS_BEST; c <= PHX_LOGITS_BESTS; c++)
        if (count_rows(o, c) > 0)
            (void)take_best(m, rows_of(m->logits, o->first[c], count_rows(o, c)), o->n_best[c], small->at[c]);
    if (n_whole > 0)
        phx_download(m->backend, logits.data, m->logits.data,
                     (size_t)n_whole * (size_t)m->config->vocab_size * sizeof(float));
    if (small->end > 0)
        phx_download(m->backend, m->small_host, m->small.data, small->end * sizeof(float));
}

static struct phx_logits_drawn read_draw(const double *row)
{
    struct phx_logits_drawn d = {.id = -1, .logit = (float)row[PHX_DRAW_LOGIT], .largest = (float)row[PHX_DRAW_LARGEST],
                                 .sum = row[PHX_DRAW_SUM]};

    if (row[PHX_DRAW_ID] >= 0)
        d.id = (int32_t)row[PHX_DRAW_ID];
    return d;
}

static int find_class(const struct phx_logits_order *o, int32_t place)
{
    int c = 0;

    while (place >= o->first[c + 1])
        c++;
    return c;
}

/* Where the caller finds what of which row. */
static void tell(struct phx_model *m, const struct phx_batch *batch, const struct small *small)
{
    const double *draw = (const double *)(const void *)m->small_host;

    for (int32_t i = 0; i < batch->n_logits; i++) {
        const struct phx_logits_want *w = &batch->wants[i];
        struct phx_logits_got        *g = &batch->got[i];
        int                           c = find_class(&m->order, m->order.place[i]);
        int32_t                       width = phx_logits_best_width(m->order.n_best[c]);
        const float *best = m->small_host + small->at[c] + (size_t)(m->order.place[i] - m->order.first[c]) * (size_t)width;

        *g = (struct phx_logits_got){.row = m->order.place[i], .is_whole = c == PHX_LOGITS_WHOLE};
        if (g->is_whole)
            continue;
        for (int32_t j = 0; j < w->n_draws; j++, draw += PHX_DRAW_WIDTH)
            g->draws[j] = read_draw(draw);
        if (w->n_best == 0)
            continue;
        g->ids = (const int32_t *)(const void *)best;
        g->best = best + m->order.n_best[c];
        g->is_number = best[width - 1] > -INFINITY; /* not when it is NaN */
    }
}

void phx_forward_order(struct phx_model *m, const struct phx_batch *batch)
{
    const struct phx_logits_shape shape = shape_of(m);

    phx_logits_order(batch, &shape, &m->order);
    for (int32_t i = 0; i < batch->n_pads; i++)
        m->order.rows[batch->n_logits + i] = batch->n_rows - batch->n_pads + i;
}

void phx_forward_fetch(struct phx_model *m, const struct phx_batch *batch, struct phx_tensor logits)
{
    const struct small small = lay_out(&m->order);
    bool               is_host = phx_backend_is_host(m->backend), is_split_up = m->part_logits.data != NULL;

    if (batch->n_logits == 0)
        return;
    if (is_host || (is_split_up && !phx_transit_is_queued(&m->transit)))
        phx_forward_sync(m);
    if (is_split_up)
        gather_complete(m, logits);
    for (int c = PHX_LOGITS_SPLIT_BEST; c <= PHX_LOGITS_SPLIT_BESTS; c++)
        gather_best(m, logits, c, small.at[c]);
    if (m->part.tp != 0)
        return;
    if (!is_host && (!is_split_up || phx_transit_is_queued(&m->transit))) {
        read_device(m, batch, logits, &small);
        phx_forward_sync(m);
    }
    if (batch->wants != NULL && m->failure == 0)
        tell(m, batch, &small);
}

int phx_model_late_logits(struct phx_model *m, int32_t i, float *row, struct phx_err *err)
{
    size_t size = (size_t)m->config->vocab_size;

    if (m->logits.data == NULL || m->part.tp_size > 1)
        return phx_fail(err, PHX_E_STATE, "logits of row %d are not there", i);
    m->failure = 0;
    phx_download(m->backend, row, (float *)m->logits.data + (size_t)m->order.place[i] * size, size * sizeof(float));
    phx_forward_sync(m);
    if (m->failure != 0 && err != NULL)
        *err = m->failure_text;
    return m->failure;
}
