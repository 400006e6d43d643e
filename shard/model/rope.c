/* SPDX-License-Identifier: Apache-2.0
 * Rotary positions: what config.json says about them, and the frequencies that follow. */
#include <math.h>
#include <string.h>

#include "rpc/base/json.h"
#include "shard/model/parse.h"

/* YaRN's amplitude for a scale: 0.1 m ln(factor) + 1. */
static double mscale_of(double factor, double m)
{
    return factor <= 1 ? 1 : 0.1 * m * log(factor) + 1;
}

static int parse_yarn(const json_t *o, const char *where, struct phx_rope_config *r,
                      int32_t max_position, struct phx_err *err)
{
    double  mscale = 0, mscale_all = 0, amplitude = 0;
    int64_t original = max_position;
    int     rc = phx_json_opt_int(o, where, "original_max_position_embeddings", 1, 1 << 28,
                                  &original, err);

    r->original_max_position = (int32_t)original;
    r->factor = (double)max_position / (double)original;
    r->beta_fast = 32;
    r->beta_slow = 1;
    r->is_truncated = true;
    if (rc == 0)
        rc = phx_json_opt_real(o, where, "factor", 1e-3, 1e6, &r->factor, err);
    if (rc == 0)
        rc = phx_json_opt_real(o, where, "beta_fast", 1e-6, 1e6, &r->beta_fast, err);
    if (rc == 0)
        rc = phx_json_opt_real(o, where, "beta_slow", 1e-6, 1e6, &r->beta_slow, err);
    if (rc == 0)
        rc = phx_json_opt_bool(o, where, "truncate", &r->is_truncated, err);
    if (rc == 0)
        rc = phx_json_opt_real(o, where, "attention_factor", 1e-6, 1e6, &amplitude, err);
    if (rc == 0)
        rc = phx_json_opt_real(o, where, "mscale", 0, 1e6, &mscale, err);
    if (rc == 0)
        rc = phx_json_opt_real(o, where, "mscale_all_dim", 0, 1e6, &mscale_all, err);
    if (rc != 0)
        return rc;
    if (amplitude > 0)
        r->attention_factor = amplitude;
    else if (mscale > 0 && mscale_all > 0)
        r->attention_factor = mscale_of(r->factor, mscale) / mscale_of(r->factor, mscale_all);
    else
        r->attention_factor = mscale_of(r->factor, 1);
    return 0;
}

static int parse_llama3(const json_t *o, const char *where, struct phx_rope_config *r,
                        struct phx_err *err)
{
    int64_t original = 0;
    int     rc = phx_json_get_real(o, where, "factor", 1e-3, 1e6, &r->factor, err);

    if (rc == 0)
        rc = phx_json_get_real(o, where, "low_freq_factor", 1e-6, 1e6, &r->low_freq_factor, err);
    if (rc == 0)
        rc = phx_json_get_real(o, where, "high_freq_factor", 1e-6, 1e6, &r->high_freq_factor, err);
    if (rc == 0)
        rc = phx_json_get_int(o, where, "original_max_position_embeddings", 1, 1 << 28, &original,
                              err);
    r->original_max_position = (int32_t)original;
    if (rc == 0 && r->high_freq_factor <= r->low_freq_factor)
        rc = phx_fail(err, PHX_E_INVALID, "%s.high_freq_factor must be above low_freq_factor", where);
    return rc;
}

static int parse_type(const json_t *o, const char *where, struct phx_model_config *c,
                      struct phx_err *err)
{
    struct phx_rope_config *r = &c->rope;
    const char             *type = NULL;
    int                     rc = phx_json_opt_str(o, where, "type", 100, &type, err); /* old name */

    if (rc == 0)
        rc = phx_json_opt_str(o, where, "rope_type", 100, &type, err);
    if (rc != 0)
        return rc;
    if (type == NULL)
        return phx_fail(err, PHX_E_INVALID, "%s.rope_type is missing", where);
    if (strcmp(type, "default") == 0)
        return 0;
    if (strcmp(type, "linear") == 0) {
        r->kind = PHX_ROPE_LINEAR;
        return phx_json_get_real(o, where, "factor", 1e-3, 1e6, &r->factor, err);
    }
    if (strcmp(type, "llama3") == 0) {
        r->kind = PHX_ROPE_LLAMA3;
        return parse_llama3(o, where, r, err);
    }
    if (strcmp(type, "yarn") == 0) {
        r->kind = PHX_ROPE_YARN;
        return parse_yarn(o, where, r, c->max_position, err);
    }
    return phx_fail(err, PHX_E_UNSUPPORTED, "%s.rope_type \"%.40s\" is not served; served: default, "
                    "linear, llama3, yarn", where, type);
}

