/* SPDX-License-Identifier: Apache-2.0
 * DOOR of rpc/: what crosses between the daemon, the ranks and the command line, as plain structs,
 * and the calls that carry it (gRPC with mutual TLS; there is no other mode).
 *
 * Three nouns: a server (daemon), links (one per replica, dialled by its head rank) and clients
 * (command line).  Strings are UTF-8 without NUL inside; lengths and counts are checked when a message
 * is decoded AND when it is encoded, so what is too big fails at the sender, by name.
 *
 * Memory: structs given to a send are borrowed for the call.  Structs handed to a handler are borrowed
 * until the handler returns.  phx_link_recv() gives an owned message: phx_link_msg_free(). */
#ifndef PHX_RPC_RPC_H
#define PHX_RPC_RPC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/base/err.h"
#include "rpc/base/mem.h"
#include "rpc/control.h"

/* ---- limits ------------------------------------------------------------------------------- */

enum {
    PHX_RPC_PROTOCOL_MIN = 1, /* range of RankLink versions this build speaks */
    PHX_RPC_PROTOCOL_MAX = 1,
    PHX_RPC_MESSAGE_MAX_BYTES = 16 << 20, /* one message, either way */
    PHX_RPC_NAME_MAX = 256,               /* names, ids, hosts, versions, digests: bytes */
    PHX_RPC_TEXT_MAX = 4096,              /* error texts and reasons: bytes */
    PHX_RPC_PROMPT_MAX_BYTES = 8 << 20,   /* all text of one Generate call */
    PHX_RPC_TOKENS_MAX = 1 << 20,         /* token ids of one sequence */
    PHX_RPC_SUBMITS_MAX = 256,            /* sequences in one SUBMIT */
    PHX_RPC_CANCELS_MAX = 4096,           /* ids in one CANCEL */
    PHX_RPC_STEP_TOKENS_MAX = 16384,      /* tokens in one STEP */
    PHX_RPC_RANKS_MAX = 1024,             /* ranks of a replica */
    PHX_RPC_REPLICAS_MAX = 1024,          /* replicas of a cluster */
    PHX_RPC_MESSAGES_MAX = 2048,          /* chat messages of one Generate call */
    PHX_RPC_STOPS_MAX = 16,               /* stop strings; each at most PHX_RPC_NAME_MAX bytes */
    PHX_TOP_LOGPROBS_MAX = 20,
    PHX_BIAS_MAX = 1024,
    PHX_STOP_IDS_MAX = 64,
    PHX_CACHE_SALT_BYTES = 32
};

/* ---- sequences ----------------------------------------------------------------------------- */

struct phx_bias {
    int32_t token;
    float   bias; /* added to the logit, -100..100 */
};

struct phx_sampling {
    float    temperature; /* 0 = argmax; 0..100 */
    float    top_p;       /* (0, 1]; 1 = off */
    float    min_p;       /* [0, 1]; 0 = off */
    float    presence_penalty;   /* -2..2; 0 = off */
    float    frequency_penalty;  /* -2..2; 0 = off */
    float    repetition_penalty; /* (0, 10]; 1 = off */
    int32_t  top_k;              /* 0 = off */
    uint64_t seed;               /* key of the counter-based generator */
    int32_t  n_logprobs;         /* -1 none, 0 the chosen token's, 1..20 also that many top ones */
    const struct phx_bias *bias; /* borrowed */
    int32_t  n_bias;
    const int32_t *stop_ids; /* borrowed; a sampled stop id ends the sequence */
    int32_t  n_stop_ids;
    bool     ignore_eos; /* stop ids do not end the sequence (benchmarks) */
};

/* Neutral values: temperature 1, every filter off, no log-probabilities. */
void phx_sampling_init(struct phx_sampling *s);
/* PHX_E_INVALID naming the field for a value outside the ranges above (NaN and infinities too). */
int phx_sampling_check(const struct phx_sampling *s, struct phx_err *err) PHX_CHECKED;

