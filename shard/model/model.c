/* SPDX-License-Identifier: Apache-2.0
 * Opening a rank's model and running its part of a step.  The arithmetic is in forward*.c.
 *
 * A failure inside a stage is agreed by its ranks at the end of the step and travels down the pipeline
 * in place of the activation (transit.c), so that every later stage drops the same step. */
#include "shard/model/model.h"

#include <math.h>
#include <string.h>

#include "rpc/base/mem.h"
#include "shard/model/state.h"

/* ---- open ----------------------------------------------------------------------------------- */

static int alloc_tensor(struct phx_model *m, int32_t rows, int32_t columns, struct phx_tensor *out,
                        struct phx_err *err)
{
    size_t size_bytes = (size_t)rows * (size_t)columns * sizeof(float);
    void  *data = phx_backend_alloc(m->backend, size_bytes);
    if (data == NULL)
        return phx_fail(err, PHX_E_NOMEM, "no memory for %zu bytes of scratch", size_bytes);
    *out = phx_view(data, rows, columns);
    m->scratch_bytes += size_bytes;
    return 0;
}

/* cos and sin of position * frequency, rounded to float32 as in the reference, times the amplitude. */
static int make_rope(struct phx_model *m, struct phx_err *err)
{
    const struct phx_rope_config *rope = &m->config->rope;
    int32_t                       half = m->config->head_dim / 2, positions = m->limits.max_context;
    double *inv_freq = phx_mem_calloc((size_t)half, sizeof *inv_freq);
    float  *row = phx_mem_calloc((size_t)half, 2 * sizeof *row);
    int     code = alloc_tensor(m, positions, half, &m->cos, err);
    if (code == 0)
        code = alloc_tensor(m, positions, half, &m->sin, err);
    phx_rope_frequencies(m->config, inv_freq);
    for (int32_t p = 0; p < positions && code == 0; p++) {
        for (int32_t j = 0; j < half; j++) {
            float angle = (float)p * (float)inv_freq[j];
            row[j] = (float)(cos((double)angle) * rope->attention_factor);
            row[half + j] = (float)(sin((double)angle) * rope->attention_factor);
        }
        size_t at = (size_t)p * (size_t)half, size_bytes = (size_t)half * sizeof *row;
        phx_upload(m->backend, (float *)m->cos.data + at, row, size_bytes);
        phx_upload(m->backend, (float *)m->sin.data + at, row + half, size_bytes);
    }
    phx_mem_free(inv_freq);
    phx_mem_free(row);
    return code;
}

/* Scratch at the largest step, so that no step allocates. */
static int make_scratch(struct phx_model *m, struct phx_err *err)
{
    const struct phx_model_config *c = m->config;
    const struct phx_part         *part = &m->part;
    struct phx_step               *s = &m->scratch;
    int32_t T = m->limits.max_rows, Dh = c->head_dim;
    int32_t q = (part->heads.end - part->heads.first) * Dh;
    int32_t kv = (part->kv_heads.end - part->kv_heads.first) * Dh;
    int32_t ffn = part->ffn.end - part->ffn.first;
    int     code = alloc_tensor(m, T, c->dim, &s->x, err);
    if (code == 0)
        code = alloc_tensor(m, T, c->dim, &s->norm, err);
    if (code == 0)
        code = alloc_tensor(m, T, c->dim, &s->out, err);
    if (code == 0)
        code = alloc_tensor(m, T, q + 2 * kv, &s->qkv, err);
    if (code == 0)
        code = alloc_tensor(m, T, q, &s->attn, err);
    if (code == 0 && c->n_experts == 0)
        code = alloc_tensor(m, T, 2 * ffn, &s->gate_up, err);
    if (code == 0 && c->n_experts == 0)
        code = alloc_tensor(m, T, ffn, &s->act, err);
    if (code == 0 && c->n_experts > 0)
        code = alloc_tensor(m, T, c->n_experts, &s->router, err);
    if (code == 0 && c->n_experts > 0)
        code = alloc_tensor(m, T, c->experts_per_token, &s->ids, err);
    if (code == 0 && c->n_experts > 0)
        code = alloc_tensor(m, T, c->experts_per_token, &s->gates, err);
    s->ids.dtype = PHX_DTYPE_I32;
    s->qk = phx_columns(s->qkv, 0, q + kv);
    s->q = phx_columns(s->qkv, 0, q);
    s->v = phx_columns(s->qkv, q + kv, kv);
    return code;
}

