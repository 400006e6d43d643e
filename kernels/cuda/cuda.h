/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: entries of the backend's table that have no header of their own. */
#ifndef PHX_KERNELS_CUDA_CUDA_H
#define PHX_KERNELS_CUDA_CUDA_H

#include "kernels/cuda/device.h"

/* 0 when some device can be used; else -1 with what is missing. */
int phx_cuda_probe(char *why, size_t why_size);

void *phx_cuda_open(const struct phx_backend_options *options, const char **isa, int32_t *n_threads, char *why,
                    size_t why_size);
void  phx_cuda_close(void *device);
int   phx_cuda_sync(void *device, const char **why);
void *phx_cuda_alloc(void *device, size_t size_bytes);
void  phx_cuda_free(void *device, void *ptr);
void *phx_cuda_alloc_host(void *device, size_t size_bytes);
void  phx_cuda_free_host(void *device, void *ptr);
void  phx_cuda_count_add(struct phx_memory_count *c, size_t size_bytes); /* what phx_cuda_take() will do */
size_t phx_cuda_work_bytes(const void *device, const struct phx_work *work);
void   phx_cuda_work_reserve(void *device, const struct phx_work *work);
/* stamp.c */
void  phx_cuda_stamp(void *device, int32_t i);
int   phx_cuda_stamps(void *device, int32_t n, float *us);
void  phx_cuda_stamps_close(struct cuda_device *d);
void  phx_cuda_facts(void *device, struct phx_device_facts *facts);

#endif