struct phx_submit {
    uint64_t seq_id;                            /* never 0, never used twice on one link */
    uint8_t  cache_salt[PHX_CACHE_SALT_BYTES];  /* the tenant's key of the prefix cache */
    const int32_t *tokens;                      /* borrowed: the prompt + what was generated so far */
    int32_t  n_tokens;                          /* 1..PHX_RPC_TOKENS_MAX */
    int32_t  n_prompt; /* how many of them are prompt (1..n_tokens); the rest: before a resume */
    int32_t  max_new;  /* new tokens still allowed, 1 or more; means nothing when n_check > 0 */
    int32_t  n_check;  /* the last so many tokens (0..n_tokens - n_prompt) are an answer to be checked, not
                        * context: nothing is generated, one phx_token_out comes for each of them; 0 = none */
    int32_t  priority; /* higher runs first */
    struct phx_sampling sampling;
};

enum phx_finish {
    PHX_FINISH_NONE = 0,
    PHX_FINISH_STOP,      /* a stop id: `token` is that id */
    PHX_FINISH_LENGTH,    /* max_new or the context is used up; `token` is the last one */
    PHX_FINISH_CANCELLED, /* by CANCEL; `token` is -1 */
    PHX_FINISH_ERROR      /* error_code and error_text say why; `token` is -1 */
};

struct phx_logprob {
    int32_t token;
    float   logprob; /* natural logarithm, 0 or below; -INFINITY is allowed */
};

struct phx_token_out {
    uint64_t seq_id;
    int32_t  token;   /* -1 = no token (CANCELLED, ERROR) */
    int32_t  index;   /* 0-based count of generated tokens since the original prompt */
    float    logprob; /* of `token`; 0 when not asked for */
    float    gap;     /* of a checked token: how far it is from being drawn (shard/sample/sample.h); else 0 */
    const struct phx_logprob *top; /* borrowed, best first */
    int32_t  n_top;
    enum phx_finish finish;
    int32_t  cached_tokens; /* prompt tokens found in the prefix cache; on the first token only */
    int32_t  error_code;    /* PHX_E_* for PHX_FINISH_ERROR, else 0 */
    const char *error_text; /* borrowed; "" when there is none, never NULL after decoding */
};

/* ---- RankLink messages ---------------------------------------------------------------------- */

struct phx_rank_info {
    int32_t rank;
    int32_t pid;
    const char *host;
    int32_t pp;
    int32_t tp;
    const char *device; /* "cpu", "cuda:0" */
};

struct phx_link_hello {
    int32_t protocol_min, protocol_max; /* filled in by phx_link_connect() */
    const char *replica_id;
    const char *join_token; /* one-time; compared in constant time by the receiver, never logged */
    const char *build;      /* version of the binary; filled in by phx_link_connect() when NULL */
    const char *model_name;
    const char *model_digest; /* "sha256:..." of the model's manifest, "" = not signed */
    const char *model_parent; /* of a derived model, NULL or "" = none */
    int32_t pp_size, tp_size;
    const struct phx_rank_info *ranks;
    int32_t n_ranks;
};

struct phx_link_loading {
    double   fraction; /* 0..1 */
    uint64_t bytes, bytes_total;
    double   gb_per_s;
};

struct phx_rank_facts {
    int32_t  rank;
    uint64_t weights_bytes, kv_bytes, scratch_bytes;
};

struct phx_link_ready {
    const struct phx_rank_facts *ranks;
    int32_t n_ranks;
    int32_t kv_blocks, block_tokens, max_seqs, max_context, vocab_size;
};

struct phx_step_stats {
    int32_t  n_running, n_waiting, n_preempted;
    int32_t  kv_blocks_used, kv_blocks_total;
    uint64_t prefix_hit_tokens; /* in this step */
    uint32_t step_us;
    int32_t  n_prefill_tokens, n_decode_tokens;
    int32_t  n_draft_tokens, n_accepted_tokens; /* guessed, and of them right: output beyond n_decode_tokens */
    uint64_t bytes_comm; /* moved between ranks in this step */
};

struct phx_link_step {
    uint64_t step;
    const struct phx_token_out *tokens;
    int32_t n_tokens;
    struct phx_step_stats stats;
};

struct phx_link_heartbeat {
    uint64_t step;
    uint64_t progress; /* moves inside a step; standing still while busy means hung */
    bool     is_busy;
};

struct phx_link_fatal {
    int32_t code; /* PHX_E_* */
    const char *text;
    int32_t rank;
};

