/* SPDX-License-Identifier: Apache-2.0
 * The door of daemon/text: tokens <-> text <-> conversations.
 *
 * Three opaque nouns.  A `phx_tokenizer` turns text into token ids and back.  A `phx_text` is all
 * that one checkpoint says about text: its tokenizer, how it writes a conversation (harmony or a
 * recognised chat template) and where it stops.  A `phx_reply` reads one generated answer token by
 * token and turns it into neutral events, so that callers have no model branches.
 *
 * Tokenizers and texts never change after open: any number of threads may use one at once.
 * A detokenizer, a reply and a stop scanner belong to one stream each.
 * All strings are UTF-8; NUL-terminated unless a size is given.  Errors never quote prompt text. */
#ifndef PHX_DAEMON_TEXT_TEXT_H
#define PHX_DAEMON_TEXT_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/base/buf.h"
#include "rpc/base/err.h"

#define PHX_TEXT_FILE_BYTES_MAX (64u << 20) /* any file read here */
#define PHX_TEXT_BYTES_MAX      (16u << 20) /* one text to encode */
#define PHX_VOCAB_MAX           (1 << 21)   /* ids are 0 .. PHX_VOCAB_MAX - 1 */

/* A growing list of token ids.  Zero-initialise; phx_ids_fini() frees data. */
struct phx_ids {
    int32_t *data;
    size_t   n;
    size_t   capacity;
};
void phx_ids_put(struct phx_ids *ids, int32_t id);
void phx_ids_fini(struct phx_ids *ids); /* leaves an empty list */

/* ---- tokenizer --------------------------------------------------------------------------- */

struct phx_tokenizer;

/* Opens DIR/tokenizer.json with DIR/tokenizer_config.json (if there: add_bos_token, names of bos,
 * eos and pad), or PATH alone.  What cannot be honoured exactly is refused by name:
 * PHX_E_UNSUPPORTED (model or component type), PHX_E_FORMAT (bad merge, duplicate id, ...),
 * PHX_E_TOOBIG, PHX_E_IO.  *out is owned: phx_tokenizer_close(). */
int phx_tokenizer_open_dir(const char *dir, struct phx_tokenizer **out,
                           struct phx_err *err) PHX_CHECKED;
int phx_tokenizer_open_file(const char *path, struct phx_tokenizer **out,
                            struct phx_err *err) PHX_CHECKED;
/* The same from memory; `name` stands for the file in messages. */
int phx_tokenizer_open_json(const char *json, size_t size_bytes, const char *name,
                            struct phx_tokenizer **out, struct phx_err *err) PHX_CHECKED;

/* Opens a tiktoken rank file under a named encoding (phx_encoding_name); PHX_E_NOTFOUND for an
 * unknown name (the message lists the known ones). */
int phx_tokenizer_open_ranks(const char *path, const char *encoding, struct phx_tokenizer **out,
                             struct phx_err *err) PHX_CHECKED;
/* The i-th encoding name ("o200k_base", "o200k_harmony", "cl100k_base", "gpt2"), NULL at the end.
 */
const char *phx_encoding_name(size_t i);

void phx_tokenizer_close(struct phx_tokenizer *t); /* NULL is allowed */

enum phx_encode_flag {
    PHX_ENCODE_SPECIALS = 1 << 0, /* special strings in the text become special ids */
    PHX_ENCODE_TEMPLATE = 1 << 1, /* post-processor: BOS and EOS as the checkpoint wants them */
};
/* Appends the ids of `text` to *ids.  flags 0 is the safe way for content from users: special
 * strings are ordinary text.  PHX_E_FORMAT with the byte offset when the text is not UTF-8,
 * PHX_E_TOOBIG above PHX_TEXT_BYTES_MAX.  On failure *ids is as before. */
int phx_tokenizer_encode(const struct phx_tokenizer *t, const char *text, size_t size_bytes,
                         unsigned flags, struct phx_ids *ids, struct phx_err *err) PHX_CHECKED;

/* Largest id + 1 (added tokens included; a model's matrix may have more rows). */
int32_t phx_tokenizer_vocab_size(const struct phx_tokenizer *t);
/* The id of a token by its literal text (added and special tokens such as "<|start|>" first, then
 * the vocabulary), or -1. */
int32_t phx_tokenizer_id(const struct phx_tokenizer *t, const char *content);
bool    phx_tokenizer_is_special(const struct phx_tokenizer *t, int32_t id);
/* bos, eos, pad as the checkpoint names them, or -1. */
int32_t phx_tokenizer_bos(const struct phx_tokenizer *t);
int32_t phx_tokenizer_eos(const struct phx_tokenizer *t);
int32_t phx_tokenizer_pad(const struct phx_tokenizer *t);
/* The bytes a token stands for (possibly not UTF-8 by themselves; a special token: its name).
 * Borrowed until close; NULL and *size_bytes = 0 when the id has no token.  Word-start markers of
 * SentencePiece read as a space. */
