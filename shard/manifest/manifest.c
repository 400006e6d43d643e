/* SPDX-License-Identifier: Apache-2.0
 * Reads the in-toto statement of a bundle. */
#include "shard/manifest/manifest.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/hex.h"
#include "rpc/base/json.h"
#include "rpc/base/mem.h"
#include "shard/manifest/entry.h"

#define STATEMENT_TYPE "https://in-toto.io/Statement/v1"
#define PREDICATE_TYPE "https://model_signing/signature/v1.0"

static int expect(const json_t *object, const char *where, const char *key, const char *value,
                  struct phx_err *err)
{
    const char *found = "";
    int         rc = phx_json_get_str(object, where, key, 256, &found, err);

    if (rc == 0 && strcmp(found, value) != 0)
        rc = phx_fail(err, PHX_E_UNSUPPORTED, PHX_MANIFEST_FILE ": %s%s%s must be %s", where,
                      where[0] != '\0' ? "." : "", key, value);
    return rc;
}

static int read_digest(const char *hex, const char *name, uint8_t digest[PHX_SHA256_BYTES], struct phx_err *err)
{
    return phx_hex_decode(digest, PHX_SHA256_BYTES, hex, NULL) == 0
               ? 0
               : phx_fail(err, PHX_E_FORMAT, PHX_MANIFEST_FILE ": %.100s: the digest is not 64 hex digits", name);
}

static int read_resource(struct phx_manifest *m, const json_t *r, struct phx_err *err)
{
    struct phx_manifest_entry *e = &m->entries[m->n_entries];
    const char                *name = "", *digest = "";
    int                        rc = phx_json_check_object(r, "predicate.resources", err);

    if (rc == 0)
        rc = phx_json_get_str(r, "predicate.resources", "name", PHX_MANIFEST_NAME_MAX, &name, err);
    if (rc == 0)
        rc = phx_manifest_check_name(name, err);
    if (rc == 0)
        rc = expect(r, "predicate.resources", "algorithm", "sha256", err);
    if (rc == 0)
        rc = phx_json_get_str(r, "predicate.resources", "digest", 64, &digest, err);
    if (rc == 0)
        rc = read_digest(digest, name, e->digest, err);
    if (rc == 0 && m->n_entries > 0 && strcmp(m->entries[m->n_entries - 1].name, name) >= 0)
        rc = phx_fail(err, PHX_E_FORMAT, PHX_MANIFEST_FILE ": '%.100s' is twice there or out of order", name);
    if (rc != 0)
        return rc;
    e->name = phx_arena_strdup(m->arena, name);
    m->n_entries++;
    return 0;
}

static struct phx_manifest_entry *find(struct phx_manifest *m, const char *name)
{
    for (int32_t i = 0; i < m->n_entries; i++)
        if (strcmp(m->entries[i].name, name) == 0)
            return &m->entries[i];
    return NULL;
}

static int read_pieces(struct phx_manifest *m, const char *name, const json_t *file, struct phx_err *err)
{
    struct phx_manifest_entry *e = find(m, name);
    const json_t              *list;
    int64_t                    size = 0, n;
    int                        rc = phx_json_check_object(file, "predicate.phalanx.files", err);

    if (rc == 0 && e == NULL)
        rc = phx_fail(err, PHX_E_FORMAT, PHX_MANIFEST_FILE ": pieces of '%.100s', which is no resource", name);
    if (rc == 0)
        rc = phx_json_get_int(file, "predicate.phalanx.files", "size", 0, INT64_MAX / 2, &size, err);
    n = (size + PHX_MANIFEST_PIECE_BYTES - 1) / PHX_MANIFEST_PIECE_BYTES;
    if (rc == 0)
        rc = phx_json_get_array(file, "predicate.phalanx.files", "pieces", 1 << 20, &list, err);
    if (rc == 0 && (int64_t)json_array_size(list) != n)
        rc = phx_fail(err, PHX_E_FORMAT, PHX_MANIFEST_FILE ": '%.100s' must have %lld pieces", name, (long long)n);
    if (rc != 0)
        return rc;
    e->size_bytes = (uint64_t)size;
    e->has_size = true;
    e->n_pieces = (int32_t)n;
    e->pieces = phx_arena_calloc(m->arena, (size_t)n + 1, sizeof(*e->pieces));
    for (int32_t i = 0; i < e->n_pieces && rc == 0; i++) {
        const char *hex = json_string_value(json_array_get(list, (size_t)i));

        rc = read_digest(hex != NULL ? hex : "", name, e->pieces[i], err);
    }
    return rc;
}

