/* SPDX-License-Identifier: Apache-2.0
 * Reading harmony answers.  The reference parser is strict and turns a good answer with a slip in
 * its header into an error; models slip in a few percent of turns.  So nothing here fails: the
 * parser takes up again at the next mark, and text without a header counts as the answer. */
#include <string.h>

#include "daemon/text/harmony.h"

#define CHANNEL   "<|channel|>"
#define CONSTRAIN "<|constrain|>"

enum { IN_HEADER, IN_CONTENT, BETWEEN };

/* ---- headers ---- */

static void copy_word(char *dst, size_t capacity, const char *word, size_t size)
{
    if (size >= capacity)
        size = capacity - 1;
    memcpy(dst, word, size);
    dst[size] = '\0';
}
#define COPY(field, word, size) copy_word((field), sizeof(field), (word), (size))

static bool starts_with(const char *s, size_t size, const char *prefix)
{
    size_t n = strlen(prefix);
    return size >= n && memcmp(s, prefix, n) == 0;
}

/* Takes every "<|channel|>value" out of text; the last value that is not empty counts. */
static void take_channels(struct phx_harmony_header *header, char *text)
{
    char *mark;
    while ((mark = strstr(text, CHANNEL)) != NULL) {
        char *value = mark + strlen(CHANNEL);
        value += strspn(value, " \t\r\n");
        size_t size = strcspn(value, " \t\r\n<");
        if (size > 0)
            COPY(header->channel, value, size);
        *mark = ' '; /* keeps the words around it apart */
        memmove(mark + 1, value + size, strlen(value + size) + 1);
    }
}

static bool is_tool_name(const char *word, size_t size)
{
    return starts_with(word, size, "functions.") || starts_with(word, size, "browser.") ||
           (size == 6 && memcmp(word, "python", 6) == 0);
}

static void take_word(struct phx_harmony_header *header, const char *word, size_t size)
{
    const char *mark = memmem(word, size, CONSTRAIN, strlen(CONSTRAIN));
    if (mark && mark != word) { /* glued to what stands before it */
        take_word(header, word, (size_t)(mark - word));
        take_word(header, mark, size - (size_t)(mark - word));
    } else if (starts_with(word, size, "to=")) {
        COPY(header->recipient, word + 3, size - 3);
    } else if (is_tool_name(word, size) && !header->recipient[0]) {
        COPY(header->recipient, word, size);
    } else {
        COPY(header->content_type, word, size);
    }
}

/* text: "assistant to=X<|channel|>C <|constrain|>T" in any of the orders models write. */
static void parse_header(struct phx_harmony_parser *p)
{
    struct phx_harmony_header *header = &p->header;
    char                      *text = p->text.data;
    if (!text)
        return;
    take_channels(header, text);
    while (*(text += strspn(text, " \t\r\n")) != '\0') {
        size_t size = strcspn(text, " \t\r\n");
        if (header->author[0])
            take_word(header, text, size);
        else
            COPY(header->author, text, size);
        text += size;
    }
}

/* ---- messages ---- */

static void emit(struct phx_harmony_parser *p, enum phx_harmony_event event, const char *data,
                 size_t size, int32_t terminator)
{
    if (event != PHX_HARMONY_DELTA || size > 0)
        p->fn(p->ctx, event, &p->header, data, size, terminator);
}

static void start_header(struct phx_harmony_parser *p, bool is_assistant)
{
    p->state = IN_HEADER;
    p->has_channel_mark = false;
    p->header = (struct phx_harmony_header){0};
    if (is_assistant)
        COPY(p->header.author, "assistant", 9);
    phx_buf_clear(&p->text);
}

static void begin_content(struct phx_harmony_parser *p)
{
    p->state = IN_CONTENT;
    phx_buf_clear(&p->text);
    emit(p, PHX_HARMONY_BEGIN, "", 0, -1);
}

static void close_content(struct phx_harmony_parser *p, int32_t terminator)
{
    phx_buf_clear(&p->delta);
    phx_detok_flush(p->detok, &p->delta); /* no part of a character crosses this border */
    emit(p, PHX_HARMONY_DELTA, p->delta.data, p->delta.size, -1);
    emit(p, PHX_HARMONY_END, "", 0, terminator);
    p->state = BETWEEN;
}

