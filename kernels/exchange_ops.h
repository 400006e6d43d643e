/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/: what a backend provides behind exchange.h, whose comments say what each entry does. */
#ifndef PHX_KERNELS_EXCHANGE_OPS_H
#define PHX_KERNELS_EXCHANGE_OPS_H

#include "kernels/exchange.h"
#include "kernels/ops.h"

struct phx_exchange_ops {
    int (*probe)(int32_t *version, char *why, size_t why_size);
    int (*make_id)(unsigned char id[PHX_EXCHANGE_ID_BYTES], char *why, size_t why_size);
    void *(*open)(void *device, const struct phx_exchange_options *options, char *why, size_t why_size);
    void (*close)(void *exchange);
    void (*abort)(void *exchange);
    enum phx_exchange_state (*poll)(void *exchange, const char **why);
    enum phx_exchange_state (*is_done)(void *device);
    int (*offer)(void *exchange, unsigned char card[PHX_EXCHANGE_CARD_BYTES], char *why, size_t why_size);
    int (*accept)(void *exchange, const unsigned char *cards, char *why, size_t why_size);
    void (*retract)(void *exchange);
    int (*sum)(void *exchange, struct phx_tensor t);
    int (*sum_add_norm)(void *exchange, const struct phx_add_norm_args *args); /* NULL: never in one */
    bool (*can_record)(void *exchange, size_t size_bytes);                     /* NULL: no */
    int (*send)(void *exchange, struct phx_tensor t, int32_t to);
    int (*recv)(void *exchange, struct phx_tensor t, int32_t from);
    int (*gather)(void *exchange, struct phx_tensor out, struct phx_tensor part, const int32_t *first,
                  const int32_t *n);
};

#endif