/* For what is wanted of logits besides themselves. */
static int make_small(struct phx_model *m, struct phx_err *err)
{
    int32_t rows = m->limits.max_logits;
    int     code = alloc_tensor(m, rows, PHX_LOGITS_SMALL, &m->small, err);
    m->small_host = phx_mem_calloc((size_t)rows, PHX_LOGITS_SMALL * sizeof *m->small_host);
    m->draws = phx_mem_calloc((size_t)rows, PHX_LOGITS_DRAWS_MAX * sizeof *m->draws);
    return code;
}

static int make_head(struct phx_model *m, const struct phx_part *parts, struct phx_err *err)
{
    const struct phx_part *last = parts + (ptrdiff_t)(m->part.pp_size - 1) * m->part.tp_size;
    int32_t                n = m->part.tp_size, rows = m->limits.max_logits;
    m->vocab_first = phx_mem_calloc((size_t)n, sizeof *m->vocab_first);
    m->vocab_n = phx_mem_calloc((size_t)n, sizeof *m->vocab_n);
    for (int32_t i = 0; i < n; i++) {
        m->vocab_first[i] = last[i].vocab.first;
        m->vocab_n[i] = last[i].vocab.end - last[i].vocab.first;
    }
    m->order.place = phx_mem_calloc((size_t)rows, sizeof *m->order.place);
    m->order.rows = phx_mem_calloc((size_t)rows, sizeof *m->order.rows);
    if (m->part.pp != m->part.pp_size - 1)
        return 0;
    int code = alloc_tensor(m, rows, m->config->dim, &m->rows, err);
    if (code == 0 && n > 1)
        code = alloc_tensor(m, rows, m->vocab_n[m->part.tp], &m->part_logits, err);
    if (code == 0 && m->part.tp == 0 && !phx_backend_is_host(m->backend))
        code = alloc_tensor(m, rows, m->config->vocab_size, &m->logits, err);
    if (code == 0 && !phx_backend_is_host(m->backend))
        code = make_small(m, err);
    return code;
}

/* The largest tensor that another rank gets from this one: activations of a step, or its columns of logits. */
static int make_transit(struct phx_model *m, struct phx_err *err)
{
    size_t step = (size_t)m->limits.max_rows * (size_t)m->config->dim;
    size_t logits = (size_t)m->limits.max_logits * (size_t)m->vocab_n[m->part.tp];
    return phx_transit_init(&m->transit, m->backend, m->comm, (step > logits ? step : logits) * sizeof(float),
                            err);
}

static int make_kv(struct phx_model *m, struct phx_err *err)
{
    struct phx_kv_desc desc = {
        .n_layers = m->part.layers.end - m->part.layers.first,
        .n_blocks = m->limits.n_blocks, .block_tokens = m->limits.block_tokens,
        .kv_heads = m->part.kv_heads.end - m->part.kv_heads.first,
        .head_dim = m->config->head_dim, .dtype = m->limits.kv_dtype};
    m->kv = phx_kv_create(m->backend, &desc);
    if (m->kv == NULL) {
        const char *why = NULL;
        (void)phx_backend_sync(m->backend, &why); /* only its text is wanted: creation has failed */
        return phx_fail(err, PHX_E_NOMEM, "no memory for %zu bytes of key/value cache (%d blocks): %s",
                        phx_kv_bytes(m->backend, &desc), desc.n_blocks, why != NULL ? why : "short");
    }
    return 0;
}