/* Our own section: pieces and lineage.  Manifests of others do not have it. */
static int read_own(struct phx_manifest *m, const json_t *predicate, struct phx_err *err)
{
    static const char *const keys[] = {"derived_from", "files", "piece_bytes", NULL};
    const json_t *own = NULL, *files = NULL;
    const char   *parent = "", *name;
    json_t       *file;
    int64_t       bytes = PHX_MANIFEST_PIECE_BYTES;
    int           rc = phx_json_opt_object(predicate, "predicate", "phalanx", &own, err);

    if (rc != 0 || own == NULL)
        return rc;
    rc = phx_json_check_keys(own, "predicate.phalanx", keys, err);
    if (rc == 0)
        rc = phx_json_opt_str(own, "predicate.phalanx", "derived_from", PHX_MANIFEST_ROOT_BYTES - 1, &parent, err);
    if (rc == 0)
        rc = phx_json_get_int(own, "predicate.phalanx", "piece_bytes", PHX_MANIFEST_PIECE_BYTES,
                              PHX_MANIFEST_PIECE_BYTES, &bytes, err);
    if (rc == 0)
        rc = phx_json_get_object(own, "predicate.phalanx", "files", &files, err);
    if (rc != 0)
        return rc;
    (void)memcpy(m->parent, parent, strlen(parent) + 1); /* fits: the length was checked */
    json_object_foreach((json_t *)(uintptr_t)files, name, file)
        if (rc == 0)
            rc = read_pieces(m, name, file, err);
    return rc;
}

static int check_root(struct phx_manifest *m, const json_t *subject, struct phx_err *err)
{
    const json_t *digest = NULL;
    const char   *hex = "", *name = "";
    int           rc = phx_json_check_object(subject, "subject[0]", err);

    if (rc == 0)
        rc = phx_json_get_str(subject, "subject[0]", "name", 256, &name, err);
    if (rc == 0)
        rc = phx_json_get_object(subject, "subject[0]", "digest", &digest, err);
    if (rc == 0)
        rc = phx_json_get_str(digest, "subject[0].digest", "sha256", 64, &hex, err);
    if (rc != 0)
        return rc;
    m->model_name = phx_arena_strdup(m->arena, name);
    phx_manifest_root(m->entries, m->n_entries, m->root);
    return strcmp(m->root + 7, hex) == 0
               ? 0
               : phx_fail(err, PHX_E_FORMAT, PHX_MANIFEST_FILE ": the root is not that of its resources");
}

static int read_statement(struct phx_manifest *m, const json_t *root, struct phx_err *err)
{
    const json_t *subjects = NULL, *predicate = NULL, *serialization = NULL, *resources = NULL;
    int           rc = phx_json_check_object(root, "", err);

    if (rc == 0)
        rc = expect(root, "", "_type", STATEMENT_TYPE, err);
    if (rc == 0)
        rc = expect(root, "", "predicateType", PREDICATE_TYPE, err);
    if (rc == 0)
        rc = phx_json_get_array(root, "", "subject", 1, &subjects, err);
    if (rc == 0)
        rc = phx_json_get_object(root, "", "predicate", &predicate, err);
    if (rc == 0)
        rc = phx_json_get_object(predicate, "predicate", "serialization", &serialization, err);
    if (rc == 0)
        rc = expect(serialization, "predicate.serialization", "method", "files", err);
    if (rc == 0)
        rc = expect(serialization, "predicate.serialization", "hash_type", "sha256", err);
    if (rc == 0)
        rc = phx_json_get_array(predicate, "predicate", "resources", PHX_MANIFEST_FILES_MAX, &resources, err);
    if (rc != 0)
        return rc;
    m->entries = phx_arena_calloc(m->arena, json_array_size(resources) + 1, sizeof(*m->entries));
    for (size_t i = 0; i < json_array_size(resources) && rc == 0; i++)
        rc = read_resource(m, json_array_get(resources, i), err);
    if (rc == 0)
        rc = check_root(m, json_array_get(subjects, 0), err);
    return rc == 0 ? read_own(m, predicate, err) : rc;
}

int phx_manifest_open(const char *dir, const char *public_key, struct phx_manifest **out, struct phx_err *err)
{
    struct phx_manifest *m;
    struct phx_buf       text = {0}, payload = {0};
    json_t              *root = NULL;
    char                *path = phx_mem_printf("%s/" PHX_MANIFEST_FILE, dir);
    int                  rc;

    *out = NULL;
    if (access(path, F_OK) != 0 && errno == ENOENT) {
        rc = phx_fail(err, PHX_E_NOTFOUND, "%s: there is no manifest; make one with phalanx model sign", path);
        phx_mem_free(path);
        return rc;
    }
    m = phx_mem_calloc(1, sizeof(*m));
    m->arena = phx_arena_create();
    rc = phx_buf_read_file(&text, path, PHX_MANIFEST_MAX_BYTES, err);
    if (rc == 0)
        rc = phx_bundle_open(text.data, text.size, path, public_key, &payload, &m->is_verified, err);
    if (rc == 0)
        rc = phx_json_parse(&root, payload.data, payload.size, PHX_MANIFEST_MAX_BYTES, 0, path, err);
    if (rc == 0)
        rc = read_statement(m, root, err);
    json_decref(root);
    phx_buf_fini(&payload);
    phx_buf_fini(&text);
    phx_mem_free(path);
    if (rc != 0) {
        phx_manifest_close(m);
        m = NULL;
    }
    *out = m;
    return rc;
}

void phx_manifest_close(struct phx_manifest *m)
{
    if (m == NULL)
        return;
    phx_arena_destroy(m->arena);
    phx_mem_free(m);
}

void phx_manifest_facts(const struct phx_manifest *m, struct phx_manifest_facts *out)
{
    *out = (struct phx_manifest_facts){m->model_name, m->root, m->parent, m->is_verified, m->n_entries};
}
