/* SPDX-License-Identifier: Apache-2.0
 * Tiktoken rank files: lines of base64(bytes) SP rank.  A rank is the token's id and its merge
 * priority.  Each token's ways to be split in two are found once, at open, so that encoding uses
 * the same pair table as tokenizer.json: neighbours l, r may merge exactly when their bytes
 * together are a token, with that token's rank. */
#include <stdlib.h>
#include <string.h>

#include "daemon/text/tokenizer.h"

struct special {
    const char *name;
    int32_t     id;
};

struct encoding {
    const char           *name;
    const char           *pattern;
    int32_t               n_ranks; /* ids below are ranks; a missing one is a truncated file */
    const struct special *specials;
    size_t                n_specials;
    const char           *bos, *eos, *pad; /* or NULL */
};

#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define PATTERN_O200K                                                                              \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*"                                  \
    "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+" CONTRACTION "?"                                               \
    "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+"                                 \
    "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*" CONTRACTION "?"                                               \
    "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define PATTERN_CL100K                                                                             \
    CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"        \
                "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const struct special gpt2_specials[] = {{"<|endoftext|>", 50256}};
static const struct special cl100k_specials[] = {{"<|endoftext|>", 100257},
                                                 {"<|fim_prefix|>", 100258},
                                                 {"<|fim_middle|>", 100259},
                                                 {"<|fim_suffix|>", 100260},
                                                 {"<|endofprompt|>", 100276}};
static const struct special o200k_specials[] = {{"<|endoftext|>", 199999},
                                                {"<|endofprompt|>", 200018}};
static const struct special harmony_specials[] = {{"<|startoftext|>", 199998},
                                                  {"<|endoftext|>", 199999},
                                                  {"<|reserved_200000|>", 200000},
                                                  {"<|reserved_200001|>", 200001},
                                                  {"<|return|>", 200002},
                                                  {"<|constrain|>", 200003},
                                                  {"<|reserved_200004|>", 200004},
                                                  {"<|channel|>", 200005},
                                                  {"<|start|>", 200006},
                                                  {"<|end|>", 200007},
                                                  {"<|message|>", 200008},
                                                  {"<|reserved_200009|>", 200009},
                                                  {"<|reserved_200010|>", 200010},
                                                  {"<|reserved_200011|>", 200011},
                                                  {"<|call|>", 200012},
                                                  {"<|reserved_200013|>", 200013},
                                                  {"<|reserved_200014|>", 200014},
                                                  {"<|reserved_200015|>", 200015},
                                                  {"<|reserved_200016|>", 200016},
                                                  {"<|reserved_200017|>", 200017},
                                                  {"<|endofprompt|>", 200018}};

#define LIST(a) (a), sizeof(a) / sizeof((a)[0])
static const struct encoding encodings[] = {
    {"o200k_base", PATTERN_O200K, 199998, LIST(o200k_specials), NULL, "<|endoftext|>", NULL},
    {"o200k_harmony", PATTERN_O200K, 199998, LIST(harmony_specials), "<|startoftext|>",
     "<|return|>", "<|endoftext|>"},
    {"cl100k_base", PATTERN_CL100K, 100256, LIST(cl100k_specials), NULL, "<|endoftext|>", NULL},
    {"gpt2", PHX_PATTERN_GPT2, 50256, LIST(gpt2_specials), NULL, "<|endoftext|>", NULL},
};

const char *phx_encoding_name(size_t i)
{
    return i < sizeof encodings / sizeof encodings[0] ? encodings[i].name : NULL;
}

static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Strict base64 with padding.  False when it is not. */
static bool base64_decode(const char *s, size_t size, struct phx_buf *out)
{
    phx_buf_clear(out);
    if (size == 0 || size % 4 != 0)
        return false;
    for (size_t i = 0; i < size; i += 4) {
        int  v[4], n = 3;
        bool is_last = i + 4 == size;
        for (int j = 0; j < 4; j++)
            v[j] = base64_value(s[i + (size_t)j]);
        if (is_last && s[i + 3] == '=') {
            n = s[i + 2] == '=' ? 1 : 2;
            v[3] = 0;
            if (n == 1)
                v[2] = 0;
        }
        if (v[0] < 0 || v[1] < 0 || v[2] < 0 || v[3] < 0)
            return false;
        int  word = v[0] << 18 | v[1] << 12 | v[2] << 6 | v[3];
        char bytes[3] = {(char)(word >> 16), (char)(word >> 8), (char)word};
        phx_buf_put(out, bytes, (size_t)n);
    }
    return true;
}

static int read_line(struct phx_tokenizer *t, const char *line, size_t size, struct phx_buf *bytes,
                     const char *where, size_t number, struct phx_err *err)
{
    const char *space = memchr(line, ' ', size);
    char        digits[12];
    size_t      n_digits = space ? size - (size_t)(space - line) - 1 : 0;
    if (n_digits == 0 || n_digits >= sizeof digits ||
        !base64_decode(line, (size_t)(space - line), bytes))
        return phx_fail(err, PHX_E_FORMAT, "%s: line %zu is not \"base64 rank\"", where, number);
    memcpy(digits, space + 1, n_digits);
    digits[n_digits] = '\0';
    if (strspn(digits, "0123456789") != n_digits)
        return phx_fail(err, PHX_E_FORMAT, "%s: line %zu has a rank that is no number", where,
                        number);
    return phx_vocab_add(&t->vocab, where, strtol(digits, NULL, 10), bytes->data, bytes->size, 0,
                         err);
}

