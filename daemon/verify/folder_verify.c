/* SPDX-License-Identifier: Apache-2.0
 * `verify`: everything in one pass over the entry bundles.  Roots and tiles are computed from the entries;
 * nothing in a tile is believed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/verify/verify.h"
#include "rpc/base/json.h"
#include "rpc/base/mem.h"

enum { LEVELS_MAX = 8, PROGRESS_EVERY = 65536 };

struct level {
    uint64_t             index;
    int                  n;
    struct phx_tlog_hash nodes[PHX_TLOG_TILE_WIDTH];
};
struct verify {
    const struct phx_options *o;
    const char               *dir;
    struct phx_report         report;
    struct phx_vfolder         folder;
    struct phx_chain          chain;
    struct phx_vcheckpoint    cp;
    struct phx_vcheckpoint   *closings; /* ascending by epoch */
    char                    (*closing_names)[32];
    size_t                    n_closings;
    json_t                   *others; /* names of unknown signers of the checkpoint */
    uint64_t                  size;   /* records to check */
    const struct phx_vcheckpoint **marks; /* ascending by size */
    size_t                    n_marks, next_mark;
    struct phx_tlog_frontier  tree;
    struct phx_rules          rules;
    struct level             *levels;
    struct phx_buf            tile;
};

/* ---- keys, trust, checkpoints ------------------------------------------------------------------------------- */

static int load_chain(struct verify *v, struct phx_err *err)
{
    struct phx_buf note = {0};
    int64_t       *epochs;
    size_t         n;
    char           name[64] = "keys/1";
    int            rc = phx_vfolder_epochs(&v->folder, "keys", &epochs, &n, err);

    if (rc == 0 && n == 0)
        rc = phx_fail(err, PHX_E_NOTFOUND, "keys/1: missing");
    for (size_t i = 0; i < n && rc == 0; i++) {
        (void)snprintf(name, sizeof(name), "keys/%zu", i + 1);
        rc = epochs[i] != (int64_t)i + 1 ? phx_fail(err, PHX_E_NOTFOUND, "%s: missing", name)
                                         : phx_vfolder_read(&v->folder, name, PHX_V_FILE_MAX, &note, err);
        if (rc == 0)
            rc = phx_chain_push(&v->chain, name, note.data, note.size, err);
    }
    phx_mem_free(epochs);
    phx_buf_fini(&note);
    return rc;
}

/* The writer spells trust.json in one way, so that no bit of it is free. */
static int check_spelling(const struct phx_buf *data, struct phx_err *err)
{
    json_t *root = NULL;
    char   *text;
    size_t  size;
    int     rc = phx_json_parse(&root, data->data, data->size, PHX_V_FILE_MAX, 0, "trust.json", err);

    if (rc != 0)
        return rc;
    text = json_dumps(root, JSON_COMPACT | JSON_SORT_KEYS);
    size = strlen(text);
    if (data->size < size || data->size > size + 1 || memcmp(data->data, text, size) != 0 ||
        (data->size > size && data->data[size] != '\n'))
        rc = phx_fail(err, PHX_E_FORMAT, "trust.json: not in canonical form");
    free(text);
    json_decref(root);
    return rc;
}

static int check_own_trust(struct verify *v, struct phx_trust *own, struct phx_err *err)
{
    struct phx_buf data = {0};
    int            rc = phx_vfolder_read(&v->folder, "trust.json", PHX_V_FILE_MAX, &data, err);

    memset(own, 0, sizeof(*own));
    if (rc == 0)
        rc = phx_trust_parse(own, "trust.json", data.data, data.size, PHX_E_FORMAT, err);
    if (rc == 0)
        rc = check_spelling(&data, err);
    if (rc == 0)
        rc = phx_trust_check(own, &v->chain, "trust.json", PHX_E_FORMAT, err);
    phx_buf_fini(&data);
    return rc == PHX_E_NOTFOUND ? 0 : rc;
}

