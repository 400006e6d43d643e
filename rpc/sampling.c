/* SPDX-License-Identifier: Apache-2.0
 * Sampling parameters as they are given and within which limits. */
#include <math.h>
#include <string.h>

#include "rpc/rpc.h"

void phx_sampling_init(struct phx_sampling *s)
{
    memset(s, 0, sizeof(*s));
    s->temperature = 1.0f;
    s->top_p = 1.0f;
    s->repetition_penalty = 1.0f;
    s->n_logprobs = -1;
}

static int check_real(const char *field, float x, float min, float max, struct phx_err *err)
{
    if (isfinite(x) && x >= min && x <= max)
        return 0;
    return phx_fail(err, PHX_E_INVALID, "Sampling.%s is %g (allowed %g to %g)", field, (double)x,
                    (double)min, (double)max);
}

static int check_range(const char *field, int64_t x, int64_t min, int64_t max, struct phx_err *err)
{
    if (x >= min && x <= max)
        return 0;
    return phx_fail(err, PHX_E_INVALID, "%s is %lld (allowed %lld to %lld)", field, (long long)x, (long long)min,
                    (long long)max);
}

static int check_reals(const struct phx_sampling *s, struct phx_err *err)
{
    const struct {
        const char *field;
        float       x, min, max;
    } rows[] = {
        {"temperature", s->temperature, 0.0f, 100.0f},
        {"top_p", s->top_p, 1e-6f, 1.0f},
        {"min_p", s->min_p, 0.0f, 1.0f},
        {"presence_penalty", s->presence_penalty, -2.0f, 2.0f},
        {"frequency_penalty", s->frequency_penalty, -2.0f, 2.0f},
        {"repetition_penalty", s->repetition_penalty, 1e-3f, 10.0f},
    };
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < sizeof(rows) / sizeof(rows[0]); i++)
        rc = check_real(rows[i].field, rows[i].x, rows[i].min, rows[i].max, err);
    return rc;
}

int phx_sampling_check(const struct phx_sampling *s, struct phx_err *err)
{
    int rc = check_reals(s, err);

    if (rc == 0)
        rc = check_range("Sampling.top_k", s->top_k, 0, INT32_MAX, err);
    if (rc == 0)
        rc = check_range("Sampling.n_logprobs", s->n_logprobs, -1, PHX_TOP_LOGPROBS_MAX, err);
    if (rc == 0)
        rc = check_range("Sampling.bias count", s->n_bias, 0, PHX_BIAS_MAX, err);
    if (rc == 0)
        rc = check_range("Sampling.stop_ids count", s->n_stop_ids, 0, PHX_STOP_IDS_MAX, err);
    for (int32_t i = 0; rc == 0 && i < s->n_bias; i++) {
        rc = check_range("Sampling.bias.token", s->bias[i].token, 0, INT32_MAX, err);
        if (rc == 0)
            rc = check_real("bias.bias", s->bias[i].bias, -100.0f, 100.0f, err);
    }
    for (int32_t i = 0; rc == 0 && i < s->n_stop_ids; i++)
        rc = check_range("Sampling.stop_ids", s->stop_ids[i], 0, INT32_MAX, err);
    return rc;
}
