/* SPDX-License-Identifier: Apache-2.0
 * config.json: whatever is accepted has shapes the rest of the engine can trust. */
#include <math.h>
#include <stdint.h>

#include "rpc/base/mem.h"
#include "shard/model/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct phx_model_config c;
    struct phx_err          err;

    if (phx_model_config_parse((const char *)data, size, &c, &err) == 0) {
        double freq[512];

        phx_assert(c.n_layers >= 1 && c.n_layers <= PHX_LAYERS_MAX);
        phx_assert(c.n_kv_heads >= 1 && c.n_heads % c.n_kv_heads == 0);
        phx_assert(c.head_dim % 2 == 0 && c.head_dim / 2 <= 512);
        phx_assert(c.n_experts == 0 || c.experts_per_token <= c.n_experts);
        phx_rope_frequencies(&c, freq);
        for (int32_t i = 0; i < c.head_dim / 2; i++)
            phx_assert(isfinite(freq[i]));
    }
    return 0;
}
