/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/audit/logkey.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/hash.h"
#include "rpc/base/hex.h"
#include "rpc/base/json.h"
#include "rpc/base/log.h"
#include "rpc/base/mem.h"

static const char seed_file[] = "log.seed";

static void name_epoch_file(char path[PHX_LOGKEY_PATH_BYTES], const char *folder, int64_t epoch)
{
    (void)snprintf(path, PHX_LOGKEY_PATH_BYTES, "%s/%lld", folder, (long long)epoch);
}

static void name_key(const struct phx_logkey *k, int64_t epoch, char name[PHX_NOTE_NAME_MAX + 1])
{
    int n = snprintf(name, PHX_NOTE_NAME_MAX + 1, "%s/%lld", k->origin, (long long)epoch);

    phx_assert(n > 0 && n <= PHX_NOTE_NAME_MAX); /* the origin's length is checked when it is opened */
}

void phx_signed_tree_fini(struct phx_signed_tree *t)
{
    phx_buf_fini(&t->note);
}

/* ---- the seed -------------------------------------------------------------------------------------------- */

/* Signing uses a key derived beside the chain of seeds, so that no value serves two purposes. */
static void derive(const uint8_t seed[32], const char *purpose, uint8_t out[32])
{
    (void)crypto_generichash(out, 32, (const uint8_t *)purpose, strlen(purpose), seed, 32); /* sizes fit */
}

static void take_seed(struct phx_logkey *k, int64_t epoch, const uint8_t seed[32])
{
    uint8_t sign_seed[32];

    derive(seed, "phalanx log signature", sign_seed);
    phx_sign_key_from_seed(sign_seed, &k->key);
    phx_secret_wipe(sign_seed, sizeof(sign_seed));
    memmove(k->seed, seed, sizeof(k->seed));
    k->epoch = epoch;
}

/* The seed before, which its name no longer leads to.  Best effort: disks keep copies of their own. */
static void erase(int fd)
{
    static const char zeros[128];

    if (fd < 0)
        return;
    if (pwrite(fd, zeros, sizeof(zeros), 0) != (ssize_t)sizeof(zeros) || fsync(fd) != 0)
        phx_log(PHX_LOG_WARN, "audit.seed.erase.fail", "reason=%s", strerror(errno));
    (void)close(fd);
}

static int open_seed(const struct phx_logkey *k)
{
    char *path = phx_mem_printf("%s/%s", k->keys->dir, seed_file);
    int   fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);

    phx_mem_free(path);
    return fd;
}

static int write_seed(struct phx_logkey *k, int64_t epoch, const uint8_t seed[32], struct phx_err *err)
{
    char text[128], hex[65];
    int  before = open_seed(k);
    int  n, rc;

    phx_hex_encode(hex, sizeof(hex), seed, 32);
    n = snprintf(text, sizeof(text), "phalanx-log-seed:%lld:%s\n", (long long)epoch, hex);
    rc = phx_folder_write(k->keys, seed_file, text, (size_t)n, err);
    if (rc == 0)
        rc = phx_folder_sync(k->keys, err);
    if (rc == 0)
        erase(before);
    else if (before >= 0)
        (void)close(before);
    phx_secret_wipe(text, sizeof(text));
    phx_secret_wipe(hex, sizeof(hex));
    return rc;
}

static int parse_seed(struct phx_logkey *k, char *text, struct phx_err *err)
{
    long long epoch = 0;
    int       at = 0;
    uint8_t   seed[32];
    int       rc = 0;

    text[strcspn(text, "\n")] = '\0';
    if (sscanf(text, "phalanx-log-seed:%18lld:%n", &epoch, &at) != 1 || at == 0 || epoch < 1)
        rc = phx_fail(err, PHX_E_FORMAT, "%s/%s is not a log seed", k->keys->dir, seed_file);
    if (rc == 0)
        rc = phx_hex_decode(seed, sizeof(seed), text + at, err);
    if (rc == 0)
        take_seed(k, epoch, seed);
    phx_secret_wipe(seed, sizeof(seed));
    return rc;
}

static int read_seed(struct phx_logkey *k, struct phx_err *err)
{
    struct phx_buf text;
    int            rc = phx_folder_read(k->keys->dir, seed_file, 256, &text, err);

    if (rc != 0)
        return rc;
    rc = text.size > 0 ? parse_seed(k, text.data, err)
                       : phx_fail(err, PHX_E_FORMAT, "%s/%s is empty", k->keys->dir, seed_file);
    phx_secret_wipe(text.data, text.size);
    phx_buf_fini(&text);
    return rc;
}