struct phx_link_settings {
    int32_t heartbeat_ms;  /* the rank sends a heartbeat this often */
    int32_t lost_after_ms; /* either side gives the other up after this silence */
};

struct phx_link_welcome {
    int32_t protocol; /* the version both speak */
    const char *build;
    struct phx_link_settings settings;
};

struct phx_link_submit {
    const struct phx_submit *items;
    int32_t n_items;
};

struct phx_link_cancel {
    const uint64_t *seq_ids;
    int32_t n_seq_ids;
};

struct phx_link_drain {
    int64_t timeout_ms; /* 0 = until the running ones end */
};

enum phx_link_kind {
    PHX_LINK_NONE = 0,
    /* rank -> daemon */
    PHX_LINK_HELLO,
    PHX_LINK_LOADING,
    PHX_LINK_READY,
    PHX_LINK_STEP,
    PHX_LINK_HEARTBEAT,
    PHX_LINK_FATAL,
    PHX_LINK_BYE, /* the rank leaves in good order */
    /* daemon -> rank */
    PHX_LINK_WELCOME,
    PHX_LINK_SUBMIT,
    PHX_LINK_CANCEL,
    PHX_LINK_DRAIN, /* finish what runs, take nothing new, then BYE */
    PHX_LINK_STOP,  /* leave now */
    PHX_LINK_PING   /* keeps the line alive; answered by nothing */
};

struct phx_link_msg {
    enum phx_link_kind kind;
    union {
        struct phx_link_hello     hello;
        struct phx_link_loading   loading;
        struct phx_link_ready     ready;
        struct phx_link_step      step;
        struct phx_link_heartbeat heartbeat;
        struct phx_link_fatal     fatal;
        struct phx_link_welcome   welcome;
        struct phx_link_submit    submit;
        struct phx_link_cancel    cancel;
        struct phx_link_drain     drain;
    } u;
    struct phx_arena *arena; /* holds what was decoded; NULL in messages made by the caller */
};

const char *phx_link_kind_name(enum phx_link_kind kind);
const char *phx_finish_name(enum phx_finish finish); /* "stop", "length", ... */
/* Frees an owned message (one from phx_link_recv()).  NULL is allowed. */
void phx_link_msg_free(struct phx_link_msg *msg);

/* ---- Cluster and Inference ------------------------------------------------------------------ */

enum phx_replica_state {
    PHX_REPLICA_NONE = 0,
    PHX_REPLICA_STARTING,
    PHX_REPLICA_LOADING,
    PHX_REPLICA_READY,
    PHX_REPLICA_DRAINING,
    PHX_REPLICA_BACKOFF, /* died; waits before the next start */
    PHX_REPLICA_STOPPED,
    PHX_REPLICA_FAILED /* gave up; last_error says why */
};
const char *phx_replica_state_name(enum phx_replica_state state); /* "ready", ... */

struct phx_cluster_rank {
    struct phx_rank_info  info;
    struct phx_rank_facts facts;
    int32_t max_sequences;
};

struct phx_cluster_replica {
    const char *id;
    enum phx_replica_state state;
    const char *model_name, *model_digest, *backend;
    int32_t tp_size, pp_size;
    double  load_fraction; /* 0..1 */
    int32_t restarts;
    int64_t since_unix_ns; /* when the state began */
    const char *last_error; /* "" = none */
    int32_t kv_blocks, block_tokens, max_seqs, max_context, vocab_size;
    uint64_t step;
    double  steps_per_s, tokens_per_s;
    int32_t n_running, n_waiting, kv_blocks_used;
    double  prefix_hit_rate; /* 0..1 */
    const struct phx_cluster_rank *ranks;
    int32_t n_ranks;
};

struct phx_cluster_state {
    const char *cluster_id, *build, *http_url;
    int64_t now_unix_ns, started_unix_ns;
    bool    is_ready;
    const char *licence; /* one line: state, serial, seats */
    int32_t n_queued, n_active;
    const struct phx_cluster_replica *replicas;
    int32_t n_replicas;
};

struct phx_cluster_event { /* one message of Cluster.Watch: the whole state after a change */
    const char *reason;    /* stable dotted name such as "fleet.replica.ready"; "" for the first */
    struct phx_cluster_state state;
};