static int check_trust(struct verify *v, struct phx_err *err)
{
    struct phx_trust        own;
    const struct phx_trust *trust = v->o->has_trust ? &v->o->trust : &own;
    int                     rc = check_own_trust(v, &own, err);

    if (rc == 0 && v->o->has_trust)
        rc = phx_trust_check(trust, &v->chain, "--trust", PHX_E_UNSUPPORTED, err);
    if (rc == 0 && !v->o->has_trust)
        phx_report_add(&v->report, PHX_E_STATE,
                       "TRUST WAS TAKEN FROM THE FOLDER ITSELF, and whoever can forge a log can forge that too: "
                       "give --trust with a copy of your own");
    if (rc == 0 && trust->keys != NULL && phx_trust_first(trust) > 1)
        phx_report_skip(&v->report, "the log keys before epoch %lld, except that each has signed the next",
                        (long long)phx_trust_first(trust));
    phx_trust_fini(&own);
    return rc;
}

static int load_closing(struct verify *v, int64_t epoch, struct phx_err *err)
{
    struct phx_vcheckpoint *c = &v->closings[v->n_closings];
    char                   *name = v->closing_names[v->n_closings];
    struct phx_buf          note = {0};
    int                     rc;

    (void)snprintf(name, sizeof(v->closing_names[0]), "closing/%lld", (long long)epoch);
    rc = phx_vfolder_read(&v->folder, name, PHX_V_FILE_MAX, &note, err);
    if (rc == 0)
        rc = phx_vcheckpoint_parse(c, name, note.data, note.size, err);
    phx_buf_fini(&note);
    if (rc != 0)
        return rc;
    v->n_closings++;
    rc = phx_chain_check(&v->chain, c, NULL, err);
    if (rc == 0 && (c->epoch != epoch || (epoch < v->chain.n && c->c.size != v->chain.keys[epoch].from_size)))
        rc = phx_fail(err, PHX_E_FORMAT, "%s: of another epoch, or not where keys/%lld starts", name,
                      (long long)epoch + 1);
    return rc;
}

/* The checkpoint should be the newest statement of the log; all others are checked as well. */
static int check_newest(struct verify *v, struct phx_err *err)
{
    uint64_t end = v->cp.c.size;

    for (size_t i = 0; i < v->n_closings; i++)
        if (v->closings[i].epoch == v->cp.epoch)
            end = v->closings[i].c.size;
    if (end < v->cp.c.size)
        return phx_fail(err, PHX_E_FORMAT, "checkpoint: signed after closing/%lld, which is smaller",
                        (long long)v->cp.epoch);
    if (v->cp.epoch < v->chain.n || end > v->cp.c.size)
        phx_report_add(&v->report, PHX_E_STATE,
                       "the checkpoint is older than keys/%lld or closing/%lld: rolled back, or copied while a key "
                       "moved on (then copy it again)", (long long)v->chain.n, (long long)v->cp.epoch);
    return 0;
}

static int load_closings(struct verify *v, struct phx_err *err)
{
    int64_t *epochs, next = 1;
    size_t   n;
    int      rc = phx_vfolder_epochs(&v->folder, "closing", &epochs, &n, err);

    v->closings = phx_mem_calloc(n + 1, sizeof(*v->closings));
    v->closing_names = phx_mem_calloc(n + 1, sizeof(*v->closing_names));
    for (size_t i = 0; i < n && rc == 0; i++) {
        for (; next < epochs[i] && next < v->chain.n; next++)
            phx_report_add(&v->report, PHX_E_NOTFOUND, "closing/%lld: missing", (long long)next);
        rc = load_closing(v, epochs[i], err);
        next = epochs[i] + 1;
    }
    for (; next < v->chain.n && rc == 0; next++)
        phx_report_add(&v->report, PHX_E_NOTFOUND, "closing/%lld: missing", (long long)next);
    phx_mem_free(epochs);
    return rc == 0 ? check_newest(v, err) : rc;
}

