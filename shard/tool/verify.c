/* SPDX-License-Identifier: Apache-2.0
 * `phalanx-model verify`: every check that loading would make and some that need all bytes, and the
 * SHA-256 of each file. */
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "rpc/base/hash.h"
#include "rpc/base/hex.h"
#include "rpc/base/mem.h"
#include "shard/load/load.h"
#include "shard/manifest/manifest.h"
#include "shard/model/config.h"
#include "shard/tool/tool.h"

enum { OPT_JSON = 1000, OPT_KEY, READ_BYTES = 4 << 20 };

struct options {
    const char *dir, *key; /* key: "" = the signature is not verified */
    bool        is_json;
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;

    switch (key) {
    case OPT_JSON:
        o->is_json = true;
        return 0;
    case OPT_KEY:
        o->key = arg;
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
    {"key", OPT_KEY, "FILE", 0, "the signer's public key, PEM: " PHX_MANIFEST_FILE " must be signed with it", 0},
    {"json", OPT_JSON, 0, 0, "print one JSON object", 0},
    {0}};

static const struct argp command = {
    option_table, parse_option, "DIR",
    "Checks a checkpoint: files and their index, every tensor of the architecture with its shape and "
    "type, scales of MXFP4 and int8 weights that are no numbers, and the signed manifest if there is one; prints the SHA-256 "
    "of each file.",
    NULL, NULL, NULL};

/* The scales of int8 values, as loading wants them; the inventory knows no other float "_scales". */
static int check_float_scales(const struct phx_ckpt_tensor *t, struct phx_err *err)
{
    uint64_t n = t->size_bytes / sizeof(float);
    int      rc = 0;

    for (uint64_t i = 0; i < n && rc == 0; i++) {
        float scale;

        memcpy(&scale, t->data + i * sizeof(scale), sizeof(scale));
        if (!(scale >= 0 && scale < INFINITY))
            rc = phx_fail(err, PHX_E_FORMAT, "tensor %s: group %llu of row %llu has a scale that is no size", t->name,
                          (unsigned long long)(i % (uint64_t)t->dim[1]), (unsigned long long)(i / (uint64_t)t->dim[1]));
    }
    phx_checkpoint_drop(t, 0, t->size_bytes);
    return rc;
}

/* A scale byte of 255 means "not a number"; no published checkpoint has one. */
static int check_scales(const struct phx_checkpoint *k, struct phx_err *err)
{
    for (int32_t i = 0; i < phx_checkpoint_count(k); i++) {
        const struct phx_ckpt_tensor *t = phx_checkpoint_at(k, i);
        size_t                        n = strlen(t->name);
        const uint8_t                *found;
        int                           rc;

        if (n < 7 || strcmp(t->name + n - 7, "_scales") != 0)
            continue;
        rc = t->dtype == PHX_CKPT_F32 ? check_float_scales(t, err) : 0;
        if (rc != 0)
            return rc;
        if (t->dtype != PHX_CKPT_U8)
            continue;
        found = t->size_bytes > 0 ? memchr(t->data, 255, (size_t)t->size_bytes) : NULL;
        phx_checkpoint_drop(t, 0, t->size_bytes);
        if (found != NULL)
            return phx_fail(err, PHX_E_FORMAT, "tensor %s: scale %llu is not a number (255)", t->name,
                            (unsigned long long)(found - t->data));
    }
    return 0;
}

struct work {
    const struct options    *options;
    struct phx_tool_progress progress;
    uint64_t                 done_bytes, total_bytes;
    uint8_t                 *block;
    json_t                  *files;
    char                     root[PHX_MANIFEST_ROOT_BYTES]; /* of the manifest, "" = there is none */
    bool                     is_signed;                     /* by the given key */
};

static int hash_file(struct work *w, const char *name, struct phx_err *err)
{
    char             *path = phx_mem_printf("%s/%s", w->options->dir, name);
    int               fd = open(path, O_RDONLY | O_CLOEXEC), rc = 0;
    struct phx_sha256 h;
    uint8_t           digest[PHX_SHA256_BYTES];
    char              hex[PHX_SHA256_HEX];
    uint64_t          size = 0;
    ssize_t           n = 0;

    phx_sha256_init(&h);
    while (fd >= 0 && ((n = read(fd, w->block, READ_BYTES)) > 0 || (n < 0 && errno == EINTR))) {
        if (n < 0)
            continue;
        phx_sha256_update(&h, w->block, (size_t)n);
        size += (uint64_t)n;
        w->done_bytes += (uint64_t)n;
        phx_tool_progress_show(&w->progress, w->done_bytes, w->total_bytes);
    }
    if (fd < 0 || n < 0) {
        rc = phx_fail(err, PHX_E_IO, "read %s: %s", path, strerror(errno));
        phx_sha256_fini(&h);
    } else {
        phx_sha256_final(&h, digest);
        phx_hex_encode(hex, sizeof(hex), digest, sizeof(digest));
        json_array_append_new(w->files, json_pack("{s:s,s:I,s:s}", "name", name, "bytes",
                                                  (json_int_t)size, "sha256", hex));
    }
    if (fd >= 0)
        (void)close(fd); /* nothing was written */
    phx_mem_free(path);
    return rc;
}

/* The text files beside the weights, where there are any. */
static const char *const text_files[] = {"config.json",           "generation_config.json",
                                         "tokenizer.json",        "tokenizer_config.json",
                                         "special_tokens_map.json", "chat_template.jinja",
                                         "model.safetensors.index.json"};

static int hash_all(struct work *w, const struct phx_checkpoint *k, struct phx_err *err)
{
    int rc = 0;

    for (size_t i = 0; i < sizeof(text_files) / sizeof(text_files[0]) && rc == 0; i++) {
        char *path = phx_mem_printf("%s/%s", w->options->dir, text_files[i]);

        if (access(path, F_OK) == 0)
            rc = hash_file(w, text_files[i], err);
        phx_mem_free(path);
    }
    for (int32_t i = 0; i < phx_checkpoint_files(k) && rc == 0; i++)
        rc = hash_file(w, phx_checkpoint_file(k, i), err);
    return rc;
}

/* The folder against its manifest. */
static int check_manifest(struct work *w, struct phx_err *err)
{
    const struct options     *o = w->options;
    struct phx_manifest      *m = NULL;
    struct phx_manifest_facts facts;
    int                       rc = phx_manifest_open(o->dir, o->key, &m, err);

    if (rc == PHX_E_NOTFOUND && o->key[0] == '\0')
        return 0;
    if (rc == 0)
        rc = phx_manifest_check(m, o->dir, 0, 1, phx_tool_progress_show, &w->progress, err);
    if (rc == 0) {
        phx_manifest_facts(m, &facts);
        (void)snprintf(w->root, sizeof(w->root), "%s", facts.root);
        w->is_signed = facts.is_verified;
    }
    phx_manifest_close(m);
    return rc;
}

static void print(const struct work *w, const struct phx_checkpoint *k)
{
    size_t  i;
    json_t *file;

    if (w->options->is_json) {
        json_t *root = json_pack("{s:b,s:i,s:I,s:O,s:s,s:b}", "ok", 1, "tensors",
                                 phx_checkpoint_count(k), "bytes", (json_int_t)phx_checkpoint_bytes(k),
                                 "files", w->files, "manifest_root", w->root, "is_signed",
                                 (int)w->is_signed);

        (void)json_dumpf(root, stdout, JSON_COMPACT); /* a closed pipe ends the process anyway */
        printf("\n");
        json_decref(root);
        return;
    }
    json_array_foreach(w->files, i, file)
        printf("%s  %s\n", json_string_value(json_object_get(file, "sha256")),
               json_string_value(json_object_get(file, "name")));
    printf("ok: %d tensors, %llu bytes, %s %s\n", phx_checkpoint_count(k),
           (unsigned long long)phx_checkpoint_bytes(k),
           w->root[0] == '\0'  ? "no manifest"
           : w->is_signed      ? "signed manifest"
                               : "manifest (its signature was not verified: give --key)",
           w->root);
}

static int run(const struct options *o, const struct phx_checkpoint *k, struct phx_err *err)
{
    struct phx_model_config *c = phx_mem_calloc(1, sizeof(*c));
    struct work              w = {.options = o, .total_bytes = phx_checkpoint_bytes(k)};
    int                      rc = phx_model_config_load(o->dir, k, c, err);

    if (rc == 0)
        rc = phx_inventory_check(c, k, err);
    if (rc == 0)
        rc = check_scales(k, err);
    phx_mem_free(c);
    if (rc != 0)
        return rc;
    w.files = json_array();
    w.block = phx_mem_calloc(1, READ_BYTES);
    phx_tool_progress_start(&w.progress, "sha256");
    rc = check_manifest(&w, err);
    if (rc == 0)
        rc = hash_all(&w, k, err);
    phx_tool_progress_end(&w.progress);
    if (rc == 0)
        print(&w, k);
    phx_mem_free(w.block);
    json_decref(w.files);
    return rc;
}

int phx_tool_verify(int argc, char **argv)
{
    struct options         o = {.key = ""};
    struct phx_checkpoint *checkpoint;
    struct phx_err         err = {0};
    int                    rc;

    argp_parse(&command, argc, argv, 0, NULL, &o); /* ends the process on bad usage */
    rc = phx_checkpoint_open(o.dir, &checkpoint, &err);
    if (rc == 0)
        rc = run(&o, checkpoint, &err);
    phx_checkpoint_close(checkpoint);
    if (rc != 0 && o.is_json) {
        json_t *root = json_pack("{s:b,s:s}", "ok", 0, "error", err.text);

        (void)json_dumpf(root, stdout, JSON_COMPACT); /* a closed pipe ends the process anyway */
        printf("\n");
        json_decref(root);
    }
    return rc == 0 ? PHX_TOOL_OK : phx_tool_fail(&err);
}
