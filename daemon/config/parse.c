/* SPDX-License-Identifier: Apache-2.0
 * YAML (libyaml's events) into the table: sections, scalars and lists of scalars; no anchors, no tags, no second
 * document.  Names file and line of whatever it refuses. */
#include <stdio.h>
#include <string.h>
#include <yaml.h>

#include "daemon/config/table.h"
#include "rpc/base/mem.h"

enum { KEY_MAX_BYTES = 128, SEEN_MAX = 256 };

struct reader {
    yaml_parser_t      parser;
    yaml_event_t       event;
    bool               has_event;
    const char        *name; /* of the file */
    struct phx_config *config;
    bool               is_seen[SEEN_MAX]; /* by index in the table */
    struct phx_err    *err;
};

static int next(struct reader *r)
{
    if (r->has_event)
        yaml_event_delete(&r->event);
    r->has_event = yaml_parser_parse(&r->parser, &r->event) == 1;
    if (!r->has_event)
        return phx_fail(r->err, PHX_E_FORMAT, "%s: line %zu: not YAML: %s", r->name,
                        r->parser.problem_mark.line + 1,
                        r->parser.problem != NULL ? r->parser.problem : "unreadable");
    if (r->event.type == YAML_ALIAS_EVENT)
        return phx_fail(r->err, PHX_E_INVALID, "%s: line %zu: aliases are not taken", r->name,
                        r->event.start_mark.line + 1);
    return 0;
}

static size_t line_of(const struct reader *r)
{
    return r->event.start_mark.line + 1;
}

/* The scalar of the current event, borrowed until the next one. */
static int take_scalar(struct reader *r, const char *what, const char **out)
{
    const char *text = (const char *)r->event.data.scalar.value;

    if (r->event.type != YAML_SCALAR_EVENT)
        return phx_fail(r->err, PHX_E_INVALID, "%s: line %zu: %s: one value is expected", r->name,
                        line_of(r), what);
    if (strlen(text) != r->event.data.scalar.length)
        return phx_fail(r->err, PHX_E_INVALID, "%s: line %zu: %s: a NUL byte", r->name, line_of(r),
                        what);
    *out = text;
    return 0;
}

static int set(struct reader *r, const struct phx_option *o)
{
    size_t      line = line_of(r);
    const char *value;
    int         rc = take_scalar(r, o->key, &value);

    if (rc != 0)
        return rc;
    rc = phx_option_set(r->config, o, value, r->err);
    if (rc != 0)
        phx_err_prefix(r->err, "%s: line %zu: ", r->name, line);
    return rc;
}

static int read_list(struct reader *r, const struct phx_option *o)
{
    int rc;

    if (r->event.type != YAML_SEQUENCE_START_EVENT)
        return phx_fail(r->err, PHX_E_INVALID, "%s: line %zu: %s: a list is expected", r->name,
                        line_of(r), o->key);
    while ((rc = next(r)) == 0 && r->event.type != YAML_SEQUENCE_END_EVENT)
        if ((rc = set(r, o)) != 0)
            return rc;
    return rc;
}

static bool is_section(const char *key)
{
    size_t n = strlen(key);

    for (size_t i = 0; i < phx_n_options; i++)
        if (strncmp(phx_options[i].key, key, n) == 0 && phx_options[i].key[n] == '.')
            return true;
    return false;
}

static int read_mapping(struct reader *r, const char *section);

/* The value behind `key`; the current event is its first. */
static int read_value(struct reader *r, const char *key, size_t line)
{
    const struct phx_option *o = phx_option_find(key);

    if (o == NULL && is_section(key) && r->event.type == YAML_MAPPING_START_EVENT)
        return read_mapping(r, key);
    if (o == NULL && is_section(key) && r->event.type == YAML_SCALAR_EVENT &&
        r->event.data.scalar.length == 0)
        return 0; /* a section with nothing in it */
    if (o == NULL)
        return phx_fail(r->err, PHX_E_INVALID, "%s: line %zu: unknown key '%s'", r->name, line, key);
    if (r->is_seen[o - phx_options])
        return phx_fail(r->err, PHX_E_INVALID, "%s: line %zu: %s is given twice", r->name, line, key);
    r->is_seen[o - phx_options] = true;
    return o->kind == PHX_OPTION_LIST ? read_list(r, o) : set(r, o);
}