/* ---- handovers ------------------------------------------------------------------------------------------- */

static int read_handover(const struct phx_logkey *k, int64_t epoch, struct phx_handover *out,
                         struct phx_err *err)
{
    char           path[PHX_LOGKEY_PATH_BYTES];
    struct phx_buf note;
    size_t         text_size = 0;
    int            rc;

    name_epoch_file(path, "keys", epoch);
    rc = phx_folder_read(k->audit->dir, path, PHX_LOGKEY_FILE_MAX_BYTES, &note, err);
    if (rc != 0)
        return rc;
    rc = phx_note_open(note.data, note.size, NULL, 0, NULL, &text_size, err);
    if (rc == 0)
        rc = phx_handover_parse(note.data, text_size, out, err);
    if (rc == 0 && (out->epoch != epoch || strcmp(out->origin, k->origin) != 0))
        rc = phx_fail(err, PHX_E_FORMAT, "it is of epoch %lld of %.100s", (long long)out->epoch,
                      out->origin);
    if (rc != 0)
        phx_err_prefix(err, "%s/%s: ", k->audit->dir, path);
    phx_buf_fini(&note);
    return rc;
}

/* Signed by the key before it (NULL for the first) and by itself: both gave their word. */
static int format_handover(const struct phx_logkey *k, const struct phx_logkey *before,
                           struct phx_buf *out, struct phx_err *err)
{
    char           key[64], name[PHX_NOTE_NAME_MAX + 1];
    struct phx_buf text;
    int            rc;

    (void)sodium_bin2base64(key, sizeof(key), k->key.public_key, sizeof(k->key.public_key),
                            sodium_base64_VARIANT_ORIGINAL);
    phx_buf_init(&text, 4096);
    phx_buf_printf(&text, "phalanx log key\n%s\n%lld\n%llu\n%s\n", k->origin, (long long)k->epoch,
                   (unsigned long long)k->from_size, key);
    phx_buf_init(out, PHX_LOGKEY_FILE_MAX_BYTES);
    name_key(k, before != NULL ? before->epoch : k->epoch, name);
    rc = phx_note_sign(text.data, name, before != NULL ? &before->key : &k->key, out, err);
    if (rc == 0 && before != NULL) {
        name_key(k, k->epoch, name);
        rc = phx_note_cosign(out, name, &k->key, err);
    }
    if (rc == 0)
        rc = phx_buf_check(out, "log key note", err);
    phx_buf_fini(&text);
    return rc;
}

static int write_handover(const struct phx_logkey *k, const struct phx_logkey *before, struct phx_err *err)
{
    char           path[PHX_LOGKEY_PATH_BYTES];
    struct phx_buf note;
    int            rc = format_handover(k, before, &note, err);

    name_epoch_file(path, "keys", k->epoch);
    if (rc == 0 && phx_folder_has(k->audit, path) &&
        !phx_folder_equals(k->audit, path, note.data, note.size))
        rc = phx_fail(err, PHX_E_STATE, "%s/%s is there already and hands over to another key",
                      k->audit->dir, path);
    if (rc == 0)
        rc = phx_folder_write(k->audit, path, note.data, note.size, err);
    if (rc == 0)
        rc = phx_folder_sync(k->audit, err);
    phx_buf_fini(&note);
    return rc;
}

static int write_trust(const struct phx_logkey *k, const uint8_t public_key[32], struct phx_err *err)
{
    char           hex[65];
    struct phx_buf text;
    int            rc;

    phx_hex_encode(hex, sizeof(hex), public_key, 32);
    phx_buf_init(&text, 4096);
    phx_buf_printf(&text, "{\"keys\":[{\"epoch\":1,\"public_key\":\"%s\"}],\"origin\":", hex);
    phx_json_put_str(&text, k->origin, strlen(k->origin));
    phx_buf_puts(&text, ",\"v\":1}\n");
    rc = phx_folder_write(k->audit, "trust.json", text.data, text.size, err);
    if (rc == 0)
        rc = phx_folder_sync(k->audit, err);
    phx_buf_fini(&text);
    return rc;
}

/* ---- opening --------------------------------------------------------------------------------------------- */

