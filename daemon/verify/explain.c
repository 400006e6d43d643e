/* SPDX-License-Identifier: Apache-2.0
 * `explain` and `shred-proof`: records on one page, for people.  What is shown is proven first. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "daemon/verify/verify.h"
#include "rpc/base/json.h"
#include "rpc/base/mem.h"

enum { FOUND_MAX = 1024, LABEL_WIDTH = 24 };

struct found {
    uint64_t leaf;
    json_t  *record;
};
struct search {
    const char  *subject;
    bool         is_shred;
    struct found found[FOUND_MAX];
    int          n;
};

static void fini_search(struct search *s)
{
    for (int i = 0; i < s->n; i++)
        json_decref(s->found[i].record);
    phx_mem_free(s);
}

static bool has_subject(const json_t *record, const char *subject)
{
    const char *key;
    json_t     *value;

    json_object_foreach((json_t *)record, key, value)
        if (json_is_string(value) && strcmp(json_string_value(value), subject) == 0)
            return true;
    return false;
}

static int keep_record(void *ctx, uint64_t leaf, const char *bytes, size_t size, struct phx_err *err)
{
    struct search    *s = ctx;
    struct phx_fields f;
    json_t           *record;
    bool              is_wanted;

    if (phx_record_scan(bytes, size, &f, NULL) != 0 || f.f[PHX_F_RECEIPT].type != PHX_V_STR ||
        f.f[PHX_F_KIND].type != PHX_V_STR)
        return 0; /* verify speaks about those */
    is_wanted = s->is_shred ? phx_slice_is(f.f[PHX_F_KIND].text, "shred")
                            : phx_slice_is(f.f[PHX_F_RECEIPT].text, s->subject) ||
                                  (f.f[PHX_F_SUBJECT].type == PHX_V_STR &&
                                   phx_slice_is(f.f[PHX_F_SUBJECT].text, s->subject));
    if (!is_wanted || phx_json_parse(&record, bytes, size, size, 0, "record", NULL) != 0)
        return 0;
    if (s->is_shred && !has_subject(record, s->subject)) {
        json_decref(record);
        return 0;
    }
    if (s->n == FOUND_MAX) {
        json_decref(record);
        return phx_fail(err, PHX_E_TOOBIG, "more than %d records about '%.60s'", FOUND_MAX, s->subject);
    }
    s->found[s->n++] = (struct found){leaf, record};
    return 0;
}

static int prove_found(struct phx_log *l, const struct search *s, struct phx_err *err)
{
    struct phx_tlog_hash proof[PHX_TLOG_PROOF_MAX];
    struct phx_buf       record = {0};
    int                  rc = 0;

    for (int i = 0; i < s->n && rc >= 0; i++) {
        rc = phx_log_entry(l, s->found[i].leaf, &record, err);
        if (rc == 0)
            rc = phx_log_prove(l, s->found[i].leaf, &record, proof, err);
    }
    phx_buf_fini(&record);
    return rc < 0 ? rc : 0;
}

/* ---- the page ----------------------------------------------------------------------------------------------- */

