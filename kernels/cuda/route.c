/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/route.h"

struct cuda_route_call phx_cuda_route_call(struct phx_tensor ids, struct phx_tensor gates, struct phx_tensor logits)
{
    return (struct cuda_route_call){.ids = ids.data, .gates = gates.data, .logits = logits.data, .ids_stride = ids.stride0,
                                    .gates_stride = gates.stride0, .logits_stride = logits.stride0,
                                    .n_rows = logits.dim[0], .n_experts = logits.dim[1], .top_k = ids.dim[1]};
}

void phx_cuda_moe_route(void *device, struct phx_tensor ids, struct phx_tensor gates, struct phx_tensor logits)
{
    struct cuda_device    *d = device;
    struct cuda_route_call c = phx_cuda_route_call(ids, gates, logits);

    (void)phx_cuda_check(d, phx_cuda_route_rows(d->stream, &c), "moe_route");
}

const char *phx_cuda_moe_bias(void *device, struct phx_tensor x, struct phx_tensor ids, struct phx_tensor gates,
                              struct phx_tensor bias)
{
    struct cuda_device          *d = device;
    struct cuda_expert_bias_call c = {.x = x.data, .ids = ids.data, .gates = gates.data, .bias = bias.data,
                                      .x_stride = x.stride0, .ids_stride = ids.stride0, .gates_stride = gates.stride0,
                                      .bias_stride = bias.stride0, .n_rows = x.dim[0], .n = x.dim[1],
                                      .top_k = ids.dim[1], .n_experts = bias.dim[0], .fault = d->fault};

    (void)phx_cuda_check(d, phx_cuda_expert_bias(d->stream, &c), "moe_bias"); /* kept for sync */
    return NULL; /* a wrong id is found by sync */
}