static int begin(struct phx_logkey *k, struct phx_err *err)
{
    uint8_t seed[32];
    int     rc;

    if (phx_folder_has(k->audit, "keys/1") || phx_folder_has(k->audit, "checkpoint"))
        return phx_fail(err, PHX_E_STATE,
                        "%s/%s is missing: restore it, or move the published log %s aside so that a new one"
                        " begins with a new trust.json", k->keys->dir, seed_file, k->audit->dir);
    randombytes_buf(seed, sizeof(seed));
    rc = write_seed(k, 1, seed, err);
    if (rc == 0)
        take_seed(k, 1, seed);
    phx_secret_wipe(seed, sizeof(seed));
    return rc;
}

/* Epochs that have ended cannot be signed again: what they left must be there. */
static int check_evidence(const struct phx_logkey *k, struct phx_err *err)
{
    static const char *const folders[] = {"keys", "closing"};
    char                     path[PHX_LOGKEY_PATH_BYTES];

    for (int64_t e = 1; e <= k->epoch; e++)
        for (int i = 0; i < 2; i++) {
            name_epoch_file(path, folders[i], e);
            if ((i == 0 || e < k->epoch) && !phx_folder_has(k->audit, path))
                return phx_fail(err, PHX_E_STATE,
                                "%s/%s is missing and its key is erased: restore it from a copy",
                                k->audit->dir, path);
        }
    name_epoch_file(path, "keys", k->epoch + 2);
    if (phx_folder_has(k->audit, path))
        return phx_fail(err, PHX_E_STATE,
                        "%s/%s is of epoch %lld but the log has gone on: restore the newest one",
                        k->keys->dir, seed_file, (long long)k->epoch);
    return 0;
}

static int check_own_key(struct phx_logkey *k, struct phx_err *err)
{
    struct phx_handover h;
    int                 rc = read_handover(k, k->epoch, &h, err);

    if (rc != 0)
        return rc;
    if (memcmp(h.public_key, k->key.public_key, sizeof(h.public_key)) != 0)
        return phx_fail(err, PHX_E_STATE, "%s/%s does not belong to the log in %s", k->keys->dir, seed_file,
                        k->audit->dir);
    k->from_size = h.from_size;
    return 0;
}

int phx_logkey_open(struct phx_logkey *k, struct phx_folder *audit, struct phx_folder *keys,
                    const char *origin, struct phx_err *err)
{
    struct phx_handover first;
    int                 rc;

    memset(k, 0, sizeof(*k));
    k->audit = audit;
    k->keys = keys;
    k->origin = origin;
    rc = read_seed(k, err);
    if (rc == PHX_E_NOTFOUND)
        rc = begin(k, err);
    if (rc == 0 && k->epoch == 1 && !phx_folder_has(audit, "keys/1") && !phx_folder_has(audit, "checkpoint"))
        rc = write_handover(k, NULL, err);
    if (rc == 0)
        rc = check_evidence(k, err);
    if (rc == 0)
        rc = check_own_key(k, err);
    if (rc == 0 && !phx_folder_has(audit, "trust.json")) {
        rc = read_handover(k, 1, &first, err);
        if (rc == 0)
            rc = write_trust(k, first.public_key, err);
    }
    return rc;
}

void phx_logkey_close(struct phx_logkey *k)
{
    phx_sign_wipe(&k->key);
    phx_secret_wipe(k->seed, sizeof(k->seed));
}

/* ---- checkpoints ----------------------------------------------------------------------------------------- */

int phx_logkey_sign(const struct phx_logkey *k, uint64_t size, const struct phx_tlog_hash *root,
                    struct phx_signed_tree *out, struct phx_err *err)
{
    char           name[PHX_NOTE_NAME_MAX + 1];
    struct phx_buf text;
    int            rc;

    memset(out, 0, sizeof(*out));
    (void)snprintf(out->checkpoint.origin, sizeof(out->checkpoint.origin), "%s", k->origin);
    out->checkpoint.size = size;
    out->checkpoint.root = *root;
    out->epoch = k->epoch;
    phx_buf_init(&out->note, PHX_NOTE_MAX_BYTES);
    phx_buf_init(&text, 4096);
    phx_checkpoint_format(&out->checkpoint, &text);
    phx_buf_printf(&text, "epoch %lld\n", (long long)k->epoch);
    name_key(k, k->epoch, name);
    rc = phx_note_sign(text.data, name, &k->key, &out->note, err);
    phx_buf_fini(&text);
    if (rc != 0)
        phx_signed_tree_fini(out);
    return rc;
}