/* Control characters of a record must not reach a terminal. */
static void print_text(const char *text)
{
    for (; *text != '\0'; text++)
        putchar((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text);
}

static const json_t *find_value(const json_t *record, const char *group, const char *key)
{
    return json_object_get(group[0] == '\0' ? record : json_object_get(record, group), key);
}

static void print_value(const json_t *record, const char *label, const char *group, const char *key)
{
    const json_t *value = find_value(record, group, key);

    if (value == NULL || json_is_object(value) || (json_is_string(value) && json_string_length(value) == 0))
        return;
    printf("  %-*s", LABEL_WIDTH, label);
    if (json_is_integer(value))
        printf("%lld", (long long)json_integer_value(value));
    else
        print_text(json_string_value(value));
    fputs("\n", stdout);
}

static void print_time(const json_t *record, uint64_t leaf)
{
    int64_t   at_ns = json_integer_value(json_object_get(record, "at_ns"));
    time_t    at = (time_t)(at_ns / 1000000000);
    struct tm tm;
    char      text[40] = "?";

    if (gmtime_r(&at, &tm) != NULL)
        (void)strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S UTC", &tm);
    printf("  %-*s%s (record %llu)\n", LABEL_WIDTH, "when", text, (unsigned long long)leaf);
}

static void print_group(const json_t *record, const char *title, const char *group)
{
    const char *key;
    json_t     *value;

    printf("\n%s\n", title);
    json_object_foreach(json_object_get(record, group), key, value) {
        const char *inner;
        json_t     *item;

        print_value(record, key, group, key);
        json_object_foreach(value, inner, item) /* not of anything but an object */
            print_value(json_object_get(record, group), inner, key, inner);
    }
}

static void print_intent(const struct found *f)
{
    printf("\nWHO\n");
    print_time(f->record, f->leaf);
    print_value(f->record, "tenant", "who", "tenant");
    print_value(f->record, "user (pseudonym)", "who", "user");
    print_value(f->record, "end user", "who", "end_user");
    print_value(f->record, "signed in by", "who", "auth");
    print_value(f->record, "key", "who", "key_id");
    print_value(f->record, "purpose", "who", "purpose");
    print_value(f->record, "cost centre", "who", "cost_centre");
    print_group(f->record, "WHAT WAS ASKED (the text itself is committed to by request_commit)", "asked");
    print_group(f->record, "WHICH WEIGHTS", "model");
    print_group(f->record, "WHICH PROGRAM", "engine");
    print_group(f->record, "HOW IT WAS SAMPLED", "sample");
    print_group(f->record, "WHICH RULE ALLOWED IT", "rules");
}

static void print_result(const struct found *f)
{
    printf("\nHOW IT ENDED\n");
    print_time(f->record, f->leaf);
    print_value(f->record, "finish", "", "finish");
    print_value(f->record, "response_commit", "out", "response_commit");
    print_value(f->record, "replay_class", "out", "replay_class");
    print_group(f->record, "WHAT IT COST (tokens, milliseconds)", "cost");
}

static void print_other(const struct found *f)
{
    const char *key;
    json_t     *value;

    printf("\n%s\n", "EVENT");
    print_time(f->record, f->leaf);
    json_object_foreach(f->record, key, value)
        if (!json_is_object(value) && strcmp(key, "at_ns") != 0)
            print_value(f->record, key, "", key);
}

static void print_verify(const struct phx_options *o, const struct phx_log *l, const char *receipt)
{
    printf("\nHOW TO VERIFY\n"
           "  Each record above is in the tree of %s at size %llu, signed by\n"
           "  log key epoch %lld; %s.\n"
           "    phalanx audit prove DIR %s > receipt.json\n"
           "    phalanx audit check receipt.json --trust trust.json     (years later, with nothing else)\n"
           "    phalanx audit verify DIR --trust trust.json             (the whole log)\n"
           "not checked here: the rest of the log; whether what the records say is true\n",
           l->chain.origin, (unsigned long long)l->cp.c.size, (long long)l->cp.epoch,
           o->has_trust ? "the chain of keys starts at the key in --trust"
                        : "TRUST WAS TAKEN FROM THE FOLDER ITSELF (give --trust)",
           receipt);
}

static void print_page(const struct phx_options *o, const struct phx_log *l, const struct search *s)
{
    printf("%s of %s\n", s->subject, l->chain.origin);
    for (int i = 0; i < s->n; i++) {
        const char *kind = json_string_value(json_object_get(s->found[i].record, "kind"));

        if (!s->is_shred && strcmp(kind, "intent") == 0)
            print_intent(&s->found[i]);
        else if (!s->is_shred && strcmp(kind, "result") == 0)
            print_result(&s->found[i]);
        else
            print_other(&s->found[i]);
    }
    if (!s->is_shred)
        print_verify(o, l, s->subject);
    else
        printf("\nEach record above is in the tree of the checkpoint at size %llu.  not checked: that no copy of "
               "a key was kept elsewhere\n", (unsigned long long)l->cp.c.size);
}

static void print_json(const struct search *s)
{
    json_t *list = json_array(), *out;

    for (int i = 0; i < s->n; i++)
        json_array_append_new(list, json_pack("{s:I,s:O}", "index", (json_int_t)s->found[i].leaf, "record",
                                              s->found[i].record));
    out = json_pack("{s:s,s:o}", "subject", s->subject, "records", list);
    json_dumpf(out, stdout, JSON_COMPACT | JSON_SORT_KEYS);
    fputs("\n", stdout);
    json_decref(out);
}

static enum phx_verdict run(const struct phx_options *o, bool is_shred)
{
    struct search *s = phx_mem_calloc(1, sizeof(*s));
    struct phx_log l;
    struct phx_err err = {0};
    int            rc = phx_log_open(&l, o->args[0], o, &err);

    s->subject = o->args[1];
    s->is_shred = is_shred;
    if (rc == 0) {
        rc = phx_log_walk(&l, keep_record, s, &err);
        if (rc == 0 && s->n == 0)
            rc = phx_fail(&err, PHX_E_NOTFOUND, "no %srecord of '%.80s' in this log", is_shred ? "shred " : "",
                          s->subject);
        if (rc == 0)
            rc = prove_found(&l, s, &err);
        if (rc == 0 && o->is_json)
            print_json(s);
        else if (rc == 0)
            print_page(o, &l, s);
        phx_log_close(&l);
    }
    fini_search(s);
    return rc == 0 ? PHX_V_OK : phx_cmd_fail(&err);
}

enum phx_verdict phx_cmd_explain(const struct phx_options *o)
{
    return run(o, false);
}

enum phx_verdict phx_cmd_shred_proof(const struct phx_options *o)
{
    return run(o, true);
}
