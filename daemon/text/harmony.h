/* SPDX-License-Identifier: Apache-2.0
 * The harmony conversation format of gpt-oss: writing prompts and reading answers (private to
 * daemon/text; the neutral door is text.h).
 *
 *   message := <|start|> header <|message|> content ( <|end|> | <|call|> | <|return|> )
 *   header  := author [" to=" recipient] [<|channel|> channel] [" " [<|constrain|>] type]
 */
#ifndef PHX_DAEMON_TEXT_HARMONY_H
#define PHX_DAEMON_TEXT_HARMONY_H

#include <jansson.h>

#include "daemon/text/prompt.h"
#include "daemon/text/text.h"

/* The marks by id; they differ between tokenizers and are looked up by name. */
struct phx_harmony {
    const struct phx_tokenizer *tokenizer;
    int32_t                     start, end, message, channel, constrain, ret, call;
};
/* False when the tokenizer lacks one of the marks (then the model does not speak harmony). */
bool phx_harmony_init(struct phx_harmony *h, const struct phx_tokenizer *t);

/* ---- writing ---- */

struct phx_harmony_message {
    enum phx_role role;
    const char   *name;      /* tool: its full name ("functions.f"); others: author name or NULL */
    const char   *recipient; /* or NULL */
    const char   *channel;   /* or NULL */
    const char   *content_type; /* or NULL; "<|constrain|>json" has its mark placed */
    const char   *content;
};

void phx_harmony_write_message(const struct phx_harmony *h, struct phx_prompt *p,
                               const struct phx_harmony_message *m);
/* The text of the system message; it depends on identity, knowledge_cutoff, date, effort and on
 * whether there are tools. */
void phx_harmony_system_text(const struct phx_chat *chat, struct phx_buf *out);
/* The text of the developer message: instructions (or NULL), tools, response format.  PHX_E_INVALID
 * names a tool whose schema is not a JSON object. */
int phx_harmony_developer_text(const struct phx_chat *chat, const char *instructions,
                               struct phx_buf *out, struct phx_err *err) PHX_CHECKED;
/* JSON schema -> TypeScript type, as the reference writes it. */
int phx_harmony_type(const char *schema, const char *where, struct phx_buf *out,
                     struct phx_err *err) PHX_CHECKED;
/* A whole request up to where the assistant starts. */
void phx_harmony_write_chat(const struct phx_harmony *h, struct phx_prompt *p,
                            const struct phx_chat *chat);

/* ---- reading ---- */

#define PHX_HARMONY_HEADER_MAX 512 /* bytes; what a longer header says is lost, never the content  \
                                    */

struct phx_harmony_header {
    char author[64];
    char channel[64];
    char recipient[128];
    char content_type[64];
};

enum phx_harmony_event {
    PHX_HARMONY_BEGIN = 1, /* the header is known */
    PHX_HARMONY_DELTA,     /* more content: whole characters */
    PHX_HARMONY_END,       /* the message is closed */
};

/* terminator: the id that closed the message, -1 when the stream ended or a new one began. */
typedef void phx_harmony_fn(void *ctx, enum phx_harmony_event event,
                            const struct phx_harmony_header *header, const char *data, size_t size,
                            int32_t terminator);

struct phx_harmony_parser {
    const struct phx_harmony *h;
    phx_harmony_fn           *fn;
    void                     *ctx;
    int                       state;
    bool                      has_channel_mark; /* in this header */
    struct phx_harmony_header header;
    struct phx_buf            text;  /* header text so far, marks by name */
    struct phx_buf            delta; /* content completed by the last token */
    struct phx_detok         *detok;
};

/* Starts behind "<|start|>assistant", where prompts end. */
void phx_harmony_parser_init(struct phx_harmony_parser *p, const struct phx_harmony *h,
                             phx_harmony_fn *fn, void *ctx);
/* The prompt already holds the whole header and <|message|>. */
void phx_harmony_parser_begin(struct phx_harmony_parser       *p,
                              const struct phx_harmony_header *header);
void phx_harmony_parser_push(struct phx_harmony_parser *p, int32_t id);
void phx_harmony_parser_end(struct phx_harmony_parser *p);
void phx_harmony_parser_fini(struct phx_harmony_parser *p);

#endif