const char *phx_tokenizer_bytes(const struct phx_tokenizer *t, int32_t id, size_t *size_bytes);

enum phx_decode_flag {
    PHX_DECODE_SPECIALS = 1 << 0, /* write special tokens by name instead of leaving them out */
    PHX_DECODE_CONTINUE = 1 << 1, /* the ids continue a text: keep a leading word-start space */
};
/* Appends the text of the ids to *out, bytes that are not UTF-8 as U+FFFD.  Ids without a token
 * (rows the checkpoint padded) stand for nothing.  The size is bounded by the buffer's maximum. */
void phx_tokenizer_decode(const struct phx_tokenizer *t, const int32_t *ids, size_t n,
                          unsigned flags, struct phx_buf *out);

/* Incremental decoding: what was pushed so far always comes out as whole UTF-8 characters. */
struct phx_detok;
struct phx_detok *phx_detok_create(const struct phx_tokenizer *t, unsigned decode_flags);
void              phx_detok_destroy(struct phx_detok *d); /* NULL is allowed */
/* Appends to *out the characters completed by this token (often none, sometimes several). */
void phx_detok_push(struct phx_detok *d, int32_t id, struct phx_buf *out);
/* The end of the stream: an unfinished character becomes U+FFFD.  Ready for a new stream. */
void phx_detok_flush(struct phx_detok *d, struct phx_buf *out);

/* ---- conversations ----------------------------------------------------------------------- */

enum phx_role {
    PHX_ROLE_SYSTEM = 1, /* API "system"; in harmony it becomes part of the developer message */
    PHX_ROLE_DEVELOPER,
    PHX_ROLE_USER,
    PHX_ROLE_ASSISTANT,
    PHX_ROLE_TOOL,
};

enum phx_effort {
    PHX_EFFORT_DEFAULT, /* medium */
    PHX_EFFORT_LOW,
    PHX_EFFORT_MEDIUM,
    PHX_EFFORT_HIGH,
};

struct phx_tool_call {
    const char *id;        /* matched with a tool message's tool_call_id */
    const char *name;      /* [A-Za-z0-9_-]{1,64} */
    const char *arguments; /* the JSON text the model wrote, passed back unchanged */
};

struct phx_chat_message {
    enum phx_role role;
    const char   *name;         /* NULL; author name, or for a tool message the function's name */
    const char   *content;      /* NULL counts as empty */
    const char   *reasoning;    /* assistant: the reasoning it gave with this message, or NULL */
    const char   *tool_call_id; /* tool: which call this answers (or give name) */
    const struct phx_tool_call *calls; /* assistant */
    size_t                      n_calls;
};

struct phx_tool {
    const char *name;        /* [A-Za-z0-9_-]{1,64} */
    const char *description; /* or NULL */
    const char *parameters;  /* JSON schema text of an object, or NULL for no parameters */
};

/* One request, borrowed for the call.  Zero-initialise, then set what is known. */
struct phx_chat {
    const struct phx_chat_message *messages;
    size_t                         n_messages;
    const struct phx_tool         *tools; /* offered functions; for tool_choice "none" give none */
    size_t                         n_tools;
    const char                    *forced_tool; /* NULL, or the function the answer must call */
    enum phx_effort                effort;
    const char *date;               /* "YYYY-MM-DD" or NULL for none (keeps prompts cacheable) */
    const char *identity;           /* first line of a harmony system message; NULL = the default */
    const char *knowledge_cutoff;   /* NULL = the default, "" = none */
    const char *schema_name;        /* structured output hint: NULL, or a name with ... */
    const char *schema_description; /* ... NULL or one line, and */
    const char *schema;             /* ... JSON schema text */
};

struct phx_text;

/* Opens a checkpoint folder: the tokenizer, config.json and generation_config.json (eos ids),
 * tokenizer_config.json and chat_template.jinja (recognised, never executed).
 * *out is owned: phx_text_close(). */
int  phx_text_open(const char *dir, struct phx_text **out, struct phx_err *err) PHX_CHECKED;
void phx_text_close(struct phx_text *t); /* NULL is allowed */

const struct phx_tokenizer *phx_text_tokenizer(const struct phx_text *t); /* borrowed */
/* "harmony", "llama3", "llama3.1", "llama2", "chatml", "mistral-v0.1", "mistral-v0.2", or "none" */
const char *phx_text_chat_name(const struct phx_text *t);
bool        phx_text_has_chat(const struct phx_text *t);
bool phx_text_has_reasoning(const struct phx_text *t); /* effort and reasoning mean something */
bool phx_text_has_tools(const struct phx_text *t);
/* Ids that end a generation: union of config, generation config, tokenizer and the chat format's
 * own, ascending.  Borrowed until close. */