/* The widest window of the layers, 0 when one sees all keys. */
static int32_t widest_window(const struct phx_model *m)
{
    int32_t widest = 1;
    for (int32_t i = 0; i < m->weights.n_layers && widest > 0; i++) {
        int32_t window = m->weights.layers[i].window;
        widest = window == 0 || window > widest ? window : widest;
    }
    return widest;
}

static int check_options(const struct phx_model_options *o, struct phx_err *err)
{
    const struct phx_part *p = o->part;
    if (o->max_rows < 1 || o->max_seqs < 1 || o->max_logits < 1 || o->max_context < 1 ||
        o->n_blocks < 1)
        return phx_fail(err, PHX_E_INVALID, "max_rows, max_seqs, max_logits, max_context and n_blocks "
                        "must be at least 1");
    if (o->config->arch != PHX_ARCH_GPT_OSS && o->config->arch != PHX_ARCH_LLAMA)
        return phx_fail(err, PHX_E_UNSUPPORTED, "no forward pass for model_type %s",
                        o->config->model_type);
    if (p->heads.end <= p->heads.first || p->ffn.end <= p->ffn.first ||
        p->vocab.end <= p->vocab.first || p->layers.end <= p->layers.first)
        return phx_fail(err, PHX_E_INVALID, "rank %d would hold no heads, ffn columns, vocabulary rows "
                        "or layers at tp %d, pp %d", p->rank, p->tp_size, p->pp_size);
    return 0;
}

/* What ops need besides tensors comes first: it lies whole, and nothing grows later. */
static int reserve_work(struct phx_model *m, struct phx_err *err)
{
    const struct phx_partition_request request = {.config = m->config, .max_step_rows = m->limits.max_rows,
                                                  .max_logits = m->limits.max_logits,
                                                  .block_tokens = m->limits.block_tokens, .kv_dtype = m->limits.kv_dtype};
    struct phx_part_work work;
    const char          *why = NULL;
    phx_part_work(&request, &m->part, &work);
    phx_work_reserve(m->backend, &work.work);
    if (phx_backend_sync(m->backend, &why) == 0)
        return 0;
    return phx_fail(err, PHX_E_NOMEM, "%s", why != NULL ? why : "the backend failed");
}

int phx_model_open(const struct phx_model_options *options, const struct phx_checkpoint *checkpoint,
                   struct phx_model **out, struct phx_err *err)
{
    *out = NULL;
    int code = check_options(options, err);
    if (code == 0)
        code = phx_inventory_check(options->config, checkpoint, err);
    if (code != 0)
        return code;
    struct phx_model *m = phx_mem_calloc(1, sizeof *m);
    m->own_config = *options->config;
    m->config = &m->own_config;
    m->part = *options->part;
    m->limits = *options;
    m->backend = options->backend;
    m->comm = options->comm;
    m->attn_scale = (float)(1.0 / sqrt((double)m->config->head_dim));
    code = reserve_work(m, err);
    if (code == 0)
        code = phx_weights_load(options, checkpoint, &m->weights, err);
    if (code == 0)
        code = make_rope(m, err);
    if (code == 0)
        code = make_scratch(m, err);
    if (code == 0)
        code = make_head(m, options->parts, err);
    if (code == 0)
        code = make_transit(m, err);
    if (code == 0)
        code = make_kv(m, err);
    if (code == 0 && m->config->n_experts > 0)
        phx_moe_reserve(m->backend, options->max_rows, m->config->experts_per_token,
                        m->weights.layers[0].gate_up, m->weights.layers[0].down);
    const char *why = NULL;
    if (code == 0 && phx_backend_sync(m->backend, &why) != 0)
        code = phx_fail(err, PHX_E_NOMEM, "%s", why != NULL ? why : "the backend failed");
    if (code != 0) {
        phx_model_close(m);
        return code;
    }
    m->window = widest_window(m);
    *out = m;
    return 0;
}