static bool is_witness(const struct verify *v, const char *name)
{
    for (int i = 0; i < v->o->n_witnesses; i++)
        for (int j = 0; j < v->o->witnesses[i].n; j++)
            if (strcmp(v->o->witnesses[i].verifiers[j].name, name) == 0)
                return true;
    return false;
}

static void check_witnesses(struct verify *v)
{
    size_t  i;
    json_t *other;

    for (int w = 0; w < v->o->n_witnesses; w++) {
        const struct phx_witness *witness = &v->o->witnesses[w];
        int                       n_signed = 0;

        for (int j = 0; j < witness->n; j++) {
            bool           is_signed = false;
            size_t         text_size;
            struct phx_err err = {0};

            if (phx_note_open(v->cp.note.data, v->cp.note.size, &witness->verifiers[j], 1, &is_signed, &text_size,
                              &err) != 0)
                phx_report_add(&v->report, PHX_E_LICENSE, "checkpoint: the signature of %.100s is wrong",
                               witness->verifiers[j].name);
            else
                n_signed += is_signed;
        }
        if (n_signed < witness->least)
            phx_report_add(&v->report, PHX_E_STATE, "%s: %d of %d witnesses have signed", witness->what, n_signed,
                           witness->least);
    }
    json_array_foreach(v->others, i, other)
        if (!is_witness(v, json_string_value(other)))
            phx_report_skip(&v->report, "the signature of %.100s on the checkpoint: its key was not given",
                            json_string_value(other));
}

static int compare_marks(const void *a, const void *b)
{
    const struct phx_vcheckpoint *const *x = a, *const *y = b;

    return (*x)->c.size < (*y)->c.size ? -1 : (*x)->c.size > (*y)->c.size;
}

/* Every signed statement about the log becomes a mark where the computed root must be its own. */
static int place_marks(struct verify *v, struct phx_err *err)
{
    v->size = v->cp.c.size;
    v->marks = phx_mem_calloc(v->n_closings + 1 + (size_t)v->o->n_kept, sizeof(struct phx_vcheckpoint *));
    v->marks[v->n_marks++] = &v->cp;
    for (size_t i = 0; i < v->n_closings; i++) {
        v->marks[v->n_marks++] = &v->closings[i];
        if (v->closings[i].c.size > v->size)
            v->size = v->closings[i].c.size;
    }
    for (int i = 0; i < v->o->n_kept; i++) {
        const struct phx_vcheckpoint *kept = &v->o->kept[i];
        int                           rc = phx_chain_check(&v->chain, kept, NULL, err);

        if (rc != 0)
            return rc;
        if (kept->c.size > v->size)
            return phx_fail(err, PHX_E_FORMAT, "%.80s: has %llu records, this log only %llu: rolled back", kept->what,
                            (unsigned long long)kept->c.size, (unsigned long long)v->size);
        v->marks[v->n_marks++] = kept;
    }
    qsort(v->marks, v->n_marks, sizeof(*v->marks), compare_marks);
    return 0;
}

static int load(struct verify *v, struct phx_err *err)
{
    struct phx_buf note = {0};
    char           root[65];
    int            rc = phx_vfolder_read(&v->folder, "checkpoint", PHX_V_FILE_MAX, &note, err);

    if (rc == 0)
        rc = phx_vcheckpoint_parse(&v->cp, "checkpoint", note.data, note.size, err);
    phx_buf_fini(&note);
    if (rc != 0)
        return rc;
    phx_chain_init(&v->chain, v->cp.c.origin);
    rc = load_chain(v, err);
    if (rc == 0)
        rc = check_trust(v, err);
    if (rc == 0)
        rc = load_closings(v, err);
    if (rc == 0)
        rc = phx_chain_check(&v->chain, &v->cp, v->others, err);
    if (rc != 0)
        return rc;
    for (int i = 0; i < PHX_TLOG_HASH_BYTES; i++)
        (void)snprintf(root + 2 * i, 3, "%02x", v->cp.c.root.bytes[i]);
    phx_report_fact(&v->report, "origin", json_string(v->cp.c.origin));
    phx_report_fact(&v->report, "size", json_integer((json_int_t)v->cp.c.size));
    phx_report_fact(&v->report, "root", json_string(root));
    phx_report_fact(&v->report, "key_epochs", json_integer(v->chain.n));
    check_witnesses(v);
    return place_marks(v, err);
}

