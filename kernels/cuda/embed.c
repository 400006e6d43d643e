/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/embed.h"

void phx_cuda_embed(void *device, struct phx_tensor out, const int32_t *ids, const void *table, int32_t first_row)
{
    struct cuda_device    *d = device;
    struct cuda_embed_call c = {.table = phx_cuda_weight_look(table), .out = out.data, .out_stride = out.stride0,
                                .first_row = first_row, .n_rows = out.dim[0]};

    c.ids = phx_cuda_stage(d, ids, (size_t)out.dim[0] * sizeof(int32_t));
    if (c.ids != NULL)
        (void)phx_cuda_check(d, phx_cuda_embed_rows(d->stream, &c), "embed");
}
