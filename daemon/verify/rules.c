/* SPDX-License-Identifier: Apache-2.0
 * What must hold between records: one intent before each result, epochs, time.  A receipt takes 32 bytes;
 * finished ones are remembered up to a limit, so that a receipt cannot come a second time unseen. */
#include <sodium.h>
#include <string.h>

#include "daemon/verify/verify.h"
#include "rpc/base/mem.h"

#define BACK_NS (INT64_C(120) * 1000000000)
enum { KINDS_MAX = 64, SLOTS_FIRST = 1024 };

enum state { FREE = 0, OPEN, GATEWAY, CLOSED };
struct phx_receipt {
    uint8_t  key[16]; /* of the SHA-256 of the receipt */
    int64_t  epoch;
    uint64_t leaf : 62;
    uint64_t state : 2;
};

void phx_rules_init(struct phx_rules *r, struct phx_report *report)
{
    memset(r, 0, sizeof(*r));
    r->report = report;
    r->n_slots = SLOTS_FIRST;
    r->slots = phx_mem_calloc(r->n_slots, sizeof(*r->slots));
    r->kinds = json_object();
}

void phx_rules_fini(struct phx_rules *r)
{
    phx_mem_free(r->slots);
    json_decref(r->kinds);
}

bool phx_kind_is_known(const char *kind)
{
    static const char *const known[] = {"admin", "clock", "config", "content.hold", "correct", "gap", "intent",
                                        "key", "licence", "model", "read", "refusal", "replay", "result",
                                        "shred"};

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strcmp(kind, known[i]) == 0)
            return true;
    return false;
}

static struct phx_receipt *find_slot(struct phx_receipt *slots, size_t n, const uint8_t key[16])
{
    size_t at;

    memcpy(&at, key, sizeof(at));
    for (at &= n - 1; slots[at].state != FREE && memcmp(slots[at].key, key, 16) != 0;)
        at = (at + 1) & (n - 1);
    return &slots[at];
}

static void rebuild(struct phx_rules *r, size_t n_slots, bool with_closed)
{
    struct phx_receipt *slots = phx_mem_calloc(n_slots, sizeof(*slots));

    r->n_used = 0;
    for (size_t i = 0; i < r->n_slots; i++)
        if (r->slots[i].state != FREE && (with_closed || r->slots[i].state != CLOSED)) {
            *find_slot(slots, n_slots, r->slots[i].key) = r->slots[i];
            r->n_used++;
        }
    phx_mem_free(r->slots);
    r->slots = slots;
    r->n_slots = n_slots;
}

static struct phx_receipt *find_receipt(struct phx_rules *r, struct phx_slice receipt)
{
    uint8_t             digest[crypto_hash_sha256_BYTES];
    struct phx_receipt *slot;

    if (r->n_used * 4 >= r->n_slots * 3)
        rebuild(r, r->n_slots * 2, true);
    (void)crypto_hash_sha256(digest, (const unsigned char *)receipt.at, receipt.size);
    slot = find_slot(r->slots, r->n_slots, digest);
    if (slot->state == FREE)
        memcpy(slot->key, digest, sizeof(slot->key));
    return slot;
}

static void close_receipt(struct phx_rules *r, struct phx_receipt *slot)
{
    r->n_gateway -= slot->state == GATEWAY;
    slot->state = CLOSED;
    r->n_open--;
    r->n_closed++;
}

/* Only between records: slots move. */
static void forget_closed(struct phx_rules *r)
{
    if (r->n_closed < PHX_V_CLOSED_MAX)
        return;
    rebuild(r, r->n_slots, false);
    r->n_closed = 0;
    r->is_forgetful = true;
}

static void push_intent(struct phx_rules *r, uint64_t leaf, const struct phx_fields *f)
{
    struct phx_receipt *slot = find_receipt(r, f->f[PHX_F_RECEIPT].text);
    int64_t             epoch = f->f[PHX_F_EPOCH].number;
    bool                is_gateway = f->f[PHX_F_PRIVACY].type == PHX_V_STR &&
                      phx_slice_is(f->f[PHX_F_PRIVACY].text, "gateway");

    if (slot->state != FREE) {
        phx_report_add(r->report, PHX_E_FORMAT, "record %llu: a second intent with this receipt",
                       (unsigned long long)leaf);
        return;
    }
    slot->epoch = epoch;
    slot->leaf = leaf;
    slot->state = is_gateway ? GATEWAY : OPEN;
    r->n_gateway += is_gateway;
    r->n_used++;
    r->n_open++;
    r->n_requests++;
    if (r->has_epoch && epoch != r->epoch)
        phx_report_add(r->report, PHX_E_FORMAT, "record %llu: its epoch is not %lld", (unsigned long long)leaf,
                       (long long)r->epoch);
}

