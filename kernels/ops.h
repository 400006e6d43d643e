/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/: what an implementation of the backend provides.  backend.c has checked every
 * argument before it calls through this table; implementations may assume valid input. */
#ifndef PHX_KERNELS_OPS_H
#define PHX_KERNELS_OPS_H

#include "kernels/backend.h"

enum { PHX_BACKEND_ABI = 11, /* moves when a table or a meaning in it does */
       PHX_WHY_BYTES = 240 };

struct phx_exchange_ops;

struct phx_ops {
    const char *name;
    bool        is_host; /* device memory is the host's */

    void *(*open)(const struct phx_backend_options *options, const char **isa, int32_t *n_threads,
                  char *why, size_t why_size);
    void (*close)(void *device);
    /* 0, or -1 or PHX_SYNC_LOST with a reason that stays until the next call. */
    int (*sync)(void *device, const char **why);

    void *(*alloc)(void *device, size_t size_bytes);
    void (*free)(void *device, void *ptr);
    void (*upload)(void *device, void *to, const void *host, size_t size_bytes);
    void (*download)(void *device, void *host, const void *from, size_t size_bytes);
    /* Page-locked memory; NULL where plain host memory does as well. */
    void *(*alloc_host)(void *device, size_t size_bytes);
    void (*free_host)(void *device, void *ptr);
    void (*facts)(void *device, struct phx_device_facts *facts); /* NULL: there are none */
    int (*measure)(void *device, const struct phx_device_request *request, struct phx_device_ceiling *out); /* NULL: none */
    void (*stamp)(void *device, int32_t i); /* both NULL: there are no times */
    int (*stamps)(void *device, int32_t n, float *us);
    const struct phx_exchange_ops *exchange; /* NULL: devices cannot talk to each other */

    size_t (*weight_bytes)(const struct phx_weight_desc *desc);
    void *(*weight_create)(void *device, const struct phx_weight_desc *desc);
    void (*weight_destroy)(void *device, void *weight);
    void (*weight_pack)(void *device, void *weight, const struct phx_weight_source *source);

    /* Of a valid description: never 0. */
    size_t (*kv_bytes)(const struct phx_kv_desc *desc);
    void *(*kv_create)(void *device, const struct phx_kv_desc *desc);
    void (*kv_destroy)(void *device, void *kv);

    /* All three NULL where memory is the host's. */
    size_t (*work_bytes)(const void *device, const struct phx_work *work);
    void (*work_reserve)(void *device, const struct phx_work *work);
    void (*memory_count_add)(struct phx_memory_count *c, size_t size_bytes);

    /* See phx_step_begin() and phx_step_end().  NULL: ops are always called. */
    bool (*step_begin)(void *device, const struct phx_step_inputs *in);
    bool (*step_end)(void *device);

    void (*embed)(void *device, struct phx_tensor out, const int32_t *ids, const void *table,
                  int32_t first_row);
    void (*rmsnorm)(void *device, struct phx_tensor out, struct phx_tensor x,
                    struct phx_tensor gain, float eps);
    /* NULL, or a static reason: no scratch. */
    const char *(*matmul)(void *device, struct phx_tensor out, struct phx_tensor x, const void *w,
                          struct phx_tensor bias);
    void (*rope)(void *device, struct phx_tensor x, int32_t head_dim,
                 const struct phx_spans *spans, struct phx_tensor cos, struct phx_tensor sin);
    void (*kv_write)(void *device, void *kv, int32_t layer, struct phx_tensor k,
                     struct phx_tensor v, const struct phx_spans *spans);
    /* NULL here and at add_norm: the door calls the ops that it is made of. */
    void (*rope_write)(void *device, struct phx_tensor x, void *kv, int32_t layer, struct phx_tensor v,
                       const struct phx_spans *spans, struct phx_tensor cos, struct phx_tensor sin);
    void (*attention)(void *device, const struct phx_attention_args *args, const void *kv);
    void (*moe_route)(void *device, struct phx_tensor ids, struct phx_tensor gates,
                      struct phx_tensor logits);
    void (*swiglu)(void *device, struct phx_tensor out, struct phx_tensor gate_up,
                   enum phx_glu kind, float limit);
    /* NULL, or a static reason: no scratch, or an expert id out of range. */
    const char *(*moe_reserve)(void *device, int32_t max_rows, int32_t top_k,
                               const struct phx_weight_desc *gate_up,
                               const struct phx_weight_desc *down);
    const char *(*moe_ffn)(void *device, const struct phx_moe_args *args, const void *gate_up,
                           const void *down);
    /* As moe_ffn.  NULL: the door calls the ops that it is made of. */
    const char *(*moe_route_ffn)(void *device, const struct phx_moe_args *args, struct phx_tensor logits,
                                 const void *gate_up, const void *down);
    const char *(*moe_bias)(void *device, struct phx_tensor x, struct phx_tensor ids,
                            struct phx_tensor gates, struct phx_tensor bias);
    void (*add)(void *device, struct phx_tensor x, struct phx_tensor y);
    void (*add_row)(void *device, struct phx_tensor x, struct phx_tensor row);
    void (*add_norm)(void *device, const struct phx_add_norm_args *args);
    /* NULL here and at the next three: the door calls the ops that they are made of.  A reason as matmul's and moe_ffn's. */
    const char *(*matmul_rope_write)(void *device, const struct phx_matmul_rope_args *args, const void *w, void *kv);
    const char *(*matmul_glu)(void *device, const struct phx_matmul_glu_args *args, const void *w);
    const char *(*matmul_add_norm)(void *device, struct phx_tensor x, const void *w, const struct phx_add_norm_args *end);
    const char *(*mixture)(void *device, const struct phx_mixture_args *args, const void *router, const void *gate_up,
                           const void *down);
    void (*gather_rows)(void *device, struct phx_tensor out, struct phx_tensor x,
                        const int32_t *rows);
    void (*top)(void *device, struct phx_tensor ids, struct phx_tensor values, struct phx_tensor lse,
                struct phx_tensor logits);
    void (*draw)(void *device, struct phx_tensor out, struct phx_tensor logits, const struct phx_draw_row *draws);
};

extern const struct phx_ops phx_cpu_ops;

/* One open backend, for the files of the door: backend.c, place.c, exchange.c. */
struct phx_backend {
    const struct phx_ops *ops;
    void                 *device;
    void                 *module; /* of phx_module_load, or NULL */
    const char           *isa;
    int32_t               n_threads;
    bool                  is_eager; /* as it was opened */
    phx_trace_fn          trace;
    void                 *trace_ctx;
    bool                  is_apart; /* every op that is others in one is called as those */
    const struct phx_step_inputs *step; /* between its begin and its end; checked */
    bool                  has_failed;
    char                  what[PHX_WHY_BYTES];
    char                  told[PHX_WHY_BYTES]; /* what the last sync answered */
};

#endif
