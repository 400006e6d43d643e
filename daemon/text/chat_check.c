/* SPDX-License-Identifier: Apache-2.0
 * What a request may say to this model, checked before anything is rendered. */
#include <string.h>

#include "daemon/text/chat.h"
#include "rpc/base/utf8.h"

static bool is_name(const char *s)
{
    size_t n =
        s ? strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") : 0;
    return n >= 1 && n <= 64 && s[n] == '\0';
}

static bool is_date(const char *s)
{
    static const char pattern[] = "dddd-dd-dd";
    if (strlen(s) != sizeof pattern - 1)
        return false;
    for (size_t i = 0; pattern[i]; i++)
        if (pattern[i] == 'd' ? s[i] < '0' || s[i] > '9' : s[i] != '-')
            return false;
    int month = (s[5] - '0') * 10 + s[6] - '0', day = (s[8] - '0') * 10 + s[9] - '0';
    return month >= 1 && month <= 12 && day >= 1 && day <= 31;
}

static int check_calls(const struct phx_chat_message *m, size_t i, struct phx_err *err)
{
    if (m->n_calls > 0 && m->role != PHX_ROLE_ASSISTANT)
        return phx_fail(err, PHX_E_INVALID,
                        "messages[%zu].tool_calls: only an assistant calls tools", i);
    for (size_t c = 0; c < m->n_calls; c++)
        if (!is_name(m->calls[c].name))
            return phx_fail(err, PHX_E_INVALID,
                            "messages[%zu].tool_calls[%zu].function.name must match "
                            "[A-Za-z0-9_-]{1,64}",
                            i, c);
    return 0;
}

static int check_messages(const struct phx_chat *chat, struct phx_err *err)
{
    if (chat->n_messages == 0)
        return phx_fail(err, PHX_E_INVALID, "messages must not be empty");
    for (size_t i = 0; i < chat->n_messages; i++) {
        const struct phx_chat_message *m = &chat->messages[i];
        if (m->role < PHX_ROLE_SYSTEM || m->role > PHX_ROLE_TOOL)
            return phx_fail(err, PHX_E_INVALID, "messages[%zu].role is not known", i);
        if (m->name && !is_name(m->name))
            return phx_fail(err, PHX_E_INVALID, "messages[%zu].name must match [A-Za-z0-9_-]{1,64}",
                            i);
        if (m->content && !phx_utf8_is_valid(m->content, strlen(m->content)))
            return phx_fail(err, PHX_E_INVALID, "messages[%zu].content is not valid UTF-8", i);
        int rc = check_calls(m, i, err);
        if (rc)
            return rc;
    }
    return 0;
}

static int check_tools(const struct phx_chat *chat, struct phx_err *err)
{
    bool has_forced = chat->forced_tool == NULL;
    for (size_t i = 0; i < chat->n_tools; i++) {
        if (!is_name(chat->tools[i].name))
            return phx_fail(err, PHX_E_INVALID,
                            "tools[%zu].function.name must match [A-Za-z0-9_-]{1,64}", i);
        for (size_t j = 0; j < i; j++)
            if (strcmp(chat->tools[i].name, chat->tools[j].name) == 0)
                return phx_fail(err, PHX_E_INVALID, "tools[%zu] and tools[%zu] have the same name",
                                j, i);
        has_forced = has_forced || strcmp(chat->tools[i].name, chat->forced_tool) == 0;
    }
    return has_forced ? 0 : phx_fail(err, PHX_E_INVALID, "tool_choice names no offered tool");
}

static int check_harmony(const struct phx_chat *chat, struct phx_err *err)
{
    if (chat->schema_name && !is_name(chat->schema_name))
        return phx_fail(err, PHX_E_INVALID, "response_format name must match [A-Za-z0-9_-]{1,64}");
    return 0;
}

/* Template formats have no place for what harmony adds. */
static int check_template(const struct phx_text *t, const struct phx_chat *chat,
                          struct phx_err *err)
{
    const char *what = NULL;
    if (chat->n_tools > 0 || chat->forced_tool)
        what = "tools";
    else if (chat->effort != PHX_EFFORT_DEFAULT)
        what = "reasoning_effort";
    else if (chat->schema_name)
        what = "response_format with a schema";
    else if (chat->identity || chat->knowledge_cutoff)
        what = "identity and knowledge cutoff";
    for (size_t i = 0; i < chat->n_messages && !what; i++)
        if (chat->messages[i].role == PHX_ROLE_TOOL || chat->messages[i].n_calls > 0)
            what = "tool messages";
        else if (chat->messages[i].name)
            what = "messages[].name";
    if (!what)
        return 0;
    return phx_fail(err, PHX_E_UNSUPPORTED, "%s: not supported by this model's chat format (%s)",
                    what, phx_text_chat_name(t));
}

int phx_chat_check(const struct phx_text *t, const struct phx_chat *chat, struct phx_err *err)
{
    if (!phx_text_has_chat(t))
        return phx_fail(err, PHX_E_UNSUPPORTED,
                        "this model has no recognised chat template; use completions");
    int rc = check_messages(chat, err);
    if (rc == 0)
        rc = check_tools(chat, err);
    if (rc == 0 && chat->date && !is_date(chat->date))
        rc = phx_fail(err, PHX_E_INVALID, "date must be YYYY-MM-DD");
    if (rc)
        return rc;
    return t->template.style == PHX_STYLE_HARMONY ? check_harmony(chat, err)
                                                  : check_template(t, chat, err);
}