void phx_model_close(struct phx_model *m)
{
    if (m == NULL)
        return;
    struct phx_step *s = &m->scratch;
    void *memory[] = {m->cos.data, m->sin.data, s->x.data, s->norm.data, s->out.data, s->qkv.data,
                      s->attn.data, s->gate_up.data, s->act.data, s->router.data, s->ids.data,
                      s->gates.data, m->rows.data, m->part_logits.data, m->logits.data,
                      m->small.data};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        if (memory[i] != NULL)
            phx_backend_free(m->backend, memory[i]);
    phx_transit_fini(&m->transit);
    if (m->kv != NULL)
        phx_kv_destroy(m->backend, m->kv);
    phx_weights_free(m->backend, &m->weights);
    phx_mem_free(m->vocab_first);
    phx_mem_free(m->vocab_n);
    phx_mem_free(m->small_host);
    phx_mem_free(m->draws);
    phx_mem_free(m->order.place);
    phx_mem_free(m->order.rows);
    phx_mem_free(m);
}

void phx_model_memory(const struct phx_model *m, struct phx_model_memory *memory)
{
    struct phx_kv_desc desc = {
        .n_layers = m->part.layers.end - m->part.layers.first,
        .n_blocks = m->limits.n_blocks, .block_tokens = m->limits.block_tokens,
        .kv_heads = m->part.kv_heads.end - m->part.kv_heads.first,
        .head_dim = m->config->head_dim, .dtype = m->limits.kv_dtype};
    memory->weights_bytes = m->weights.size_bytes;
    memory->kv_bytes = phx_kv_bytes(m->backend, &desc);
    memory->scratch_bytes = m->scratch_bytes;
}

/* ---- step ----------------------------------------------------------------------------------- */

static int check_spans(const struct phx_model *m, const struct phx_batch *batch, struct phx_err *err)
{
    const struct phx_spans *s = &batch->spans;
    int32_t                 row = 0;
    if (s->n_seqs < 1 || s->n_seqs > m->limits.max_seqs)
        return phx_fail(err, PHX_E_INVALID, "a step of %d sequences (limit %d)", s->n_seqs,
                        m->limits.max_seqs);
    for (int32_t i = 0; i < s->n_seqs; i++) {
        if (s->row[i] != row || s->n_rows[i] < 1 || s->n_rows[i] > batch->n_rows - row)
            return phx_fail(err, PHX_E_INVALID, "sequence %d does not own its rows in order", i);
        row += s->n_rows[i];
        if (s->pos[i] < 0 || s->pos[i] > m->limits.max_context - s->n_rows[i])
            return phx_fail(err, PHX_E_INVALID, "sequence %d reaches past position %d", i,
                            m->limits.max_context);
        int32_t end = s->pos[i] + s->n_rows[i], n_blocks = (end - 1) / m->limits.block_tokens + 1;
        if (n_blocks > s->table_stride)
            return phx_fail(err, PHX_E_INVALID, "sequence %d needs %d blocks, its table has %d", i,
                            n_blocks, s->table_stride);
        for (int32_t j = 0; j < n_blocks; j++) {
            int32_t block = s->table[(ptrdiff_t)i * s->table_stride + j];
            int32_t least = j < s->pos[i] / m->limits.block_tokens ? -1 : 0; /* written ones exist */
            if (block < least || block >= m->limits.n_blocks)
                return phx_fail(err, PHX_E_INVALID, "sequence %d names block %d of %d", i, block,
                                m->limits.n_blocks);
        }
    }
    if (row != batch->n_rows)
        return phx_fail(err, PHX_E_INVALID, "%d rows, %d of them owned", batch->n_rows, row);
    return 0;
}

static bool is_possible(const struct phx_model *m, const struct phx_logits_want *w)
{
    int32_t most = m->config->vocab_size < PHX_TOP_MAX ? m->config->vocab_size : PHX_TOP_MAX;
    bool    is_ok = w->n_best >= 0 && w->n_best <= most && w->n_draws >= 0 && w->n_draws <= PHX_LOGITS_DRAWS_MAX;
    for (int32_t j = 0; is_ok && j < w->n_draws; j++)
        is_ok = w->draws[j].temperature > 0.0f && isfinite(w->draws[j].temperature) && w->draws[j].share >= 0.0 &&
                w->draws[j].share < 1.0;
    return is_ok;
}

