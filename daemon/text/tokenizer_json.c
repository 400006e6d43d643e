/* SPDX-License-Identifier: Apache-2.0
 * Opening tokenizer.json and tokenizer_config.json. */
#include <string.h>
#include <unistd.h>

#include "daemon/text/json_field.h"
#include "daemon/text/tokenizer.h"
#include "rpc/base/json.h"
#include "rpc/base/mem.h"

/* ---- post_processor ---- */

/* The ids a template's special token stands for. */
static int put_template_token(json_t *processor, json_t *token, struct phx_ids *out,
                              const struct phx_tokenizer *t, const char *where, struct phx_err *err)
{
    const char *name = phx_field_text(token, "id", where, err);
    if (!name)
        return PHX_E_FORMAT;
    json_t *entry = json_object_get(json_object_get(processor, "special_tokens"), name), *id;
    json_t *ids = json_object_get(entry, "ids");
    size_t  i;
    if (!json_is_array(ids) || json_array_size(ids) == 0)
        return phx_fail(err, PHX_E_FORMAT, "%s: post_processor has no ids for a special token",
                        where);
    json_array_foreach(ids, i, id)
    {
        if (!json_is_integer(id) || !phx_vocab_has(&t->vocab, json_integer_value(id)))
            return phx_fail(err, PHX_E_FORMAT, "%s: post_processor names an id without a token",
                            where);
        phx_ids_put(out, (int32_t)json_integer_value(id));
    }
    return 0;
}

static int read_template(struct phx_tokenizer *t, json_t *value, const char *where,
                         struct phx_err *err)
{
    json_t *item;
    size_t  i;
    int     n_sequences = 0;
    json_array_foreach(json_object_get(value, "single"), i, item)
    {
        json_t *special = json_object_get(item, "SpecialToken");
        json_t *sequence = json_object_get(item, "Sequence");
        if (sequence)
            n_sequences++;
        int rc = 0;
        if (special)
            rc = put_template_token(value, special, n_sequences ? &t->suffix : &t->prefix, t, where,
                                    err);
        else if (!sequence)
            rc = phx_fail(err, PHX_E_UNSUPPORTED, "%s: post_processor.single[%zu] is not known",
                          where, i);
        if (rc)
            return rc;
    }
    if (n_sequences != 1)
        return phx_fail(err, PHX_E_FORMAT, "%s: post_processor.single must hold the text once",
                        where);
    return 0;
}

int phx_tokenizer_read_post(struct phx_tokenizer *t, json_t *value, const char *where,
                            struct phx_err *err)
{
    if (!value || json_is_null(value))
        return 0;
    const char *type = phx_field_text(value, "type", where, err);
    if (!type)
        return PHX_E_FORMAT;
    if (strcmp(type, "ByteLevel") == 0)
        return 0; /* moves offsets, adds no ids */
    if (strcmp(type, "TemplateProcessing") == 0)
        return read_template(t, value, where, err);
    if (strcmp(type, "Sequence") != 0)
        return phx_fail(err, PHX_E_UNSUPPORTED,
                        "%s: post_processor type \"%.40s\" is not supported", where, type);
    json_t *item;
    size_t  i;
    json_array_foreach(json_object_get(value, "processors"), i, item)
    {
        const char *inner = json_string_value(json_object_get(item, "type"));
        if (inner && strcmp(inner, "Sequence") == 0)
            return phx_fail(err, PHX_E_UNSUPPORTED, "%s: nested post_processor Sequence", where);
        int rc = phx_tokenizer_read_post(t, item, where, err);
        if (rc)
            return rc;
    }
    return 0;
}

/* ---- tokenizer_config.json ---- */

/* A token by name: "name" or {"content": "name"}.  *id stays -1 when the key is missing or null. */
static int read_named(const struct phx_tokenizer *t, json_t *config, const char *key,
                      const char *where, int32_t *id, struct phx_err *err)
{
    json_t     *value = json_object_get(config, key);
    const char *name =
        json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
    if (!name)
        return 0;
    *id = phx_tokenizer_id(t, name);
    if (*id < 0)
        return phx_fail(err, PHX_E_FORMAT, "%s: %s is not in the vocabulary", where, key);
    return 0;
}

/* The flags win over the template, as in the reference's Llama tokenizer. */
static void set_affix(struct phx_ids *ids, int32_t id, bool wanted)
{
    bool has = false;
    for (size_t i = 0; i < ids->n; i++)
        has = has || ids->data[i] == id;
    if (wanted == has)
        return;
    if (wanted) {
        phx_ids_put(ids, id);
        return;
    }
    size_t n = 0;
    for (size_t i = 0; i < ids->n; i++)
        if (ids->data[i] != id)
            ids->data[n++] = ids->data[i];
    ids->n = n;
}

