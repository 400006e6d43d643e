/* SPDX-License-Identifier: Apache-2.0
 * Every key of the config file.  What is read here is also what `phalanxd --help-config`, the example file and
 * the checks know; there is no second list.  All keys take effect at start. */
#include "daemon/config/table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/base/mem.h"

#define AT(member) offsetof(struct phx_config, member)
#define TEXT(key, member, fallback, help) {key, PHX_OPTION_TEXT, AT(member), fallback, 0, 0, NULL, help}
#define INT(key, member, fallback, min, max, help)                                                 \
    {key, PHX_OPTION_INT, AT(member), fallback, min, max, NULL, help}
#define BOOL(key, member, fallback, help) {key, PHX_OPTION_BOOL, AT(member), fallback, 0, 0, NULL, help}
#define CHOICE(key, member, fallback, choices, help)                                               \
    {key, PHX_OPTION_CHOICE, AT(member), fallback, 0, 0, choices, help}
#define LIST(key, member, help) {key, PHX_OPTION_LIST, AT(member), "", 0, 0, NULL, help}

enum { HOUR_MS = 3600000, DAY_MS = 86400000 };

const struct phx_option phx_options[] = {
    TEXT("listen", listen, "127.0.0.1:8080", "HTTP address; port 0 picks a free one"),
    TEXT("grpc_listen", grpc_listen, "127.0.0.1:8081", "gRPC address; ranks join here too"),
    TEXT("data_dir", data_dir, "", "folder of database, certificates, keys and run files; needed"),

    TEXT("http.tls_cert", http_tls_cert, "", "PEM chain; needed when listen is not a loopback address"),
    TEXT("http.tls_key", http_tls_key, "", "its PEM key"),
    INT("http.body_max_bytes", http_body_max_bytes, "1048576", 1024, PHX_BODY_MAX_BYTES,
        "largest request body"),
    INT("http.header_max_bytes", http_header_max_bytes, "16384", 1024, PHX_HEADER_MAX_BYTES,
        "largest sum of header lines"),
    INT("http.pending_max_bytes", http_pending_max_bytes, "1048576", 4096, PHX_PENDING_MAX_BYTES,
        "unread output of one stream before its client is dropped"),
    INT("http.requests_max", http_requests_max, "1024", 1, PHX_HTTP_REQUESTS_MAX,
        "requests open at once"),
    INT("http.connections_max", http_connections_max, "4096", 1, PHX_HTTP_CONNECTIONS_MAX,
        "connections open at once, idle ones too"),
    INT("http.idle_timeout_s", http_idle_timeout_s, "300", 1, 86400,
        "seconds without traffic before a connection is closed"),

    INT("text.threads", text_threads, "0", 0, PHX_TEXT_THREADS_MAX,
        "threads that render and tokenize large prompts; 0 = a quarter of the cores, at least 1"),
    INT("text.queue", text_queue, "256", 1, PHX_TEXT_QUEUE_MAX,
        "large prompts that may be tokenized or wait for it; more are refused"),
    INT("text.inline_bytes", text_inline_bytes, "8192", 0, PHX_BODY_MAX_BYTES,
        "bodies up to this size are tokenized at once, without a thread"),
    INT("text.cache_bytes", text_cache_bytes, "67108864", 0, INT64_C(1) << 40,
        "token ids of texts that a tenant sent before; 0 = none"),

    TEXT("model.path", model_path, "", "checkpoint folder; needed"),
    TEXT("model.key", model_key, "",
         "public key (PEM): the model must be signed with it; empty = unsigned models are served too"),
    TEXT("model.name", model_name, "", "the name that clients use; default: the folder's name"),

    INT("cluster.replicas", cluster_replicas, "1", 1, PHX_REPLICAS_MAX, "copies of the model"),
    INT("cluster.tp", cluster_tp, "0", 0, PHX_TP_SIZE_MAX,
        "tensor parallel ranks of a replica; 0 = one for every NUMA node"),
    INT("cluster.pp", cluster_pp, "1", 1, PHX_PP_SIZE_MAX, "pipeline stages of a replica"),

    TEXT("cluster.devices", cluster_devices, "",
         "GPUs that the ranks of a machine use in turn, such as 0,1; empty = all that are visible"),
    CHOICE("cluster.transport", cluster_transport, "auto", "auto|nccl|peer|host",
           "how activations go between GPUs: nccl directly, peer by writing to each other's memory (pp 1, one host), "
           "host through pinned memory and MPI; auto: when every rank has a GPU of its own, peer for small ones and "
           "nccl for the rest"),
    TEXT("cluster.interface", cluster_interface, "",
         "network interface that transport nccl may use; empty = its own choice"),
    TEXT("cluster.ib_devices", cluster_ib_devices, "",
         "InfiniBand devices that transport nccl may use, or none; empty = its own choice"),

    CHOICE("engine.backend", engine_backend, "cpu", "cpu|cuda", "what the ranks compute on"),
    CHOICE("engine.class", engine_class, "bitwise", "bitwise|fast",
           "bitwise: an answer's bits depend on neither load nor layout; fast: they may, on the cuda backend"),
    BOOL("engine.graphs", engine_graphs, "true",
         "record steps as CUDA graphs and replay them; changes no answer"),
    BOOL("engine.overlap", engine_overlap, "true",
         "kernels of a GPU begin while the ones before them end; changes no answer"),
    INT("engine.threads", engine_threads, "0", 0, 1024,
        "threads of a rank; 0 shares the machine's cores out"),
    CHOICE("engine.isa", engine_isa, "auto", "auto|ref|avx2|avx512|amx", "code path of the cpu backend"),
    CHOICE("engine.compute", engine_compute, "bf16", "f32|bf16",
           "activations in products with bf16 and MXFP4 weights"),
    CHOICE("engine.dtype", engine_dtype, "auto", "auto|int8",
           "weights: auto keeps the checkpoint's own type; int8 quantises dense ones while loading"),
    CHOICE("engine.kv_dtype", engine_kv_dtype, "bf16", "f32|bf16|int8|fp8", "type of the key/value cache"),
    INT("engine.kv_memory_bytes", engine_kv_memory_bytes, "0", 0, INT64_C(1) << 46,
        "key/value cache of a rank; 0 measures what is free"),
    INT("engine.block_tokens", engine_block_tokens, "16", 16, 32, "positions of a cache block: 16 or 32"),
    INT("engine.max_seqs", engine_max_seqs, "0", 0, 4096,
        "sequences that a replica runs at once; 0 = 16 on the cpu, 256 on cuda"),
    INT("engine.max_rows", engine_max_rows, "0", 0, 65536, "tokens of one step; 0 = 512 on the cpu, 2048 on cuda"),
    INT("engine.max_context", engine_max_context, "0", 0, PHX_CONTEXT_MAX,
        "tokens of a sequence; 0 = the model's own, at most 16384"),
    BOOL("engine.prefix_cache", engine_prefix_cache, "true",
         "share the cache of equal prompt heads within a tenant"),
    CHOICE("engine.speculate", engine_speculate, "lookup", "off|lookup",
           "guess tokens from the text so far; changes no answer"),

    INT("limits.active", limits_active, "512", 1, PHX_ACTIVE_MAX, "requests admitted at once"),
    INT("limits.active_per_tenant", limits_active_per_tenant, "256", 1, PHX_ACTIVE_MAX,
        "of one tenant"),
    INT("limits.waiting", limits_waiting, "1024", 1, PHX_WAITING_MAX, "sequences in the queue"),
    INT("limits.waiting_per_tenant", limits_waiting_per_tenant, "512", 1, PHX_WAITING_MAX,
        "of one tenant"),
    INT("limits.prompt_tokens", limits_prompt_tokens, "0", 0, PHX_CONTEXT_MAX,
        "prompt of a request; 0 = what the context holds"),
    INT("limits.output_tokens", limits_output_tokens, "0", 0, PHX_CONTEXT_MAX,
        "new tokens of a choice; 0 = what the context holds"),
    INT("limits.choices", limits_choices, "16", 1, PHX_CHOICES_MAX, "n of a request"),
    INT("limits.resumes", limits_resumes, "5", 0, 1000,
        "replicas that a request may lose before it ends with an error"),

    INT("timeouts.heartbeat_ms", timeouts_heartbeat_ms, "1000", 100, 60000,
        "between two heartbeats of a replica"),
    INT("timeouts.lost_ms", timeouts_lost_ms, "5000", 500, HOUR_MS,
        "silence after which a replica is lost"),
    INT("timeouts.step_stall_ms", timeouts_step_stall_ms, "5000", 500, HOUR_MS,
        "busy without progress after which a replica hangs"),
    INT("timeouts.start_ms", timeouts_start_ms, "60000", 1000, DAY_MS,
        "from the launch to the head rank's first word"),
    INT("timeouts.load_stall_ms", timeouts_load_stall_ms, "120000", 1000, DAY_MS,
        "loading without progress after which a replica hangs"),
    INT("timeouts.drain_ms", timeouts_drain_ms, "20000", 0, DAY_MS,
        "what running requests get when the daemon stops"),

    INT("restart.backoff_min_ms", restart_backoff_min_ms, "1000", 10, HOUR_MS,
        "wait before the first restart; doubles each time"),
    INT("restart.backoff_max_ms", restart_backoff_max_ms, "30000", 10, HOUR_MS, "longest wait"),
    INT("restart.stable_ms", restart_stable_ms, "60000", 0, DAY_MS,
        "ready for so long: the wait starts from its minimum again"),
    INT("restart.max_failures", restart_max_failures, "5", 1, 1000,
        "losses without stable_ms of calm in between after which a replica is given up"),

    CHOICE("launcher.kind", launcher_kind, "local", "local", "how ranks are started: local = mpirun here"),
    TEXT("launcher.mpirun", launcher_mpirun, "mpirun", "Open MPI's mpirun, 4.1 or 5.0"),
    TEXT("launcher.rank_program", launcher_rank_program, "",
         "the rank's program; default: phalanx-rank beside phalanxd"),
    LIST("launcher.args", launcher_args, "more arguments of mpirun, one per item"),

    TEXT("license.file", license_file, "", "licence; default: DATA_DIR/license.json"),
    TEXT("license.key_set", license_key_set, "",
         "signed keys of licence issuers; default: DATA_DIR/keyset.json"),
    TEXT("license.roots", license_roots, "",
         "public root keys of the licensor; default: those compiled in"),

    INT("rate.requests_per_minute", rate_requests_per_minute, "0", 0, PHX_RATE_MAX,
        "of one user; 0 = no limit"),
    INT("rate.tokens_per_minute", rate_tokens_per_minute, "0", 0, PHX_RATE_MAX,
        "prompt and output of one user; 0 = no limit"),
    INT("lease.gateway_ttl_ms", lease_gateway_ttl_ms, "60000", 1000, DAY_MS,
        "an outside gateway's lease that is not renewed for so long settles as a crash"),

    INT("audit.checkpoint_ms", audit_checkpoint_ms, "1000", 50, HOUR_MS,
        "a signed checkpoint at least this often while there are new records"),
    INT("audit.key_life_s", audit_key_life_s, "86400", 60, 31536000,
        "after so long the log's signing key moves on and the old one is erased"),
    INT("audit.keep_free_bytes", audit_keep_free_bytes, "67108864", 0, INT64_MAX,
        "below so much free disk new requests are refused"),

    TEXT("policy.aup_sha256", policy_aup_sha256, "",
         "SHA-256 of the acceptable-use text that a tenant must have signed; empty = none"),
    BOOL("policy.purpose_required", policy_purpose_required, "false",
         "refuse requests without a purpose code"),

    TEXT("oidc.jwks_file", oidc_jwks_file, "", "public keys of the identity provider (RFC 7517); empty = no tokens"),
    TEXT("oidc.issuer", oidc_issuer, "", "the only `iss` that is taken"),
    TEXT("oidc.audience", oidc_audience, "", "must be in `aud`"),
    TEXT("oidc.tenant", oidc_tenant, "", "tenant of all tokens, when they do not name one"),
    TEXT("oidc.tenant_claim", oidc_tenant_claim, "", "claim that names the tenant"),
    TEXT("oidc.roles_claim", oidc_roles_claim, "", "claim with a list of phalanx roles; default: role user"),

    TEXT("chat.date", chat_date, "none", "current date in prompts: none, today or YYYY-MM-DD"),
    CHOICE("log.level", log_level, "info", "error|warn|info|debug|trace", "what is logged"),
};