int phx_parse_rope(const json_t *root, struct phx_model_config *c, struct phx_err *err)
{
    struct phx_rope_config *r = &c->rope;
    const json_t           *o = NULL;
    const char             *where = "rope_parameters";
    int                     rc = phx_json_opt_object(root, "", where, &o, err);

    r->kind = PHX_ROPE_PLAIN;
    r->theta = c->arch == PHX_ARCH_GPT_OSS ? 150000 : 10000;
    r->factor = 1;
    r->attention_factor = 1;
    r->original_max_position = c->max_position;
    if (rc == 0 && o == NULL) {
        where = "rope_scaling";
        rc = phx_json_opt_object(root, "", where, &o, err);
    }
    if (rc == 0)
        rc = phx_json_opt_real(root, "", "rope_theta", 1.001, 1e12, &r->theta, err);
    if (rc == 0 && o != NULL)
        rc = phx_json_opt_real(o, where, "rope_theta", 1.001, 1e12, &r->theta, err);
    if (rc == 0 && o != NULL && json_is_object(json_object_get(o, "full_attention")))
        rc = phx_fail(err, PHX_E_UNSUPPORTED, "%s per layer type is not served", where);
    if (rc == 0 && o != NULL)
        rc = parse_type(o, where, c, err);
    /* published files always say it, and readers disagree about the default */
    if (rc == 0 && o == NULL && c->arch == PHX_ARCH_GPT_OSS &&
        json_object_get(root, "rope_scaling") == NULL && json_object_get(root, "rope_parameters") == NULL)
        rc = phx_fail(err, PHX_E_INVALID, "rope_scaling is missing (null means plain positions)");
    return rc;
}

/* The index at which a frequency turns `rotations` times over the original context. */
static double yarn_bound(const struct phx_model_config *c, double rotations)
{
    const struct phx_rope_config *r = &c->rope;

    return c->head_dim * log(r->original_max_position / (rotations * 2 * M_PI)) /
           (2 * log(r->theta));
}

static void yarn(const struct phx_model_config *c, double *inv_freq)
{
    const struct phx_rope_config *r = &c->rope;
    double                        low = yarn_bound(c, r->beta_fast);
    double                        high = yarn_bound(c, r->beta_slow);

    if (r->is_truncated) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, c->head_dim - 1);
    if (low == high)
        high += 0.001;
    for (int32_t j = 0; j < c->head_dim / 2; j++) {
        double ramp = fmin(fmax((j - low) / (high - low), 0), 1);

        inv_freq[j] = inv_freq[j] / r->factor * ramp + inv_freq[j] * (1 - ramp);
    }
}

static double llama3(const struct phx_rope_config *r, double inv)
{
    double length = 2 * M_PI / inv, s;

    if (length < r->original_max_position / r->high_freq_factor)
        return inv;
    if (length > r->original_max_position / r->low_freq_factor)
        return inv / r->factor;
    s = (r->original_max_position / length - r->low_freq_factor) /
        (r->high_freq_factor - r->low_freq_factor);
    return (1 - s) * inv / r->factor + s * inv;
}

void phx_rope_frequencies(const struct phx_model_config *config, double *inv_freq)
{
    const struct phx_rope_config *r = &config->rope;

    for (int32_t j = 0; j < config->head_dim / 2; j++)
        inv_freq[j] = pow(r->theta, -2.0 * j / config->head_dim);
    if (r->kind == PHX_ROPE_YARN)
        yarn(config, inv_freq);
    for (int32_t j = 0; j < config->head_dim / 2; j++) {
        if (r->kind == PHX_ROPE_LINEAR)
            inv_freq[j] /= r->factor;
        else if (r->kind == PHX_ROPE_LLAMA3)
            inv_freq[j] = llama3(r, inv_freq[j]);
    }
}
