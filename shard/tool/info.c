/* SPDX-License-Identifier: Apache-2.0
 * `phalanx-model info`: what a checkpoint is, and what each rank would hold of it. */
#include <argp.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "rpc/base/mem.h"
#include "shard/load/load.h"
#include "shard/model/config.h"
#include "shard/partition/partition.h"
#include "shard/tool/tool.h"

enum { OPT_TP = 1000, OPT_PP, OPT_JSON, OPT_ROWS, OPT_SEQS, OPT_CONTEXT, OPT_KV_DTYPE, OPT_DTYPE, OPT_BLOCK };

struct options {
    const char    *dir;
    int32_t        tp, pp, rows, seqs, context, block_tokens;
    enum phx_dtype kv_dtype;
    bool           is_json, is_int8;
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;

    switch (key) {
    case OPT_TP:
        o->tp = (int32_t)phx_tool_number(state, "--tp", arg, 1, PHX_TP_MAX);
        return 0;
    case OPT_PP:
        o->pp = (int32_t)phx_tool_number(state, "--pp", arg, 1, PHX_PP_MAX);
        return 0;
    case OPT_ROWS:
        o->rows = (int32_t)phx_tool_number(state, "--rows", arg, 1, 1 << 16);
        return 0;
    case OPT_SEQS:
        o->seqs = (int32_t)phx_tool_number(state, "--seqs", arg, 1, 1 << 16);
        return 0;
    case OPT_CONTEXT:
        o->context = (int32_t)phx_tool_number(state, "--context", arg, 1, 1 << 28);
        return 0;
    case OPT_BLOCK:
        o->block_tokens = (int32_t)phx_tool_number(state, "--block-tokens", arg, 16, 32);
        return 0;
    case OPT_DTYPE:
        if (strcmp(arg, "auto") != 0 && strcmp(arg, "int8") != 0)
            argp_error(state, "--dtype must be auto or int8");
        o->is_int8 = strcmp(arg, "int8") == 0;
        return 0;
    case OPT_KV_DTYPE:
        if (!phx_kv_dtype_parse(arg, &o->kv_dtype))
            argp_error(state, "--kv-dtype must be f32, bf16, int8 or fp8");
        return 0;
    case OPT_JSON:
        o->is_json = true;
        return 0;
    case ARGP_KEY_ARG:
        if (o->dir != NULL)
            argp_usage(state);
        o->dir = arg;
        return 0;
    case ARGP_KEY_END:
        if (o->dir == NULL)
            argp_usage(state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option option_table[] = {
    {"tp", OPT_TP, "N", 0, "ranks a layer is split over (default 1)", 0},
    {"pp", OPT_PP, "N", 0, "stages the layers are split over (default 1)", 0},
    {"rows", OPT_ROWS, "N", 0, "rows of a step, for the scratch (default 512)", 0},
    {"seqs", OPT_SEQS, "N", 0, "sequences of a step (default 64)", 0},
    {"context", OPT_CONTEXT, "N", 0, "positions (default: all the model has)", 0},
    {"block-tokens", OPT_BLOCK, "N", 0, "positions of a cache block, 16 or 32 (default 16)", 0},
    {"dtype", OPT_DTYPE, "TYPE", 0, "of dense weights: auto (default), or int8", 0},
    {"kv-dtype", OPT_KV_DTYPE, "TYPE", 0, "of the cache: f32 (default), bf16, int8 or fp8", 0},
    {"json", OPT_JSON, 0, 0, "print one JSON object", 0},
    {0}};

static const struct argp command = {option_table, parse_option, "DIR",
                                    "Shapes and bytes of a checkpoint, and each rank's part of it.",
                                    NULL, NULL, NULL};

static const char *dtype_name(enum phx_dtype dtype)
{
    static const char *const names[] = {[PHX_DTYPE_F32] = "f32", [PHX_DTYPE_BF16] = "bf16",
                                        [PHX_DTYPE_F16] = "f16", [PHX_DTYPE_MXFP4] = "mxfp4",
                                        [PHX_DTYPE_I8] = "int8"};

    return dtype > PHX_DTYPE_I8 || names[dtype] == NULL ? "none" : names[dtype];
}

static const char *rope_name(enum phx_rope_kind kind)
{
    static const char *const names[] = {"none", "plain", "linear", "llama3", "yarn"};

    return names[kind];
}

static json_t *range_json(struct phx_range r)
{
    return json_pack("[i,i]", r.first, r.end);
}

static json_t *part_json(const struct phx_part *p)
{
    return json_pack("{s:i,s:i,s:i,s:o,s:o,s:o,s:o,s:o,s:i,s:b,s:I,s:I,s:I}", "rank", p->rank, "pp", p->pp,
                     "tp", p->tp, "layers", range_json(p->layers), "heads", range_json(p->heads),
                     "kv_heads", range_json(p->kv_heads), "ffn", range_json(p->ffn), "vocab",
                     range_json(p->vocab), "slices", p->n_slices, "layout_invariant",
                     (int)p->is_layout_invariant, "weights_bytes", (json_int_t)p->weights_bytes,
                     "kv_bytes_per_block", (json_int_t)p->kv_bytes_per_block, "scratch_bytes",
                     (json_int_t)p->scratch_bytes);
}

static json_t *model_json(const struct phx_model_config *c)
{
    int32_t n_windowed = 0;

    for (int32_t i = 0; i < c->n_layers; i++)
        n_windowed += c->window[i] > 0;
    return json_pack("{s:s,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:b,s:s,s:s,s:s}", "model_type",
                     c->model_type, "layers", c->n_layers, "hidden", c->dim, "heads", c->n_heads,
                     "kv_heads", c->n_kv_heads, "head_dim", c->head_dim, "ffn", c->ffn_dim, "vocab",
                     c->vocab_size, "experts", c->n_experts, "experts_per_token",
                     c->experts_per_token, "max_position", c->max_position, "windowed_layers",
                     n_windowed, "tied", (int)c->is_tied, "dtype", dtype_name(c->dtype),
                     "expert_dtype", dtype_name(c->expert_dtype), "rope", rope_name(c->rope.kind));
}

static void print_json(const struct phx_checkpoint *k, const struct phx_model_config *c,
                       const struct phx_part *parts, int32_t n)
{
    json_t *root = model_json(c), *ranks = json_array(), *files = json_array();

    for (int32_t i = 0; i < phx_checkpoint_files(k); i++)
        json_array_append_new(files, json_string(phx_checkpoint_file(k, i)));
    for (int32_t i = 0; i < n; i++)
        json_array_append_new(ranks, part_json(&parts[i]));
    json_object_set_new(root, "tensors", json_integer(phx_checkpoint_count(k)));
    json_object_set_new(root, "bytes", json_integer((json_int_t)phx_checkpoint_bytes(k)));
    json_object_set_new(root, "files", files);
    json_object_set_new(root, "ranks", ranks);
    (void)json_dumpf(root, stdout, JSON_COMPACT); /* a closed pipe ends the process anyway */
    printf("\n");
    json_decref(root);
}

static void print_model(const struct phx_checkpoint *k, const struct phx_model_config *c)
{
    char size[24];

    phx_tool_format_bytes(phx_checkpoint_bytes(k), size);
    printf("%s: %d layers, hidden %d, %d heads (%d kv) of %d, ffn %d, vocabulary %d%s\n", c->model_type,
           c->n_layers, c->dim, c->n_heads, c->n_kv_heads, c->head_dim, c->ffn_dim, c->vocab_size,
           c->is_tied ? " (tied)" : "");
    if (c->n_experts > 0)
        printf("experts: %d, %d per token, stored as %s\n", c->n_experts, c->experts_per_token,
               dtype_name(c->expert_dtype));
    printf("rope %s, %d positions; weights stored as %s\n", rope_name(c->rope.kind), c->max_position,
           dtype_name(c->dtype));
    printf("%d tensors in %d file%s, %s (%llu bytes)\n\n", phx_checkpoint_count(k),
           phx_checkpoint_files(k), phx_checkpoint_files(k) == 1 ? "" : "s", size,
           (unsigned long long)phx_checkpoint_bytes(k));
}

static void print_parts(const struct phx_part *parts, int32_t n, int32_t block_tokens)
{
    printf("%4s %3s %3s  %-9s %-9s %-7s %-13s %-15s %10s %12s %10s\n", "rank", "pp", "tp", "layers",
           "heads", "kv", "ffn", "vocabulary", "weights", "cache/1k tok", "scratch");
    for (int32_t i = 0; i < n; i++) {
        const struct phx_part *p = &parts[i];
        char layers[24], heads[24], kv[24], ffn[24], vocab[24], weights[24], cache[24], scratch[24];

        (void)snprintf(layers, 24, "%d-%d", p->layers.first, p->layers.end - 1);
        (void)snprintf(heads, 24, "%d-%d", p->heads.first, p->heads.end - 1);
        (void)snprintf(kv, 24, "%d-%d", p->kv_heads.first, p->kv_heads.end - 1);
        (void)snprintf(ffn, 24, "%d-%d", p->ffn.first, p->ffn.end - 1);
        (void)snprintf(vocab, 24, "%d-%d", p->vocab.first, p->vocab.end - 1);
        phx_tool_format_bytes(p->weights_bytes, weights);
        phx_tool_format_bytes(p->kv_bytes_per_block * 1024 / (uint64_t)block_tokens, cache);
        phx_tool_format_bytes(p->scratch_bytes, scratch);
        printf("%4d %3d %3d  %-9s %-9s %-7s %-13s %-15s %10s %12s %10s\n", p->rank, p->pp, p->tp, layers,
               heads, kv, ffn, vocab, weights, cache, scratch);
    }
    if (!parts[0].is_layout_invariant)
        printf("\ntp %d does not divide 8: results may differ in the last bits from other layouts\n",
               parts[0].tp_size);
}

static int run(const struct options *o, struct phx_checkpoint *k, struct phx_err *err)
{
    struct phx_model_config     *c = phx_mem_calloc(1, sizeof(*c));
    struct phx_part             *parts = phx_mem_calloc((size_t)(o->tp * o->pp), sizeof(*parts));
    struct phx_partition_request request = {.config = c, .tp = o->tp, .pp = o->pp,
                                            .block_tokens = o->block_tokens, .kv_dtype = o->kv_dtype,
                                            .max_step_rows = o->rows, .max_seqs = o->seqs,
                                            .max_context = o->context};
    int rc = phx_model_config_load(o->dir, k, c, err);

    if (rc == 0 && o->is_int8)
        phx_model_config_quantise(c);
    if (rc == 0)
        rc = phx_partition(&request, parts, err);
    if (rc == 0 && o->is_json) {
        print_json(k, c, parts, o->tp * o->pp);
    } else if (rc == 0) {
        print_model(k, c);
        print_parts(parts, o->tp * o->pp, o->block_tokens);
    }
    phx_mem_free(parts);
    phx_mem_free(c);
    return rc;
}

int phx_tool_info(int argc, char **argv)
{
    struct options o = {.tp = 1, .pp = 1, .rows = 512, .seqs = 64, .block_tokens = 16,
                        .kv_dtype = PHX_DTYPE_F32};
    struct phx_checkpoint *checkpoint;
    struct phx_err         err = {0};
    int                    rc;

    argp_parse(&command, argc, argv, 0, NULL, &o); /* ends the process on bad usage */
    rc = phx_checkpoint_open(o.dir, &checkpoint, &err);
    if (rc == 0)
        rc = run(&o, checkpoint, &err);
    phx_checkpoint_close(checkpoint);
    return rc == 0 ? PHX_TOOL_OK : phx_tool_fail(&err);
}