/* The same batch and limits on every rank give the same answer, so all refuse before any collective. */
/* In host memory logits lie where the caller has room for the wanted ones alone. */
static int check_pads(const struct phx_model *m, const struct phx_batch *batch, struct phx_err *err)
{
    int32_t n = batch->n_pads, end = batch->spans.n_seqs;
    bool    is_good = !phx_backend_is_host(m->backend) && n > 0 && n < end && n <= m->limits.max_logits - batch->n_logits &&
                   (batch->n_logits == 0 || batch->logit_rows[batch->n_logits - 1] < batch->n_rows - n);
    for (int32_t i = end - n; is_good && i < end; i++)
        is_good = batch->spans.n_rows[i] == 1;
    return is_good ? 0 : phx_fail(err, PHX_E_INVALID, "%d of %d rows cannot be pads", n, batch->n_rows);
}

static int check_batch(const struct phx_model *m, const struct phx_batch *batch,
                       struct phx_tensor logits, struct phx_err *err)
{
    if (batch->n_rows < 1 || batch->n_rows > m->limits.max_rows)
        return phx_fail(err, PHX_E_INVALID, "a step of %d rows (limit %d)", batch->n_rows,
                        m->limits.max_rows);
    for (int32_t i = 0; i < batch->n_rows; i++)
        if (batch->tokens[i] < 0 || batch->tokens[i] >= m->config->vocab_size)
            return phx_fail(err, PHX_E_INVALID, "row %d holds a token outside the vocabulary of %d", i,
                            m->config->vocab_size);
    if (batch->n_logits < 0 || batch->n_logits > m->limits.max_logits)
        return phx_fail(err, PHX_E_INVALID, "%d rows of logits (limit %d)", batch->n_logits,
                        m->limits.max_logits);
    for (int32_t i = 0; i < batch->n_logits; i++)
        if (batch->logit_rows[i] < (i > 0 ? batch->logit_rows[i - 1] + 1 : 0) ||
            batch->logit_rows[i] >= batch->n_rows)
            return phx_fail(err, PHX_E_INVALID, "row %d of the logits is out of order or range", i);
    for (int32_t i = 0; i < batch->n_logits && batch->wants != NULL; i++)
        if (!is_possible(m, &batch->wants[i]))
            return phx_fail(err, PHX_E_INVALID, "row %d of the logits: %d best, %d draws", i, batch->wants[i].n_best,
                            batch->wants[i].n_draws);
    bool is_reader = m->part.pp == m->part.pp_size - 1 && m->part.tp == 0;
    phx_assert(!is_reader || batch->wants == NULL || batch->got != NULL);
    phx_assert(!is_reader || batch->n_logits == 0 ||
               (logits.data != NULL && logits.dim[0] == batch->n_logits &&
                logits.dim[1] == m->config->vocab_size));
    int code = check_spans(m, batch, err);
    return code == 0 && batch->n_pads != 0 ? check_pads(m, batch, err) : code;
}

static struct phx_step step_of(const struct phx_model *m, const struct phx_batch *batch)
{
    struct phx_step     s = m->scratch;
    struct phx_tensor *views[] = {&s.x,  &s.norm, &s.qkv,     &s.q,   &s.v,   &s.qk,
                                  &s.attn, &s.out, &s.gate_up, &s.act, &s.router, &s.ids, &s.gates};
    for (size_t i = 0; i < sizeof views / sizeof *views; i++)
        *views[i] = phx_rows(*views[i], batch->n_rows);
    s.batch = batch;
    return s;
}

static void receive(struct phx_model *m, struct phx_tensor x)
{
    int earlier = 0, code = phx_transit_recv(&m->transit, x, &earlier);
    if (code != 0)
        phx_forward_fail(m, code, "activation from the previous stage", phx_err_text(code));
    else if (earlier != 0)
        phx_forward_fail(m, earlier, "an earlier stage", phx_err_text(earlier));
}

