/* SPDX-License-Identifier: Apache-2.0
 * Runs scripts: commands, a line "----", what must come out, an empty line.  Lines that start with # are
 * the story.  `sched_script --print FILE` prints the file with what really comes out.
 *
 *   sched KEY=N ...                             a new scheduler: the fields of struct phx_sched_options
 *   submit ID text=abc [new=N] [check=N] [prompt=N] [priority=N] [stop=x] [tenant=x]   each letter is a token
 *   cancel ID | plan | complete [ID=x ...] (default '.', - is none; a letter for each checked or guessed row) | drop |
 *   stats */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/base/buf.h"
#include "rpc/base/mem.h"
#include "shard/sched/sched.h"

enum { VOCAB = 128, FILE_MAX_BYTES = 1 << 20, SEQS = 64 };

struct script {
    struct phx_sched *sched;
    struct phx_buf    out;
    uint64_t          planned[16][SEQS]; /* ids and slots of open plans whose last row is sampled */
    int32_t           slots[16][SEQS], n_planned[16], first, n_open;
};

/* The value of key=... among the words of a command, or NULL. */
static const char *value_of(char *const *words, int n, const char *key)
{
    size_t size = strlen(key);

    for (int i = 1; i < n; i++)
        if (strncmp(words[i], key, size) == 0 && words[i][size] == '=')
            return words[i] + size + 1;
    return NULL;
}

static int32_t number_of(char *const *words, int n, const char *key, int32_t otherwise)
{
    const char *text = value_of(words, n, key);

    return text != NULL ? (int32_t)strtol(text, NULL, 10) : otherwise;
}

static void fail(struct script *t, const struct phx_err *err)
{
    phx_buf_printf(&t->out, "%s: %s\n", phx_err_name(err->code), err->text);
}

static void put_event(struct script *t, const struct phx_sched_event *e)
{
    phx_buf_printf(&t->out, "  %llu", (unsigned long long)e->seq_id);
    if (e->token >= 0)
        phx_buf_printf(&t->out, ": '%c' at %d", e->token, e->index);
    if (e->cached_tokens > 0)
        phx_buf_printf(&t->out, ", %d cached", e->cached_tokens);
    if (e->finish != PHX_FINISH_NONE)
        phx_buf_printf(&t->out, ", %s", phx_finish_name(e->finish));
    phx_buf_putc(&t->out, '\n');
}

static void make(struct script *t, char *const *words, int n)
{
    const struct phx_sched_options options = {
        .max_seqs = number_of(words, n, "max_seqs", 4),
        .max_waiting = number_of(words, n, "max_waiting", 8),
        .max_rows = number_of(words, n, "max_rows", 16),
        .chunk_rows = number_of(words, n, "chunk_rows", 0),
        .max_context = number_of(words, n, "max_context", 32),
        .block_tokens = number_of(words, n, "block_tokens", 4),
        .n_blocks = number_of(words, n, "n_blocks", 16),
        .n_inflight = number_of(words, n, "n_inflight", 1),
        .vocab_size = VOCAB,
        .max_results = number_of(words, n, "max_results", 0),
        .draft_rows = number_of(words, n, "draft_rows", 0),
        .has_prefix_cache = number_of(words, n, "prefix_cache", 1) != 0,
    };
    struct phx_err err = {0};

    phx_sched_destroy(t->sched);
    t->n_open = 0;
    if (phx_sched_create(&options, &t->sched, &err) != 0)
        fail(t, &err);
    else
        phx_buf_puts(&t->out, "ok\n");
}

static void submit(struct script *t, char *const *words, int n)
{
    const char       *text = value_of(words, n, "text"), *stop = value_of(words, n, "stop");
    const char       *tenant = value_of(words, n, "tenant");
    int32_t           tokens[256], stop_id = stop != NULL ? stop[0] : -1;
    struct phx_submit r = {.seq_id = strtoull(words[1], NULL, 10), .tokens = tokens};
    struct phx_err    err = {0};

    for (; text != NULL && text[r.n_tokens] != '\0' && r.n_tokens < 256; r.n_tokens++)
        tokens[r.n_tokens] = text[r.n_tokens];
    r.n_check = number_of(words, n, "check", 0);
    r.n_prompt = number_of(words, n, "prompt", r.n_tokens - r.n_check);
    r.max_new = number_of(words, n, "new", 4);
    r.priority = number_of(words, n, "priority", 0);
    r.cache_salt[0] = tenant != NULL ? (uint8_t)tenant[0] : 0;
    phx_sampling_init(&r.sampling);
    r.sampling.stop_ids = &stop_id;
    r.sampling.n_stop_ids = stop != NULL;
    if (phx_sched_submit(t->sched, &r, &err) != 0)
        fail(t, &err);
    else
        phx_buf_puts(&t->out, "ok\n");
}