const size_t phx_n_options = sizeof(phx_options) / sizeof(phx_options[0]);

const struct phx_option *phx_option_find(const char *key)
{
    for (size_t i = 0; i < phx_n_options; i++)
        if (strcmp(phx_options[i].key, key) == 0)
            return &phx_options[i];
    return NULL;
}

static bool is_choice(const char *choices, const char *value)
{
    size_t n = strlen(value);

    for (const char *p = choices; *p != '\0'; p += *p == '|') {
        size_t size = strcspn(p, "|");

        if (size == n && strncmp(p, value, n) == 0)
            return true;
        p += size;
    }
    return false;
}

static int parse_int(const struct phx_option *o, const char *value, int64_t *out, struct phx_err *err)
{
    char     *end;
    long long number;

    errno = 0;
    number = strtoll(value, &end, 10);
    if (end == value || *end != '\0' || errno != 0 || number < o->min || number > o->max)
        return phx_fail(err, PHX_E_INVALID, "%s: '%.40s' is not a whole number from %lld to %lld",
                        o->key, value, (long long)o->min, (long long)o->max);
    *out = number;
    return 0;
}

static void set_text(char **member, const char *value)
{
    phx_mem_free(*member);
    *member = phx_mem_strdup(value);
}

static int add_item(struct phx_config_list *list, const struct phx_option *o, const char *value,
                    struct phx_err *err)
{
    if (list->n == PHX_CONFIG_ARGS_MAX)
        return phx_fail(err, PHX_E_INVALID, "%s: more than %d items", o->key, PHX_CONFIG_ARGS_MAX);
    list->items[list->n++] = phx_mem_strdup(value);
    return 0;
}

