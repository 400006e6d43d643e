/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/text/split.h"

#include <string.h>

#include "daemon/text/utf8.h"
#include "rpc/base/buf.h"
#include "rpc/base/mem.h"

struct run {
    const struct phx_splitter *splitter;
    struct phx_regex_state    *state;
    phx_piece_fn              *fn;
    void                      *ctx;
    struct phx_err            *err;
};

struct span {
    size_t from, to;
    bool   is_match;
};

static int run_step(const struct run *r, size_t step, const char *text, size_t size, bool is_start);

static int emit(const struct run *r, size_t step, const char *text, struct span s, bool is_start)
{
    if (s.from == s.to)
        return 0;
    return run_step(r, step + 1, text + s.from, s.to - s.from, is_start && s.from == 0);
}

static int find(const struct run *r, const struct phx_split_step *step, const char *text,
                size_t size, size_t at, size_t *from, size_t *to)
{
    if (step->regex)
        return phx_regex_find(step->regex, r->state, text, size, at, from, to, r->err);
    size_t      n = strlen(step->literal);
    const char *hit = memmem(text + at, size - at, step->literal, n);
    if (!hit)
        return 0;
    *from = (size_t)(hit - text);
    *to = *from + n;
    return 1;
}

/* Takes the next span in; `held` waits for the neighbour it may be merged with. */
static int take(const struct run *r, size_t i, const char *text, struct span *held, struct span s,
                bool is_start)
{
    enum phx_split_rule rule = r->splitter->steps[i].rule;
    if (s.from == s.to)
        return 0;
    if (rule == PHX_RULE_ISOLATED)
        return emit(r, i, text, s, is_start);
    if (rule == PHX_RULE_REMOVED)
        return s.is_match ? 0 : emit(r, i, text, s, is_start);
    bool is_held = held->to > held->from;
    bool joins = is_held && ((rule == PHX_RULE_CONTIGUOUS && held->is_match == s.is_match) ||
                             (rule == PHX_RULE_WITH_PREVIOUS && s.is_match && !held->is_match) ||
                             (rule == PHX_RULE_WITH_NEXT && !s.is_match && held->is_match));
    if (!joins) {
        int rc = emit(r, i, text, *held, is_start);
        *held = s;
        return rc;
    }
    held->to = s.to;
    if (rule == PHX_RULE_WITH_PREVIOUS)
        held->is_match = true; /* takes no second match */
    if (rule == PHX_RULE_WITH_NEXT)
        held->is_match = false;
    return 0;
}

static int run_pattern(const struct run *r, size_t i, const char *text, size_t size, bool is_start)
{
    const struct phx_split_step *step = &r->splitter->steps[i];
    struct span                  held = {0, 0, false};
    size_t                       at = 0, search = 0, from = 0, to = 0;
    int                          found = 0;
    while (search <= size && (found = find(r, step, text, size, search, &from, &to)) > 0) {
        int rc = take(r, i, text, &held, (struct span){at, from, step->is_inverted}, is_start);
        if (rc == 0)
            rc = take(r, i, text, &held, (struct span){from, to, !step->is_inverted}, is_start);
        if (rc)
            return rc;
        at = to;
        search = to;
        if (to == from) { /* an empty match: look again one character on */
            size_t length = 1;
            if (to < size)
                (void)phx_utf8_first(text + to, &length);
            search += length;
        }
    }
    if (found < 0)
        return found;
    int rc = take(r, i, text, &held, (struct span){at, size, step->is_inverted}, is_start);
    return rc ? rc : emit(r, i, text, held, is_start);
}

/* Cuts before each marker; a marker alone before another marker is a piece of its own. */
static int cut_at_marker(const struct run *r, size_t i, const char *text, size_t size,
                         bool is_start)
{
    const char *marker = r->splitter->steps[i].literal;
    size_t      n = strlen(marker), from = 0;
    while (from < size) {
        size_t skip = size - from >= n && memcmp(text + from, marker, n) == 0 ? n : 0;
        char  *hit = memmem(text + from + skip, size - from - skip, marker, n);
        size_t to = hit ? (size_t)(hit - text) : size;
        int    rc = emit(r, i, text, (struct span){from, to, false}, is_start);
        if (rc)
            return rc;
        from = to;
    }
    return 0;
}

static int run_metaspace(const struct run *r, size_t i, const char *text, size_t size,
                         bool is_start)
{
    const struct phx_split_step *step = &r->splitter->steps[i];
    size_t                       n = strlen(step->literal);
    bool                         wants =
        step->prepend == PHX_PREPEND_ALWAYS || (step->prepend == PHX_PREPEND_FIRST && is_start);
    bool           has = text[0] == ' ' || (size >= n && memcmp(text, step->literal, n) == 0);
    struct phx_buf out;
    phx_buf_init(&out, 0);
    if (wants && !has)
        phx_buf_puts(&out, step->literal);
    for (size_t at = 0; at < size;) {
        const char *space = memchr(text + at, ' ', size - at);
        size_t      end = space ? (size_t)(space - text) : size;
        phx_buf_put(&out, text + at, end - at);
        if (space)
            phx_buf_puts(&out, step->literal);
        at = end + (space != NULL);
    }
    int rc = phx_buf_check(&out, "the text with word markers", r->err);
    if (rc == 0)
        rc = step->is_splitting ? cut_at_marker(r, i, out.data, out.size, is_start)
                                : run_step(r, i + 1, out.data, out.size, is_start);
    phx_buf_fini(&out);
    return rc;
}

static int run_prefix_space(const struct run *r, size_t i, const char *text, size_t size,
                            bool is_start)
{
    if (text[0] == ' ')
        return run_step(r, i + 1, text, size, is_start);
    struct phx_buf out;
    phx_buf_init(&out, 0);
    phx_buf_putc(&out, ' ');
    phx_buf_put(&out, text, size);
    int rc = run_step(r, i + 1, out.data, out.size, is_start);
    phx_buf_fini(&out);
    return rc;
}

static int run_step(const struct run *r, size_t i, const char *text, size_t size, bool is_start)
{
    if (i == r->splitter->n)
        return r->fn(r->ctx, text, size, r->err);
    switch (r->splitter->steps[i].kind) {
    case PHX_SPLIT_METASPACE:
        return run_metaspace(r, i, text, size, is_start);
    case PHX_SPLIT_PREFIX_SPACE:
        return run_prefix_space(r, i, text, size, is_start);
    default:
        return run_pattern(r, i, text, size, is_start);
    }
}

int phx_splitter_run(const struct phx_splitter *s, struct phx_regex_state *state, const char *text,
                     size_t size, bool is_start, phx_piece_fn *fn, void *ctx, struct phx_err *err)
{
    struct run r = {.splitter = s, .state = state, .fn = fn, .ctx = ctx, .err = err};
    return size == 0 ? 0 : run_step(&r, 0, text, size, is_start);
}

void phx_splitter_fini(struct phx_splitter *s)
{
    for (size_t i = 0; i < s->n; i++) {
        phx_regex_free(s->steps[i].regex);
        phx_mem_free(s->steps[i].literal);
    }
    s->n = 0;
}
