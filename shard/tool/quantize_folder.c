/* SPDX-License-Identifier: Apache-2.0
 * What lies beside the weights: copied, and config.json told of the int8 values. */
#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "rpc/base/buf.h"
#include "rpc/base/json.h"
#include "rpc/base/mem.h"
#include "shard/manifest/manifest.h"
#include "shard/tool/quantize.h"

enum { FILE_MAX_BYTES = 256 << 20, CONFIG_MAX_BYTES = 1 << 20 };

static bool is_any(const char *name, const char *const *patterns)
{
    for (; *patterns != NULL; patterns++)
        if (fnmatch(*patterns, name, 0) == 0)
            return true;
    return false;
}

/* Written anew, or no part of a model. */
static const char *const ours[] = {"*.safetensors", "*.safetensors.index.json", "config.json", PHX_MANIFEST_FILE,
                                   ".*", NULL};
static const char *const copied[] = {"*.json", "*.jinja",   "*.tiktoken", "*.model", "*.txt",
                                     "*.md",   "LICENSE*", "NOTICE*",    NULL};

static int copy_file(const struct phx_quantize *q, const char *name, struct phx_err *err)
{
    char          *from = phx_mem_printf("%s/%s", q->from, name), *to = phx_mem_printf("%s/%s", q->to, name);
    struct phx_buf text;
    int            rc = phx_buf_read_file(&text, from, FILE_MAX_BYTES, err);

    if (rc == 0) {
        rc = phx_file_write(to, text.data, text.size, 0644, err);
        phx_buf_fini(&text);
    }
    phx_mem_free(from);
    phx_mem_free(to);
    return rc;
}

static int take_entry(const struct phx_quantize *q, const char *name, struct phx_err *err)
{
    char       *path = phx_mem_printf("%s/%s", q->from, name);
    struct stat st;
    bool        is_file = stat(path, &st) == 0 && S_ISREG(st.st_mode);

    phx_mem_free(path);
    if (is_any(name, ours))
        return 0;
    if (is_file && is_any(name, copied))
        return copy_file(q, name, err);
    fprintf(stderr, "phalanx-model: %s/%s is left out\n", q->from, name);
    return 0;
}

static int write_config(const struct phx_quantize *q, struct phx_err *err)
{
    char   *from = phx_mem_printf("%s/config.json", q->from), *to = phx_mem_printf("%s/config.json", q->to);
    json_t *root = NULL, *quantization;
    char   *text = NULL;
    int     rc = phx_json_load(&root, from, CONFIG_MAX_BYTES, 0, err);

    if (rc == 0) {
        quantization = json_pack("{s:s,s:i,s:i,s:i}", "quant_method", PHX_QUANT_METHOD, "bits", 8, "group_size",
                                 (int)PHX_I8_GROUP, "k_slices", (int)PHX_SLICES_MAX);
        if (q->config->n_experts > 0 && q->config->expert_dtype == PHX_DTYPE_MXFP4)
            json_object_set_new(quantization, "experts", json_string("mxfp4"));
        if (q->parent[0] != '\0')
            json_object_set_new(quantization, "derived_from", json_string(q->parent));
        json_object_set_new(root, "quantization_config", quantization);
        text = json_dumps(root, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
        rc = text != NULL ? phx_file_write(to, text, strlen(text), 0644, err)
                          : phx_fail(err, PHX_E_NOMEM, "config.json: no memory");
    }
    free(text); /* jansson's memory */
    json_decref(root);
    phx_mem_free(from);
    phx_mem_free(to);
    return rc;
}

int phx_quantize_folder(struct phx_quantize *q, struct phx_err *err)
{
    DIR           *folder = opendir(q->from);
    struct dirent *e;
    int            rc = 0;

    if (folder == NULL)
        return phx_fail(err, PHX_E_IO, "%s: %s", q->from, strerror(errno));
    while (rc == 0 && (e = readdir(folder)) != NULL)
        rc = take_entry(q, e->d_name, err);
    (void)closedir(folder); /* was only read */
    return rc != 0 ? rc : write_config(q, err);
}

static bool has_file(const char *dir, const char *pattern)
{
    DIR           *folder = opendir(dir);
    struct dirent *e;
    bool           is_there = false;

    while (folder != NULL && !is_there && (e = readdir(folder)) != NULL)
        is_there = fnmatch(pattern, e->d_name, 0) == 0;
    if (folder != NULL)
        (void)closedir(folder); /* was only read */
    return is_there;
}

int phx_quantize_check_papers(const char *dir, struct phx_err *err)
{
    const char *missing = !has_file(dir, "LICENSE*") ? "LICENSE" : !has_file(dir, "NOTICE*") ? "NOTICE" : NULL;

    return missing == NULL ? 0
                           : phx_fail(err, PHX_E_DENIED, "%s has no %s file: a derived model that is signed must carry "
                                      "its parent's LICENSE and NOTICE", dir, missing);
}
