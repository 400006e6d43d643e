/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/vector.h"

void phx_cuda_rmsnorm(void *device, struct phx_tensor out, struct phx_tensor x, struct phx_tensor gain, float eps)
{
    struct cuda_device   *d = device;
    struct cuda_rows_call c = {.out = out.data, .x = x.data, .y = gain.data, .out_stride = out.stride0,
                               .x_stride = x.stride0, .n_rows = x.dim[0], .n = x.dim[1], .eps = eps};

    (void)phx_cuda_check(d, phx_cuda_rmsnorm_rows(d->stream, &c), "rmsnorm");
}

void phx_cuda_rope(void *device, struct phx_tensor x, int32_t head_dim, const struct phx_spans *spans,
                   struct phx_tensor cos, struct phx_tensor sin)
{
    struct cuda_device   *d = device;
    struct cuda_rope_call c = {.x = x.data, .cos = cos.data, .sin = sin.data, .x_stride = x.stride0,
                               .cos_stride = cos.stride0, .sin_stride = sin.stride0, .n_heads = x.dim[1] / head_dim,
                               .half = head_dim / 2};

    if (phx_cuda_spans(d, spans, &c.spans) == 0)
        (void)phx_cuda_check(d, phx_cuda_rope_rows(d->stream, &c), "rope");
}

void phx_cuda_swiglu(void *device, struct phx_tensor out, struct phx_tensor gate_up, enum phx_glu kind, float limit)
{
    struct cuda_device   *d = device;
    struct cuda_rows_call c = {.out = out.data, .x = gate_up.data, .out_stride = out.stride0,
                               .x_stride = gate_up.stride0, .n_rows = out.dim[0], .n = out.dim[1], .kind = kind,
                               .limit = limit};

    (void)phx_cuda_check(d, phx_cuda_swiglu_rows(d->stream, &c), "swiglu");
}

static void add(struct cuda_device *d, struct phx_tensor x, struct phx_tensor y, int64_t y_stride, const char *op)
{
    struct cuda_rows_call c = {.out = x.data, .x = x.data, .y = y.data, .out_stride = x.stride0, .x_stride = x.stride0,
                               .y_stride = y_stride, .n_rows = x.dim[0], .n = x.dim[1]};

    (void)phx_cuda_check(d, phx_cuda_add_rows(d->stream, &c), op);
}

void phx_cuda_add(void *device, struct phx_tensor x, struct phx_tensor y)
{
    add(device, x, y, y.stride0, "add");
}

void phx_cuda_add_row(void *device, struct phx_tensor x, struct phx_tensor row)
{
    add(device, x, row, 0, "add_row");
}

struct cuda_add_norm_call phx_cuda_add_norm_call(const struct cuda_device *d, const struct phx_add_norm_args *a)
{
    struct cuda_add_norm_call c = {
        .x = a->x.data, .norm = a->norm.data, .y = a->y.data, .bias = a->bias.data, .gain = a->gain.data,
        .x_stride = a->x.stride0, .y_stride = a->y.stride0, .norm_stride = a->norm.stride0,
        .n_rows = a->x.dim[0], .n = a->x.dim[1], .eps = a->eps, .fault = d->fault};

    if (a->expert_bias.data != NULL) {
        c.ids = a->ids.data;
        c.gates = a->gates.data;
        c.expert_bias = a->expert_bias.data;
        c.ids_stride = a->ids.stride0;
        c.gates_stride = a->gates.stride0;
        c.expert_stride = a->expert_bias.stride0;
        c.top_k = a->ids.dim[1];
        c.n_experts = a->expert_bias.dim[0];
    }
    return c;
}

void phx_cuda_add_norm(void *device, const struct phx_add_norm_args *a)
{
    struct cuda_device       *d = device;
    struct cuda_add_norm_call c = phx_cuda_add_norm_call(d, a);

    (void)phx_cuda_check(d, phx_cuda_add_norm_rows(d->stream, &c), "add_norm");
}

void phx_cuda_gather_rows(void *device, struct phx_tensor out, struct phx_tensor x, const int32_t *rows)
{
    struct cuda_device   *d = device;
    struct cuda_rows_call c = {.out = out.data, .x = x.data, .out_stride = out.stride0, .x_stride = x.stride0,
                               .n_rows = out.dim[0], .n = out.dim[1]};

    c.row_of = phx_cuda_stage(d, rows, (size_t)out.dim[0] * sizeof(int32_t));
    if (c.row_of != NULL)
        (void)phx_cuda_check(d, phx_cuda_gather(d->stream, &c), "gather_rows");
}