static int check_tree(const struct phx_logkey *k, struct phx_signed_tree *t, struct phx_err *err)
{
    struct phx_note_verifier v = {0};
    struct phx_handover      h;
    struct phx_buf           vkey;
    size_t                   text_size = 0;
    bool                     is_signed = false;
    int rc = phx_note_open(t->note.data, t->note.size, NULL, 0, NULL, &text_size, err);

    if (rc == 0)
        rc = phx_checkpoint_parse(t->note.data, text_size, &t->checkpoint, err);
    if (rc == 0)
        rc = phx_checkpoint_epoch(t->note.data, text_size, &t->epoch, err);
    if (rc == 0 && strcmp(t->checkpoint.origin, k->origin) != 0)
        rc = phx_fail(err, PHX_E_STATE, "it is of %.100s, not of %.100s", t->checkpoint.origin, k->origin);
    if (rc == 0 && t->epoch > k->epoch)
        rc = phx_fail(err, PHX_E_STATE, "it is of key epoch %lld but %s is of %lld: restore the newest one",
                      (long long)t->epoch, seed_file, (long long)k->epoch);
    if (rc == 0)
        rc = read_handover(k, t->epoch, &h, err);
    if (rc != 0)
        return rc;
    name_key(k, t->epoch, v.name);
    phx_buf_init(&vkey, 1024);
    phx_note_vkey(v.name, h.public_key, &vkey);
    rc = phx_note_vkey_parse(vkey.data, &v, err);
    phx_buf_fini(&vkey);
    if (rc == 0)
        rc = phx_note_open(t->note.data, t->note.size, &v, 1, &is_signed, &text_size, err);
    if (rc == 0 && !is_signed)
        rc = phx_fail(err, PHX_E_LICENSE, "it is not signed by the key of its epoch");
    return rc;
}

int phx_logkey_read(const struct phx_logkey *k, const char *name, struct phx_signed_tree *out,
                    struct phx_err *err)
{
    int rc;

    memset(out, 0, sizeof(*out));
    rc = phx_folder_read(k->audit->dir, name, PHX_NOTE_MAX_BYTES, &out->note, err);
    if (rc != 0)
        return rc;
    rc = check_tree(k, out, err);
    if (rc != 0) {
        phx_err_prefix(err, "%s/%s: ", k->audit->dir, name);
        phx_signed_tree_fini(out);
    }
    return rc;
}

/* ---- moving on ------------------------------------------------------------------------------------------- */

/* closing/<E>: what a move that was cut short has written stays; else the last checkpoint if this key signed
 * it; else the same tree signed again. */
static int write_closing(const struct phx_logkey *k, const struct phx_signed_tree *last, uint64_t *size,
                         struct phx_err *err)
{
    struct phx_signed_tree own;
    char                   path[PHX_LOGKEY_PATH_BYTES];
    int                    rc;

    name_epoch_file(path, "closing", k->epoch);
    rc = phx_logkey_read(k, path, &own, err);
    if (rc == 0) {
        *size = own.checkpoint.size; /* written again: its sync may have failed */
        rc = phx_folder_write(k->audit, path, own.note.data, own.note.size, err);
        phx_signed_tree_fini(&own);
        return rc == 0 ? phx_folder_sync(k->audit, err) : rc;
    }
    if (rc != PHX_E_NOTFOUND)
        return rc;
    *size = last->checkpoint.size;
    if (last->epoch == k->epoch) {
        rc = phx_folder_write(k->audit, path, last->note.data, last->note.size, err);
    } else {
        rc = phx_logkey_sign(k, *size, &last->checkpoint.root, &own, err);
        if (rc != 0)
            return rc;
        rc = phx_folder_write(k->audit, path, own.note.data, own.note.size, err);
        phx_signed_tree_fini(&own);
    }
    return rc == 0 ? phx_folder_sync(k->audit, err) : rc;
}

int phx_logkey_move(struct phx_logkey *k, const struct phx_signed_tree *last, struct phx_err *err)
{
    struct phx_logkey next = *k;
    uint8_t           seed[32];
    int               rc = write_closing(k, last, &next.from_size, err);

    if (rc == 0) {
        derive(k->seed, "phalanx log key", seed);
        take_seed(&next, k->epoch + 1, seed);
        phx_secret_wipe(seed, sizeof(seed));
        rc = write_handover(&next, k, err);
    }
    if (rc == 0)
        rc = write_seed(k, next.epoch, next.seed, err);
    if (rc == 0)
        *k = next;
    phx_secret_wipe(&next.seed, sizeof(next.seed));
    phx_sign_wipe(&next.key);
    return rc;
}