/* ---- the tree ------------------------------------------------------------------------------------------------- */

static void compare_tile(struct verify *v, int number)
{
    struct level  *l = &v->levels[number];
    char           base[PHX_TLOG_PATH_BYTES], name[PHX_V_NAME_MAX];
    struct phx_err err = {0};
    int            found;

    phx_tile_base(number, l->index, base);
    if (phx_vfolder_tile(&v->folder, base, l->n, false, &v->tile, &found, name, &err) != 0)
        phx_report_err(&v->report, &err);
    else if (v->tile.size != (size_t)found * PHX_TLOG_HASH_BYTES ||
             memcmp(v->tile.data, l->nodes, (size_t)l->n * PHX_TLOG_HASH_BYTES) != 0)
        phx_report_add(&v->report, PHX_E_FORMAT, "%s: differs from the entries", name);
}

static void push_node(struct verify *v, const struct phx_tlog_hash *leaf)
{
    struct phx_tlog_hash node = *leaf;

    for (int number = 0; number < LEVELS_MAX; number++) {
        struct level *l = &v->levels[number];

        l->nodes[l->n++] = node;
        if (l->n < PHX_TLOG_TILE_WIDTH)
            return;
        compare_tile(v, number);
        for (int n = PHX_TLOG_TILE_WIDTH; n > 1; n /= 2)
            for (int i = 0; i < n / 2; i++)
                phx_tlog_node(&l->nodes[2 * i], &l->nodes[2 * i + 1], &l->nodes[i]);
        node = l->nodes[0];
        l->n = 0;
        l->index++;
    }
}

static void check_marks(struct verify *v)
{
    struct phx_tlog_hash root;

    for (; v->next_mark < v->n_marks && v->marks[v->next_mark]->c.size == v->tree.size; v->next_mark++) {
        const struct phx_vcheckpoint *cp = v->marks[v->next_mark];

        phx_tlog_frontier_root(&v->tree, &root);
        if (memcmp(&root, &cp->c.root, sizeof(root)) != 0)
            phx_report_add(&v->report, PHX_E_FORMAT, "%.80s: its root is not that of the first %llu records",
                           cp->what, (unsigned long long)cp->c.size);
    }
}

static int on_entry(void *ctx, int i, const void *entry, size_t size)
{
    struct verify       *v = ctx;
    struct phx_tlog_hash leaf;

    (void)i;
    if (v->tree.size == v->size) /* a wider bundle holds records behind the checkpoint */
        return 0;
    phx_rules_push(&v->rules, v->tree.size, entry, size);
    phx_tlog_leaf(entry, size, &leaf);
    phx_tlog_frontier_push(&v->tree, &leaf);
    push_node(v, &leaf);
    check_marks(v);
    return 0;
}

static int stream(struct verify *v, struct phx_err *err)
{
    struct phx_buf bundle = {0};
    char           base[PHX_TLOG_PATH_BYTES], name[PHX_V_NAME_MAX];
    bool           is_tty = isatty(STDERR_FILENO) == 1;
    int            found, rc = 0;

    check_marks(v);
    while (rc == 0 && v->tree.size < v->size) {
        uint64_t left = v->size - v->tree.size;

        phx_tile_base(-1, v->tree.size / PHX_TLOG_TILE_WIDTH, base);
        rc = phx_vfolder_tile(&v->folder, base, left < PHX_TLOG_TILE_WIDTH ? (int)left : PHX_TLOG_TILE_WIDTH, true,
                             &bundle, &found, name, err);
        if (rc == 0 && (rc = phx_tlog_entries_walk(bundle.data, bundle.size, found, on_entry, v, err)) != 0)
            phx_err_prefix(err, "%.100s: ", name);
        if (is_tty && v->tree.size % PROGRESS_EVERY == 0)
            fprintf(stderr, "\r%llu of %llu records", (unsigned long long)v->tree.size, (unsigned long long)v->size);
    }
    if (is_tty && v->size >= PROGRESS_EVERY)
        fputs("\r\033[K", stderr);
    for (int number = 0; number < LEVELS_MAX && rc == 0; number++)
        if (v->levels[number].n > 0)
            compare_tile(v, number);
    phx_buf_fini(&bundle);
    return rc;
}

