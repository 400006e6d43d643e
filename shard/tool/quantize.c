/* SPDX-License-Identifier: Apache-2.0
 * `phalanx-model quantize`: a copy of a checkpoint whose dense weights are int8, as loading with --dtype int8 makes
 * them: the same values, so the same answers. */
#include "shard/tool/quantize.h"

#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <jansson.h>

#include "rpc/base/mem.h"
#include "shard/manifest/manifest.h"

enum { OPT_JSON = 1000, OPT_DTYPE, OPT_KEY, OPT_PARENT_KEY, OPT_NAME };

struct options {
    const char *from, *to, *key, *parent_key, *name; /* keys: "" = none */
    bool        is_json;
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;

    switch (key) {
    case OPT_JSON: o->is_json = true; return 0;
    case OPT_KEY: o->key = arg; return 0;
    case OPT_PARENT_KEY: o->parent_key = arg; return 0;
    case OPT_NAME: o->name = arg; return 0;
    case OPT_DTYPE:
        if (strcmp(arg, "int8") != 0)
            argp_error(state, "--dtype: int8 is the only one");
        return 0;
    case ARGP_KEY_ARG:
        if (o->to != NULL)
            argp_usage(state);
        *(o->from == NULL ? &o->from : &o->to) = arg;
        return 0;
    case ARGP_KEY_END:
        if (o->to == NULL)
            argp_usage(state);
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option option_table[] = {
    {"dtype", OPT_DTYPE, "int8", 0, "of the dense weights (int8)", 0},
    {"key", OPT_KEY, "FILE", 0, "EC private key, PEM: signs the copy, derived from the source's root", 0},
    {"parent-key", OPT_PARENT_KEY, "FILE", 0, "the source must be signed with this public key", 0},
    {"name", OPT_NAME, "NAME", 0, "name in the copy's manifest (default: the folder's)", 0},
    {"json", OPT_JSON, 0, 0, "print one JSON object", 0},
    {0}};

static const struct argp command = {
    option_table, parse_option, "SOURCE NEW",
    "Writes the checkpoint SOURCE into the folder NEW with int8 weights: attention, dense ffn, embedding and head; "
    "experts, router, norms and biases stay as they are.  It answers as SOURCE does with --dtype int8.",
    NULL, NULL, NULL};

/* The source against its manifest, and its root.  A copy that is signed has to name it. */
static int check_source(const struct options *o, struct phx_quantize *q, char root[PHX_MANIFEST_ROOT_BYTES],
                        struct phx_err *err)
{
    struct phx_manifest      *m = NULL;
    struct phx_manifest_facts facts;
    int                       rc = phx_manifest_open(o->from, o->parent_key, &m, err);

    root[0] = '\0';
    if (rc == PHX_E_NOTFOUND && o->parent_key[0] == '\0' && o->key[0] == '\0')
        return 0;
    if (rc == 0)
        rc = phx_manifest_check(m, o->from, 0, 1, phx_tool_progress_show, &q->progress, err);
    if (rc == 0) {
        phx_manifest_facts(m, &facts);
        (void)snprintf(root, PHX_MANIFEST_ROOT_BYTES, "%s", facts.root);
    }
    if (rc == 0 && o->key[0] != '\0')
        rc = phx_quantize_check_papers(o->from, err);
    phx_manifest_close(m);
    return rc;
}

static int make_copy(const struct options *o, struct phx_quantize *q, struct phx_err *err)
{
    int rc = 0;

    if (mkdir(o->to, 0755) != 0)
        rc = phx_fail(err, PHX_E_IO, "create %s: %s", o->to, strerror(errno));
    phx_tool_progress_start(&q->progress, "int8");
    if (rc == 0)
        rc = phx_quantize_files(q, err);
    phx_tool_progress_end(&q->progress);
    return rc != 0 ? rc : phx_quantize_folder(q, err);
}

static int sign(const struct options *o, struct phx_quantize *q, char root[PHX_MANIFEST_ROOT_BYTES],
                struct phx_err *err)
{
    char       *real = realpath(o->to, NULL);
    const char *slash = real != NULL ? strrchr(real, '/') : NULL;
    int         rc;

    phx_tool_progress_start(&q->progress, "sha256");
    rc = phx_manifest_sign(o->to, o->name != NULL ? o->name : slash != NULL ? slash + 1 : "model", o->key, q->parent,
                           phx_tool_progress_show, &q->progress, root, err);
    phx_tool_progress_end(&q->progress);
    free(real);
    return rc;
}

static void print(const struct options *o, const struct phx_quantize *q, const char *root)
{
    char before[24], after[24];

    if (o->is_json) {
        json_t *out = json_pack("{s:i,s:I,s:I,s:s,s:s}", "matrices", q->n_matrices, "source_bytes",
                                (json_int_t)phx_checkpoint_bytes(q->checkpoint), "bytes",
                                (json_int_t)q->written_bytes, "derived_from", q->parent, "root", root);

        (void)json_dumpf(out, stdout, JSON_COMPACT); /* a closed pipe ends the process anyway */
        printf("\n");
        json_decref(out);
        return;
    }
    phx_tool_format_bytes(phx_checkpoint_bytes(q->checkpoint), before);
    phx_tool_format_bytes(q->written_bytes, after);
    printf("%s: %d matrices as int8, %s of %s\n", o->to, q->n_matrices, after, before);
    if (root[0] != '\0')
        printf("%s  %s/" PHX_MANIFEST_FILE ", derived from %s\n", root, o->to, q->parent);
    else if (q->parent[0] != '\0')
        printf("not signed; with LICENSE and NOTICE in it: phalanx model sign %s --key KEY --derived-from %s\n", o->to,
               q->parent);
}

static int run(const struct options *o, struct phx_quantize *q, struct phx_err *err)
{
    struct phx_model_config *c = phx_mem_calloc(1, sizeof(*c));
    char                     parent[PHX_MANIFEST_ROOT_BYTES] = "", root[PHX_MANIFEST_ROOT_BYTES] = "";
    int                      rc = phx_model_config_load(o->from, q->checkpoint, c, err);

    q->config = c;
    q->parent = parent;
    if (rc == 0)
        rc = phx_inventory_check(c, q->checkpoint, err);
    if (rc == 0 && c->is_quantised)
        rc = phx_fail(err, PHX_E_UNSUPPORTED, "%s is quantised already", o->from);
    phx_tool_progress_start(&q->progress, "sha256");
    if (rc == 0)
        rc = check_source(o, q, parent, err);
    phx_tool_progress_end(&q->progress);
    if (rc == 0)
        rc = make_copy(o, q, err);
    if (rc == 0 && o->key[0] != '\0')
        rc = sign(o, q, root, err);
    if (rc == 0)
        print(o, q, root);
    phx_mem_free(c);
    return rc;
}

int phx_tool_quantize(int argc, char **argv)
{
    struct options         o = {.key = "", .parent_key = ""};
    struct phx_quantize    q = {0};
    struct phx_checkpoint *checkpoint = NULL;
    struct phx_err         err = {0};
    int                    rc;

    argp_parse(&command, argc, argv, 0, NULL, &o); /* ends the process on bad usage */
    q.from = o.from;
    q.to = o.to;
    rc = phx_checkpoint_open(o.from, &checkpoint, &err);
    q.checkpoint = checkpoint;
    if (rc == 0)
        rc = run(&o, &q, &err);
    phx_checkpoint_close(checkpoint);
    return rc == 0 ? PHX_TOOL_OK : phx_tool_fail(&err);
}
