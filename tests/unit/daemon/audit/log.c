/* SPDX-License-Identifier: Apache-2.0 */
#include "log.h"

#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/audit/logkey.h"
#include "rpc/base/mem.h"

void log_make(struct log *l)
{
    struct phx_err err = {0};

    memset(l, 0, sizeof(*l));
    (void)snprintf(l->root, sizeof(l->root), "%s/phx-audit-XXXXXX", /* memory: these tests sync a lot */
                   access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(l->root));
    (void)snprintf(l->db, sizeof(l->db), "%s/phalanx.db", l->root);
    (void)snprintf(l->dir, sizeof(l->dir), "%s/audit", l->root);
    (void)snprintf(l->keys, sizeof(l->keys), "%s/keys", l->root);
    phx_tlog_frontier_init(&l->frontier);
    assert_int_equal(phx_store_open(l->db, NULL, &l->store, &err), 0);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}

void log_remove(struct log *l)
{
    log_close(l);
    phx_store_close(l->store);
    assert_int_equal(nftw(l->root, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

void log_sql(const struct log *l, const char *sql)
{
    sqlite3 *db = NULL;

    assert_int_equal(sqlite3_open(l->db, &db), SQLITE_OK);
    assert_int_equal(sqlite3_busy_timeout(db, 5000), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

struct append {
    struct log *l;
    uint64_t    n;
};

static int append(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    const struct append *a = ctx;

    for (uint64_t i = 0; i < a->n; i++) {
        struct phx_record    r;
        struct phx_tlog_hash leaf;
        char                 text[128];
        int64_t              number = (int64_t)a->l->frontier.size;
        int n = snprintf(text, sizeof(text), "{\"at_ns\":%lld,\"kind\":\"admin\",\"v\":1}", (long long)number);
        int rc;

        phx_record_init(&r);
        phx_record_int(&r, "at_ns", number);
        phx_record_str(&r, "kind", "admin");
        phx_record_int(&r, "v", 1);
        rc = phx_audit_append(tx, "admin", "rcpt_test", "", &r, err);
        if (rc != 0)
            return rc;
        phx_tlog_leaf(text, (size_t)n, &leaf);
        phx_tlog_frontier_push(&a->l->frontier, &leaf);
    }
    return 0;
}

void log_append(struct log *l, uint64_t n)
{
    struct append  a = {l, n};
    struct phx_err err = {0};

    assert_int_equal(phx_store_run(l->store, append, &a, &err), 0);
}

int log_try_open(struct log *l, struct phx_err *err)
{
    const struct phx_publisher_options o = {
        .dir = l->dir, .key_dir = l->keys, .origin = LOG_ORIGIN, .interval_ms = 5, .key_life_s = l->key_life_s};

    return phx_publisher_open(l->store, &o, &l->publisher, err);
}

void log_wait(struct log *l)
{
    const struct timespec nap = {0, 2000000};
    char                  problem[240] = "";

    phx_publisher_wake(l->publisher);
    for (int i = 0; i < 10000; i++) {
        char *note = phx_publisher_checkpoint(l->publisher);
        bool  is_there = note != NULL && phx_publisher_size(l->publisher) == l->frontier.size;

        phx_mem_free(note);
        if (is_there)
            return;
        (void)nanosleep(&nap, NULL);
    }
    phx_publisher_problem(l->publisher, problem, sizeof(problem));
    fail_msg("only %llu of %llu leaves were published: %s", (unsigned long long)phx_publisher_size(l->publisher),
             (unsigned long long)l->frontier.size, problem);
}

void log_wait_problem(struct log *l, const char *word)
{
    const struct timespec nap = {0, 2000000};
    char                  text[240] = "";

    for (int i = 0; i < 5000; i++) {
        (void)nanosleep(&nap, NULL);
        phx_publisher_problem(l->publisher, text, sizeof(text));
        if (word[0] == '\0' ? text[0] == '\0' : strstr(text, word) != NULL)
            return;
    }
    fail_msg("the problem is \"%s\"", text);
}

void log_open(struct log *l)
{
    struct phx_err err = {0};

    if (log_try_open(l, &err) != 0)
        fail_msg("%s", err.text);
    log_wait(l);
}

void log_close(struct log *l)
{
    phx_publisher_close(l->publisher);
    l->publisher = NULL;
}

/* ---- checking -------------------------------------------------------------------------------------------- */

static void read_note(const struct log *l, const char *name, struct phx_buf *note, size_t *text_size)
{
    struct phx_err err = {0};

    assert_int_equal(phx_folder_read(l->dir, name, PHX_NOTE_MAX_BYTES, note, &err), 0);
    assert_int_equal(phx_note_open(note->data, note->size, NULL, 0, NULL, text_size, &err), 0);
}

static void make_verifier(int64_t epoch, const uint8_t key[32], struct phx_note_verifier *v)
{
    struct phx_buf text;
    struct phx_err err = {0};
    char           name[128];

    (void)snprintf(name, sizeof(name), LOG_ORIGIN "/%lld", (long long)epoch);
    phx_buf_init(&text, 1024);
    phx_note_vkey(name, key, &text);
    assert_int_equal(phx_note_vkey_parse(text.data, v, &err), 0);
    phx_buf_fini(&text);
}

static void check_signature(const struct phx_buf *note, int64_t epoch, const uint8_t key[32])
{
    struct phx_note_verifier v;
    struct phx_err           err = {0};
    size_t                   text_size = 0;
    bool                     is_signed = false;

    make_verifier(epoch, key, &v);
    assert_int_equal(phx_note_open(note->data, note->size, &v, 1, &is_signed, &text_size, &err), 0);
    assert_true(is_signed);
}

static void check_tree_note(const struct log *l, const char *name, int64_t epoch, const uint8_t key[32],
                            struct phx_checkpoint *out)
{
    struct phx_buf note;
    struct phx_err err = {0};
    size_t         text_size = 0;
    int64_t        found = 0;

    read_note(l, name, &note, &text_size);
    assert_int_equal(phx_checkpoint_parse(note.data, text_size, out, &err), 0);
    assert_int_equal(phx_checkpoint_epoch(note.data, text_size, &found, &err), 0);
    assert_int_equal(found, epoch);
    assert_string_equal(out->origin, LOG_ORIGIN);
    check_signature(&note, epoch, key);
    phx_buf_fini(&note);
}

/* From trust.json over the handovers to the checkpoint. */
static void check_keys(const struct log *l, struct phx_checkpoint *newest)
{
    uint8_t             before[32];
    struct phx_err      err = {0};
    struct phx_handover h;
    int64_t             e = 1;

    for (;; e++) {
        char                  keys[40], closing[40];
        struct phx_buf        note;
        size_t                text_size = 0;
        struct phx_checkpoint closed;

        (void)snprintf(keys, sizeof(keys), "keys/%lld", (long long)e);
        (void)snprintf(closing, sizeof(closing), "closing/%lld", (long long)e);
        read_note(l, keys, &note, &text_size);
        assert_int_equal(phx_handover_parse(note.data, text_size, &h, &err), 0);
        assert_int_equal(h.epoch, e);
        check_signature(&note, e, h.public_key);
        if (e > 1)
            check_signature(&note, e - 1, before);
        else
            assert_int_equal(h.from_size, 0);
        phx_buf_fini(&note);
        memcpy(before, h.public_key, 32);
        if (!log_has(l, closing))
            break;
        check_tree_note(l, closing, e, before, &closed);
    }
    check_tree_note(l, "checkpoint", e, before, newest);
}

void log_check_folder(const struct log *l)
{
    struct phx_tlog_hash root, leaf, hash;
    struct phx_tiles    *t;
    struct phx_err       err = {0};
    struct phx_buf       record;
    uint64_t             size;
    size_t               text_size = 0;
    struct phx_buf       note;
    struct phx_checkpoint c;

    assert_int_equal(phx_tiles_open(l->dir, &t, &err), 0);
    size = phx_tiles_size(t);
    read_note(l, "checkpoint", &note, &text_size);
    assert_int_equal(phx_checkpoint_parse(note.data, text_size, &c, &err), 0);
    phx_buf_fini(&note);
    phx_buf_init(&record, 65536);
    for (uint64_t i = 0; i < size; i++) {
        phx_buf_clear(&record);
        assert_int_equal(phx_tiles_entry(t, i, &record, &err), 0);
        phx_tlog_leaf(record.data, record.size, &leaf);
        assert_int_equal(phx_tiles_read(t, 0, i, &hash, &err), 0);
        assert_memory_equal(&leaf, &hash, sizeof(leaf));
    }
    phx_buf_fini(&record);
    if (size > 0) {
        assert_int_equal(phx_tlog_root(size, phx_tiles_read, t, &root, &err), 0);
        assert_memory_equal(&c.root, &root, sizeof(root));
    }
    phx_tiles_close(t);
}

void log_check(const struct log *l)
{
    struct phx_checkpoint c;
    struct phx_tlog_hash  root;

    check_keys(l, &c);
    phx_tlog_frontier_root(&l->frontier, &root);
    assert_int_equal(c.size, l->frontier.size);
    assert_memory_equal(&c.root, &root, sizeof(root));
    log_check_folder(l);
}

/* ---- files ----------------------------------------------------------------------------------------------- */

bool log_has(const struct log *l, const char *name)
{
    char *path = phx_mem_printf("%s/%s", l->dir, name);
    bool  has = access(path, F_OK) == 0;

    phx_mem_free(path);
    return has;
}

void log_delete(const struct log *l, const char *name)
{
    char *path = phx_mem_printf("%s/%s", l->dir, name);

    assert_int_equal(remove(path), 0);
    phx_mem_free(path);
}

void log_copy(const struct log *l, const char *from, const char *to)
{
    char          *source = phx_mem_printf("%s/%s", l->root, from);
    char          *target = phx_mem_printf("%s/%s", l->root, to);
    struct phx_buf data;
    struct phx_err err = {0};

    assert_int_equal(phx_buf_read_file(&data, source, 1 << 20, &err), 0);
    assert_int_equal(phx_file_write(target, data.data, data.size, 0600, &err), 0);
    phx_buf_fini(&data);
    phx_mem_free(source);
    phx_mem_free(target);
}

static struct {
    char **names;
    int    n, max;
    size_t skip;
} found; /* nftw() passes nothing on */

static int keep_file(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st;
    (void)ftw;
    if (kind == FTW_F && found.n < found.max)
        found.names[found.n++] = phx_mem_strdup(path + found.skip);
    return 0;
}

int log_files(const struct log *l, char **names, int max)
{
    found.names = names;
    found.n = 0;
    found.max = max;
    found.skip = strlen(l->dir) + 1;
    assert_int_equal(nftw(l->dir, keep_file, 16, FTW_PHYS), 0);
    return found.n;
}