static void cancel(struct script *t, const char *id)
{
    struct phx_sched_event events[256];
    int32_t                n;

    phx_sched_cancel(t->sched, strtoull(id, NULL, 10));
    n = phx_sched_drain_events(t->sched, events);
    phx_buf_puts(&t->out, "ok\n");
    for (int32_t i = 0; i < n; i++)
        put_event(t, &events[i]);
}

static void put_planned(struct script *t, const struct phx_plan_seq *p)
{
    struct phx_sched_seq_info info;
    int32_t                   at = (t->first + t->n_open) % 16;

    phx_assert(phx_sched_info(t->sched, p->slot, &info));
    phx_buf_printf(&t->out, "  %llu: '", (unsigned long long)info.seq_id);
    for (int32_t i = 0; i < p->n_rows; i++)
        phx_buf_putc(&t->out, (char)p->tokens[i]);
    phx_buf_printf(&t->out, "' at %d%s%s", p->pos, p->is_new ? ", new" : "", p->is_sampled ? ", sampled" : "");
    if (p->n_checked > 0)
        phx_buf_printf(&t->out, ", %d checked", p->n_checked);
    if (p->n_drafts > 0)
        phx_buf_printf(&t->out, ", %d guessed", p->n_drafts);
    phx_buf_puts(&t->out, ", blocks");
    for (int32_t i = 0; i < p->n_blocks; i++)
        phx_buf_printf(&t->out, " %d", p->blocks[i]);
    phx_buf_putc(&t->out, '\n');
    for (int32_t i = p->is_sampled + p->n_checked + p->n_drafts; i > 0; i--) {
        t->planned[at][t->n_planned[at]] = info.seq_id;
        t->slots[at][t->n_planned[at]++] = p->slot;
    }
}

static void plan(struct script *t)
{
    const struct phx_plan *p = phx_sched_plan(t->sched);

    if (p == NULL) {
        phx_buf_puts(&t->out, "nothing\n");
        return;
    }
    t->n_planned[(t->first + t->n_open) % 16] = 0;
    phx_buf_printf(&t->out, "step %llu: %d prefill, %d decode\n", (unsigned long long)p->step,
                   p->n_prefill_rows, p->n_decode_rows);
    for (int32_t i = 0; i < p->n_seqs; i++)
        put_planned(t, &p->seqs[i]);
    t->n_open++;
}

static int32_t letter_of(const char *text)
{
    if (text == NULL || text[0] == '\0')
        return '.';
    return text[0] == '-' ? -1 : text[0];
}

static void complete(struct script *t, char *const *words, int n, int code)
{
    struct phx_sampled     sampled[SEQS];
    struct phx_sched_event events[256];
    int32_t                at = t->first, n_sampled = 0;

    if (t->n_open == 0) {
        phx_buf_puts(&t->out, "nothing is open\n");
        return;
    }
    for (int32_t i = 0; i < t->n_planned[at] && code == 0; i++) {
        char        key[24];
        const char *text;

        (void)snprintf(key, sizeof(key), "%llu", (unsigned long long)t->planned[at][i]);
        text = value_of(words, n, key);
        for (int32_t j = 0; j < i && text != NULL && *text != '\0'; j++) /* a letter for each of its rows */
            text += t->planned[at][j] == t->planned[at][i];
        sampled[n_sampled++] = (struct phx_sampled){t->slots[at][i], letter_of(text)};
    }
    t->first = (t->first + 1) % 16;
    t->n_open--;
    n = phx_sched_complete(t->sched, sampled, n_sampled, code, events);
    phx_buf_puts(&t->out, "ok\n");
    for (int32_t i = 0; i < n; i++)
        put_event(t, &events[i]);
}