struct phx_cluster_target { /* argument of Drain and Restart */
    const char *replica_id; /* "" = all */
    int64_t timeout_ms;     /* 0 = the daemon's default */
    const char *reason;     /* goes into the audit log */
};

struct phx_cluster_done { /* answer of Drain and Restart */
    int32_t n_replicas;
    int32_t n_running; /* requests that were running when the command came */
};

struct phx_generate_message {
    const char *role; /* system, developer, user, assistant, tool */
    const char *name; /* tool name; "" = none */
    const char *content;
};

struct phx_generate {
    const char *model;
    const struct phx_generate_message *messages; /* either messages ... */
    int32_t n_messages;
    const char *prompt; /* ... or a raw prompt; "" when messages are given */
    bool    has_sampling;         /* false: the model's defaults; `sampling` is then neutral */
    struct phx_sampling sampling;
    bool    has_seed; /* false: sampling.seed means nothing */
    int32_t max_new; /* 0 = the model's limit */
    const char *const *stops;
    int32_t n_stops;
    const char *reasoning_effort; /* "", low, medium, high */
    const char *user;             /* end user's id for seats and records; "" = the caller */
    const char *idempotency_key;  /* "" = none; at most 128 bytes */
    const char *purpose;          /* purpose code; "" = none */
};

struct phx_usage {
    int64_t prompt_tokens, cached_tokens, output_tokens, reasoning_tokens;
};

enum phx_generate_kind {
    PHX_GENERATE_NONE = 0,
    PHX_GENERATE_TEXT,      /* text of the answer */
    PHX_GENERATE_REASONING, /* text of the reasoning channel */
    PHX_GENERATE_DONE       /* last message of the stream */
};

struct phx_generate_event {
    enum phx_generate_kind kind;
    const char *text; /* TEXT and REASONING: a piece, never half a UTF-8 character */
    const char *request_id, *receipt_id, *finish_reason; /* DONE */
    struct phx_usage usage;                               /* DONE */
};

/* ---- server (daemon side) ------------------------------------------------------------------- */

struct phx_rpc_tls { /* PEM text, borrowed for the open call */
    const char *ca_pem;   /* the peer's certificate must chain to this */
    const char *cert_pem; /* own chain */
    const char *key_pem;
};

/* Who calls.  Valid while the call or link handle is. */
struct phx_rpc_peer {
    const char *common_name;      /* of the verified client certificate; "" = none */
    const char *const *alt_names; /* its subject alternative names */
    int32_t n_alt_names;
    const char *bearer;  /* token of `authorization: Bearer ...` metadata, NULL = none; never log it */
    const char *on_behalf_of; /* metadata x-phalanx-on-behalf-of: the end user's token; as bearer */
    const char *address; /* "ipv4:127.0.0.1:4711" */
};

enum phx_rpc_method {
    PHX_RPC_NONE = 0,
    PHX_RPC_CLUSTER_GET,
    PHX_RPC_CLUSTER_WATCH,     /* stream of phx_cluster_event */
    PHX_RPC_CLUSTER_DRAIN,
    PHX_RPC_CLUSTER_RESTART,
    PHX_RPC_INFERENCE_GENERATE, /* stream of phx_generate_event */
    PHX_RPC_ADMIT,
    PHX_RPC_RENEW,
    PHX_RPC_SETTLE,
    PHX_RPC_CANCEL_LEASE,
    PHX_RPC_LICENSE_GET,
    PHX_RPC_LICENSE_INSTALL,
    PHX_RPC_LICENSE_SEATS,
    PHX_RPC_LICENSE_ACCEPT_CLOCK,
    PHX_RPC_METERING_QUERY,
    PHX_RPC_METERING_EXPORT, /* stream of phx_rpc_usage_part */
    PHX_RPC_AUDIT_GET,
    PHX_RPC_AUDIT_PROVE,
    PHX_RPC_AUDIT_CHECKPOINT,
    PHX_RPC_AUDIT_SEARCH,
    PHX_RPC_AUDIT_REPLAY,
    PHX_RPC_METHODS /* how many there are */
};

