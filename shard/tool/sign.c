/* SPDX-License-Identifier: Apache-2.0
 * `phalanx-model sign`: writes DIR/model.sig. */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "rpc/base/mem.h"
#include "shard/manifest/manifest.h"
#include "shard/tool/tool.h"

enum { OPT_JSON = 1000, OPT_KEY, OPT_PARENT, OPT_NAME };

struct options {
    const char *dir, *key, *parent, *name;
    bool        is_json;
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;

    switch (key) {
    case OPT_JSON: o->is_json = true; return 0;
    case OPT_KEY: o->key = arg; return 0;
    case OPT_PARENT: o->parent = arg; return 0;
    case OPT_NAME: o->name = arg; return 0;
    case ARGP_KEY_ARG:
        if (o->dir != NULL)
            argp_usage(state);
        o->dir = arg;
        return 0;
    case ARGP_KEY_END:
        if (o->dir == NULL)
            argp_usage(state);
        if (o->key == NULL)
            argp_error(state, "--key FILE is needed: a PEM file with an EC key "
                              "(openssl ecparam -name prime256v1 -genkey -noout)");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option option_table[] = {
    {"key", OPT_KEY, "FILE", 0, "EC private key, PEM (P-256, P-384 or P-521)", 0},
    {"derived-from", OPT_PARENT, "ROOT", 0, "sha256:... of the model this one was made from", 0},
    {"name", OPT_NAME, "NAME", 0, "name in the manifest (default: the folder's)", 0},
    {"json", OPT_JSON, 0, 0, "print one JSON object", 0},
    {0}};

static const struct argp command = {
    option_table, parse_option, "DIR",
    "Writes DIR/" PHX_MANIFEST_FILE ", the signed digests of every file, as the OpenSSF model signing "
    "specification 1.0 has it.",
    NULL, NULL, NULL};

int phx_tool_sign(int argc, char **argv)
{
    struct options           o = {.parent = ""};
    struct phx_tool_progress progress;
    struct phx_err           err = {0};
    char                     root[PHX_MANIFEST_ROOT_BYTES], *real;
    const char              *slash;
    int                      rc;

    argp_parse(&command, argc, argv, 0, NULL, &o); /* ends the process on bad usage */
    real = realpath(o.dir, NULL);
    slash = real != NULL ? strrchr(real, '/') : NULL;
    phx_tool_progress_start(&progress, "sha256");
    rc = phx_manifest_sign(o.dir, o.name != NULL ? o.name : slash != NULL ? slash + 1 : "model", o.key, o.parent,
                           phx_tool_progress_show, &progress, root, &err);
    phx_tool_progress_end(&progress);
    free(real);
    if (rc != 0)
        return phx_tool_fail(&err);
    if (o.is_json)
        printf("{\"manifest\":\"" PHX_MANIFEST_FILE "\",\"root\":\"%s\"}\n", root);
    else
        printf("%s  %s/" PHX_MANIFEST_FILE "\n", root, o.dir);
    return PHX_TOOL_OK;
}