int phx_option_set(struct phx_config *c, const struct phx_option *o, const char *value,
                   struct phx_err *err)
{
    void *member = (char *)c + o->offset;

    if (strlen(value) > PHX_CONFIG_VALUE_MAX_BYTES)
        return phx_fail(err, PHX_E_INVALID, "%s: longer than %d bytes", o->key,
                        PHX_CONFIG_VALUE_MAX_BYTES);
    switch (o->kind) {
    case PHX_OPTION_INT: return parse_int(o, value, member, err);
    case PHX_OPTION_LIST: return add_item(member, o, value, err);
    case PHX_OPTION_TEXT: set_text(member, value); return 0;
    case PHX_OPTION_CHOICE:
        if (!is_choice(o->choices, value))
            return phx_fail(err, PHX_E_INVALID, "%s: '%.40s' is not one of %s", o->key, value,
                            o->choices);
        set_text(member, value);
        return 0;
    case PHX_OPTION_BOOL:
        if (strcmp(value, "true") != 0 && strcmp(value, "false") != 0)
            return phx_fail(err, PHX_E_INVALID, "%s: '%.40s' is not true or false", o->key, value);
        *(bool *)member = value[0] == 't';
        return 0;
    }
    return phx_fail(err, PHX_E_INTERNAL, "%s: a key of no kind", o->key);
}