struct phx_rpc_request {
    enum phx_rpc_method method;
    struct phx_rpc_peer peer;
    int64_t deadline_mono_ns; /* phx_clock_mono_ns() scale; 0 = none */
    union {
        struct phx_cluster_target target;   /* DRAIN, RESTART */
        struct phx_generate       generate; /* GENERATE */
        struct phx_rpc_admit           admit;
        struct phx_rpc_renew           renew;
        struct phx_rpc_settle          settle;
        struct phx_rpc_cancel_lease    cancel_lease;
        struct phx_rpc_empty           empty; /* LICENSE_GET, AUDIT_CHECKPOINT */
        struct phx_rpc_license_install license_install;
        struct phx_rpc_seats           seats;
        struct phx_rpc_accept_clock    accept_clock;
        struct phx_rpc_usage_query     usage_query;
        struct phx_rpc_usage_export    usage_export;
        struct phx_rpc_audit_get       audit_get;
        struct phx_rpc_audit_prove     audit_prove;
        struct phx_rpc_audit_search    audit_search;
        struct phx_rpc_audit_replay    audit_replay;
    } u;
};

struct phx_rpc_answer { /* an answer, or one message of a stream; the request's method tells which */
    union {
        struct phx_cluster_state  cluster;  /* GET */
        struct phx_cluster_event  event;    /* WATCH */
        struct phx_cluster_done   done;     /* DRAIN, RESTART */
        struct phx_generate_event generate; /* GENERATE */
        struct phx_rpc_admit_answer           admit;
        struct phx_rpc_renew_answer           renew;
        struct phx_rpc_settle_answer          settle;
        struct phx_rpc_empty                  empty; /* CANCEL_LEASE */
        struct phx_rpc_license_answer         license;
        struct phx_rpc_license_install_answer license_install;
        struct phx_rpc_seats_answer           seats;
        struct phx_rpc_accept_clock_answer    accept_clock;
        struct phx_rpc_usage_answer           usage_query;
        struct phx_rpc_usage_part             usage_export;
        struct phx_rpc_records_answer         audit_get;
        struct phx_rpc_prove_answer           audit_prove;
        struct phx_rpc_checkpoint_answer      audit_checkpoint;
        struct phx_rpc_search_answer          audit_search;
        struct phx_rpc_replay_answer          audit_replay;
    } u;
};

struct phx_rpc_server;
struct phx_rpc_link; /* an attached replica, daemon side */
struct phx_rpc_call; /* a call that waits for its answer */

/* All handlers run inside phx_rpc_server_dispatch(), one at a time, on its thread.
 * Links: `attached` comes once, after the version exchange; the handler checks the join token and
 * answers, now or later, with phx_rpc_link_welcome() or phx_rpc_link_close().  `message` comes for
 * each message after HELLO.  `detached` comes once for every attached link, whoever ended it (also
 * after phx_rpc_link_close()); the handle is gone when it returns.
 * Calls: `request` comes once; the handle lives until phx_rpc_reply(), phx_rpc_fail() or
 * phx_rpc_stream_end() was called, or `cancelled` returned (client gone, deadline, slow reader).
 * phx_rpc_server_close() itself delivers `cancelled` and `detached` for what is still open. */
struct phx_rpc_handlers {
    void (*attached)(void *ctx, struct phx_rpc_link *link, const struct phx_link_hello *hello,
                     const struct phx_rpc_peer *peer);
    void (*message)(void *ctx, struct phx_rpc_link *link, const struct phx_link_msg *msg);
    void (*detached)(void *ctx, struct phx_rpc_link *link, const struct phx_err *reason);
    void (*request)(void *ctx, struct phx_rpc_call *call, const struct phx_rpc_request *request);
    void (*cancelled)(void *ctx, struct phx_rpc_call *call);
};

struct phx_rpc_server_options {
    const char *listen; /* "host:port"; port 0 picks a free one */
    struct phx_rpc_tls tls;
    struct phx_rpc_handlers handlers; /* copied */
    void *ctx;
    int32_t max_calls;           /* calls and links open at once; 0 = 1024; more are refused */
    size_t  max_send_queue_bytes; /* unsent bytes per link; 0 = 64 MiB; above, the peer is dropped.
                                     Streams to clients: the same, but at most 4 MiB. */
};

