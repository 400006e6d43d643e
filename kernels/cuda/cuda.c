/* SPDX-License-Identifier: Apache-2.0
 * The CUDA backend: its table of operations, and the one object that the module exports. */
#include "kernels/cuda/attention.h"
#include "kernels/cuda/ceiling.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/draw.h"
#include "kernels/cuda/embed.h"
#include "kernels/cuda/exchange.h"
#include "kernels/cuda/kv.h"
#include "kernels/cuda/matmul_ends.h"
#include "kernels/cuda/moe.h"
#include "kernels/cuda/route.h"
#include "kernels/cuda/step.h"
#include "kernels/cuda/top.h"
#include "kernels/cuda/vector.h"
#include "kernels/module.h"

static const struct phx_ops cuda_ops = {
    .name = "cuda",
    .open = phx_cuda_open,
    .close = phx_cuda_close,
    .sync = phx_cuda_sync,
    .alloc = phx_cuda_alloc,
    .free = phx_cuda_free,
    .upload = phx_cuda_upload,
    .download = phx_cuda_download,
    .alloc_host = phx_cuda_alloc_host,
    .free_host = phx_cuda_free_host,
    .facts = phx_cuda_facts,
    .measure = phx_cuda_measure,
    .stamp = phx_cuda_stamp,
    .stamps = phx_cuda_stamps,
    .exchange = &phx_cuda_exchange_ops,
    .weight_bytes = phx_cuda_weight_bytes,
    .weight_create = phx_cuda_weight_create,
    .weight_destroy = phx_cuda_weight_destroy,
    .weight_pack = phx_cuda_weight_pack,
    .kv_bytes = phx_cuda_kv_bytes,
    .kv_create = phx_cuda_kv_create,
    .kv_destroy = phx_cuda_kv_destroy,
    .work_bytes = phx_cuda_work_bytes,
    .work_reserve = phx_cuda_work_reserve,
    .memory_count_add = phx_cuda_count_add,
    .step_begin = phx_cuda_step_begin,
    .step_end = phx_cuda_step_end,
    .embed = phx_cuda_embed,
    .rmsnorm = phx_cuda_rmsnorm,
    .matmul = phx_cuda_matmul,
    .rope = phx_cuda_rope,
    .kv_write = phx_cuda_kv_write,
    .rope_write = phx_cuda_rope_write,
    .attention = phx_cuda_attention,
    .moe_route = phx_cuda_moe_route,
    .swiglu = phx_cuda_swiglu,
    .moe_reserve = phx_cuda_moe_reserve,
    .moe_ffn = phx_cuda_moe_ffn,
    .moe_route_ffn = phx_cuda_moe_route_ffn,
    .moe_bias = phx_cuda_moe_bias,
    .add = phx_cuda_add,
    .add_row = phx_cuda_add_row,
    .add_norm = phx_cuda_add_norm,
    .matmul_rope_write = phx_cuda_matmul_rope_write,
    .matmul_glu = phx_cuda_matmul_glu,
    .matmul_add_norm = phx_cuda_matmul_add_norm,
    .mixture = phx_cuda_mixture,
    .gather_rows = phx_cuda_gather_rows,
    .top = phx_cuda_top,
    .draw = phx_cuda_draw,
};

extern const struct phx_module phx_backend_module;
__attribute__((visibility("default"))) const struct phx_module phx_backend_module = {PHX_BACKEND_ABI, phx_cuda_probe,
                                                                                     &cuda_ops};