static int read_mapping(struct reader *r, const char *section)
{
    int rc;

    while ((rc = next(r)) == 0 && r->event.type != YAML_MAPPING_END_EVENT) {
        char        key[KEY_MAX_BYTES];
        size_t      line = line_of(r);
        const char *name;

        rc = take_scalar(r, "a key", &name);
        if (rc != 0)
            return rc;
        if (snprintf(key, sizeof(key), "%s%s%s", section, section[0] != '\0' ? "." : "", name) >=
            (int)sizeof(key))
            return phx_fail(r->err, PHX_E_INVALID, "%s: line %zu: unknown key '%.60s...'", r->name,
                            line, name);
        rc = next(r);
        if (rc == 0)
            rc = read_value(r, key, line);
        if (rc != 0)
            return rc;
    }
    return rc;
}

static int read_document(struct reader *r)
{
    int rc = next(r);

    while (rc == 0 && (r->event.type == YAML_STREAM_START_EVENT ||
                       r->event.type == YAML_DOCUMENT_START_EVENT))
        rc = next(r);
    if (rc == 0 && r->event.type == YAML_STREAM_END_EVENT)
        return 0; /* an empty file: all defaults */
    if (rc == 0 && r->event.type != YAML_MAPPING_START_EVENT)
        return phx_fail(r->err, PHX_E_INVALID, "%s: line %zu: `key: value` lines are expected", r->name,
                        line_of(r));
    if (rc == 0)
        rc = read_mapping(r, "");
    while (rc == 0 && r->event.type != YAML_STREAM_END_EVENT) {
        rc = next(r);
        if (rc == 0 && r->event.type == YAML_DOCUMENT_START_EVENT)
            return phx_fail(r->err, PHX_E_INVALID, "%s: line %zu: a second document", r->name,
                            line_of(r));
    }
    return rc;
}

int phx_config_parse(const char *text, size_t size, const char *name, struct phx_config **out,
                     struct phx_err *err)
{
    struct reader *r = phx_mem_calloc(1, sizeof(*r));
    int            rc;

    *out = NULL;
    phx_assert(phx_n_options <= SEEN_MAX && yaml_parser_initialize(&r->parser) == 1);
    yaml_parser_set_encoding(&r->parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r->parser, (const unsigned char *)text, size);
    r->name = name;
    r->err = err;
    r->config = phx_config_create();
    if (size > PHX_CONFIG_FILE_MAX_BYTES)
        rc = phx_fail(err, PHX_E_TOOBIG, "%s: larger than %d bytes", name, PHX_CONFIG_FILE_MAX_BYTES);
    else
        rc = read_document(r);
    if (rc == 0) {
        rc = phx_config_check(r->config, err);
        if (rc != 0)
            phx_err_prefix(err, "%s: ", name);
    }
    if (rc == 0) {
        phx_config_settle(r->config);
        *out = r->config;
    } else
        phx_config_destroy(r->config);
    if (r->has_event)
        yaml_event_delete(&r->event);
    yaml_parser_delete(&r->parser);
    phx_mem_free(r);
    return rc;
}

int phx_config_load(const char *path, struct phx_config **out, struct phx_err *err)
{
    struct phx_buf text;
    int            rc = phx_buf_read_file(&text, path, PHX_CONFIG_FILE_MAX_BYTES, err);

    *out = NULL;
    if (rc != 0)
        return rc;
    rc = phx_config_parse(text.data != NULL ? text.data : "", text.size, path, out, err);
    phx_buf_fini(&text);
    return rc;
}