/* Listens and starts the gRPC thread (all signals blocked in it).  PHX_E_IO when the address cannot be
 * bound (a second listener on a port is refused), PHX_E_INVALID for unusable PEM text. */
int phx_rpc_server_open(struct phx_rpc_server **server, const struct phx_rpc_server_options *options,
                        struct phx_err *err) PHX_CHECKED;
int phx_rpc_server_port(const struct phx_rpc_server *server);
int phx_rpc_server_fd(const struct phx_rpc_server *server); /* readable when dispatch has work */
void phx_rpc_server_dispatch(struct phx_rpc_server *server); /* runs handlers, never blocks */
/* Standard health: service "" is the whole server; is_serving at open is false. */
void phx_rpc_server_set_serving(struct phx_rpc_server *server, const char *service, bool is_serving);
/* Stops listening, waits up to grace_ms for open calls to end (dispatching meanwhile), cancels the
 * rest, joins the thread.  NULL is allowed. */
void phx_rpc_server_close(struct phx_rpc_server *server, int grace_ms);

/* Accepts an attached link: sends WELCOME. */
int phx_rpc_link_welcome(struct phx_rpc_link *link, const struct phx_link_settings *settings,
                         struct phx_err *err) PHX_CHECKED;
/* Queues a message.  PHX_E_PEER when the link is gone, PHX_E_BUSY when the peer reads too slowly (it
 * is dropped, `detached` follows), PHX_E_TOOBIG / PHX_E_INVALID when it breaks a limit. */
int phx_rpc_link_send(struct phx_rpc_link *link, const struct phx_link_msg *msg, struct phx_err *err)
    PHX_CHECKED;
/* Ends the link with a status the rank sees: code 0 (bye) or PHX_E_*.  `detached` follows. */
void phx_rpc_link_close(struct phx_rpc_link *link, int code, const char *text);
void  phx_rpc_link_set_data(struct phx_rpc_link *link, void *data);
void *phx_rpc_link_data(const struct phx_rpc_link *link);

/* Answers a unary call; the handle is gone.  An answer that cannot be encoded fails the call. */
void phx_rpc_reply(struct phx_rpc_call *call, const struct phx_rpc_answer *answer);
/* Ends a unary call or a stream with err->code and its text; retry_after_ms >= 0 is told to the client
 * (-1 = none).  The handle is gone. */
void phx_rpc_fail(struct phx_rpc_call *call, const struct phx_err *err, int64_t retry_after_ms);
/* The same, and names the rule that refused ("licence.seats") in the metadata "phalanx-rule"; "" = none.
 * Rules are of [a-z0-9._-], at most 63 characters (asserted). */
void phx_rpc_refuse(struct phx_rpc_call *call, const struct phx_err *err, const char *rule,
                    int64_t retry_after_ms);
/* One message of a stream.  PHX_E_BUSY when the client reads too slowly (`cancelled` follows). */
int phx_rpc_stream_send(struct phx_rpc_call *call, const struct phx_rpc_answer *answer,
                        struct phx_err *err) PHX_CHECKED;
size_t phx_rpc_stream_queued(const struct phx_rpc_call *call); /* unsent bytes */
void  phx_rpc_stream_end(struct phx_rpc_call *call); /* status OK; the handle is gone */
void  phx_rpc_call_set_data(struct phx_rpc_call *call, void *data);
void *phx_rpc_call_data(const struct phx_rpc_call *call);
const struct phx_rpc_peer *phx_rpc_call_peer(const struct phx_rpc_call *call);

/* ---- link (rank side) ----------------------------------------------------------------------- */

struct phx_rpc_client_options {
    const char *target; /* "host:port" */
    struct phx_rpc_tls tls;
    const char *server_name; /* name expected in the server's certificate; NULL = the target's host */
    const char *bearer;      /* sent as authorization metadata; NULL = none */
    int timeout_ms;          /* connecting and, for a link, until WELCOME; 0 = 10000 */
};

struct phx_link;
/* Dials, sends HELLO, waits for WELCOME.  The refusal of the daemon (token, version) comes back as its
 * code and text.  *welcome may be NULL; its `build` is borrowed from the link. */
int phx_link_connect(struct phx_link **link, const struct phx_rpc_client_options *options,
                     const struct phx_link_hello *hello, struct phx_link_welcome *welcome,
                     struct phx_err *err) PHX_CHECKED;
