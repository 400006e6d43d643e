/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/: a backend that lives in a module, so that no program needs its libraries. */
#ifndef PHX_KERNELS_MODULE_H
#define PHX_KERNELS_MODULE_H

#include "kernels/ops.h"

/* What phalanx_<name>.so exports as the object `phx_backend_module`. */
struct phx_module {
    int32_t abi; /* PHX_BACKEND_ABI: a module of another build is refused */
    /* 0 when a device can be used; else -1 with the reason in why. */
    int (*probe)(char *why, size_t why_size);
    const struct phx_ops *ops;
};

/* Loads phalanx_<name>.so from beside the program or from ../lib/phalanx, checks and probes it.  NULL with
 * the reason in why; else *handle is for phx_module_unload(). */
const struct phx_ops *phx_module_load(const char *name, void **handle, char *why, size_t why_size);
void                  phx_module_unload(void *handle); /* NULL is allowed */

#endif