static void stats(struct script *t)
{
    struct phx_sched_stats s;

    phx_sched_stats(t->sched, &s);
    phx_buf_printf(&t->out,
                   "running %d, waiting %d, open %d, preempted %llu; blocks free %d, cached %d, used %d",
                   s.n_running, s.n_waiting, s.n_open_plans, (unsigned long long)s.n_preempted,
                   s.kv.n_free, s.kv.n_cached, s.kv.n_used);
    if (s.n_drafted > 0)
        phx_buf_printf(&t->out, "; %llu guessed, %llu rightly", (unsigned long long)s.n_drafted,
                       (unsigned long long)s.n_accepted);
    phx_buf_putc(&t->out, '\n');
}

static void run_command(struct script *t, char *line)
{
    char *words[32] = {NULL}, *save = NULL;
    int   n = 0;

    for (char *w = strtok_r(line, " ", &save); w != NULL && n < 32; w = strtok_r(NULL, " ", &save))
        words[n++] = w;
    if (strcmp(words[0], "sched") == 0)
        make(t, words, n);
    else if (strcmp(words[0], "submit") == 0 && n > 1)
        submit(t, words, n);
    else if (strcmp(words[0], "cancel") == 0 && n > 1)
        cancel(t, words[1]);
    else if (strcmp(words[0], "plan") == 0)
        plan(t);
    else if (strcmp(words[0], "complete") == 0)
        complete(t, words, n, 0);
    else if (strcmp(words[0], "drop") == 0)
        complete(t, words, n, PHX_E_INTERNAL);
    else if (strcmp(words[0], "stats") == 0)
        stats(t);
    else
        phx_buf_printf(&t->out, "unknown command %s\n", words[0]);
    if (t->sched != NULL && !phx_sched_is_consistent(t->sched))
        phx_buf_puts(&t->out, "INCONSISTENT\n");
}

/* One block of the file: its commands are run, its expectation compared or replaced.  Returns 1 on a
 * difference. */
static int run_block(struct script *t, char *block, const char *path, bool is_printing)
{
    char *line = block, *end, *expected;

    for (; *line == '#'; line = end + 1) {
        end = strchr(line, '\n');
        if (is_printing)
            printf("%.*s\n", (int)(end != NULL ? (size_t)(end - line) : strlen(line)), line);
        if (end == NULL || end[1] == '\0')
            return 0;
    }
    expected = strstr(line, "----\n");
    if (expected != NULL)
        *expected = '\0';
    if (is_printing)
        printf("%s----\n", line);
    phx_buf_clear(&t->out);
    for (char *save = NULL, *c = strtok_r(line, "\n", &save); c != NULL; c = strtok_r(NULL, "\n", &save)) {
        char *copy = phx_mem_strdup(c);

        run_command(t, copy);
        phx_mem_free(copy);
    }
    if (is_printing) {
        printf("%s", t->out.data);
        return 0;
    }
    expected = expected != NULL ? expected + 5 : block;
    if (strcmp(expected, t->out.data) == 0)
        return 0;
    printf("%s: after \"%s ...\"\nexpected:\n%sgot:\n%s", path, line, expected, t->out.data);
    return 1;
}

static int run_file(const char *path, bool is_printing)
{
    struct script  t = {0};
    struct phx_buf text;
    struct phx_err err = {0};
    int            n_wrong = 0, n_blocks = 0;

    if (phx_buf_read_file(&text, path, FILE_MAX_BYTES, &err) != 0) {
        printf("%s\n", err.text);
        return 1;
    }
    phx_buf_init(&t.out, 0);
    for (char *block = text.data, *next; block != NULL && *block != '\0'; block = next) {
        char *gap = strstr(block, "\n\n");

        next = gap != NULL ? gap + 2 : NULL;
        if (gap != NULL)
            gap[1] = '\0';
        n_wrong += run_block(&t, block, path, is_printing);
        n_blocks++;
        if (is_printing && next != NULL)
            putchar('\n');
    }
    if (!is_printing)
        printf("%s: %d blocks, %d wrong\n", path, n_blocks, n_wrong);
    phx_sched_destroy(t.sched);
    phx_buf_fini(&t.out);
    phx_buf_fini(&text);
    return n_wrong > 0 || n_blocks == 0;
}

int main(int argc, char **argv)
{
    bool is_printing = argc > 1 && strcmp(argv[1], "--print") == 0;
    int  n_wrong = 0;

    for (int i = is_printing ? 2 : 1; i < argc; i++)
        n_wrong += run_file(argv[i], is_printing);
    return n_wrong > 0 || argc < 2 ? 1 : 0;
}
