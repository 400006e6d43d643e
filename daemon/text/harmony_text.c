/* SPDX-License-Identifier: Apache-2.0
 * The texts of the system and the developer message. */
#include <stdio.h>
#include <string.h>

#include "daemon/text/harmony.h"

#define IDENTITY "You are ChatGPT, a large language model trained by OpenAI."
#define CUTOFF   "2024-06"

static const char *effort_name(enum phx_effort effort)
{
    return effort == PHX_EFFORT_LOW ? "low" : effort == PHX_EFFORT_HIGH ? "high" : "medium";
}

void phx_harmony_system_text(const struct phx_chat *chat, struct phx_buf *out)
{
    const char *identity = chat->identity ? chat->identity : IDENTITY;
    const char *cutoff = chat->knowledge_cutoff ? chat->knowledge_cutoff : CUTOFF;
    const char *gap = "";
    if (*identity) {
        phx_buf_puts(out, identity);
        gap = "\n";
    }
    if (*cutoff) {
        phx_buf_printf(out, "%sKnowledge cutoff: %s", gap, cutoff);
        gap = "\n";
    }
    if (chat->date && *chat->date) {
        phx_buf_printf(out, "%sCurrent date: %s", gap, chat->date);
        gap = "\n";
    }
    phx_buf_printf(out, "%sReasoning: %s\n\n", *gap ? "\n\n" : "", effort_name(chat->effort));
    phx_buf_puts(out, "# Valid channels: analysis, commentary, final. "
                      "Channel must be included for every message.");
    if (chat->n_tools > 0)
        phx_buf_puts(out, "\nCalls to these tools must go to the commentary channel: 'functions'.");
}

/* Each line of `text` behind "// ". */
static void put_lines(struct phx_buf *out, const char *text)
{
    while (*text) {
        size_t size = strcspn(text, "\n"), shown = size;
        if (shown > 0 && text[shown - 1] == '\r')
            shown--;
        phx_buf_puts(out, "// ");
        phx_buf_put(out, text, shown);
        phx_buf_putc(out, '\n');
        text += size + (text[size] == '\n');
    }
}

static int put_tools(const struct phx_chat *chat, struct phx_buf *out, struct phx_err *err)
{
    phx_buf_puts(out, "# Tools\n\n## functions\n\nnamespace functions {\n\n");
    for (size_t i = 0; i < chat->n_tools; i++) {
        const struct phx_tool *tool = &chat->tools[i];
        char                   where[64];
        (void)snprintf(where, sizeof where, "tools[%zu].function.parameters", i);
        put_lines(out, tool->description ? tool->description : "");
        phx_buf_printf(out, "type %s = (", tool->name);
        if (tool->parameters) {
            phx_buf_puts(out, "_: ");
            int rc = phx_harmony_type(tool->parameters, where, out, err);
            if (rc)
                return rc;
        }
        phx_buf_puts(out, ") => any;\n\n");
    }
    phx_buf_puts(out, "} // namespace functions");
    return 0;
}

static void put_format(const struct phx_chat *chat, struct phx_buf *out)
{
    phx_buf_printf(out, "# Response Formats\n\n## %s\n\n", chat->schema_name);
    if (chat->schema_description && *chat->schema_description)
        phx_buf_printf(out, "// %s\n", chat->schema_description);
    phx_buf_puts(out, chat->schema ? chat->schema : "{}");
}

int phx_harmony_developer_text(const struct phx_chat *chat, const char *instructions,
                               struct phx_buf *out, struct phx_err *err)
{
    const char *gap = "";
    if (instructions) {
        phx_buf_puts(out, "# Instructions\n\n");
        phx_buf_puts(out, instructions);
        gap = "\n\n";
    }
    if (chat->n_tools > 0) {
        phx_buf_puts(out, gap);
        int rc = put_tools(chat, out, err);
        if (rc)
            return rc;
        gap = "\n\n";
    }
    if (chat->schema_name) {
        phx_buf_puts(out, gap);
        put_format(chat, out);
    }
    return phx_buf_check(out, "the developer message", err);
}
