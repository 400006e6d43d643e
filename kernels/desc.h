/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/: which descriptions of weights and caches make sense, whatever the backend. */
#ifndef PHX_KERNELS_DESC_H
#define PHX_KERNELS_DESC_H

#include "kernels/backend.h"

/* Only widening, exact conversions; and quantisation. */
bool phx_weight_can_store(enum phx_dtype from, enum phx_dtype to);
/* NULL, or what is wrong with it (static text). */
const char *phx_weight_find_fault(const struct phx_weight_desc *d);
bool        phx_kv_is_valid(const struct phx_kv_desc *d);

#endif
