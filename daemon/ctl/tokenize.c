/* SPDX-License-Identifier: Apache-2.0
 * `phalanx model tokenize`: text on stdin to one JSON line of ids. */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/ctl/ctl.h"
#include "daemon/text/text.h"
#include "rpc/base/json.h"
#include "rpc/base/mem.h"

enum { OPT_RANKS = 256, OPT_ENCODING, OPT_JSONL, OPT_SPECIALS, OPT_DECODE, LINE_MAX_BYTES = 64 << 20 };

struct arguments {
    const char *dir, *ranks, *encoding;
    bool        is_jsonl, has_specials, is_decode;
};

static const struct argp_option options[] = {
    {"ranks", OPT_RANKS, "FILE", 0, "a tiktoken rank file instead of a checkpoint folder", 0},
    {"encoding", OPT_ENCODING, "NAME", 0, "o200k_base, o200k_harmony, cl100k_base or gpt2", 0},
    {"jsonl", OPT_JSONL, NULL, 0, "stdin holds JSON lines {\"text\":..}", 0},
    {"specials", OPT_SPECIALS, NULL, 0, "special strings in the text become special ids", 0},
    {"decode", OPT_DECODE, NULL, 0, "stdin holds JSON lines {\"ids\":[..]}; prints {\"text\":..}", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;

    switch (key) {
    case OPT_RANKS: a->ranks = arg; return 0;
    case OPT_ENCODING: a->encoding = arg; return 0;
    case OPT_JSONL: a->is_jsonl = true; return 0;
    case OPT_SPECIALS: a->has_specials = true; return 0;
    case OPT_DECODE: a->is_decode = true; return 0;
    case ARGP_KEY_ARG:
        if (a->dir != NULL)
            argp_error(state, "one DIR is expected");
        a->dir = arg;
        return 0;
    case ARGP_KEY_END:
        if ((a->dir != NULL) == (a->ranks != NULL))
            argp_error(state, "give either DIR or --ranks FILE");
        if (a->ranks != NULL && a->encoding == NULL)
            argp_error(state, "--ranks needs --encoding NAME");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static int print_ids(const struct phx_tokenizer *t, const char *text, size_t size, unsigned flags,
                     struct phx_err *err)
{
    struct phx_ids ids = {0};
    int            rc = phx_tokenizer_encode(t, text, size, flags, &ids, err);

    if (rc == 0) {
        fputs("{\"ids\":[", stdout);
        for (size_t i = 0; i < ids.n; i++)
            printf(i > 0 ? ",%d" : "%d", ids.data[i]);
        fputs("]}\n", stdout);
    }
    phx_ids_fini(&ids);
    return rc;
}

static int print_text(const struct phx_tokenizer *t, const json_t *line, struct phx_err *err)
{
    const json_t  *list = json_object_get(line, "ids");
    struct phx_ids ids = {0};
    struct phx_buf text, out;

    if (!json_is_array(list))
        return phx_fail(err, PHX_E_INVALID, "ids: a list of token ids is needed");
    for (size_t i = 0; i < json_array_size(list); i++)
        phx_ids_put(&ids, (int32_t)json_integer_value(json_array_get(list, i)));
    phx_buf_init(&text, 0);
    phx_buf_init(&out, 0);
    phx_tokenizer_decode(t, ids.data, ids.n, PHX_DECODE_SPECIALS, &text);
    phx_buf_puts(&out, "{\"text\":");
    phx_json_put_str(&out, text.data != NULL ? text.data : "", text.size);
    phx_buf_puts(&out, "}\n");
    fwrite(out.data, 1, out.size, stdout);
    phx_buf_fini(&out);
    phx_buf_fini(&text);
    phx_ids_fini(&ids);
    return 0;
}

static int run_line(const struct phx_tokenizer *t, const struct arguments *a, const char *text,
                    size_t size, unsigned flags, struct phx_err *err)
{
    json_t       *line = NULL;
    const json_t *value;
    int           rc = phx_json_parse(&line, text, size, LINE_MAX_BYTES, 0, "line", err);

    if (rc != 0)
        return rc;
    value = json_object_get(line, "text");
    if (a->is_decode)
        rc = print_text(t, line, err);
    else if (!json_is_string(value))
        rc = phx_fail(err, PHX_E_INVALID, "text: a string is needed");
    else
        rc = print_ids(t, json_string_value(value), json_string_length(value), flags, err);
    json_decref(line);
    return rc;
}

static int run_lines(const struct phx_tokenizer *t, const struct arguments *a, unsigned flags,
                     struct phx_err *err)
{
    char   *line = NULL;
    size_t  capacity = 0;
    ssize_t n;
    long    number = 0;
    int     rc = 0;

    while (rc == 0 && (n = getline(&line, &capacity, stdin)) > 0) {
        number++;
        if (n > 1)
            rc = run_line(t, a, line, (size_t)n, flags, err);
    }
    if (rc != 0)
        phx_err_prefix(err, "line %ld: ", number);
    free(line); /* getline's own memory */
    return rc;
}

static int run_whole(const struct phx_tokenizer *t, unsigned flags, struct phx_err *err)
{
    struct phx_buf text;
    char           block[65536];
    size_t         n;
    int            rc;

    phx_buf_init(&text, PHX_TEXT_BYTES_MAX);
    while ((n = fread(block, 1, sizeof(block), stdin)) > 0)
        phx_buf_put(&text, block, n);
    rc = phx_buf_check(&text, "the text", err);
    if (rc == 0)
        rc = print_ids(t, text.data != NULL ? text.data : "", text.size, flags, err);
    phx_buf_fini(&text);
    return rc;
}

int phx_ctl_tokenize(int argc, char **argv)
{
    static const struct argp argp = {options, parse_option, "[DIR]",
                                     "Prints the token ids of a text as one JSON line.", NULL, NULL,
                                     NULL};
    struct arguments         a = {0};
    struct phx_tokenizer    *t = NULL;
    struct phx_err           err = {0};
    unsigned                 flags;
    int                      rc;

    argp_parse(&argp, argc, argv, 0, NULL, &a);
    flags = a.has_specials ? PHX_ENCODE_SPECIALS : 0;
    rc = a.ranks != NULL ? phx_tokenizer_open_ranks(a.ranks, a.encoding, &t, &err)
                         : phx_tokenizer_open_dir(a.dir, &t, &err);
    if (rc == 0)
        rc = a.is_jsonl || a.is_decode ? run_lines(t, &a, flags, &err) : run_whole(t, flags, &err);
    phx_tokenizer_close(t);
    if (rc == 0 && fflush(stdout) != 0)
        rc = phx_fail(&err, PHX_E_IO, "write to stdout failed");
    return rc == 0 ? PHX_EXIT_OK : phx_ctl_fail(&err);
}
