/* SPDX-License-Identifier: Apache-2.0
 * `phalanx-model synth`: a random-weight checkpoint in the published layout, for tests and for speed. */
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/clock.h"
#include "rpc/base/json.h"
#include "rpc/base/mem.h"
#include "shard/model/config.h"
#include "shard/tool/synth.h"
#include "shard/tool/tool.h"

enum { OPT_JSON = 1000, OPT_LAYERS, OPT_SEED, OPT_VOCAB_SMALL, OPT_THREADS, OPT_SHARD_MB };

struct options {
    const char *preset, *config_file, *dir;
    int32_t     n_layers; /* 0 = as configured */
    uint64_t    seed;
    bool        is_json, is_vocab_small;
    int32_t     n_threads;
    uint64_t    shard_bytes;
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;

    switch (key) {
    case 'p':
        o->preset = arg;
        return 0;
    case 'c':
        o->config_file = arg;
        return 0;
    case OPT_LAYERS:
        o->n_layers = (int32_t)phx_tool_number(state, "--layers", arg, 1, PHX_LAYERS_MAX);
        return 0;
    case OPT_SEED:
        o->seed = (uint64_t)phx_tool_number(state, "--seed", arg, 0, INT64_MAX);
        return 0;
    case OPT_THREADS:
        o->n_threads = (int32_t)phx_tool_number(state, "--threads", arg, 1, 64);
        return 0;
    case OPT_SHARD_MB:
        o->shard_bytes = (uint64_t)phx_tool_number(state, "--shard-mb", arg, 1, 1 << 20) * 1000000;
        return 0;
    case OPT_VOCAB_SMALL:
        o->is_vocab_small = true;
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
        if (o->dir == NULL || (o->preset == NULL) == (o->config_file == NULL))
            argp_usage(state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option option_table[] = {
    {"preset", 'p', "NAME", 0, "a published model or a tiny one", 0},
    {"config", 'c', "FILE", 0, "a config.json instead of a preset", 0},
    {"layers", OPT_LAYERS, "N", 0, "another number of layers", 0},
    {"seed", OPT_SEED, "N", 0, "of the values (default 1)", 0},
    {"vocab-small", OPT_VOCAB_SMALL, 0, 0, "a vocabulary of bytes and special tokens", 0},
    {"shard-mb", OPT_SHARD_MB, "N", 0, "largest file (default 4800)", 0},
    {"threads", OPT_THREADS, "N", 0, "writers (default: one per core)", 0},
    {"json", OPT_JSON, 0, 0, "print one JSON object", 0},
    {0}};

static const struct argp command = {
    option_table, parse_option, "DIR",
    "Makes a random-weight checkpoint in the published layout: config.json, safetensors files with their "
    "index, tokenizer.json, generation_config.json.  Presets: gpt-oss-20b, gpt-oss-120b, gpt-oss-small, "
    "llama-3.2-1b, llama-3.1-8b, mistral-7b, mixtral-8x7b, gpt2, deepseek-v2-lite, tiny-gpt-oss, "
    "tiny-llama.",
    NULL, NULL, NULL};

static int load_config(const struct options *o, json_t **config, struct phx_err *err)
{
    const char *text = o->preset != NULL ? phx_synth_preset(o->preset) : NULL;

    if (o->config_file != NULL)
        return phx_json_load(config, o->config_file, 1 << 20, 0, err);
    if (text == NULL)
        return phx_fail(err, PHX_E_NOTFOUND, "no preset \"%.40s\"; there are %s", o->preset,
                        phx_synth_preset_names());
    return phx_json_parse(config, text, strlen(text), 1 << 20, 0, o->preset, err);
}

/* What this build serves must also be right by its own reader. */
static int check_config(const json_t *config, struct phx_err *err)
{
    struct phx_model_config parsed;
    const char             *type = json_string_value(json_object_get(config, "model_type"));
    char                   *text;
    int                     rc;

    if (type == NULL || (strcmp(type, "gpt_oss") != 0 && strcmp(type, "llama") != 0))
        return 0;
    text = json_dumps(config, JSON_COMPACT);
    rc = phx_model_config_parse(text, strlen(text), &parsed, err);
    free(text); /* jansson's memory */
    return rc;
}

static int write_config(const char *dir, const json_t *config, struct phx_err *err)
{
    char *text = json_dumps(config, JSON_INDENT(2));
    char *path = phx_mem_printf("%s/config.json", dir);
    int   rc = phx_file_write(path, text, strlen(text), 0644, err);

    free(text); /* jansson's memory */
    phx_mem_free(path);
    return rc;
}

static int make_dir(const char *dir, struct phx_err *err)
{
    char *path = phx_mem_printf("%s/config.json", dir);
    int   rc = 0;

    if (mkdir(dir, 0755) != 0 && errno != EEXIST)
        rc = phx_fail(err, PHX_E_IO, "make %s: %s", dir, strerror(errno));
    else if (access(path, F_OK) == 0)
        rc = phx_fail(err, PHX_E_STATE, "%s already holds a checkpoint; name an empty folder", dir);
    phx_mem_free(path);
    return rc;
}

static void report(const struct options *o, const struct phx_synth_layout *l, int64_t took_ns)
{
    double seconds = (double)took_ns / 1e9;
    char   size[24], rate[24];

    if (o->is_json) {
        json_t *facts = json_pack("{s:s,s:i,s:i,s:I,s:f}", "dir", o->dir, "tensors", l->n, "files",
                                  l->n_files, "bytes", (json_int_t)l->total_bytes, "seconds", seconds);

        (void)json_dumpf(facts, stdout, JSON_COMPACT); /* a closed pipe ends the process anyway */
        printf("\n");
        json_decref(facts);
        return;
    }
    phx_tool_format_bytes(l->total_bytes, size);
    phx_tool_format_bytes(seconds > 0 ? (uint64_t)((double)l->total_bytes / seconds) : 0, rate);
    printf("%s: %d tensors in %d file%s, %s in %.1f s (%s/s)\n", o->dir, l->n, l->n_files,
           l->n_files == 1 ? "" : "s", size, seconds, rate);
}

static int make(const struct options *o, json_t *config, struct phx_err *err)
{
    struct phx_synth_layout layout;
    int64_t                 start = phx_clock_mono_ns();
    int                     rc;

    if (o->n_layers > 0)
        phx_synth_set_layers(config, o->n_layers);
    if (o->is_vocab_small)
        phx_synth_shrink_vocabulary(config);
    rc = check_config(config, err);
    if (rc == 0)
        rc = phx_synth_layout_make(config, o->shard_bytes, &layout, err);
    if (rc != 0)
        return rc;
    rc = make_dir(o->dir, err);
    if (rc == 0)
        rc = phx_synth_write(o->dir, config, &layout, o->seed, o->n_threads, err);
    if (rc == 0)
        rc = phx_synth_write_text(o->dir, config, err);
    if (rc == 0) /* last: a folder without it was not finished */
        rc = write_config(o->dir, config, err);
    if (rc == 0)
        report(o, &layout, phx_clock_mono_ns() - start);
    phx_synth_layout_fini(&layout);
    return rc;
}

int phx_tool_synth(int argc, char **argv)
{
    struct options o = {.seed = 1, .shard_bytes = UINT64_C(4800000000),
                        .n_threads = (int32_t)sysconf(_SC_NPROCESSORS_ONLN)};
    struct phx_err err = {0};
    json_t        *config = NULL;
    int            rc;

    argp_parse(&command, argc, argv, 0, NULL, &o); /* ends the process on bad usage */
    rc = load_config(&o, &config, &err);
    if (rc == 0)
        rc = make(&o, config, &err);
    json_decref(config);
    return rc == 0 ? PHX_TOOL_OK : phx_tool_fail(&err);
}
