/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/metrics/metrics.h"

#include <string.h>

#include "rpc/base/mem.h"
#include "rpc/base/table.h"

enum kind { COUNTER = 1, GAUGE, HISTOGRAM };
enum { N_BUCKETS = 16, LABEL_SETS_MAX = 4096 };

struct fact {
    const char *name;
    enum kind   kind;
    const char *help;
};

static const struct fact facts[] = {
    {"phalanx_requests_total", COUNTER, "Requests by tenant, model and outcome."},
    {"phalanx_tokens_total", COUNTER, "Tokens by kind: prompt, cached, output, reasoning."},
    {"phalanx_refusals_total", COUNTER, "Requests refused, by rule."},
    {"phalanx_time_to_first_token_seconds", HISTOGRAM, "From the request to its first token."},
    {"phalanx_render_seconds", HISTOGRAM, "From a request that was read to the token ids of its prompt."},
    {"phalanx_admission_seconds", HISTOGRAM, "From a request that was read to its durable admission or refusal."},
    {"phalanx_admission_wait_seconds", HISTOGRAM, "What admission added: how long a first token waited for it."},
    {"phalanx_settlement_seconds", HISTOGRAM, "From the end of an answer to its durable record."},
    {"phalanx_inter_token_seconds", HISTOGRAM, "Between two tokens of one answer."},
    {"phalanx_queue_seconds", HISTOGRAM, "From the engine queue to a replica."},
    {"phalanx_step_seconds", HISTOGRAM, "One engine step, by replica."},
    {"phalanx_sequences", GAUGE, "Sequences by state: queued (not yet on a replica), sent (on one)."},
    {"phalanx_kv_blocks", GAUGE, "Blocks of the key/value cache, by replica."},
    {"phalanx_kv_blocks_used", GAUGE, "Blocks in use, by replica."},
    {"phalanx_prefix_hit_tokens_total", COUNTER, "Prompt tokens found in the prefix cache."},
    {"phalanx_draft_tokens_total", COUNTER, "Tokens that were guessed and run to see, by replica."},
    {"phalanx_accepted_tokens_total", COUNTER, "Guessed tokens that became output, by replica."},
    {"phalanx_preemptions_total", COUNTER, "Sequences set back for want of cache blocks."},
    {"phalanx_comm_bytes_total", COUNTER, "Bytes that the head rank moved to other ranks."},
    {"phalanx_replica_state", GAUGE, "1 for the state that a replica is in."},
    {"phalanx_replica_restarts_total", COUNTER, "Restarts of a replica."},
    {"phalanx_admissions_active", GAUGE, "Admitted requests that have not ended."},
    {"phalanx_seats_used", GAUGE, "People with a seat this month."},
    {"phalanx_seats_limit", GAUGE, "Seats of the licence; -1 = no limit."},
};

enum { N_FACTS = sizeof(facts) / sizeof(facts[0]) };

static const double bounds[N_BUCKETS] = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                                         0.25,   0.5,   1,      2.5,   5,    10,    30,   60};

struct phx_series {
    struct phx_series *next;
    char          *labels;
    double         value;            /* or the sum of a histogram */
    uint64_t       n;                /* of a histogram */
    uint64_t       bucket[N_BUCKETS];
};

struct phx_metrics {
    struct phx_table *names; /* name -> its index + 1 as a pointer into `slots` */
    struct slot {
        const struct fact *fact;
        struct phx_table  *by_labels;
        struct phx_series     *first, *last; /* in order of appearance */
    } slots[N_FACTS];
};

struct phx_metrics *phx_metrics_create(void)
{
    struct phx_metrics *m = phx_mem_calloc(1, sizeof(*m));

    m->names = phx_table_create(N_FACTS);
    for (int i = 0; i < N_FACTS; i++) {
        m->slots[i].fact = &facts[i];
        m->slots[i].by_labels = phx_table_create(LABEL_SETS_MAX + 1);
        phx_assert(phx_table_set_str(m->names, facts[i].name, &m->slots[i]) == 0);
    }
    return m;
}

