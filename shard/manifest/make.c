/* SPDX-License-Identifier: Apache-2.0
 * Makes and signs the manifest of a folder. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/hex.h"
#include "rpc/base/json.h"
#include "rpc/base/mem.h"
#include "shard/manifest/entry.h"

struct make {
    const char                *dir, *model_name, *parent;
    struct phx_arena          *arena;
    struct phx_manifest_entry *entries;
    int32_t                    n;
    uint64_t                   done_bytes, total_bytes;
    phx_manifest_progress_fn   progress;
    void                      *ctx;
};

static int hash_pieces(struct make *m, int fd, struct phx_manifest_entry *e, struct phx_err *err)
{
    struct phx_sha256 whole;
    int               rc = 0;

    e->n_pieces = (int32_t)((e->size_bytes + PHX_MANIFEST_PIECE_BYTES - 1) / PHX_MANIFEST_PIECE_BYTES);
    e->pieces = phx_arena_calloc(m->arena, (size_t)e->n_pieces + 1, sizeof(*e->pieces));
    phx_sha256_init(&whole);
    for (int32_t i = 0; i < e->n_pieces && rc == 0; i++) {
        uint64_t from = (uint64_t)i * PHX_MANIFEST_PIECE_BYTES;
        uint64_t left = e->size_bytes - from;
        uint64_t size = left < PHX_MANIFEST_PIECE_BYTES ? left : PHX_MANIFEST_PIECE_BYTES;

        rc = phx_manifest_hash(fd, e->name, from, from + size, e->pieces[i], &whole, err);
        m->done_bytes += size;
        if (m->progress != NULL)
            m->progress(m->ctx, m->done_bytes, m->total_bytes);
    }
    phx_sha256_final(&whole, e->digest);
    return rc;
}

static int hash_entry(struct make *m, struct phx_manifest_entry *e, struct phx_err *err)
{
    char *path = phx_mem_printf("%s/%s", m->dir, e->name);
    int   fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    int   rc = fd < 0 ? phx_fail(err, PHX_E_IO, "%s: %s", path, strerror(errno)) : hash_pieces(m, fd, e, err);

    if (fd >= 0)
        (void)close(fd); /* was only read */
    phx_mem_free(path);
    return rc;
}

static void put_digest(struct phx_buf *out, const uint8_t digest[PHX_SHA256_BYTES])
{
    char hex[PHX_SHA256_HEX];

    phx_hex_encode(hex, sizeof(hex), digest, PHX_SHA256_BYTES);
    phx_buf_printf(out, "\"%s\"", hex);
}

static void put_resources(const struct make *m, struct phx_buf *out)
{
    for (int32_t i = 0; i < m->n; i++) {
        phx_buf_puts(out, i > 0 ? ",{\"name\":" : "{\"name\":");
        phx_json_put_str(out, m->entries[i].name, strlen(m->entries[i].name));
        phx_buf_puts(out, ",\"algorithm\":\"sha256\",\"digest\":");
        put_digest(out, m->entries[i].digest);
        phx_buf_putc(out, '}');
    }
}

static void put_files(const struct make *m, struct phx_buf *out)
{
    for (int32_t i = 0; i < m->n; i++) {
        const struct phx_manifest_entry *e = &m->entries[i];

        if (i > 0)
            phx_buf_putc(out, ',');
        phx_json_put_str(out, e->name, strlen(e->name));
        phx_buf_printf(out, ":{\"size\":%" PRIu64 ",\"pieces\":[", e->size_bytes);
        for (int32_t p = 0; p < e->n_pieces; p++) {
            if (p > 0)
                phx_buf_putc(out, ',');
            put_digest(out, e->pieces[p]);
        }
        phx_buf_puts(out, "]}");
    }
}

static void put_statement(const struct make *m, const char *root, struct phx_buf *out)
{
    phx_buf_puts(out, "{\"_type\":\"https://in-toto.io/Statement/v1\",\"subject\":[{\"name\":");
    phx_json_put_str(out, m->model_name, strlen(m->model_name));
    phx_buf_printf(out, ",\"digest\":{\"sha256\":\"%s\"}}],\"predicateType\":"
                        "\"https://model_signing/signature/v1.0\",\"predicate\":{\"serialization\":"
                        "{\"method\":\"files\",\"hash_type\":\"sha256\",\"allow_symlinks\":false,"
                        "\"ignore_paths\":[\"" PHX_MANIFEST_FILE "\",\".git\",\".gitattributes\",\".github\","
                        "\".gitignore\"]},\"resources\":[", root + 7);
    put_resources(m, out);
    phx_buf_printf(out, "],\"phalanx\":{\"derived_from\":\"%s\",\"piece_bytes\":%d,\"files\":{", m->parent,
                   PHX_MANIFEST_PIECE_BYTES);
    put_files(m, out);
    phx_buf_puts(out, "}}}}");
}

static bool has_file(const struct make *m, const char *prefix)
{
    for (int32_t i = 0; i < m->n; i++)
        if (strncmp(m->entries[i].name, prefix, strlen(prefix)) == 0)
            return true;
    return false;
}

static int check_parent(const struct make *m, struct phx_err *err)
{
    uint8_t digest[PHX_SHA256_BYTES];

    if (m->parent[0] == '\0')
        return 0;
    if (strncmp(m->parent, "sha256:", 7) != 0 || phx_hex_decode(digest, sizeof(digest), m->parent + 7, NULL) != 0)
        return phx_fail(err, PHX_E_INVALID, "derived-from: must be sha256: and 64 hex digits");
    if (!has_file(m, "LICENSE") || !has_file(m, "NOTICE"))
        return phx_fail(err, PHX_E_DENIED, "%s: a derived model must carry its parent's LICENSE and NOTICE", m->dir);
    return 0;
}

int phx_manifest_sign(const char *dir, const char *model_name, const char *private_key, const char *parent,
                      phx_manifest_progress_fn progress, void *ctx, char root[PHX_MANIFEST_ROOT_BYTES],
                      struct phx_err *err)
{
    struct make    m = {.dir = dir, .model_name = model_name, .parent = parent, .progress = progress, .ctx = ctx};
    struct phx_buf payload, bundle;
    char          *path = phx_mem_printf("%s/" PHX_MANIFEST_FILE, dir);
    int            rc;

    m.arena = phx_arena_create();
    phx_buf_init(&payload, PHX_MANIFEST_MAX_BYTES / 2);
    phx_buf_init(&bundle, PHX_MANIFEST_MAX_BYTES);
    rc = phx_manifest_list(dir, m.arena, &m.entries, &m.n, err);
    if (rc == 0)
        rc = check_parent(&m, err);
    for (int32_t i = 0; i < m.n; i++)
        m.total_bytes += m.entries[i].size_bytes;
    for (int32_t i = 0; i < m.n && rc == 0; i++)
        rc = hash_entry(&m, &m.entries[i], err);
    if (rc == 0) {
        phx_manifest_root(m.entries, m.n, root);
        put_statement(&m, root, &payload);
        rc = phx_buf_check(&payload, "manifest", err);
    }
    if (rc == 0)
        rc = phx_bundle_seal(&payload, private_key, &bundle, err);
    if (rc == 0)
        rc = phx_buf_check(&bundle, "manifest", err);
    if (rc == 0)
        rc = phx_file_write(path, bundle.data, bundle.size, 0644, err);
    phx_buf_fini(&bundle);
    phx_buf_fini(&payload);
    phx_arena_destroy(m.arena);
    phx_mem_free(path);
    return rc;
}
