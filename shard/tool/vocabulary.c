/* SPDX-License-Identifier: Apache-2.0
 * A vocabulary that can be served: every byte, the model's special tokens at their published ids, and
 * made-up words in between.  No merges: text is encoded byte by byte. */
#include <stdio.h>
#include <string.h>

#include "rpc/base/buf.h"
#include "rpc/base/json.h"
#include "rpc/base/mem.h"
#include "shard/tool/synth.h"

enum { N_BYTES = 256, OSS_FIRST = 199998, OSS_COUNT = 21, LLAMA_FIRST = 128000, LLAMA_COUNT = 256,
       SMALL_COUNT = 21 };

/* Offsets from the first special id. */
static const struct {
    int32_t     offset;
    const char *text;
} oss_names[] = {{0, "<|startoftext|>"}, {1, "<|endoftext|>"}, {4, "<|return|>"},
                 {5, "<|constrain|>"},   {7, "<|channel|>"},   {8, "<|start|>"},
                 {9, "<|end|>"},         {10, "<|message|>"},  {14, "<|call|>"},
                 {20, "<|endofprompt|>"}},
  llama_names[] = {{0, "<|begin_of_text|>"},     {1, "<|end_of_text|>"}, {4, "<|finetune_right_pad_id|>"},
                   {6, "<|start_header_id|>"},   {7, "<|end_header_id|>"}, {8, "<|eom_id|>"},
                   {9, "<|eot_id|>"},            {10, "<|python_tag|>"}};

struct vocabulary {
    bool    is_oss;
    int32_t size;        /* ids of the model */
    int32_t first, count; /* special ids */
};

static struct vocabulary describe(const json_t *config)
{
    const char       *type = json_string_value(json_object_get(config, "model_type"));
    struct vocabulary v = {.is_oss = type != NULL && strcmp(type, "gpt_oss") == 0};

    v.size = (int32_t)json_integer_value(json_object_get(config, "vocab_size"));
    v.first = v.is_oss ? OSS_FIRST : LLAMA_FIRST;
    v.count = v.is_oss ? OSS_COUNT : LLAMA_COUNT;
    if (v.size < v.first + v.count) { /* a small one: the specials follow the bytes */
        v.first = N_BYTES;
        v.count = SMALL_COUNT;
    }
    if (v.size < v.first + v.count) {
        v.first = v.size;
        v.count = 0;
    }
    return v;
}

static void special_name(const struct vocabulary *v, int32_t offset, char text[48])
{
    size_t n = v->is_oss ? sizeof(oss_names) / sizeof(oss_names[0])
                         : sizeof(llama_names) / sizeof(llama_names[0]);

    (void)snprintf(text, 48, v->is_oss ? "<|reserved_%d|>" : "<|reserved_special_token_%d|>",
                   v->is_oss ? OSS_FIRST + offset : offset);
    for (size_t i = 0; i < n; i++) {
        int32_t at = v->is_oss ? oss_names[i].offset : llama_names[i].offset;

        if (at == offset)
            (void)snprintf(text, 48, "%s", v->is_oss ? oss_names[i].text : llama_names[i].text);
    }
}

/* The printable character that stands for a byte in byte-level vocabularies. */
static void put_byte_char(struct phx_buf *b, int32_t byte)
{
    bool    is_itself = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
    int32_t code = byte, n_before = 0;
    char    text[3];

    if (!is_itself) {
        for (int32_t i = 0; i < byte; i++)
            n_before += !((i >= 33 && i <= 126) || (i >= 161 && i != 173));
        code = 256 + n_before;
    }
    if (code < 0x80) {
        text[0] = (char)code;
        phx_json_put_str(b, text, 1);
        return;
    }
    text[0] = (char)(0xC0 | code >> 6);
    text[1] = (char)(0x80 | (code & 63));
    phx_json_put_str(b, text, 2);
}

/* " abc" for the n-th made-up word (the byte 0x20 is written U+0120). */
static void put_word(struct phx_buf *b, int32_t n)
{
    char  text[16];
    char *at = text + sizeof(text);

    do {
        *--at = (char)('a' + n % 26);
        n = n / 26 - 1;
    } while (n >= 0);
    *--at = (char)0xA0;
    *--at = (char)0xC4;
    phx_json_put_str(b, at, (size_t)(text + sizeof(text) - at));
}

static void put_added(struct phx_buf *b, const struct vocabulary *v)
{
    char name[48];

    phx_buf_puts(b, "\"added_tokens\":[");
    for (int32_t i = 0; i < v->count; i++) {
        special_name(v, i, name);
        phx_buf_printf(b, "%s{\"id\":%d,\"content\":\"%s\",\"single_word\":false,\"lstrip\":false,"
                       "\"rstrip\":false,\"normalized\":false,\"special\":true}", i > 0 ? "," : "",
                       v->first + i, name);
    }
    phx_buf_puts(b, "],");
}

