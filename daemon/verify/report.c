/* SPDX-License-Identifier: Apache-2.0
 * What was found, what was not looked at, and one verdict over all of it. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "daemon/verify/verify.h"
#include "rpc/base/mem.h"

enum { SHOWN_MAX = 20 };

static const char *const names[] = {"ok", "tampered", "incomplete", "usage", "unknown"};

void phx_report_init(struct phx_report *r, const char *name)
{
    memset(r, 0, sizeof(*r));
    r->name = name;
    r->problems = json_array();
    r->skipped = json_array();
    r->facts = json_object();
}

void phx_report_fini(struct phx_report *r)
{
    json_decref(r->problems);
    json_decref(r->skipped);
    json_decref(r->facts);
}

enum phx_verdict phx_verdict_of(int code)
{
    switch (code) {
    case 0: return PHX_V_OK;
    case PHX_E_UNSUPPORTED: return PHX_V_UNKNOWN;
    case PHX_E_INVALID: return PHX_V_USAGE;
    case PHX_E_FORMAT:
    case PHX_E_LICENSE:
    case PHX_E_TOOBIG: return PHX_V_TAMPERED;
    default: return PHX_V_INCOMPLETE; /* what could not be checked is never intact */
    }
}

/* Text from a log may hold anything: what is no UTF-8 must not make a line disappear. */
static json_t *to_text(const char *text)
{
    json_t *out = json_string(text);

    return out != NULL ? out : json_string("(not UTF-8)");
}

static void add_text(struct phx_report *r, enum phx_verdict verdict, const char *text)
{
    r->has[verdict] = true;
    r->n_problems++;
    if (json_array_size(r->problems) < SHOWN_MAX) {
        char *line = phx_mem_printf("%s: %s", names[verdict], text);

        json_array_append_new(r->problems, to_text(line));
        phx_mem_free(line);
    }
}

void phx_report_add(struct phx_report *r, int code, const char *fmt, ...)
{
    char    text[320];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    add_text(r, phx_verdict_of(code), text);
}

void phx_report_err(struct phx_report *r, const struct phx_err *err)
{
    add_text(r, phx_verdict_of(err->code), err->text);
}

void phx_report_skip(struct phx_report *r, const char *fmt, ...)
{
    char    text[320];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (json_array_size(r->skipped) < SHOWN_MAX)
        json_array_append_new(r->skipped, to_text(text));
}

void phx_report_fact(struct phx_report *r, const char *key, json_t *value)
{
    json_object_set_new(r->facts, key, value);
}

enum phx_verdict phx_verdict_worse(enum phx_verdict a, enum phx_verdict b)
{
    static const int badness[] = {[PHX_V_OK] = 0, [PHX_V_INCOMPLETE] = 1, [PHX_V_UNKNOWN] = 2,
                                  [PHX_V_TAMPERED] = 3, [PHX_V_USAGE] = 4};

    return badness[a] >= badness[b] ? a : b;
}

enum phx_verdict phx_report_verdict(const struct phx_report *r)
{
    enum phx_verdict out = PHX_V_OK;

    for (int i = 0; i < 5; i++)
        if (r->has[i])
            out = phx_verdict_worse(out, (enum phx_verdict)i);
    return out;
}

static void show_json(const struct phx_report *r, enum phx_verdict verdict)
{
    json_t *out = json_copy(r->facts);

    json_object_set_new(out, "name", to_text(r->name));
    json_object_set_new(out, "verdict", json_string(names[verdict]));
    json_object_set_new(out, "exit", json_integer(verdict));
    json_object_set_new(out, "n_problems", json_integer(r->n_problems));
    json_object_set(out, "problems", r->problems);
    json_object_set(out, "not_checked", r->skipped);
    json_dumpf(out, stdout, JSON_COMPACT | JSON_SORT_KEYS);
    fputs("\n", stdout);
    json_decref(out);
}

static void show_lines(const char *prefix, const json_t *lines)
{
    size_t  i;
    json_t *line;

    json_array_foreach(lines, i, line)
        printf("  %s%s\n", prefix, json_string_value(line));
}

enum phx_verdict phx_report_show(const struct phx_report *r, bool is_json)
{
    enum phx_verdict verdict = phx_report_verdict(r);
    const char      *key;
    json_t          *value;

    if (is_json) {
        show_json(r, verdict);
        return verdict;
    }
    printf("%s: %s\n", r->name, names[verdict]);
    show_lines("", r->problems);
    if (r->n_problems > SHOWN_MAX)
        printf("  %lld problems in all\n", (long long)r->n_problems);
    json_object_foreach(r->facts, key, value) {
        printf("  %s: ", key);
        if (json_is_string(value))
            fputs(json_string_value(value), stdout);
        else
            json_dumpf(value, stdout, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
        fputs("\n", stdout);
    }
    show_lines("not checked: ", r->skipped);
    return verdict;
}

enum phx_verdict phx_cmd_fail(const struct phx_err *err)
{
    fflush(stdout);
    fprintf(stderr, "phalanx-audit: %s\n", err->text);
    return phx_verdict_of(err->code);
}
