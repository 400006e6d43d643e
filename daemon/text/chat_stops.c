/* SPDX-License-Identifier: Apache-2.0
 * The stop set: a union, because each source forgets some (replacing one by another gives answers
 * that never end). */
#include <stdlib.h>
#include <unistd.h>

#include "daemon/text/chat.h"
#include "rpc/base/json.h"
#include "rpc/base/mem.h"

static void add(struct phx_text *t, int32_t id)
{
    if (id < 0)
        return;
    for (size_t i = 0; i < t->stops.n; i++)
        if (t->stops.data[i] == id)
            return;
    phx_ids_put(&t->stops, id);
}

static int add_value(struct phx_text *t, json_t *value, const char *path, struct phx_err *err)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) >= PHX_VOCAB_MAX)
        return phx_fail(err, PHX_E_FORMAT, "%s: eos_token_id must be a token id or a list of them",
                        path);
    add(t, (int32_t)json_integer_value(value));
    return 0;
}

static int add_file(struct phx_text *t, const char *dir, const char *file, struct phx_err *err)
{
    char   *path = phx_mem_printf("%s/%s", dir, file);
    json_t *root = NULL, *item;
    size_t  i;
    int     rc = 0;
    if (access(path, F_OK) == 0)
        rc = phx_json_load(&root, path, PHX_TEXT_FILE_BYTES_MAX, 0, err);
    json_t *value = json_object_get(root, "eos_token_id");
    if (rc == 0 && value && !json_is_null(value) && !json_is_array(value))
        rc = add_value(t, value, path, err);
    json_array_foreach(value, i, item) if (rc == 0) rc = add_value(t, item, path, err);
    json_decref(root);
    phx_mem_free(path);
    return rc;
}

static void drop(struct phx_text *t, int32_t id)
{
    size_t n = 0;
    for (size_t i = 0; i < t->stops.n; i++)
        if (t->stops.data[i] != id)
            t->stops.data[n++] = t->stops.data[i];
    t->stops.n = n;
}

static int ascending(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

int phx_text_find_stops(struct phx_text *t, const char *dir, struct phx_err *err)
{
    static const char *const extras[] = {"<|eot_id|>", "<|eom_id|>", "<|end_of_text|>",
                                         "<|im_end|>", "<|endoftext|>"};
    int                      rc = add_file(t, dir, "config.json", err);
    if (rc == 0)
        rc = add_file(t, dir, "generation_config.json", err);
    if (rc)
        return rc;
    add(t, phx_tokenizer_eos(t->tokenizer));
    for (size_t i = 0; i < sizeof extras / sizeof extras[0]; i++) {
        int32_t id = phx_tokenizer_id(t->tokenizer, extras[i]);
        if (phx_tokenizer_is_special(t->tokenizer, id))
            add(t, id);
    }
    if (t->template.style == PHX_STYLE_HARMONY) {
        add(t, t->harmony.ret);
        add(t, t->harmony.call);
        drop(t, t->harmony.end); /* ends a message: stopping there loses the answer */
    }
    if (t->stops.n > 0)
        qsort(t->stops.data, t->stops.n, sizeof *t->stops.data, ascending);
    return 0;
}
