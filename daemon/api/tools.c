/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "daemon/api/request.h"

enum { SCHEMA_MAX_BYTES = 65536, DESCRIPTION_MAX_BYTES = 65536 };

static int parse_parameters(const json_t *function, const char *where, struct phx_arena *arena,
                            struct phx_tool *out, struct phx_err *err)
{
    const json_t  *schema = NULL;
    struct phx_buf text;
    int            rc = phx_json_opt_object(function, where, "parameters", &schema, err);

    if (rc != 0 || schema == NULL)
        return rc;
    phx_buf_init(&text, SCHEMA_MAX_BYTES);
    phx_json_put(&text, schema);
    rc = phx_buf_check(&text, "tools[].function.parameters", err);
    if (rc == 0)
        out->parameters = phx_arena_strdup(arena, text.data);
    phx_buf_fini(&text);
    return rc;
}

static int parse_tool(const json_t *item, const char *where, struct phx_arena *arena,
                      struct phx_tool *out, struct phx_err *err)
{
    static const char *const keys[] = {"type", "function", NULL};
    static const char *const function_keys[] = {"name", "description", "parameters", "strict",
                                                NULL};
    const json_t            *function;
    const char              *type;
    bool                     is_strict = false;
    int                      rc = phx_json_check_object(item, where, err);

    if (rc == 0)
        rc = phx_json_get_str(item, where, "type", 32, &type, err);
    if (rc == 0 && strcmp(type, "function") != 0)
        rc = phx_fail(err, PHX_E_UNSUPPORTED, "%s.type: only function is served", where);
    if (rc == 0)
        rc = phx_json_check_keys(item, where, keys, err);
    if (rc == 0)
        rc = phx_json_get_object(item, where, "function", &function, err);
    if (rc == 0)
        rc = phx_json_check_keys(function, where, function_keys, err);
    if (rc == 0)
        rc = phx_json_get_str(function, where, "name", 64, &out->name, err);
    if (rc == 0)
        rc = phx_json_opt_str(function, where, "description", DESCRIPTION_MAX_BYTES,
                              &out->description, err);
    if (rc == 0)
        rc = phx_json_opt_bool(function, where, "strict", &is_strict, err);
    if (rc == 0 && is_strict)
        rc = phx_fail(err, PHX_E_UNSUPPORTED,
                      "%s.function.strict: arguments are not constrained to the schema; leave it out",
                      where);
    return rc != 0 ? rc : parse_parameters(function, where, arena, out, err);
}

static bool is_offered(const struct phx_chat *chat, const char *name)
{
    for (size_t i = 0; i < chat->n_tools; i++)
        if (strcmp(chat->tools[i].name, name) == 0)
            return true;
    return false;
}

static int parse_named_choice(const json_t *choice, struct phx_chat *chat, struct phx_err *err)
{
    static const char *const keys[] = {"type", "function", NULL};
    static const char *const function_keys[] = {"name", NULL};
    const json_t            *function;
    const char              *type;
    int                      rc = phx_json_check_object(choice, "tool_choice", err);

    if (rc == 0)
        rc = phx_json_check_keys(choice, "tool_choice", keys, err);
    if (rc == 0)
        rc = phx_json_get_str(choice, "tool_choice", "type", 32, &type, err);
    if (rc == 0 && strcmp(type, "function") != 0)
        rc = phx_fail(err, PHX_E_UNSUPPORTED, "tool_choice.type: only function is served");
    if (rc == 0)
        rc = phx_json_get_object(choice, "tool_choice", "function", &function, err);
    if (rc == 0)
        rc = phx_json_check_keys(function, "tool_choice.function", function_keys, err);
    if (rc == 0)
        rc = phx_json_get_str(function, "tool_choice.function", "name", 64, &chat->forced_tool,
                              err);
    if (rc == 0 && !is_offered(chat, chat->forced_tool))
        rc = phx_fail(err, PHX_E_INVALID, "tool_choice.function.name: is not one of the tools");
    return rc;
}

static int parse_choice(const json_t *body, struct phx_chat *chat, struct phx_err *err)
{
    const json_t *choice = json_object_get(body, "tool_choice");
    const char   *word = json_string_value(choice);

    if (choice == NULL || json_is_null(choice))
        return 0;
    if (word == NULL)
        return parse_named_choice(choice, chat, err);
    if (strcmp(word, "none") == 0) {
        chat->n_tools = 0;
        return 0;
    }
    if (strcmp(word, "auto") == 0)
        return 0;
    if (strcmp(word, "required") == 0 && chat->n_tools == 1) {
        chat->forced_tool = chat->tools[0].name;
        return 0;
    }
    if (strcmp(word, "required") == 0)
        return phx_fail(err, PHX_E_UNSUPPORTED,
                        "tool_choice: required is served with exactly one tool; name the function");
    return phx_fail(err, PHX_E_INVALID,
                    "tool_choice: must be none, auto, required or a named function");
}

int phx_api_parse_tools(const json_t *body, struct phx_arena *arena, struct phx_chat *chat,
                        struct phx_err *err)
{
    const json_t    *list = NULL;
    struct phx_tool *tools;
    bool             is_parallel = true;
    int              rc = phx_json_opt_array(body, "", "tools", PHX_API_TOOLS_MAX, &list, err);

    if (rc == 0) /* the model makes one call per answer: both values are honoured */
        rc = phx_json_opt_bool(body, "", "parallel_tool_calls", &is_parallel, err);
    if (rc != 0)
        return rc;
    if (list == NULL || json_array_size(list) == 0)
        return parse_choice(body, chat, err);
    tools = phx_arena_calloc(arena, json_array_size(list), sizeof(*tools));
    for (size_t i = 0; i < json_array_size(list) && rc == 0; i++) {
        char where[32];

        (void)snprintf(where, sizeof(where), "tools[%zu]", i);
        rc = parse_tool(json_array_get(list, i), where, arena, &tools[i], err);
    }
    chat->tools = tools;
    chat->n_tools = json_array_size(list);
    return rc != 0 ? rc : parse_choice(body, chat, err);
}
