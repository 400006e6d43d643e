/* SPDX-License-Identifier: Apache-2.0
 * The table as text: a config that parses back, the example file, the help. */
#include <inttypes.h>
#include <string.h>

#include "daemon/config/table.h"

/* "section." of a key as a length, 0 for a key of the top level. */
static size_t section_of(const char *key)
{
    const char *dot = strchr(key, '.');

    return dot != NULL ? (size_t)(dot - key) : 0;
}

static void put_section(const struct phx_option *o, const char **open, struct phx_buf *out)
{
    size_t n = section_of(o->key);

    if (n == 0 || (*open != NULL && section_of(*open) == n && strncmp(*open, o->key, n) == 0))
        return;
    phx_buf_printf(out, "%.*s:\n", (int)n, o->key);
    *open = o->key;
}

static const char *short_key(const struct phx_option *o)
{
    size_t n = section_of(o->key);

    return n == 0 ? o->key : o->key + n + 1;
}

/* A double-quoted YAML scalar. */
static void put_quoted(const char *text, struct phx_buf *out)
{
    phx_buf_putc(out, '"');
    for (const unsigned char *p = (const unsigned char *)text; *p != '\0'; p++)
        if (*p == '"' || *p == '\\')
            phx_buf_printf(out, "\\%c", *p);
        else if (*p < 0x20 || *p == 0x7f)
            phx_buf_printf(out, "\\x%02X", *p);
        else
            phx_buf_putc(out, (char)*p);
    phx_buf_putc(out, '"');
}

static void put_value(const struct phx_option *o, const void *member, struct phx_buf *out)
{
    if (o->kind == PHX_OPTION_INT)
        phx_buf_printf(out, "%" PRId64, *(const int64_t *)member);
    else if (o->kind == PHX_OPTION_BOOL)
        phx_buf_puts(out, *(const bool *)member ? "true" : "false");
    else
        put_quoted(*(char *const *)member, out);
}

static bool is_default(const struct phx_option *o, const void *member, const void *fallback)
{
    switch (o->kind) {
    case PHX_OPTION_INT: return *(const int64_t *)member == *(const int64_t *)fallback;
    case PHX_OPTION_BOOL: return *(const bool *)member == *(const bool *)fallback;
    case PHX_OPTION_LIST: return ((const struct phx_config_list *)member)->n == 0;
    default: return strcmp(*(char *const *)member, *(char *const *)fallback) == 0;
    }
}

void phx_config_format(const struct phx_config *c, struct phx_buf *out)
{
    struct phx_config *fallback = phx_config_create();
    const char        *open = NULL;

    phx_buf_puts(out, "# phalanxd; all keys: phalanxd --help-config\n");
    for (size_t i = 0; i < phx_n_options; i++) {
        const struct phx_option *o = &phx_options[i];
        const void              *member = (const char *)c + o->offset;
        const char              *indent = section_of(o->key) > 0 ? "  " : "";

        if (is_default(o, member, (const char *)fallback + o->offset))
            continue;
        put_section(o, &open, out);
        phx_buf_printf(out, "%s%s:", indent, short_key(o));
        if (o->kind != PHX_OPTION_LIST) {
            phx_buf_putc(out, ' ');
            put_value(o, member, out);
            phx_buf_putc(out, '\n');
            continue;
        }
        phx_buf_putc(out, '\n');
        for (size_t j = 0; j < ((const struct phx_config_list *)member)->n; j++) {
            phx_buf_printf(out, "%s- ", indent);
            put_quoted(((const struct phx_config_list *)member)->items[j], out);
            phx_buf_putc(out, '\n');
        }
    }
    phx_config_destroy(fallback);
}

/* "whole number 1..64", "true or false", "a|b". */
static void put_bounds(const struct phx_option *o, struct phx_buf *out)
{
    switch (o->kind) {
    case PHX_OPTION_INT: phx_buf_printf(out, "%" PRId64 " to %" PRId64, o->min, o->max); break;
    case PHX_OPTION_BOOL: phx_buf_puts(out, "true or false"); break;
    case PHX_OPTION_CHOICE: phx_buf_puts(out, o->choices); break;
    case PHX_OPTION_LIST: phx_buf_printf(out, "a list of at most %d texts", PHX_CONFIG_ARGS_MAX); break;
    case PHX_OPTION_TEXT: phx_buf_puts(out, "text"); break;
    }
}

/* What the example writes for a key that has no default; NULL for the others. */
static const char *example_of(const struct phx_option *o)
{
    if (strcmp(o->key, "data_dir") == 0)
        return "/var/lib/phalanx";
    return strcmp(o->key, "model.path") == 0 ? "/srv/models/gpt-oss-20b" : NULL;
}

static void put_example(const struct phx_option *o, struct phx_buf *out)
{
    const char *example = example_of(o);

    phx_buf_printf(out, "%s%s%s: ", example != NULL ? "" : "#", section_of(o->key) > 0 ? "  " : "",
                   short_key(o));
    if (o->kind == PHX_OPTION_LIST)
        phx_buf_puts(out, "[]");
    else if (o->kind == PHX_OPTION_INT || o->kind == PHX_OPTION_BOOL)
        phx_buf_puts(out, o->fallback);
    else
        put_quoted(example != NULL ? example : o->fallback, out);
    phx_buf_printf(out, "   # %s (", o->help);
    put_bounds(o, out);
    phx_buf_puts(out, ")\n");
}

void phx_config_format_example(struct phx_buf *out)
{
    const char *open = NULL;

    phx_buf_puts(out, "# SPDX-License-Identifier: Apache-2.0\n"
                      "# Every key of phalanxd with its default; two have none and are needed.\n"
                      "# Check a file with: phalanxd -t -c FILE\n\n");
    for (size_t i = 0; i < phx_n_options; i++) {
        put_section(&phx_options[i], &open, out);
        put_example(&phx_options[i], out);
    }
}

void phx_config_format_help(struct phx_buf *out)
{
    for (size_t i = 0; i < phx_n_options; i++) {
        const struct phx_option *o = &phx_options[i];

        phx_buf_printf(out, "%s\n    %s\n    ", o->key, o->help);
        put_bounds(o, out);
        if (o->fallback[0] != '\0')
            phx_buf_printf(out, "; default %s", o->fallback);
        phx_buf_putc(out, '\n');
    }
}