/* Thread-safe.  PHX_E_PEER when the daemon is gone, PHX_E_BUSY above the queue limit (64 MiB). */
int phx_link_send(struct phx_link *link, const struct phx_link_msg *msg, struct phx_err *err)
    PHX_CHECKED;
/* The next message, owned by the caller.  timeout_ms 0 = only what is there, -1 = for ever.
 * PHX_E_TIMEOUT when there is none, PHX_E_PEER (or the daemon's status) after the link ended and all
 * that arrived before was taken. */
int phx_link_recv(struct phx_link *link, int timeout_ms, struct phx_link_msg **msg,
                  struct phx_err *err) PHX_CHECKED;
bool phx_link_is_connected(const struct phx_link *link);
int  phx_link_fd(const struct phx_link *link); /* readable when recv has something, also the end */
/* Waits up to flush_ms until all that was sent has left, then ends.  NULL is allowed. */
void phx_link_close(struct phx_link *link, int flush_ms);

/* ---- client (command line) ------------------------------------------------------------------ */

struct phx_rpc_client;
struct phx_rpc_stream;

/* Opens a channel; the first call connects.  All calls block; one thread at a time. */
int  phx_rpc_client_open(struct phx_rpc_client **client, const struct phx_rpc_client_options *options,
                         struct phx_err *err) PHX_CHECKED;
void phx_rpc_client_close(struct phx_rpc_client *client); /* NULL is allowed */

/* Unary calls; answers live in `arena`.  timeout_ms 0 = 10000.  The server's refusal comes back as its
 * code and text. */
int phx_rpc_cluster_get(struct phx_rpc_client *client, int timeout_ms, struct phx_arena *arena,
                        struct phx_cluster_state *state, struct phx_err *err) PHX_CHECKED;
int phx_rpc_cluster_drain(struct phx_rpc_client *client, int timeout_ms,
                          const struct phx_cluster_target *target, struct phx_cluster_done *done,
                          struct phx_err *err) PHX_CHECKED;
int phx_rpc_cluster_restart(struct phx_rpc_client *client, int timeout_ms,
                            const struct phx_cluster_target *target, struct phx_cluster_done *done,
                            struct phx_err *err) PHX_CHECKED;
int phx_rpc_health_check(struct phx_rpc_client *client, int timeout_ms, const char *service,
                         bool *is_serving, struct phx_err *err) PHX_CHECKED;

/* Any unary call: request->method and request->u (peer and deadline are not used).  *answer lives in
 * `arena`. */
int phx_rpc_ask(struct phx_rpc_client *client, int timeout_ms, const struct phx_rpc_request *request,
                struct phx_arena *arena, struct phx_rpc_answer *answer, struct phx_err *err) PHX_CHECKED;
/* What came with the last call's refusal. */
struct phx_rpc_refusal {
    char    rule[64];       /* "" = none */
    int64_t retry_after_ms; /* -1 = none */
};
void phx_rpc_client_refusal(const struct phx_rpc_client *client, struct phx_rpc_refusal *out);

/* Streams.  timeout_ms is for the whole stream, 0 = none. */
int phx_rpc_stream_open(struct phx_rpc_client *client, int timeout_ms,
                        const struct phx_rpc_request *request, struct phx_rpc_stream **stream,
                        struct phx_err *err) PHX_CHECKED;
int phx_rpc_cluster_watch(struct phx_rpc_client *client, int timeout_ms,
                          struct phx_rpc_stream **stream, struct phx_err *err) PHX_CHECKED;
int phx_rpc_generate(struct phx_rpc_client *client, int timeout_ms, const struct phx_generate *request,
                     struct phx_rpc_stream **stream, struct phx_err *err) PHX_CHECKED;
/* The next message into *answer (memory in `arena`): 1 = there is one, 0 = the stream ended well, or
 * the negative code it ended with. */
int phx_rpc_stream_recv(struct phx_rpc_stream *stream, struct phx_arena *arena,
                        struct phx_rpc_answer *answer, struct phx_err *err) PHX_CHECKED;
void phx_rpc_stream_close(struct phx_rpc_stream *stream); /* cancels when still open; NULL allowed */

#endif