/* The header ended without <|message|>: what it holds beside a channel and an author is content. */
static void header_to_content(struct phx_harmony_parser *p)
{
    char *text = p->text.data;
    if (!text || p->text.size == 0)
        return;
    take_channels(&p->header, text);
    if (!p->header.author[0]) {
        size_t size = strcspn(text, " \t\r\n");
        COPY(p->header.author, text, size);
        text += size;
    }
    if (p->has_channel_mark) /* only an unmarked answer keeps its leading space */
        text += strspn(text, " \t\r\n");
    if (text[strspn(text, " \t\r\n")] == '\0' || starts_with(text, strlen(text), "to=") ||
        starts_with(text, strlen(text), " to=") || starts_with(text, strlen(text), CONSTRAIN))
        return;
    p->state = IN_CONTENT;
    emit(p, PHX_HARMONY_BEGIN, "", 0, -1);
    emit(p, PHX_HARMONY_DELTA, text, strlen(text), -1);
}

/* Ends what is open, so that the next message can start. */
static void close_open(struct phx_harmony_parser *p, int32_t terminator)
{
    if (p->state == IN_HEADER) {
        phx_detok_flush(p->detok, &p->text);
        header_to_content(p);
    }
    if (p->state == IN_CONTENT)
        close_content(p, terminator);
    p->state = BETWEEN;
    phx_buf_clear(&p->text);
}

static void push_in_header(struct phx_harmony_parser *p, int32_t id)
{
    if (id == p->h->message) {
        phx_detok_flush(p->detok, &p->text);
        parse_header(p);
        begin_content(p);
    } else if (id == p->h->channel) {
        phx_detok_flush(p->detok, &p->text);
        phx_buf_puts(&p->text, CHANNEL);
        p->has_channel_mark = true;
    } else if (id == p->h->constrain) {
        phx_detok_flush(p->detok, &p->text);
        phx_buf_puts(&p->text, " " CONSTRAIN);
    } else {
        phx_detok_push(p->detok, id, &p->text);
        if (p->text.size > PHX_HARMONY_HEADER_MAX) { /* no header is that long: an answer without */
            header_to_content(p);
            if (p->state == IN_HEADER) /* nothing but blanks */
                phx_buf_clear(&p->text);
        }
    }
}

static void push_in_content(struct phx_harmony_parser *p, int32_t id)
{
    phx_buf_clear(&p->delta);
    phx_detok_push(p->detok, id, &p->delta);
    emit(p, PHX_HARMONY_DELTA, p->delta.data, p->delta.size, -1);
}

void phx_harmony_parser_push(struct phx_harmony_parser *p, int32_t id)
{
    const struct phx_harmony *h = p->h;
    if (id == h->end || id == h->ret || id == h->call) {
        close_open(p, id);
    } else if (id == h->start) {
        close_open(p, -1);
        start_header(p, false);
    } else if (p->state == IN_HEADER) {
        push_in_header(p, id);
    } else if (id == h->channel || (p->state == BETWEEN && id == h->message)) {
        close_open(p, -1); /* <|start|>assistant was left out */
        start_header(p, true);
        push_in_header(p, id);
    } else if (p->state == IN_CONTENT) {
        push_in_content(p, id);
    } /* text between messages means nothing */
}

void phx_harmony_parser_end(struct phx_harmony_parser *p)
{
    close_open(p, -1);
}

void phx_harmony_parser_init(struct phx_harmony_parser *p, const struct phx_harmony *h,
                             phx_harmony_fn *fn, void *ctx)
{
    *p = (struct phx_harmony_parser){.h = h, .fn = fn, .ctx = ctx};
    phx_buf_init(&p->text, 1 << 16);
    phx_buf_init(&p->delta, 1 << 20);
    p->detok = phx_detok_create(h->tokenizer, 0);
    start_header(p, true);
}

void phx_harmony_parser_begin(struct phx_harmony_parser *p, const struct phx_harmony_header *header)
{
    p->header = *header;
    begin_content(p);
}

void phx_harmony_parser_fini(struct phx_harmony_parser *p)
{
    phx_detok_destroy(p->detok);
    phx_buf_fini(&p->text);
    phx_buf_fini(&p->delta);
}