static void put_vocab(struct phx_buf *b, const struct vocabulary *v)
{
    phx_buf_puts(b, "\"vocab\":{");
    for (int32_t id = 0; id < v->first && id < v->size; id++) {
        if (id > 0)
            phx_buf_putc(b, ',');
        if (id < N_BYTES)
            put_byte_char(b, id);
        else
            put_word(b, id - N_BYTES);
        phx_buf_printf(b, ":%d", id);
    }
    phx_buf_puts(b, "},\"merges\":[]");
}

static void put_tokenizer(struct phx_buf *b, const struct vocabulary *v)
{
    static const char level[] = "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
                                "\"trim_offsets\":true,\"use_regex\":true}";
    static const char bos[] =
        "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":"
        "\"<|begin_of_text|>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],"
        "\"pair\":[{\"SpecialToken\":{\"id\":\"<|begin_of_text|>\",\"type_id\":0}},"
        "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},{\"SpecialToken\":{\"id\":"
        "\"<|begin_of_text|>\",\"type_id\":1}},{\"Sequence\":{\"id\":\"B\",\"type_id\":1}}],"
        "\"special_tokens\":{\"<|begin_of_text|>\":{\"id\":\"<|begin_of_text|>\",\"ids\":[%d],"
        "\"tokens\":[\"<|begin_of_text|>\"]}}}";

    phx_buf_puts(b, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,");
    put_added(b, v);
    phx_buf_printf(b, "\"normalizer\":null,\"pre_tokenizer\":%s,\"post_processor\":", level);
    if (v->is_oss || v->count == 0)
        phx_buf_puts(b, "null");
    else
        phx_buf_printf(b, bos, v->first);
    phx_buf_printf(b, ",\"decoder\":%s,\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,"
                   "\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,\"fuse_unk\":false,"
                   "\"byte_fallback\":false,\"ignore_merges\":false,", level);
    put_vocab(b, v);
    phx_buf_puts(b, "}}\n");
}

static void put_tokenizer_config(struct phx_buf *b, const struct vocabulary *v)
{
    phx_buf_printf(b, "{\"bos_token\":\"%s\",\"eos_token\":\"%s\",\"clean_up_tokenization_spaces\":false,"
                   "\"tokenizer_class\":\"PreTrainedTokenizerFast\"}\n",
                   v->is_oss ? "<|startoftext|>" : "<|begin_of_text|>",
                   v->is_oss ? "<|return|>" : "<|end_of_text|>");
}

static void put_generation(struct phx_buf *b, const struct vocabulary *v)
{
    if (v->is_oss)
        phx_buf_printf(b, "{\"bos_token_id\":%d,\"do_sample\":true,\"eos_token_id\":[%d,%d,%d],"
                       "\"pad_token_id\":%d}\n", v->first, v->first + 4, v->first + 1, v->first + 14,
                       v->first + 1);
    else
        phx_buf_printf(b, "{\"bos_token_id\":%d,\"do_sample\":true,\"eos_token_id\":[%d,%d,%d],"
                       "\"temperature\":0.6,\"top_p\":0.9}\n", v->first, v->first + 1, v->first + 8,
                       v->first + 9);
}

static int write_buf(const char *dir, const char *name, struct phx_buf *b, struct phx_err *err)
{
    char *path = phx_mem_printf("%s/%s", dir, name);
    int   rc = phx_file_write(path, b->data, b->size, 0644, err);

    phx_mem_free(path);
    phx_buf_clear(b);
    return rc;
}

int phx_synth_write_text(const char *dir, const json_t *config, struct phx_err *err)
{
    struct vocabulary v = describe(config);
    struct phx_buf    b;
    int               rc;

    phx_buf_init(&b, 0);
    put_tokenizer(&b, &v);
    rc = write_buf(dir, "tokenizer.json", &b, err);
    if (rc == 0 && v.count > 0) {
        put_tokenizer_config(&b, &v);
        rc = write_buf(dir, "tokenizer_config.json", &b, err);
    }
    if (rc == 0 && v.count > 0) {
        put_generation(&b, &v);
        rc = write_buf(dir, "generation_config.json", &b, err);
    }
    phx_buf_fini(&b);
    return rc;
}

void phx_synth_shrink_vocabulary(json_t *config)
{
    bool is_oss = describe(config).is_oss;

    json_object_set_new(config, "vocab_size", json_integer(PHX_SYNTH_VOCAB_SMALL));
    json_object_set_new(config, "eos_token_id", json_integer(N_BYTES + (is_oss ? 4 : 1)));
    if (json_object_get(config, "pad_token_id") != NULL)
        json_object_set_new(config, "pad_token_id", json_integer(N_BYTES + 1));
    if (json_object_get(config, "bos_token_id") != NULL)
        json_object_set_new(config, "bos_token_id", json_integer(N_BYTES));
}
