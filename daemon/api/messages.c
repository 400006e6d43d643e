/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "daemon/api/request.h"

enum { WHERE_MAX = 64, CONTENT_MAX_BYTES = PHX_TEXT_BYTES_MAX };

static const struct {
    const char   *name;
    enum phx_role role;
} roles[] = {
    {"system", PHX_ROLE_SYSTEM},       {"developer", PHX_ROLE_DEVELOPER},
    {"user", PHX_ROLE_USER},           {"assistant", PHX_ROLE_ASSISTANT},
    {"tool", PHX_ROLE_TOOL},
};

static int parse_role(const json_t *message, const char *where, enum phx_role *role,
                      struct phx_err *err)
{
    const char *name;
    int         rc = phx_json_get_str(message, where, "role", 32, &name, err);

    if (rc != 0)
        return rc;
    for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++)
        if (strcmp(name, roles[i].name) == 0) {
            *role = roles[i].role;
            return 0;
        }
    return phx_fail(err, PHX_E_INVALID,
                    "%s.role: must be system, developer, user, assistant or tool", where);
}

/* A list of text parts becomes one text. */
static int join_parts(const json_t *parts, const char *where, struct phx_arena *arena,
                      const char **out, struct phx_err *err)
{
    static const char *const keys[] = {"type", "text", NULL};
    struct phx_buf           text;
    int                      rc = 0;

    if (json_array_size(parts) > PHX_API_PARTS_MAX)
        return phx_fail(err, PHX_E_TOOBIG, "%s.content: more than %d parts", where,
                        PHX_API_PARTS_MAX);
    phx_buf_init(&text, CONTENT_MAX_BYTES);
    for (size_t i = 0; i < json_array_size(parts) && rc == 0; i++) {
        const json_t *part = json_array_get(parts, i);
        const char   *type = "", *piece = "";
        char          at[WHERE_MAX + 32];

        (void)snprintf(at, sizeof(at), "%s.content[%zu]", where, i);
        rc = phx_json_check_object(part, at, err);
        if (rc == 0)
            rc = phx_json_get_str(part, at, "type", 32, &type, err);
        if (rc == 0 && strcmp(type, "text") != 0)
            rc = phx_fail(err, PHX_E_UNSUPPORTED, "%s.type: only text parts are served", at);
        if (rc == 0)
            rc = phx_json_check_keys(part, at, keys, err);
        if (rc == 0)
            rc = phx_json_get_str(part, at, "text", CONTENT_MAX_BYTES, &piece, err);
        phx_buf_puts(&text, piece);
    }
    if (rc == 0)
        rc = phx_buf_check(&text, "message content", err);
    if (rc == 0)
        *out = phx_arena_strdup(arena, text.data != NULL ? text.data : "");
    phx_buf_fini(&text);
    return rc;
}

static int parse_content(const json_t *message, const char *where, struct phx_arena *arena,
                         struct phx_chat_message *out, struct phx_err *err)
{
    const json_t *content = json_object_get(message, "content");

    if (json_is_array(content))
        return join_parts(content, where, arena, &out->content, err);
    if (content == NULL || json_is_null(content)) {
        if (out->role != PHX_ROLE_ASSISTANT)
            return phx_fail(err, PHX_E_INVALID, "%s.content: is needed", where);
        return 0;
    }
    return phx_json_get_str(message, where, "content", CONTENT_MAX_BYTES, &out->content, err);
}

static int parse_call(const json_t *item, const char *where, struct phx_tool_call *out,
                      struct phx_err *err)
{
    static const char *const keys[] = {"id", "type", "function", "index", NULL};
    static const char *const function_keys[] = {"name", "arguments", NULL};
    const json_t            *function;
    const char              *type = "function";
    int                      rc = phx_json_check_object(item, where, err);

    if (rc == 0)
        rc = phx_json_check_keys(item, where, keys, err);
    if (rc == 0)
        rc = phx_json_opt_str(item, where, "type", 32, &type, err);
    if (rc == 0 && strcmp(type, "function") != 0)
        rc = phx_fail(err, PHX_E_UNSUPPORTED, "%s.type: only function is served", where);
    if (rc == 0)
        rc = phx_json_get_str(item, where, "id", PHX_API_NAME_MAX, &out->id, err);
    if (rc == 0)
        rc = phx_json_get_object(item, where, "function", &function, err);
    if (rc == 0)
        rc = phx_json_check_keys(function, where, function_keys, err);
    if (rc == 0)
        rc = phx_json_get_str(function, where, "name", 64, &out->name, err);
    if (rc == 0)
        rc = phx_json_get_str(function, where, "arguments", CONTENT_MAX_BYTES, &out->arguments,
                              err);
    return rc;
}

