/* SPDX-License-Identifier: Apache-2.0 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "daemon/text/regex.h"

#include <pcre2.h>
#include <stdint.h>

#include "rpc/base/mem.h"

#define JIT_STACK_MIN (32 << 10)
#define JIT_STACK_MAX (8 << 20)

struct phx_regex {
    pcre2_code *code;
};

int phx_regex_compile(const char *pattern, const char *where, struct phx_regex **out,
                      struct phx_err *err)
{
    *out = NULL;
    struct phx_buf text;
    phx_buf_init(&text, 1 << 20);
    int rc = phx_regex_translate(pattern, where, &text, err);
    if (rc == 0)
        rc = phx_buf_check(&text, "a split pattern", err);
    if (rc) {
        phx_buf_fini(&text);
        return rc;
    }
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    phx_assert(context);
    /* "$" and "." know only LF, as in the dialects the patterns were written for. */
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    int         code = 0;
    PCRE2_SIZE  at = 0;
    pcre2_code *re = pcre2_compile(
        (PCRE2_SPTR)(text.data ? text.data : ""), text.size,
        PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &code, &at, context);
    pcre2_compile_context_free(context);
    phx_buf_fini(&text);
    if (!re) {
        PCRE2_UCHAR why[120];
        pcre2_get_error_message(code, why, sizeof why);
        return phx_fail(err, PHX_E_FORMAT, "%s: bad regular expression: %s", where, (char *)why);
    }
    /* Without JIT (a hardened kernel may forbid it) matching still works, only slower. */
    (void)pcre2_jit_compile(re, PCRE2_JIT_COMPLETE);
    *out = phx_mem_calloc(1, sizeof **out);
    (*out)->code = re;
    return 0;
}

void phx_regex_free(struct phx_regex *re)
{
    if (!re)
        return;
    pcre2_code_free(re->code);
    phx_mem_free(re);
}

void phx_regex_state_fini(struct phx_regex_state *s)
{
    pcre2_match_data_free(s->match);
    pcre2_match_context_free(s->context);
    pcre2_jit_stack_free(s->stack);
    *s = (struct phx_regex_state){0};
}

static void prepare(struct phx_regex_state *s)
{
    s->match = pcre2_match_data_create(1, NULL);
    s->context = pcre2_match_context_create(NULL);
    phx_assert(s->match && s->context);
    pcre2_set_match_limit(s->context, UINT32_MAX / 8);
    pcre2_set_heap_limit(s->context, 256 << 10); /* KiB */
}

int phx_regex_find(const struct phx_regex *re, struct phx_regex_state *s, const char *text,
                   size_t size, size_t start, size_t *from, size_t *to, struct phx_err *err)
{
    if (!s->match)
        prepare(s);
    int rc = pcre2_match(re->code, (PCRE2_SPTR)text, size, start, PCRE2_NO_UTF_CHECK, s->match,
                         s->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT && !s->stack) {
        /* The machine stack's 32 KiB did not do; most texts never come here. */
        s->stack = pcre2_jit_stack_create(JIT_STACK_MIN, JIT_STACK_MAX, NULL);
        pcre2_jit_stack_assign(s->context, NULL, s->stack);
        rc = pcre2_match(re->code, (PCRE2_SPTR)text, size, start, PCRE2_NO_UTF_CHECK, s->match,
                         s->context);
    }
    if (rc == PCRE2_ERROR_NOMATCH)
        return 0;
    if (rc < 0)
        return phx_fail(err, PHX_E_LIMIT,
                        "the tokenizer's split pattern gave up at byte %zu "
                        "(PCRE2 error %d)",
                        start, rc);
    const PCRE2_SIZE *span = pcre2_get_ovector_pointer(s->match);
    *from = span[0];
    *to = span[1];
    return 1;
}