const int32_t *phx_text_stop_ids(const struct phx_text *t, size_t *n);

/* Appends the prompt of a conversation, ending where the assistant's answer starts.  Content is
 * ordinary text always.  PHX_E_UNSUPPORTED when the model has no recognised chat format or the
 * format cannot express a field (named), PHX_E_INVALID for a bad field (named with its index). */
int phx_text_render(const struct phx_text *t, const struct phx_chat *chat, struct phx_ids *ids,
                    struct phx_err *err) PHX_CHECKED;
/* Both again, looking for texts that the same tenant sent before: the ids are the same, sooner.  scope NULL: no cache. */
struct phx_text_cache;
struct phx_text_scope {
    struct phx_text_cache *cache; /* of this very phx_text; or NULL */
    const char            *tenant;
};
int phx_text_render_cached(const struct phx_text *t, const struct phx_text_scope *scope, const struct phx_chat *chat,
                           struct phx_ids *ids, struct phx_err *err) PHX_CHECKED;
int phx_text_prompt_cached(const struct phx_text *t, const struct phx_text_scope *scope, const char *text,
                           size_t size_bytes, struct phx_ids *ids, struct phx_err *err) PHX_CHECKED;

/* Any number of threads may use one cache.  Holds at most max_bytes, the least recently used leave first; 0 keeps
 * nothing.  Owned: phx_text_cache_destroy(). */
struct phx_text_cache *phx_text_cache_create(size_t max_bytes);
void                   phx_text_cache_destroy(struct phx_text_cache *c); /* NULL is allowed */
struct phx_text_cache_facts {
    size_t   bytes, n_entries;
    uint64_t n_hits, n_misses;
};
void phx_text_cache_facts(struct phx_text_cache *c, struct phx_text_cache_facts *out);

/* The prompt of a plain completion: ordinary text, with BOS where the checkpoint wants it. */
int phx_text_prompt(const struct phx_text *t, const char *text, size_t size_bytes,
                    struct phx_ids *ids, struct phx_err *err) PHX_CHECKED;

/* ---- replies ----------------------------------------------------------------------------- */

enum phx_reply_kind {
    PHX_REPLY_REASONING = 1, /* data: more reasoning text */
    PHX_REPLY_CONTENT,       /* data: more of the answer the user sees */
    PHX_REPLY_CALL_BEGIN,    /* data: the function's name; call_index counts from 0 */
    PHX_REPLY_CALL_ARGS,     /* data: more of the arguments (JSON text as the model wrote it) */
    PHX_REPLY_CALL_END,      /* is_complete: the model ended the call itself */
    PHX_REPLY_END,           /* once, from phx_reply_end(); no data */
};

struct phx_reply_event {
    enum phx_reply_kind kind;
    const char         *data; /* borrowed for the callback; whole UTF-8 characters, never empty */
    size_t              size_bytes;
    size_t              call_index;
    bool                is_complete;
};
typedef void phx_reply_fn(void *ctx, const struct phx_reply_event *event);

struct phx_reply;

/* One answer to `chat`, or to a plain completion when chat is NULL.  `chat` is read during the call
 * only.  fn is called from push and end on the caller's thread. */
struct phx_reply *phx_reply_create(const struct phx_text *t, const struct phx_chat *chat,
                                   phx_reply_fn *fn, void *ctx);
void              phx_reply_destroy(struct phx_reply *r); /* NULL is allowed; no events */
/* The next generated token, stop tokens included (harmony needs them).  Never fails: what a model
 * should not have written is read as leniently as possible. */
void phx_reply_push(struct phx_reply *r, int32_t id);
/* No more tokens: flushes, closes an open call, then PHX_REPLY_END.  Call once. */
void phx_reply_end(struct phx_reply *r);
/* Calls begun so far; with n_calls > 0 the finish reason is "tool_calls". */
size_t phx_reply_call_count(const struct phx_reply *r);

/* ---- stop strings ------------------------------------------------------------------------ */

/* Scans a stream of text for the caller's stop strings.  Text that may be the start of one is held
 * back until it is known. */
struct phx_stop;
#define PHX_STOP_STRINGS_MAX      16
#define PHX_STOP_STRING_BYTES_MAX 1024
/* PHX_E_INVALID for an empty or too long string or too many.  The strings are copied. */
int  phx_stop_create(const char *const *strings, size_t n, struct phx_stop **out,
                     struct phx_err *err) PHX_CHECKED;
void phx_stop_destroy(struct phx_stop *s); /* NULL is allowed */
/* Appends to *out the text that is safe to send.  True once a stop string was found: the text
 * before it has been appended, everything after it is dropped, and later calls add nothing. */
bool phx_stop_push(struct phx_stop *s, const char *data, size_t size_bytes, struct phx_buf *out);
/* The end of the stream: appends what was held back. */
void phx_stop_flush(struct phx_stop *s, struct phx_buf *out);

#endif
