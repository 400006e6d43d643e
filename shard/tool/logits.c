/* SPDX-License-Identifier: Apache-2.0
 * phalanx-model logits: the logits of a list of tokens, through the real ranks, as a .npy file. */
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/json.h"
#include "rpc/base/mem.h"
#include "shard/tool/ranks.h"
#include "shard/tool/tool.h"

enum {
    TOKENS_MAX = 1 << 20,
    TOKENS_FILE_MAX = 16 << 20,
    CHUNK_DEFAULT = 128,
    OPT_TOKENS = 0x200,
    OPT_OUT,
    OPT_CHUNK
};

struct request {
    struct phx_ranks_options ranks;
    const char              *tokens_path, *out_path;
    int32_t                  chunk; /* rows of a step */
    int32_t                 *tokens;
    int32_t                  n_tokens;
};

/* ---- the file ------------------------------------------------------------------------------- */

/* Version 1.0 of the format: magic, version, header length, a Python literal padded to 64 bytes. */
static int write_header(FILE *f, int32_t rows, int32_t columns)
{
    enum { ALIGN = 64, PREFIX = 10 };
    char text[192];
    int  n = snprintf(text, sizeof text,
                      "{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }", rows, columns);
    int  padded = (PREFIX + n + 1 + ALIGN - 1) / ALIGN * ALIGN - PREFIX;
    memset(text + n, ' ', (size_t)(padded - n));
    text[padded - 1] = '\n';
    const unsigned char prefix[PREFIX] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0,
                                          (unsigned char)(padded & 255),
                                          (unsigned char)(padded >> 8)};
    bool is_written = fwrite(prefix, 1, sizeof prefix, f) == sizeof prefix &&
                      fwrite(text, 1, (size_t)padded, f) == (size_t)padded;
    return is_written ? 0 : -1;
}

static int open_output(const struct request *r, int32_t vocab_size, FILE **f, struct phx_err *err)
{
    *f = fopen(r->out_path, "wb");
    if (*f == NULL || write_header(*f, r->n_tokens, vocab_size) != 0)
        return phx_fail(err, PHX_E_IO, "%s: %s", r->out_path, strerror(errno));
    return 0;
}

static int close_output(const struct request *r, FILE *f, int code, struct phx_err *err)
{
    if (f == NULL)
        return code;
    struct stat about;
    bool        is_file = fstat(fileno(f), &about) == 0 && S_ISREG(about.st_mode);
    bool        is_closed = fclose(f) == 0;
    if (code == 0 && !is_closed)
        code = phx_fail(err, PHX_E_IO, "%s: %s", r->out_path, strerror(errno));
    if (code != 0 && is_file)
        (void)unlink(r->out_path); /* half a file must not be taken for an answer */
    return code;
}

/* ---- one rank ------------------------------------------------------------------------------- */

/* Rows [first, first + n) of the text, logits of every row. */
static int run_chunk(struct phx_rank *rank, const struct request *r, const int32_t *index,
                     int32_t first, int32_t n, float *logits, struct phx_err *err)
{
    int32_t          zero = 0, stride = rank->options->n_blocks;
    struct phx_batch batch = {
        .n_rows = n, .tokens = r->tokens + first, .n_logits = n, .logit_rows = index,
        .spans = {.n_seqs = 1, .row = &zero, .n_rows = &n, .pos = &first, .table = index,
                  .table_stride = stride}};
    return phx_model_step(rank->model, &batch, phx_view(logits, n, rank->config->vocab_size), err);
}

static int body(struct phx_rank *rank, void *ctx, struct phx_err *err)
{
    const struct request *r = ctx;
    int32_t  V = rank->config->vocab_size, blocks = rank->options->n_blocks;
    int32_t  n_index = blocks > r->chunk ? blocks : r->chunk;
    int32_t *index = phx_mem_calloc((size_t)n_index, sizeof *index); /* 0, 1, ...: rows, and blocks */
    float   *logits = NULL;
    FILE    *f = NULL;
    int      code = 0;
    for (int32_t i = 0; i < n_index; i++)
        index[i] = i;
    if (rank->has_logits) {
        logits = phx_mem_try((size_t)r->chunk * (size_t)V, sizeof *logits);
        code = logits == NULL ? phx_fail(err, PHX_E_NOMEM, "no memory for %d rows of logits", r->chunk)
                              : open_output(r, V, &f, err);
    }
    code = phx_rank_agree(rank->comm, code, err);
    bool can_go_on = code == 0;
    for (int32_t first = 0; first < r->n_tokens && can_go_on; first += r->chunk) {
        int32_t n = r->n_tokens - first < r->chunk ? r->n_tokens - first : r->chunk;
        int     stepped = run_chunk(rank, r, index, first, n, logits, code == 0 ? err : NULL);
        code = code == 0 ? stepped : code;
        can_go_on = stepped != PHX_E_PEER; /* other failures are kept: the rest is still stepping */
        if (code == 0 && f != NULL &&
            fwrite(logits, sizeof *logits * (size_t)V, (size_t)n, f) != (size_t)n)
            code = phx_fail(err, PHX_E_IO, "%s: %s", r->out_path, strerror(errno));
    }
    code = close_output(r, f, code, err);
    phx_mem_free(logits);
    phx_mem_free(index);
    return code;
}