void phx_metrics_destroy(struct phx_metrics *m)
{
    if (m == NULL)
        return;
    for (int i = 0; i < N_FACTS; i++) {
        for (struct phx_series *s = m->slots[i].first, *next; s != NULL; s = next) {
            next = s->next;
            phx_mem_free(s->labels);
            phx_mem_free(s);
        }
        phx_table_destroy(m->slots[i].by_labels);
    }
    phx_table_destroy(m->names);
    phx_mem_free(m);
}

static struct phx_series *find(struct phx_metrics *m, const char *name, enum kind kind,
                           const char *labels)
{
    struct slot   *slot = phx_table_get_str(m->names, name);
    struct phx_series *s;

    phx_assert(slot != NULL && slot->fact->kind == kind);
    s = phx_table_get_str(slot->by_labels, labels);
    if (s != NULL)
        return s;
    if (phx_table_count(slot->by_labels) >= LABEL_SETS_MAX && labels[0] != '\0')
        return find(m, name, kind, "");
    s = phx_mem_calloc(1, sizeof(*s));
    s->labels = phx_mem_strdup(labels);
    phx_assert(phx_table_set_str(slot->by_labels, labels, s) == 0);
    if (slot->last != NULL)
        slot->last->next = s;
    else
        slot->first = s;
    slot->last = s;
    return s;
}

void phx_metrics_count(struct phx_metrics *m, const char *name, const char *labels, double add)
{
    find(m, name, COUNTER, labels)->value += add;
}

void phx_metrics_gauge(struct phx_metrics *m, const char *name, const char *labels, double value)
{
    find(m, name, GAUGE, labels)->value = value;
}

struct phx_series *phx_metrics_series(struct phx_metrics *m, const char *name, const char *labels)
{
    return find(m, name, HISTOGRAM, labels);
}

void phx_series_observe(struct phx_series *s, double value)
{
    s->value += value;
    s->n++;
    for (int i = 0; i < N_BUCKETS; i++)
        if (value <= bounds[i]) {
            s->bucket[i]++;
            break;
        }
}

void phx_metrics_observe(struct phx_metrics *m, const char *name, const char *labels, double value)
{
    phx_series_observe(find(m, name, HISTOGRAM, labels), value);
}

static void write_histogram(const struct fact *fact, const struct phx_series *s, struct phx_buf *out)
{
    const char *comma = s->labels[0] != '\0' ? "," : "";
    uint64_t    sum = 0;

    for (int i = 0; i < N_BUCKETS; i++) {
        sum += s->bucket[i];
        phx_buf_printf(out, "%s_bucket{%s%sle=\"%g\"} %llu\n", fact->name, s->labels, comma,
                       bounds[i], (unsigned long long)sum);
    }
    phx_buf_printf(out, "%s_bucket{%s%sle=\"+Inf\"} %llu\n", fact->name, s->labels, comma,
                   (unsigned long long)s->n);
    if (s->labels[0] != '\0') {
        phx_buf_printf(out, "%s_sum{%s} %.9g\n%s_count{%s} %llu\n", fact->name, s->labels, s->value,
                       fact->name, s->labels, (unsigned long long)s->n);
        return;
    }
    phx_buf_printf(out, "%s_sum %.9g\n%s_count %llu\n", fact->name, s->value, fact->name,
                   (unsigned long long)s->n);
}

void phx_metrics_write(const struct phx_metrics *m, struct phx_buf *out)
{
    static const char *const kinds[] = {"", "counter", "gauge", "histogram"};

    for (int i = 0; i < N_FACTS; i++) {
        const struct slot *slot = &m->slots[i];

        if (slot->first == NULL)
            continue;
        phx_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", slot->fact->name, slot->fact->help,
                       slot->fact->name, kinds[slot->fact->kind]);
        for (const struct phx_series *s = slot->first; s != NULL; s = s->next)
            if (slot->fact->kind == HISTOGRAM)
                write_histogram(slot->fact, s, out);
            else if (s->labels[0] != '\0')
                phx_buf_printf(out, "%s{%s} %.15g\n", slot->fact->name, s->labels, s->value);
            else
                phx_buf_printf(out, "%s %.15g\n", slot->fact->name, s->value);
    }
}