static void push_result(struct phx_rules *r, uint64_t leaf, const struct phx_fields *f)
{
    struct phx_receipt *slot = find_receipt(r, f->f[PHX_F_RECEIPT].text);
    int64_t             epoch = f->f[PHX_F_EPOCH].number;

    if (slot->state != OPEN && slot->state != GATEWAY) {
        phx_report_add(r->report, PHX_E_FORMAT,
                       "record %llu: a result without an open intent before it: none at all, or this is the "
                       "second result", (unsigned long long)leaf);
        return;
    }
    close_receipt(r, slot);
    if (epoch < slot->epoch || epoch > (r->has_epoch ? r->epoch : slot->epoch))
        phx_report_add(r->report, PHX_E_FORMAT, "record %llu: a result of epoch %lld for an intent of epoch %lld",
                       (unsigned long long)leaf, (long long)epoch, (long long)slot->epoch);
    forget_closed(r);
}

static void push_start(struct phx_rules *r, uint64_t leaf, int64_t epoch)
{
    for (size_t i = 0; i < r->n_slots && r->n_open > r->n_gateway; i++)
        if (r->slots[i].state == OPEN) {
            close_receipt(r, &r->slots[i]);
            phx_report_add(r->report, PHX_E_STATE,
                           "record %llu: an intent without a result before the daemon.start of record %llu",
                           (unsigned long long)r->slots[i].leaf, (unsigned long long)leaf);
        }
    forget_closed(r);
    if (r->has_epoch && (r->epoch == INT64_MAX || epoch != r->epoch + 1))
        phx_report_add(r->report, PHX_E_FORMAT, "record %llu: epoch %lld follows epoch %lld",
                       (unsigned long long)leaf, (long long)epoch, (long long)r->epoch);
    r->has_epoch = true;
    r->epoch = epoch;
}

static void push_time(struct phx_rules *r, uint64_t leaf, int64_t at_ns)
{
    int64_t least;

    if (!__builtin_sub_overflow(r->newest_ns, BACK_NS, &least) && at_ns < least)
        phx_report_add(r->report, PHX_E_STATE, "record %llu: the clock went back by more than 120 s",
                       (unsigned long long)leaf);
    if (at_ns > r->newest_ns)
        r->newest_ns = at_ns;
}

static void count_kind(struct phx_rules *r, struct phx_slice kind)
{
    char    name[64] = "others";
    json_t *count;

    if (kind.size < sizeof(name)) {
        memcpy(name, kind.at, kind.size);
        name[kind.size] = '\0';
        if (!phx_kind_is_known(name) && json_object_size(r->kinds) >= KINDS_MAX)
            strcpy(name, "others");
    }
    count = json_object_get(r->kinds, name);
    if (count == NULL)
        json_object_set_new(r->kinds, name, json_integer(1));
    else
        json_integer_set(count, json_integer_value(count) + 1);
}

static void push_gap(struct phx_rules *r, uint64_t leaf, const struct phx_fields *f)
{
    struct phx_slice event = f->f[PHX_F_EVENT].text; /* empty when it is no string */

    phx_report_add(r->report, PHX_E_STATE, "record %llu: a gap until %lld: %.*s", (unsigned long long)leaf,
                   (long long)f->f[PHX_F_AT_NS].number, event.size < 60 ? (int)event.size : 60,
                   event.size > 0 ? event.at : "");
}

void phx_rules_push(struct phx_rules *r, uint64_t leaf, const char *bytes, size_t size)
{
    struct phx_fields f;
    struct phx_err    err = {0};
    struct phx_slice  kind;
    int               rc = phx_record_scan(bytes, size, &f, &err);

    if (rc == 0)
        rc = phx_record_check(&f, &err);
    if (rc != 0) {
        phx_report_add(r->report, rc, "record %llu: %s", (unsigned long long)leaf, err.text);
        return;
    }
    kind = f.f[PHX_F_KIND].text;
    count_kind(r, kind);
    push_time(r, leaf, f.f[PHX_F_AT_NS].number);
    if (phx_slice_is(kind, "intent"))
        push_intent(r, leaf, &f);
    else if (phx_slice_is(kind, "result"))
        push_result(r, leaf, &f);
    else if (phx_record_is_start(&f))
        push_start(r, leaf, f.f[PHX_F_EPOCH].number);
    else if (phx_slice_is(kind, "gap"))
        push_gap(r, leaf, &f);
}
