/* SPDX-License-Identifier: Apache-2.0
 * A backend whose memory is not the host's: the CPU's operations on memory that can only be touched inside an
 * operation, an upload or a download.  Host code that reads or writes a device tensor dies at that line. */
#include <string.h>
#include <sys/mman.h>

#include "kernels/memory.h"
#include "kernels/module.h"

extern struct phx_module phx_backend_module;

enum { REGION_BYTES = 64 << 20, ALIGN = 64 };

struct device {
    void   *cpu;
    char   *region; /* of this device's memory; freed as a whole */
    size_t  used;
};

static struct device *enter(void *device)
{
    struct device *d = device;

    (void)mprotect(d->region, REGION_BYTES, PROT_READ | PROT_WRITE); /* else the next access says so */
    return d;
}

static void leave(struct device *d)
{
    (void)mprotect(d->region, REGION_BYTES, PROT_NONE);
}

#define GUARDED(call)                                                                                                  \
    do {                                                                                                               \
        struct device *d = enter(device);                                                                              \
        phx_cpu_ops.call;                                                                                              \
        leave(d);                                                                                                      \
    } while (0)

#define GUARDED_TEXT(call)                                                                                             \
    do {                                                                                                               \
        struct device *d = enter(device);                                                                              \
        const char    *why = phx_cpu_ops.call;                                                                         \
        leave(d);                                                                                                      \
        return why;                                                                                                    \
    } while (0)

