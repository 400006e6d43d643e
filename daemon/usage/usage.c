/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/usage/usage.h"

#include <stdio.h>
#include <string.h>

#include "daemon/usage/out.h"

enum { BUFFER_MAX_BYTES = 1 << 20 };

static const struct {
    const char *name;
    int (*write)(struct out *o);
} formats[] = {
    {"", NULL},
    {"table", phx_usage_write_table},
    {"json", phx_usage_write_json},
    {"csv", phx_usage_write_csv},
    {"cloudevents", phx_usage_write_events},
    {"focus", phx_usage_write_focus},
};

enum phx_usage_format phx_usage_format_parse(const char *name)
{
    for (int f = PHX_USAGE_TABLE; f <= PHX_USAGE_FOCUS; f++)
        if (strcmp(name, formats[f].name) == 0)
            return f;
    return 0;
}

const char *phx_usage_format_name(enum phx_usage_format format)
{
    return formats[format >= PHX_USAGE_TABLE && format <= PHX_USAGE_FOCUS ? (int)format : 0].name;
}

int phx_usage_groups_parse(const char *text, enum phx_usage_group groups[PHX_USAGE_GROUPS_MAX],
                           struct phx_err *err)
{
    int n = 0;

    memset(groups, 0, PHX_USAGE_GROUPS_MAX * sizeof(groups[0]));
    for (const char *p = text; p != NULL; n++) {
        const char *comma = strchr(p, ',');
        char        name[32];

        (void)snprintf(name, sizeof(name), "%.*s", comma != NULL ? (int)(comma - p) : (int)sizeof(name), p);
        if (n == PHX_USAGE_GROUPS_MAX)
            return phx_fail(err, PHX_E_INVALID, "by: at most %d groups", PHX_USAGE_GROUPS_MAX);
        groups[n] = phx_usage_group_parse(name);
        if (groups[n] == PHX_GROUP_NONE)
            return phx_fail(err, PHX_E_INVALID,
                            "by: '%s' is none of tenant, user, model, cost_centre, hour, day, month", name);
        for (int i = 0; i < n; i++)
            if (groups[i] == groups[n])
                return phx_fail(err, PHX_E_INVALID, "by: '%s' is there twice", name);
        p = comma != NULL ? comma + 1 : NULL;
    }
    return 0;
}

int phx_usage_write(struct phx_tx *tx, const struct phx_usage_report *report, enum phx_usage_format format,
                    phx_usage_sink_fn sink, void *ctx, struct phx_err *err)
{
    struct out o = {.tx = tx, .report = report, .sink = sink, .ctx = ctx, .err = err};
    int        rc;

    if (format < PHX_USAGE_TABLE || format > PHX_USAGE_FOCUS)
        return phx_fail(err, PHX_E_INVALID, "format: table, json, csv, cloudevents or focus");
    phx_buf_init(&o.text, BUFFER_MAX_BYTES);
    rc = formats[format].write(&o);
    if (rc == 0)
        rc = phx_out_flush(&o);
    phx_buf_fini(&o.text);
    return rc;
}
