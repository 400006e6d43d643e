/* SPDX-License-Identifier: Apache-2.0
 * The "pre_tokenizer" value of tokenizer.json. */
#include <string.h>

#include "daemon/text/json_field.h"
#include "daemon/text/split.h"
#include "rpc/base/mem.h"

static struct phx_split_step *add_step(struct phx_splitter *s, enum phx_split_kind kind,
                                       const char *where, struct phx_err *err)
{
    if (s->n == PHX_SPLIT_STEPS_MAX) {
        (void)phx_fail(err, PHX_E_TOOBIG, "%s: more than %d pre-tokenizer steps", where,
                       PHX_SPLIT_STEPS_MAX);
        return NULL;
    }
    struct phx_split_step *step = &s->steps[s->n++];
    *step = (struct phx_split_step){.kind = kind};
    return step;
}

static int add_pattern(struct phx_splitter *s, const char *regex, enum phx_split_rule rule,
                       const char *where, struct phx_err *err)
{
    struct phx_split_step *step = add_step(s, PHX_SPLIT_PATTERN, where, err);
    if (!step)
        return PHX_E_TOOBIG;
    step->rule = rule;
    return phx_regex_compile(regex, where, &step->regex, err);
}

int phx_splitter_set_pattern(struct phx_splitter *s, const char *pattern, const char *where,
                             struct phx_err *err)
{
    s->is_byte_level = true;
    return add_pattern(s, pattern, PHX_RULE_ISOLATED, where, err);
}

static int parse_split(struct phx_splitter *s, json_t *value, const char *where,
                       struct phx_err *err)
{
    static const char *const keys[] = {"type", "pattern", "behavior", "invert", NULL};
    static const char *const rules[] = {"Isolated", "Removed", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    json_t                  *pattern = json_object_get(value, "pattern");
    const char              *regex = json_string_value(json_object_get(pattern, "Regex"));
    const char              *literal = json_string_value(json_object_get(pattern, "String"));
    const char              *behavior = phx_field_text(value, "behavior", where, err);
    if (!behavior)
        return PHX_E_FORMAT;
    int                    rc = phx_field_only(value, keys, where, err);
    struct phx_split_step *step = rc ? NULL : add_step(s, PHX_SPLIT_PATTERN, where, err);
    if (!step)
        return rc ? rc : PHX_E_TOOBIG;
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++)
        if (strcmp(behavior, rules[i]) == 0)
            step->rule = (enum phx_split_rule)(i + 1);
    if (!step->rule)
        return phx_fail(err, PHX_E_UNSUPPORTED, "%s: Split behavior \"%.40s\" is not known", where,
                        behavior);
    rc = phx_field_bool(value, "invert", where, &step->is_inverted, err);
    if (rc)
        return rc;
    if (regex)
        return phx_regex_compile(regex, where, &step->regex, err);
    if (!literal || literal[0] == '\0')
        return phx_fail(err, PHX_E_FORMAT, "%s: Split needs a pattern Regex or String", where);
    step->literal = phx_mem_strdup(literal);
    return 0;
}

static int parse_byte_level(struct phx_splitter *s, json_t *value, const char *where,
                            struct phx_err *err)
{
    static const char *const keys[] = {"type", "add_prefix_space", "trim_offsets", "use_regex",
                                       NULL};
    bool                     has_prefix = true, has_regex = true;
    int                      rc = phx_field_only(value, keys, where, err);
    if (rc == 0)
        rc = phx_field_bool(value, "add_prefix_space", where, &has_prefix, err);
    if (rc == 0)
        rc = phx_field_bool(value, "use_regex", where, &has_regex, err);
    if (rc)
        return rc;
    s->is_byte_level = true;
    if (has_prefix && !add_step(s, PHX_SPLIT_PREFIX_SPACE, where, err))
        return PHX_E_TOOBIG;
    return has_regex ? add_pattern(s, PHX_PATTERN_GPT2, PHX_RULE_ISOLATED, where, err) : 0;
}