static void *open_device(const struct phx_backend_options *options, const char **isa, int32_t *n_threads, char *why,
                         size_t why_size)
{
    struct device *d = phx_memory_alloc(sizeof(*d));

    d->region = mmap(NULL, REGION_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    d->cpu = d->region != MAP_FAILED ? phx_cpu_ops.open(options, isa, n_threads, why, why_size) : NULL;
    return d->cpu != NULL ? d : NULL;
}

static void close_device(void *device)
{
    struct device *d = device;

    phx_cpu_ops.close(d->cpu);
    (void)munmap(d->region, REGION_BYTES);
    phx_memory_free(d);
}

static int sync_device(void *device, const char **why)
{
    return phx_cpu_ops.sync(((struct device *)device)->cpu, why);
}

static void *alloc_memory(void *device, size_t size_bytes)
{
    struct device *d = device;
    size_t         rounded = (size_bytes + ALIGN - 1) / ALIGN * ALIGN;

    if (rounded > REGION_BYTES - d->used)
        return NULL;
    d->used += rounded;
    return d->region + d->used - rounded;
}

static void free_memory(void *device, void *ptr)
{
    (void)device;
    (void)ptr;
}

static void copy_memory(void *device, void *to, const void *from, size_t size_bytes)
{
    struct device *d = enter(device);

    memcpy(to, from, size_bytes);
    leave(d);
}

static size_t weight_bytes(const struct phx_weight_desc *desc)
{
    return phx_cpu_ops.weight_bytes(desc);
}

static size_t kv_bytes(const struct phx_kv_desc *desc)
{
    return phx_cpu_ops.kv_bytes(desc);
}

static void *weight_create(void *device, const struct phx_weight_desc *desc)
{
    return phx_cpu_ops.weight_create(((struct device *)device)->cpu, desc);
}

static void weight_destroy(void *device, void *weight)
{
    phx_cpu_ops.weight_destroy(((struct device *)device)->cpu, weight);
}

static void weight_pack(void *device, void *weight, const struct phx_weight_source *source)
{
    phx_cpu_ops.weight_pack(((struct device *)device)->cpu, weight, source);
}

static void *kv_create(void *device, const struct phx_kv_desc *desc)
{
    return phx_cpu_ops.kv_create(((struct device *)device)->cpu, desc);
}

static void kv_destroy(void *device, void *kv)
{
    phx_cpu_ops.kv_destroy(((struct device *)device)->cpu, kv);
}

static void embed(void *device, struct phx_tensor out, const int32_t *ids, const void *table, int32_t first_row)
{
    GUARDED(embed(d->cpu, out, ids, table, first_row));
}

static void rmsnorm(void *device, struct phx_tensor out, struct phx_tensor x, struct phx_tensor gain, float eps)
{
    GUARDED(rmsnorm(d->cpu, out, x, gain, eps));
}

static const char *matmul(void *device, struct phx_tensor out, struct phx_tensor x, const void *w,
                          struct phx_tensor bias)
{
    GUARDED_TEXT(matmul(d->cpu, out, x, w, bias));
}

static void rope(void *device, struct phx_tensor x, int32_t head_dim, const struct phx_spans *spans,
                 struct phx_tensor cos, struct phx_tensor sin)
{
    GUARDED(rope(d->cpu, x, head_dim, spans, cos, sin));
}

static void kv_write(void *device, void *kv, int32_t layer, struct phx_tensor k, struct phx_tensor v,
                     const struct phx_spans *spans)
{
    GUARDED(kv_write(d->cpu, kv, layer, k, v, spans));
}

static void attention(void *device, const struct phx_attention_args *args, const void *kv)
{
    GUARDED(attention(d->cpu, args, kv));
}

static void moe_route(void *device, struct phx_tensor ids, struct phx_tensor gates, struct phx_tensor logits)
{
    GUARDED(moe_route(d->cpu, ids, gates, logits));
}

static void swiglu(void *device, struct phx_tensor out, struct phx_tensor gate_up, enum phx_glu kind, float limit)
{
    GUARDED(swiglu(d->cpu, out, gate_up, kind, limit));
}

static const char *moe_reserve(void *device, int32_t max_rows, int32_t top_k, const struct phx_weight_desc *gate_up,
                               const struct phx_weight_desc *down)
{
    GUARDED_TEXT(moe_reserve(d->cpu, max_rows, top_k, gate_up, down));
}

static const char *moe_ffn(void *device, const struct phx_moe_args *args, const void *gate_up, const void *down)
{
    GUARDED_TEXT(moe_ffn(d->cpu, args, gate_up, down));
}

static const char *moe_bias(void *device, struct phx_tensor x, struct phx_tensor ids, struct phx_tensor gates,
                            struct phx_tensor bias)
{
    GUARDED_TEXT(moe_bias(d->cpu, x, ids, gates, bias));
}

static void add(void *device, struct phx_tensor x, struct phx_tensor y)
{
    GUARDED(add(d->cpu, x, y));
}

static void add_row(void *device, struct phx_tensor x, struct phx_tensor row)
{
    GUARDED(add_row(d->cpu, x, row));
}

static void gather_rows(void *device, struct phx_tensor out, struct phx_tensor x, const int32_t *rows)
{
    GUARDED(gather_rows(d->cpu, out, x, rows));
}

static void top(void *device, struct phx_tensor ids, struct phx_tensor values, struct phx_tensor lse,
                struct phx_tensor logits)
{
    GUARDED(top(d->cpu, ids, values, lse, logits));
}

static void draw(void *device, struct phx_tensor out, struct phx_tensor logits, const struct phx_draw_row *draws)
{
    GUARDED(draw(d->cpu, out, logits, draws));
}

static const struct phx_ops ops = {
    .name = "cuda", .open = open_device, .close = close_device, .sync = sync_device,
    .alloc = alloc_memory, .free = free_memory, .upload = copy_memory, .download = copy_memory,
    .weight_bytes = weight_bytes, .kv_bytes = kv_bytes, .weight_create = weight_create, .weight_destroy = weight_destroy, .weight_pack = weight_pack,
    .kv_create = kv_create, .kv_destroy = kv_destroy,
    .embed = embed, .rmsnorm = rmsnorm, .matmul = matmul, .rope = rope, .kv_write = kv_write,
    .attention = attention, .moe_route = moe_route, .swiglu = swiglu, .moe_reserve = moe_reserve,
    .moe_ffn = moe_ffn, .moe_bias = moe_bias, .add = add, .add_row = add_row, .gather_rows = gather_rows,
    .top = top, .draw = draw,
};

static int probe(char *why, size_t why_size)
{
    (void)why;
    (void)why_size;
    return 0;
}

struct phx_module phx_backend_module = {PHX_BACKEND_ABI, probe, &ops};