/* ---- the command ---------------------------------------------------------------------------- */

static int read_tokens(struct request *r, struct phx_err *err)
{
    json_t *root = NULL;
    int     code = phx_json_load(&root, r->tokens_path, TOKENS_FILE_MAX, 0, err);
    if (code != 0)
        return code;
    size_t n = json_array_size(root);
    if (!json_is_array(root) || n == 0 || n > TOKENS_MAX)
        code = phx_fail(err, PHX_E_INVALID, "%s: expected a JSON list of 1 to %d token ids",
                        r->tokens_path, TOKENS_MAX);
    r->tokens = phx_mem_calloc(n + 1, sizeof *r->tokens);
    for (size_t i = 0; i < n && code == 0; i++) {
        const json_t *id = json_array_get(root, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX)
            code = phx_fail(err, PHX_E_INVALID, "%s: item %zu is not a token id", r->tokens_path, i);
        else
            r->tokens[i] = (int32_t)json_integer_value(id);
    }
    r->n_tokens = (int32_t)n;
    json_decref(root);
    return code;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct request *r = state->input;
    switch (key) {
    case OPT_TOKENS:
        r->tokens_path = arg;
        break;
    case OPT_OUT:
        r->out_path = arg;
        break;
    case OPT_CHUNK:
        r->chunk = (int32_t)phx_tool_number(state, "--prefill-chunk", arg, 1, 1 << 16);
        break;
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &r->ranks;
        break;
    case ARGP_KEY_ARG:
        if (r->ranks.dir != NULL)
            argp_error(state, "one DIR is expected");
        r->ranks.dir = arg;
        break;
    case ARGP_KEY_END:
        if (r->ranks.dir == NULL || r->tokens_path == NULL || r->out_path == NULL)
            argp_error(state, "DIR, --tokens and --out are needed");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static int run(struct request *r, int argc, char **argv, struct phx_err *err)
{
    int32_t n_ranks = r->ranks.tp * r->ranks.pp;
    int     code = read_tokens(r, err);
    if (code != 0)
        return code;
    if (n_ranks > 1 && r->ranks.comm == PHX_RANKS_MPI && !r->ranks.is_in_mpi) {
        char **args = phx_mem_calloc((size_t)argc + 1, sizeof *args);
        memcpy(args, argv, (size_t)argc * sizeof *args);
        args[0] = (char *)(uintptr_t) "logits"; /* exec does not write to its arguments */
        code = phx_ranks_exec_mpi(n_ranks, args, err);
        phx_mem_free(args);
        return code;
    }
    r->chunk = r->chunk < r->n_tokens ? r->chunk : r->n_tokens;
    r->ranks.max_rows = r->ranks.max_logits = r->chunk;
    r->ranks.max_seqs = 1;
    r->ranks.max_context = r->n_tokens;
    r->ranks.n_blocks = (r->n_tokens + r->ranks.block_tokens - 1) / r->ranks.block_tokens;
    return phx_ranks_run(&r->ranks, body, r, err);
}

int phx_tool_logits(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"tokens", OPT_TOKENS, "FILE.json", 0, "a JSON list of token ids", 0},
        {"out", OPT_OUT, "FILE.npy", 0, "float32 [T, V], row i follows token i", 0},
        {"prefill-chunk", OPT_CHUNK, "N", 0, "tokens of a step (128)", 0},
        {NULL, 0, NULL, 0, NULL, 0},
    };
    static const struct argp_child children[] = {{&phx_ranks_argp, 0, NULL, 0}, {NULL, 0, NULL, 0}};
    static const struct argp       argp = {
        .options = options, .parser = parse, .args_doc = "DIR", .children = children,
        .doc = "Runs a checkpoint over a list of tokens and writes the logits of each position."};
    struct request r = {.chunk = CHUNK_DEFAULT};
    struct phx_err err = {0};
    phx_ranks_defaults(&r.ranks);
    argp_parse(&argp, argc, argv, 0, NULL, &r);
    int code = run(&r, argc, argv, &err);
    phx_mem_free(r.tokens);
    return code == 0 ? PHX_TOOL_OK : phx_tool_fail(&err);
}