/* All ranks of the stage take the worst code of any, also those whose own part went well. */
static void agree(struct phx_model *m)
{
    int32_t worst = 0;
    phx_forward_sync(m);
    int code = phx_comm_status(m->comm, m->failure, &worst);
    if (code != 0)
        phx_forward_fail(m, code, "status of the stage", phx_err_text(code));
    else if (worst != 0)
        phx_forward_fail(m, worst, "another rank of the stage", phx_err_text(worst));
    if (code == 0)
        m->failure = worst;
}

/* What the backend does of a step without asking the host for anything. */
static void compute(struct phx_model *m, const struct phx_step *s, struct phx_tensor logits)
{
    if (m->part.pp == 0)
        phx_forward_embed(m, s);
    if (m->config->arch == PHX_ARCH_GPT_OSS)
        phx_forward_gpt_oss(m, s);
    else
        phx_forward_llama(m, s);
    if (m->part.pp == m->part.pp_size - 1)
        phx_forward_head(m, s, logits);
}

/* Of one sum over the tensor group: the embedding and each half of a layer ends in one. */
static size_t sum_bytes(const struct phx_model *m, int32_t n_rows)
{
    return (size_t)n_rows * (size_t)m->config->dim * sizeof(float);
}

/* A rank that is not alone in its tensor group needs sums that wait by themselves. */
bool phx_model_can_record(const struct phx_model *m, int32_t n_rows)
{
    return phx_step_can_record(m->backend) &&
           (m->part.tp_size == 1 || phx_comm_can_record(m->comm, sum_bytes(m, n_rows)));
}

/* A step that was replayed has called none of its sums. */
static void count_sums(struct phx_model *m, int32_t n_rows)
{
    int32_t n = (m->part.pp == 0) + 2 * m->weights.n_layers;

    if (m->part.tp_size > 1)
        phx_comm_count_moved(m->comm, (size_t)n * sum_bytes(m, n_rows));
}

/* Computes the step, or has it replayed. */
static void compute_or_replay(struct phx_model *m, const struct phx_step *s, struct phx_tensor logits)
{
    const struct phx_batch *batch = s->batch;
    bool is_first = m->part.pp == 0, is_last = m->part.pp == m->part.pp_size - 1;
    struct phx_step_inputs in = {
        .model = m, .n_rows = batch->n_rows, .ids = is_first ? batch->tokens : NULL,
        .n_picked = is_last ? batch->n_logits : 0, .picked = batch->logit_rows,
        .spans = &batch->spans, .kv = m->kv, .window = m->window, .is_recordable = phx_model_can_record(m, batch->n_rows)};
    if (phx_step_begin(m->backend, &in))
        count_sums(m, batch->n_rows);
    else
        compute(m, s, logits);
    while (phx_step_end(m->backend)) /* it was to be recorded and could not be */
        compute(m, s, logits);
}

int phx_model_step(struct phx_model *m, const struct phx_batch *batch, struct phx_tensor logits,
                   struct phx_err *err)
{
    int code = check_batch(m, batch, logits, err);
    if (code != 0)
        return code;
    struct phx_batch ordered = *batch;
    phx_forward_order(m, batch);
    ordered.logit_rows = m->order.rows;
    ordered.n_logits += batch->n_pads;
    struct phx_step s = step_of(m, &ordered);
    bool            is_last = m->part.pp == m->part.pp_size - 1;
    m->failure = 0;
    if (m->part.pp > 0)
        receive(m, s.x);
    compute_or_replay(m, &s, logits);
    if (batch->meanwhile != NULL && !phx_backend_is_host(m->backend))
        batch->meanwhile(batch->ctx);
    if (is_last)
        phx_forward_fetch(m, batch, logits);
    agree(m);
    if (!is_last) {
        code = phx_transit_send(&m->transit, s.x, m->failure);
        if (code != 0)
            phx_forward_fail(m, code, "activation to the next stage", phx_err_text(code));
    }
    if (m->failure != 0 && err != NULL)
        *err = m->failure_text;
    return m->failure;
}