static int read_ranks(struct phx_tokenizer *t, const char *path, struct phx_err *err)
{
    struct phx_buf file, bytes;
    phx_buf_init(&file, PHX_TEXT_FILE_BYTES_MAX);
    phx_buf_init(&bytes, 0);
    int    rc = phx_buf_read_file(&file, path, PHX_TEXT_FILE_BYTES_MAX, err);
    size_t at = 0, number = 1;
    for (; rc == 0 && at < file.size; number++) {
        const char *newline = memchr(file.data + at, '\n', file.size - at);
        size_t      end = newline ? (size_t)(newline - file.data) : file.size;
        if (end > at)
            rc = read_line(t, file.data + at, end - at, &bytes, path, number, err);
        at = end + 1;
    }
    phx_buf_fini(&file);
    phx_buf_fini(&bytes);
    return rc;
}

/* Counts, or puts, the pairs that make each token. */
static size_t each_pair(struct phx_tokenizer *t, bool puts)
{
    size_t n = 0;
    for (int32_t id = 0; id < t->vocab.n_ids; id++) {
        const char *s = phx_vocab_bytes(&t->vocab, id);
        size_t      size = t->vocab.tokens[id].size;
        for (size_t cut = 1; cut < size; cut++) {
            int32_t left = phx_vocab_find(&t->vocab, s, cut);
            int32_t right = left < 0 ? -1 : phx_vocab_find(&t->vocab, s + cut, size - cut);
            if (right < 0)
                continue;
            n++;
            if (puts)
                phx_merges_put(&t->merges, left, right, (uint32_t)id, id);
        }
    }
    return n;
}

static int read_bytes(struct phx_tokenizer *t, const char *path, struct phx_err *err)
{
    for (int b = 0; b < 256; b++) {
        char byte = (char)b;
        t->byte_ids[b] = phx_vocab_find(&t->vocab, &byte, 1);
        if (t->byte_ids[b] < 0)
            return phx_fail(err, PHX_E_FORMAT, "%s: there is no token for byte 0x%02X", path,
                            (unsigned)b);
    }
    return 0;
}

static int add_specials(struct phx_tokenizer *t, const struct encoding *e, const char *path,
                        struct phx_err *err)
{
    for (size_t i = 0; i < e->n_specials; i++) {
        const struct special  *s = &e->specials[i];
        struct phx_added_token token = {.id = s->id, .is_special = true};
        uint32_t               flags = PHX_TOKEN_SPECIAL | PHX_TOKEN_ADDED | PHX_TOKEN_RAW;
        int rc = phx_vocab_add(&t->vocab, path, s->id, s->name, strlen(s->name), flags, err);
        if (rc == 0)
            rc = phx_added_put(&t->added, s->name, strlen(s->name), token, path, err);
        if (rc)
            return rc;
    }
    t->bos = e->bos ? phx_tokenizer_id(t, e->bos) : -1;
    t->eos = e->eos ? phx_tokenizer_id(t, e->eos) : -1;
    t->pad = e->pad ? phx_tokenizer_id(t, e->pad) : -1;
    return 0;
}

static int fill(struct phx_tokenizer *t, const char *path, const struct encoding *e,
                struct phx_err *err)
{
    t->is_byte_level = t->decoder.is_byte_level = true;
    t->ignores_merges = true;
    int rc = phx_splitter_set_pattern(&t->splitter, e->pattern, e->name, err);
    if (rc == 0)
        rc = read_ranks(t, path, err);
    if (rc)
        return rc;
    for (int32_t id = 0; id < e->n_ranks; id++)
        if (!phx_vocab_has(&t->vocab, id) || t->vocab.n_ids != e->n_ranks)
            return phx_fail(err, PHX_E_FORMAT, "%s: %s has the ranks 0 to %d, this file has not",
                            path, e->name, e->n_ranks - 1);
    rc = phx_vocab_index(&t->vocab, path, err);
    if (rc == 0)
        rc = phx_merges_init(&t->merges, each_pair(t, false), err);
    if (rc)
        return rc;
    (void)each_pair(t, true);
    rc = read_bytes(t, path, err);
    if (rc == 0)
        rc = add_specials(t, e, path, err);
    return rc ? rc : phx_tokenizer_finish(t, err);
}

int phx_tokenizer_open_ranks(const char *path, const char *encoding, struct phx_tokenizer **out,
                             struct phx_err *err)
{
    const struct encoding *e = NULL;
    *out = NULL;
    for (size_t i = 0; i < sizeof encodings / sizeof encodings[0]; i++)
        if (strcmp(encodings[i].name, encoding) == 0)
            e = &encodings[i];
    if (!e)
        return phx_fail(err, PHX_E_NOTFOUND,
                        "encoding \"%.40s\" is not one of o200k_base, "
                        "o200k_harmony, cl100k_base, gpt2",
                        encoding);
    struct phx_tokenizer *t = phx_tokenizer_create();
    int                   rc = fill(t, path, e, err);
    if (rc) {
        phx_tokenizer_close(t);
        return rc;
    }
    *out = t;
    return 0;
}