static int parse_digits(struct phx_splitter *s, json_t *value, const char *where,
                        struct phx_err *err)
{
    static const char *const keys[] = {"type", "individual_digits", NULL};
    bool                     each = false;
    int                      rc = phx_field_only(value, keys, where, err);
    if (rc == 0)
        rc = phx_field_bool(value, "individual_digits", where, &each, err);
    if (rc)
        return rc;
    return add_pattern(s, "\\p{N}", each ? PHX_RULE_ISOLATED : PHX_RULE_CONTIGUOUS, where, err);
}

static int parse_metaspace(struct phx_splitter *s, json_t *value, const char *where,
                           struct phx_err *err)
{
    static const char *const keys[] = {
        "type", "replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep", NULL};
    const char *marker = phx_field_text(value, "replacement", where, err);
    const char *scheme = json_string_value(json_object_get(value, "prepend_scheme"));
    bool        has_prefix = true, is_splitting = true;
    if (!marker)
        return PHX_E_FORMAT;
    int rc = phx_field_only(value, keys, where, err);
    if (rc == 0)
        rc = phx_field_bool(value, "add_prefix_space", where, &has_prefix, err);
    if (rc == 0)
        rc = phx_field_bool(value, "split", where, &is_splitting, err);
    if (rc)
        return rc;
    if (marker[0] == '\0' || strlen(marker) > 4)
        return phx_fail(err, PHX_E_FORMAT, "%s: Metaspace replacement must be one character",
                        where);
    if (scheme && strcmp(scheme, "always") != 0 && strcmp(scheme, "first") != 0 &&
        strcmp(scheme, "never") != 0)
        return phx_fail(err, PHX_E_UNSUPPORTED, "%s: prepend_scheme \"%.40s\" is not known", where,
                        scheme);
    struct phx_split_step *step = add_step(s, PHX_SPLIT_METASPACE, where, err);
    if (!step)
        return PHX_E_TOOBIG;
    step->literal = phx_mem_strdup(marker);
    step->is_splitting = is_splitting;
    step->prepend = PHX_PREPEND_ALWAYS;
    if (scheme && strcmp(scheme, "first") == 0)
        step->prepend = PHX_PREPEND_FIRST;
    if (!has_prefix || (scheme && strcmp(scheme, "never") == 0))
        step->prepend = PHX_PREPEND_NEVER;
    return 0;
}

static int parse_step(struct phx_splitter *s, json_t *value, const char *where, struct phx_err *err)
{
    static const struct {
        const char *type;
        int (*parse)(struct phx_splitter *, json_t *, const char *, struct phx_err *);
    } kinds[] = {{"Split", parse_split},
                 {"ByteLevel", parse_byte_level},
                 {"Digits", parse_digits},
                 {"Metaspace", parse_metaspace}};
    const char *type = phx_field_text(value, "type", where, err);
    if (!type)
        return PHX_E_FORMAT;
    if (s->is_byte_level)
        return phx_fail(err, PHX_E_UNSUPPORTED, "%s: pre-tokenizer %.40s behind ByteLevel", where,
                        type);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(type, kinds[i].type) == 0)
            return kinds[i].parse(s, value, where, err);
    return phx_fail(err, PHX_E_UNSUPPORTED, "%s: pre-tokenizer type \"%.40s\" is not supported",
                    where, type);
}

int phx_splitter_parse(struct phx_splitter *s, json_t *value, const char *where,
                       struct phx_err *err)
{
    if (!value || json_is_null(value))
        return 0;
    const char *type = json_string_value(json_object_get(value, "type"));
    if (!type || strcmp(type, "Sequence") != 0)
        return parse_step(s, value, where, err);
    json_t *list = json_object_get(value, "pretokenizers"), *item;
    size_t  i;
    if (!json_is_array(list))
        return phx_fail(err, PHX_E_FORMAT, "%s: pre-tokenizer Sequence has no \"pretokenizers\"",
                        where);
    json_array_foreach(list, i, item)
    {
        int rc = parse_step(s, item, where, err);
        if (rc)
            return rc;
    }
    return 0;
}