/* ---- the rest ----------------------------------------------------------------------------------------------- */

static int walk(struct verify *v, struct phx_err *err)
{
    struct phx_walk w = {.folder = &v->folder, .path = v->dir, .size = v->size, .report = &v->report};
    int             rc = phx_vfolder_walk(&w, err);

    if (rc == 0 && w.is_behind)
        phx_report_skip(&v->report, "records behind the checkpoint: not signed yet, so no part of this log");
    return rc;
}

static void finish(struct verify *v)
{
    struct phx_report *r = &v->report;
    const char        *kind;
    json_t            *count;

    phx_report_fact(r, "requests", json_integer(v->rules.n_requests));
    phx_report_fact(r, "open", json_integer((json_int_t)v->rules.n_open));
    phx_report_fact(r, "daemon_epoch", v->rules.has_epoch ? json_integer(v->rules.epoch) : json_null());
    phx_report_fact(r, "records", json_incref(v->rules.kinds));
    json_object_foreach(v->rules.kinds, kind, count)
        if (!phx_kind_is_known(kind))
            phx_report_skip(r, "the meaning of %lld records of kind '%.40s'", (long long)json_integer_value(count),
                            kind);
    if (v->rules.is_forgetful)
        phx_report_skip(r, "whether a receipt was used again more than %d requests later", PHX_V_CLOSED_MAX);
    if (v->o->n_kept == 0)
        phx_report_skip(r, "whether this is an older or another copy of the log (--from with a checkpoint you kept)");
    if (v->o->n_witnesses == 0)
        phx_report_skip(r, "witnesses: the records from %llu on rest on the newest log key alone",
                        (unsigned long long)v->chain.keys[v->chain.n - 1].from_size);
    phx_report_skip(r, "whether what the records say is true; prompts and answers themselves");
}

static void fini(struct verify *v)
{
    for (size_t i = 0; i < v->n_closings; i++)
        phx_vcheckpoint_fini(&v->closings[i]);
    phx_mem_free(v->closings);
    phx_mem_free(v->closing_names);
    phx_mem_free(v->marks);
    phx_mem_free(v->levels);
    phx_vcheckpoint_fini(&v->cp);
    phx_chain_fini(&v->chain);
    phx_vfolder_close(&v->folder);
    phx_rules_fini(&v->rules);
    phx_report_fini(&v->report);
    phx_buf_fini(&v->tile);
    json_decref(v->others);
}

enum phx_verdict phx_cmd_verify(const struct phx_options *o, const char *dir)
{
    struct verify    v = {.o = o, .dir = dir, .folder = {-1}};
    struct phx_err   err = {0};
    enum phx_verdict verdict;
    int              rc;

    phx_report_init(&v.report, dir);
    phx_rules_init(&v.rules, &v.report);
    phx_tlog_frontier_init(&v.tree);
    v.levels = phx_mem_calloc(LEVELS_MAX, sizeof(*v.levels));
    v.others = json_array();
    rc = phx_vfolder_open(dir, &v.folder, &err);
    if (rc == 0)
        rc = load(&v, &err);
    if (rc == 0)
        rc = stream(&v, &err);
    if (rc == 0)
        rc = walk(&v, &err);
    if (rc == 0) {
        finish(&v);
    } else {
        phx_report_err(&v.report, &err);
        phx_report_skip(&v.report, "everything behind the last problem");
    }
    verdict = phx_report_show(&v.report, o->is_json);
    fini(&v);
    return verdict;
}
