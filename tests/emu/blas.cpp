// SPDX-License-Identifier: Apache-2.0
// The part of cuBLASLt that kernels/cuda/library.c uses, for the emulated device: one algorithm, the definition.
#include "emulator.h"

#include <string>

#include "tests/emu/control.h"

extern struct phx_emu phx_emu;

namespace {

struct desc {
    int          transposed, epilogue;
    const float *bias;
};

struct layout {
    int      type;
    uint64_t rows, columns;
    int64_t  ld;
};

int create(void **handle)
{
    *handle = new int(0);
    return 0;
}

int destroy(void *handle)
{
    delete static_cast<int *>(handle);
    return 0;
}

int desc_create(void **d, int compute, int scale_type)
{
    *d = new desc{0, 1, nullptr};
    return compute == 68 && scale_type == 0 ? 0 : 7;
}

int desc_set(void *d, int attribute, const void *value, size_t size_bytes)
{
    desc *to = static_cast<desc *>(d);

    if (attribute == 3 && size_bytes == sizeof(int))
        memcpy(&to->transposed, value, size_bytes);
    else if (attribute == 7 && size_bytes == sizeof(int))
        memcpy(&to->epilogue, value, size_bytes);
    else if (attribute == 8 && size_bytes == sizeof(void *))
        memcpy(&to->bias, value, size_bytes);
    else
        return 7;
    return 0;
}

int desc_destroy(void *d)
{
    delete static_cast<desc *>(d);
    return 0;
}

int layout_create(void **l, int type, uint64_t rows, uint64_t columns, int64_t ld)
{
    *l = new layout{type, rows, columns, ld};
    return ld >= (int64_t)rows ? 0 : 7;
}

int layout_destroy(void *l)
{
    delete static_cast<layout *>(l);
    return 0;
}

int pref_set(void *, int attribute, const void *, size_t size_bytes)
{
    return (attribute == 1 && size_bytes == 8) || (attribute >= 5 && attribute <= 8 && size_bytes == 4) ? 0 : 7;
}

struct heuristic {
    uint64_t algo[8];
    size_t   workspace_bytes;
    int      state;
    float    waves;
    int      reserved[4];
};

int find(void *, void *, void *, void *, void *, void *, void *, int wanted, heuristic *results, int *found)
{
    *found = wanted > 0 && !phx_emu.blas_refuses ? 1 : 0;
    if (*found > 0)
        results[0] = {};
    return 0;
}

float element(const uint16_t *m, uint64_t at)
{
    return __uint_as_float((uint32_t)m[at] << 16);
}

int matmul(void *, void *d, const void *alpha, const void *a, void *al, const void *b, void *bl, const void *beta,
           const void *, void *, void *out, void *dl, const void *, void *, size_t, cudaStream_t stream)
{
    desc            op = *static_cast<desc *>(d);
    layout          la = *static_cast<layout *>(al), lb = *static_cast<layout *>(bl), ld = *static_cast<layout *>(dl);
    const uint16_t *wa = static_cast<const uint16_t *>(a), *xb = static_cast<const uint16_t *>(b);
    float          *to = static_cast<float *>(out);

    if (*static_cast<const float *>(alpha) != 1 || *static_cast<const float *>(beta) != 0 || op.transposed != 1 ||
        la.type != 14 || lb.type != 14 || ld.type != 0 || la.rows != lb.rows || la.columns != ld.rows ||
        lb.columns != ld.columns || (op.epilogue != 1 && (op.epilogue != 4 || op.bias == nullptr)))
        return 7;
    phx_emu.n_blas++;
    return phx_emu_launch({dim3(1), dim3(1), 0}, stream, [=] {
        for (uint64_t j = 0; j < ld.columns; j++)
            for (uint64_t i = 0; i < ld.rows; i++) {
                double sum = op.epilogue == 4 ? (double)op.bias[i] : 0;

                for (uint64_t k = 0; k < la.rows; k++)
                    sum += (double)element(wa, i * (uint64_t)la.ld + k) * (double)element(xb, j * (uint64_t)lb.ld + k);
                to[j * (uint64_t)ld.ld + i] = (float)sum;
            }
    }) == cudaSuccess ? 0 : 13;
}

} // namespace

extern "C" void *phx_emu_blas(const char *name)
{
    static const struct {
        const char *name;
        void       *function;
    } table[] = {
        {"", (void *)create},
        {"cublasLtCreate", (void *)create},
        {"cublasLtDestroy", (void *)destroy},
        {"cublasLtMatmulDescCreate", (void *)desc_create},
        {"cublasLtMatmulDescSetAttribute", (void *)desc_set},
        {"cublasLtMatmulDescDestroy", (void *)desc_destroy},
        {"cublasLtMatrixLayoutCreate", (void *)layout_create},
        {"cublasLtMatrixLayoutDestroy", (void *)layout_destroy},
        {"cublasLtMatmulPreferenceCreate", (void *)create},
        {"cublasLtMatmulPreferenceSetAttribute", (void *)pref_set},
        {"cublasLtMatmulPreferenceDestroy", (void *)destroy},
        {"cublasLtMatmulAlgoGetHeuristic", (void *)find},
        {"cublasLtMatmul", (void *)matmul},
    };

    if (!phx_emu.lacks_blas)
        for (const auto &entry : table)
            if (std::string(name) == entry.name)
                return entry.function;
    return nullptr;
}