static int parse_calls(const json_t *message, const char *where, struct phx_arena *arena,
                       struct phx_chat_message *out, struct phx_err *err)
{
    const json_t         *list = NULL;
    struct phx_tool_call *calls;
    int rc = phx_json_opt_array(message, where, "tool_calls", PHX_API_CALLS_MAX, &list, err);

    if (rc != 0 || list == NULL)
        return rc;
    if (out->role != PHX_ROLE_ASSISTANT)
        return phx_fail(err, PHX_E_INVALID, "%s.tool_calls: only assistant messages have them",
                        where);
    calls = phx_arena_calloc(arena, json_array_size(list), sizeof(*calls));
    for (size_t i = 0; i < json_array_size(list) && rc == 0; i++) {
        char at[WHERE_MAX + 32];

        (void)snprintf(at, sizeof(at), "%s.tool_calls[%zu]", where, i);
        rc = parse_call(json_array_get(list, i), at, &calls[i], err);
    }
    out->calls = calls;
    out->n_calls = json_array_size(list);
    return rc;
}

static int parse_message(const json_t *item, const char *where, struct phx_arena *arena,
                         struct phx_chat_message *out, struct phx_err *err)
{
    static const char *const keys[] = {"role", "content", "name", "tool_calls", "tool_call_id",
                                       "reasoning_content", "refusal", "annotations", NULL};
    const char              *refusal = NULL;
    const json_t            *annotations = NULL;
    int                      rc = phx_json_check_object(item, where, err);

    if (rc == 0)
        rc = phx_json_check_keys(item, where, keys, err);
    if (rc == 0)
        rc = parse_role(item, where, &out->role, err);
    if (rc == 0)
        rc = parse_content(item, where, arena, out, err);
    if (rc == 0)
        rc = phx_json_opt_str(item, where, "name", 64, &out->name, err);
    if (rc == 0)
        rc = phx_json_opt_str(item, where, "tool_call_id", PHX_API_NAME_MAX, &out->tool_call_id,
                              err);
    if (rc == 0)
        rc = phx_json_opt_str(item, where, "reasoning_content", CONTENT_MAX_BYTES, &out->reasoning,
                              err);
    if (rc == 0)
        rc = phx_json_opt_str(item, where, "refusal", CONTENT_MAX_BYTES, &refusal, err);
    if (rc == 0)
        rc = phx_json_opt_array(item, where, "annotations", 0, &annotations, err);
    if (rc == 0)
        rc = parse_calls(item, where, arena, out, err);
    if (rc != 0)
        return rc;
    if (refusal != NULL)
        return phx_fail(err, PHX_E_UNSUPPORTED, "%s.refusal: send it as content", where);
    if (out->reasoning != NULL && out->role != PHX_ROLE_ASSISTANT)
        return phx_fail(err, PHX_E_INVALID,
                        "%s.reasoning_content: only assistant messages have it", where);
    if (out->role == PHX_ROLE_TOOL && out->tool_call_id == NULL && out->name == NULL)
        return phx_fail(err, PHX_E_INVALID, "%s.tool_call_id: is needed", where);
    return 0;
}

int phx_api_parse_messages(const json_t *body, struct phx_arena *arena, struct phx_chat *chat,
                           struct phx_err *err)
{
    const json_t            *list;
    struct phx_chat_message *messages;
    int rc = phx_json_get_array(body, "", "messages", PHX_API_MESSAGES_MAX, &list, err);

    if (rc != 0)
        return rc;
    if (json_array_size(list) == 0)
        return phx_fail(err, PHX_E_INVALID, "messages: must not be empty");
    messages = phx_arena_calloc(arena, json_array_size(list), sizeof(*messages));
    for (size_t i = 0; i < json_array_size(list) && rc == 0; i++) {
        char where[WHERE_MAX];

        (void)snprintf(where, sizeof(where), "messages[%zu]", i);
        rc = parse_message(json_array_get(list, i), where, arena, &messages[i], err);
    }
    chat->messages = messages;
    chat->n_messages = json_array_size(list);
    return rc;
}