int phx_tokenizer_read_config(struct phx_tokenizer *t, json_t *config, const char *where,
                              struct phx_err *err)
{
    struct phx_err ignored; /* a pad token is never used here, so its name may be unknown */
    bool           flag = false;
    int            rc = read_named(t, config, "bos_token", where, &t->bos, err);
    if (rc == 0)
        rc = read_named(t, config, "eos_token", where, &t->eos, err);
    (void)read_named(t, config, "pad_token", where, &t->pad, &ignored);
    if (rc == 0)
        rc = phx_field_bool(config, "add_bos_token", where, &flag, err);
    if (rc == 0 && t->bos >= 0 && json_is_boolean(json_object_get(config, "add_bos_token")))
        set_affix(&t->prefix, t->bos, flag);
    flag = false;
    if (rc == 0)
        rc = phx_field_bool(config, "add_eos_token", where, &flag, err);
    if (rc == 0 && t->eos >= 0 && json_is_boolean(json_object_get(config, "add_eos_token")))
        set_affix(&t->suffix, t->eos, flag);
    return rc;
}

/* ---- the file ---- */

static int check_root(json_t *root, const char *where, struct phx_err *err)
{
    static const char *const keys[] = {
        "version",       "truncation",     "padding", "added_tokens", "normalizer",
        "pre_tokenizer", "post_processor", "decoder", "model",        NULL};
    if (!json_is_object(root))
        return phx_fail(err, PHX_E_FORMAT, "%s: not a JSON object", where);
    const char *version = phx_field_text(root, "version", where, err);
    if (!version)
        return PHX_E_FORMAT;
    if (strcmp(version, "1.0") != 0)
        return phx_fail(err, PHX_E_UNSUPPORTED, "%s: version \"%.20s\" is not 1.0", where, version);
    if (!phx_field_is_off(root, "truncation"))
        return phx_fail(err, PHX_E_UNSUPPORTED, "%s: \"truncation\" must be null", where);
    if (!phx_field_is_off(root, "padding") &&
        !json_is_string(json_object_get(json_object_get(root, "padding"), "strategy")))
        return phx_fail(err, PHX_E_UNSUPPORTED, "%s: \"padding\" to a fixed length", where);
    return phx_field_only(root, keys, where, err);
}

static int read_root(struct phx_tokenizer *t, json_t *root, const char *where, struct phx_err *err)
{
    int rc = check_root(root, where, err);
    if (rc == 0)
        rc = phx_normalizer_parse(&t->normalizer, json_object_get(root, "normalizer"), where, err);
    if (rc == 0)
        rc = phx_splitter_parse(&t->splitter, json_object_get(root, "pre_tokenizer"), where, err);
    t->is_byte_level = t->splitter.is_byte_level;
    if (rc == 0)
        rc = phx_tokenizer_read_model(t, root, where, err);
    if (rc == 0)
        rc = phx_tokenizer_read_decoder(t, root, where, err);
    if (rc == 0)
        rc = phx_tokenizer_read_post(t, json_object_get(root, "post_processor"), where, err);
    if (rc == 0)
        rc = phx_tokenizer_finish(t, err);
    return rc;
}

static int open_root(json_t *root, const char *where, struct phx_tokenizer **out,
                     struct phx_err *err)
{
    struct phx_tokenizer *t = phx_tokenizer_create();
    int                   rc = read_root(t, root, where, err);
    if (rc) {
        phx_tokenizer_close(t);
        return rc;
    }
    *out = t;
    return 0;
}

int phx_tokenizer_open_json(const char *json, size_t size_bytes, const char *name,
                            struct phx_tokenizer **out, struct phx_err *err)
{
    json_t *root = NULL;
    *out = NULL;
    int rc = phx_json_parse(&root, json, size_bytes, PHX_TEXT_FILE_BYTES_MAX, 0, name, err);
    if (rc == 0)
        rc = open_root(root, name, out, err);
    json_decref(root);
    return rc;
}

int phx_tokenizer_open_file(const char *path, struct phx_tokenizer **out, struct phx_err *err)
{
    json_t *root = NULL;
    *out = NULL;
    int rc = phx_json_load(&root, path, PHX_TEXT_FILE_BYTES_MAX, 0, err);
    if (rc == 0)
        rc = open_root(root, path, out, err);
    json_decref(root);
    return rc;
}

int phx_tokenizer_open_dir(const char *dir, struct phx_tokenizer **out, struct phx_err *err)
{
    char *path = phx_mem_printf("%s/tokenizer.json", dir);
    int   rc = phx_tokenizer_open_file(path, out, err);
    phx_mem_free(path);
    path = phx_mem_printf("%s/tokenizer_config.json", dir);
    if (rc == 0 && access(path, F_OK) == 0) {
        json_t *config = NULL;
        rc = phx_field_load_config(path, &config, err);
        if (rc == 0)
            rc = phx_tokenizer_read_config(*out, config, path, err);
        json_decref(config);
    }
    if (rc) {
        phx_tokenizer_close(*out);
        *out = NULL;
    }
    phx_mem_free(path);
    return rc;
}
