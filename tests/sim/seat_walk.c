/* SPDX-License-Identifier: Apache-2.0
 * Random walks of admissions: two daemons over one store, one of them leading; crashes before and after the
 * commit, failovers, a stale leader that goes on, repeated requests, clocks that move, month edges.  The seats in
 * the store must be the oracle's, and never more than the licence gives.
 *
 *   seat_walk [SEEDS]      300 by default, 20,000 in the soak tier */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/ledger/ledger.h"
#include "daemon/license/license.h"
#include "daemon/seat/seat.h"
#include "daemon/store/store.h"
#include "daemon/time/time.h"
#include "tests/sim/seat_world.h"

#define S INT64_C(1000000000)
#define HOUR (3600 * S)
#define DAY (86400 * S)

enum { MOVES = 160, NODES = 2, SEEDS = 300 };

static const int64_t START = INT64_C(1793491200) * S; /* 2026-11-01 */

struct node {
    int64_t              skew_ns, boot_at_ns, frozen_ns; /* frozen_ns: its wall clock stands; 0 = it runs */
    int32_t              n_boots;
    int64_t              epoch; /* it believes to lead in */
    struct phx_time_mark mark;  /* in memory: a crash loses it */
    enum phx_clock_state state;
};

struct world {
    uint64_t          random;
    int64_t           true_ns, saved_ns; /* saved_ns: T of the last durable mark */
    struct node       nodes[NODES];
    int32_t           leader;
    struct phx_store *store;
    struct oracle     oracle;
    uint8_t           salt[32];
    uint8_t           ids[PEOPLE][PHX_SEAT_ID_BYTES];
};

static struct {
    int64_t n_served, n_overdraft, n_refused, n_lost, n_unheard, n_stale, n_failovers, n_held, n_back, n_seats;
    int64_t n_continuity, n_expired;
} totals;

static char path[64];
static int  n_seeds = SEEDS;

static uint64_t draw(struct world *w, uint64_t n)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return w->random % n;
}

/* ---- the machines ------------------------------------------------------------------------------------------ */

static void read_clock(const struct world *w, int32_t which, struct phx_time_reading *out)
{
    const struct node *n = &w->nodes[which];

    memset(out, 0, sizeof(*out));
    out->wall_ns = n->frozen_ns != 0 ? n->frozen_ns : w->true_ns + n->skew_ns;
    out->boot_ns = w->true_ns - n->boot_at_ns;
    (void)snprintf(out->boot_id, sizeof(out->boot_id), "%08x-0000-4000-8000-%012x", (unsigned)which + 1,
                   (unsigned)n->n_boots);
}

static int64_t ask_time(struct world *w, struct node *n)
{
    struct phx_time_reading now;
    int64_t                 t;

    read_clock(w, (int32_t)(n - w->nodes), &now);
    t = phx_time_step(&n->mark, &now, &n->state);
    totals.n_held += n->state == PHX_CLOCK_SUSPECT || n->state == PHX_CLOCK_SUSPECT_LONG;
    totals.n_back += n->state == PHX_CLOCK_BACK;
    return t;
}

/* ---- one admission, as daemon/admission does it ---------------------------------------------------------------- */

enum fate { FATE_HEARD, FATE_LOST, FATE_UNHEARD }; /* acknowledged; lost before, after the commit */

struct attempt {
    struct world      *w;
    struct node       *n;
    int32_t            person;
    int64_t            t_ns;
    enum fate          fate;
    enum oracle_answer answer;
};

static int take_number(void *ctx, const struct phx_value *columns, int n_columns)
{
    (void)n_columns;
    *(int64_t *)ctx = columns[0].number;
    return 0;
}

static int check_epoch(struct phx_tx *tx, const struct node *n, struct phx_err *err)
{
    int64_t epoch = 0;
    int rc = phx_tx_exec(tx, "SELECT value FROM meta WHERE name = 'epoch'", NULL, 0, take_number, &epoch, err);

    return rc == 0 && epoch != n->epoch ? phx_fail(err, PHX_E_STATE, "a newer leader is there") : rc;
}

static enum phx_license_state state_at(const struct oracle_licence *l, int64_t t_ns)
{
    if (t_ns < l->end_ns)
        return PHX_LICENSE_VALID;
    if (t_ns < l->end_ns + l->grace_ns)
        return PHX_LICENSE_GRACE;
    return t_ns < l->end_ns + l->grace_ns + l->continuity_ns ? PHX_LICENSE_CONTINUITY : PHX_LICENSE_EXPIRED;
}

/* The seat rules of a period that is in force also bind those whom continuity lets in. */
static enum phx_license_verdict decide(struct phx_license_question *q, bool has_now, bool has_before)
{
    struct phx_license_answer answer;

    q->is_known = has_now || (has_before && q->state == PHX_LICENSE_CONTINUITY);
    phx_license_decide(q, &answer);
    if (answer.verdict != PHX_VERDICT_REFUSE && q->state == PHX_LICENSE_CONTINUITY && !has_now) {
        q->state = PHX_LICENSE_VALID;
        q->is_known = false;
        phx_license_decide(q, &answer);
    }
    return answer.verdict;
}

static int ask_store(struct phx_tx *tx, const struct attempt *a, struct phx_license_question *q,
                     const char *period, bool has[2], struct phx_err *err)
{
    struct phx_seat_counts n;
    char                   before[8];
    int                    now, past, rc;

    oracle_month_text(oracle_month_number(a->t_ns) - 1, before);
    now = phx_seat_has(tx, period, a->w->ids[a->person], err);
    past = now >= 0 ? phx_seat_has(tx, before, a->w->ids[a->person], err) : now;
    rc = past >= 0 ? phx_seat_count(tx, period, &n, err) : past;
    has[0] = now == 1;
    has[1] = past == 1;
    q->seats_used = n.people;
    q->indirect_used = n.indirect;
    q->exempt_used = n.exempt;
    return rc;
}

static int add_seat(struct phx_tx *tx, struct attempt *a, const char *period, bool is_exempt, struct phx_err *err)
{
    struct phx_seat seat = {.tenant = "t",
                            .first_ns = a->t_ns,
                            .is_overdraft = a->answer == ANSWER_OVERDRAFT,
                            .is_indirect = oracle_is_service(a->person),
                            .is_exempt = is_exempt};
    int             rc;

    memcpy(seat.period, period, sizeof(seat.period));
    memcpy(seat.seat_id, a->w->ids[a->person], sizeof(seat.seat_id));
    rc = phx_seat_add(tx, &seat, err);
    return rc == 0 ? phx_time_store(tx, &a->n->mark, err) : rc;
}

static int admit(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct attempt              *a = ctx;
    const struct oracle_licence *l = &a->w->oracle.licence;
    struct phx_license_question  q = {
         .state = state_at(l, a->t_ns),
         .enforce = l->is_hard ? PHX_ENFORCE_HARD : PHX_ENFORCE_SOFT,
         .limits = {.seats = l->limit, .overdraft_pct = l->overdraft * 100 / l->limit,
                    .indirect_users = l->indirect, .tokens_per_month = -1},
         .is_indirect = oracle_is_service(a->person),
         .is_exempt = oracle_is_exempt(a->person),
         .exempt_cap = l->exempt_cap,
    };
    bool                     is_expired = q.state == PHX_LICENSE_EXPIRED, has[2];
    enum phx_license_verdict verdict;
    char                     period[8];
    int                      rc = check_epoch(tx, a->n, err);

    phx_period_format(a->t_ns, period);
    if (rc == 0)
        rc = ask_store(tx, a, &q, period, has, err);
    if (rc != 0)
        return rc;
    verdict = decide(&q, has[0], has[1]);
    a->answer = verdict == PHX_VERDICT_REFUSE      ? ANSWER_REFUSE
                : verdict == PHX_VERDICT_OVERDRAFT ? ANSWER_OVERDRAFT
                                                   : ANSWER_SERVE;
    if (verdict != PHX_VERDICT_REFUSE && !has[0])
        rc = add_seat(tx, a, period, is_expired, err);
    if (rc == 0 && a->fate == FATE_LOST)
        rc = phx_fail(err, PHX_E_IO, "the daemon died before the commit");
    return rc;
}

/* ---- moves ------------------------------------------------------------------------------------------------------- */

struct opening {
    struct node *n;
    int64_t      saved_ns;
};

static int lead(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct opening *o = ctx;
    int64_t         accept_ns;
    int             rc = phx_time_load(tx, &o->n->mark, &accept_ns, err);

    if (rc == 0)
        rc = phx_tx_exec(tx, "UPDATE meta SET value = value + 1 WHERE name = 'epoch'", NULL, 0, NULL, NULL, err);
    return rc == 0 ? phx_tx_exec(tx, "SELECT value FROM meta WHERE name = 'epoch'", NULL, 0, take_number,
                                 &o->n->epoch, err)
                   : rc;
}

static void open_store(struct world *w)
{
    struct phx_err err = {0};

    if (phx_store_open(path, NULL, &w->store, &err) != 0)
        fail_msg("%s", err.text);
}

/* Another one leads, or the same that has come back.  What its mark knew and the store does not is gone. */
static void fail_over(struct world *w, int32_t to)
{
    struct opening o = {&w->nodes[to], 0};

    if (draw(w, 8) == 0) {
        phx_store_close(w->store);
        open_store(w);
    }
    assert_int_equal(phx_store_run(w->store, lead, &o, NULL), 0);
    assert_true(o.n->mark.hwm_ns >= w->saved_ns);
    w->leader = to;
    totals.n_failovers++;
}

static void request(struct world *w, int32_t person, enum fate fate)
{
    struct node   *n = &w->nodes[w->leader];
    struct attempt a = {w, n, person, ask_time(w, n), fate, ANSWER_REFUSE};
    bool           is_member = oracle_has(&w->oracle, person, a.t_ns);
    enum oracle_answer expected = oracle_ask(&w->oracle, person, a.t_ns);
    int                rc;

    assert_true(a.t_ns >= w->saved_ns);
    rc = phx_store_run(w->store, admit, &a, NULL);
    assert_int_equal(rc, fate == FATE_LOST ? PHX_E_IO : 0);
    if (a.answer != expected)
        fail_msg("person %d at %lld: %d, the oracle says %d", person, (long long)a.t_ns, a.answer, expected);
    totals.n_lost += fate == FATE_LOST;
    totals.n_unheard += fate == FATE_UNHEARD;
    if (fate == FATE_LOST)
        return; /* nobody was told anything: the set must be as before */
    totals.n_served += a.answer == ANSWER_SERVE;
    totals.n_overdraft += a.answer == ANSWER_OVERDRAFT;
    totals.n_refused += a.answer == ANSWER_REFUSE;
    totals.n_continuity += state_at(&w->oracle.licence, a.t_ns) == PHX_LICENSE_CONTINUITY;
    totals.n_expired += state_at(&w->oracle.licence, a.t_ns) == PHX_LICENSE_EXPIRED;
    if (a.answer != ANSWER_REFUSE && !is_member)
        w->saved_ns = a.t_ns;
    oracle_commit(&w->oracle, person, a.t_ns, a.answer);
}

/* The daemon dies in or after a request; the client, who heard nothing, repeats it at the next leader. */
static void crash(struct world *w)
{
    int32_t person = (int32_t)draw(w, PEOPLE);

    request(w, person, draw(w, 2) == 0 ? FATE_LOST : FATE_UNHEARD);
    if (draw(w, 3) == 0) { /* the whole machine went down */
        w->nodes[w->leader].boot_at_ns = w->true_ns;
        w->nodes[w->leader].n_boots++;
        w->true_ns += (int64_t)draw(w, 600) * S;
    }
    fail_over(w, (int32_t)draw(w, NODES));
    for (uint64_t i = draw(w, 3); i < 3; i++)
        request(w, person, FATE_HEARD);
}

/* Cut off, it does not know that another leads: all it does must be refused. */
static void stale_leader(struct world *w)
{
    int32_t        old = w->leader;
    struct attempt a = {.w = w, .n = &w->nodes[old], .person = (int32_t)draw(w, PEOPLE)};

    fail_over(w, 1 - old);
    a.t_ns = ask_time(w, a.n);
    assert_int_equal(phx_store_run(w->store, admit, &a, NULL), PHX_E_STATE);
    totals.n_stale++;
}

static void move_clock(struct world *w)
{
    static const int64_t jumps[] = {S, 60 * S, HOUR, 2 * HOUR, 3 * DAY, 31 * DAY, 7300 * DAY};
    struct node         *n = &w->nodes[draw(w, NODES)];
    int64_t              jump = jumps[draw(w, sizeof(jumps) / sizeof(jumps[0]))];

    switch (draw(w, 5)) {
    case 0: n->skew_ns -= jump; break;
    case 1: n->skew_ns = jump; break;
    case 2: n->frozen_ns = w->true_ns + n->skew_ns; break;
    default: n->skew_ns = n->frozen_ns = 0; break; /* put right */
    }
}

static int save_mark(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    const struct node *n = ctx;

    return phx_time_store(tx, &n->mark, err);
}

/* What the daemon does every minute, and two people do after a jump that was none. */
static void save_or_accept(struct world *w, bool is_accepted)
{
    struct node            *n = &w->nodes[w->leader];
    struct phx_time_reading now;
    int64_t                 t = ask_time(w, n);

    read_clock(w, w->leader, &now);
    if (is_accepted && now.wall_ns < w->true_ns + 400 * DAY) /* they do not accept nonsense */
        phx_time_accept(&n->mark, &now);
    assert_int_equal(phx_store_run(w->store, save_mark, n, NULL), 0);
    assert_true(n->mark.hwm_ns >= t);
    w->saved_ns = n->mark.hwm_ns;
}

static void pass_time(struct world *w)
{
    struct node *n = &w->nodes[w->leader];
    int64_t      t = ask_time(w, n), edge = oracle_month_start(oracle_month_number(t) + 1);

    switch (draw(w, 4)) {
    case 0: w->true_ns += edge - t - S > 0 && edge - t < 32 * DAY ? edge - t - S : S; break; /* the last second */
    case 1: w->true_ns += (int64_t)draw(w, 12) * DAY; break;
    default: w->true_ns += (int64_t)draw(w, 90) * 60 * S; break;
    }
}

/* ---- checks --------------------------------------------------------------------------------------------------------- */

struct check {
    struct world              *w;
    const struct oracle_month *m;
    int64_t                    last_ns, n;
};

static int check_seat(void *ctx, const struct phx_seat *seat)
{
    struct check *c = ctx;
    int32_t       person = 0;

    while (person < PEOPLE && memcmp(c->w->ids[person], seat->seat_id, PHX_SEAT_ID_BYTES) != 0)
        person++;
    assert_true(person < PEOPLE);
    switch (c->m->seats[person]) {
    case SEAT_NONE: fail_msg("person %d has a seat nobody was given", person); break;
    case SEAT_PERSON: assert_true(!seat->is_overdraft && !seat->is_indirect && !seat->is_exempt); break;
    case SEAT_OVERDRAFT: assert_true(seat->is_overdraft && !seat->is_indirect && !seat->is_exempt); break;
    case SEAT_INDIRECT: assert_true(!seat->is_overdraft && seat->is_indirect && !seat->is_exempt); break;
    case SEAT_INDIRECT_OVER: assert_true(seat->is_overdraft && seat->is_indirect); break;
    case SEAT_EXEMPT: assert_true(seat->is_exempt); break;
    }
    assert_int_equal(oracle_month_number(seat->first_ns), c->m->number);
    c->n++;
    return 0;
}

static void check_month(struct phx_tx *tx, struct world *w, const struct oracle_month *m, struct phx_err *err)
{
    const struct oracle_licence *l = &w->oracle.licence;
    struct phx_seat_counts       n;
    struct check                 c = {w, m, 0, 0};
    char                         period[8];

    oracle_month_text(m->number, period);
    assert_int_equal(phx_seat_count(tx, period, &n, err), 0);
    assert_int_equal(phx_seat_list(tx, period, NULL, check_seat, &c, err), 0);
    assert_int_equal(c.n, n.people + n.indirect + n.exempt);
    assert_int_equal(n.people, oracle_count(m, SEAT_PERSON) + oracle_count(m, SEAT_OVERDRAFT));
    assert_int_equal(n.indirect, oracle_count(m, SEAT_INDIRECT) + oracle_count(m, SEAT_INDIRECT_OVER));
    assert_int_equal(n.overdraft, oracle_count(m, SEAT_OVERDRAFT) + oracle_count(m, SEAT_INDIRECT_OVER));
    assert_int_equal(n.exempt, oracle_count(m, SEAT_EXEMPT));
    if (l->is_hard)
        assert_true(n.people <= l->limit + l->overdraft);
    assert_true(n.indirect <= l->indirect && n.exempt <= l->exempt_cap);
    totals.n_seats += c.n;
}

static int check_store(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct world *w = ctx;

    for (int32_t i = 0; i < w->oracle.n_months; i++)
        check_month(tx, w, &w->oracle.months[i], err);
    return 0;
}

/* ---- walks ------------------------------------------------------------------------------------------------------------ */

static int clear_store(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    int rc = phx_tx_exec(tx, "DELETE FROM seat", NULL, 0, NULL, NULL, err);

    (void)ctx;
    if (rc == 0)
        rc = phx_tx_exec(tx, "DELETE FROM seat_sum", NULL, 0, NULL, NULL, err);
    return rc == 0 ? phx_tx_exec(tx, "DELETE FROM meta WHERE name GLOB 'clock_*'", NULL, 0, NULL, NULL, err) : rc;
}

static void start(struct world *w, uint64_t seed)
{
    struct phx_store *store = w->store;

    memset(w, 0, sizeof(*w));
    w->store = store;
    w->random = seed * UINT64_C(0x9E3779B97F4A7C15) | 1;
    w->true_ns = START + (int64_t)draw(w, 20) * DAY;
    w->oracle.licence = (struct oracle_licence){
        .limit = 10 * (int64_t)(1 + draw(w, 3)),
        .indirect = (int64_t)draw(w, 8),
        .end_ns = draw(w, 2) == 0 ? START + 36500 * DAY : START + (int64_t)draw(w, 60) * DAY,
        .grace_ns = 14 * DAY,
        .continuity_ns = 60 * DAY,
        .is_hard = draw(w, 5) != 0,
    };
    w->oracle.licence.overdraft = w->oracle.licence.limit * (int64_t)draw(w, 3) / 10;
    w->oracle.licence.exempt_cap = (int64_t)draw(w, 6);
    for (int i = 0; i < 32; i++)
        w->salt[i] = (uint8_t)draw(w, 256);
    for (int32_t i = 0; i < PEOPLE; i++) {
        char subject[32];

        (void)snprintf(subject, sizeof(subject), "u%d", i / 2);
        phx_seat_id(w->salt, i % 2 == 0 ? "phalanx" : "https://idp.example", subject, w->ids[i]);
    }
    for (int i = 0; i < NODES; i++)
        w->nodes[i].boot_at_ns = w->true_ns - (int64_t)draw(w, 1000) * DAY; /* up for years, perhaps */
    assert_int_equal(phx_store_run(w->store, clear_store, NULL, NULL), 0);
    fail_over(w, 0);
}

static void move(struct world *w)
{
    uint64_t what = draw(w, 100);

    if (what < 62)
        request(w, (int32_t)draw(w, PEOPLE), FATE_HEARD);
    else if (what < 72)
        crash(w);
    else if (what < 75)
        stale_leader(w);
    else if (what < 82)
        move_clock(w);
    else if (what < 90)
        save_or_accept(w, draw(w, 4) == 0);
    else
        pass_time(w);
    if (draw(w, 40) == 0)
        assert_int_equal(phx_store_run(w->store, check_store, w, NULL), 0);
}

static void walks_seat_nobody_twice(void **state)
{
    static struct world w;

    (void)state;
    open_store(&w);
    for (int seed = 1; seed <= n_seeds; seed++) {
        start(&w, (uint64_t)seed);
        for (int i = 0; i < MOVES; i++)
            move(&w);
        assert_int_equal(phx_store_run(w.store, check_store, &w, NULL), 0);
    }
    phx_store_close(w.store);
    print_message("%d seeds: %lld served, %lld in overdraft, %lld refused, %lld lost, %lld unheard, %lld failovers,"
                  " %lld stale; clock held %lld times, back %lld; %lld in continuity, %lld expired; %lld seats"
                  " compared\n",
                  n_seeds, (long long)totals.n_served, (long long)totals.n_overdraft, (long long)totals.n_refused,
                  (long long)totals.n_lost, (long long)totals.n_unheard, (long long)totals.n_failovers,
                  (long long)totals.n_stale, (long long)totals.n_held, (long long)totals.n_back,
                  (long long)totals.n_continuity, (long long)totals.n_expired, (long long)totals.n_seats);
    /* the walks went where it is interesting */
    assert_true(totals.n_served > 20 * n_seeds && totals.n_overdraft > n_seeds && totals.n_refused > n_seeds);
    assert_true(totals.n_lost > 3 * n_seeds && totals.n_unheard > 3 * n_seeds && totals.n_stale > n_seeds);
    assert_true(totals.n_held > n_seeds && totals.n_back > n_seeds);
    assert_true(totals.n_continuity > n_seeds && totals.n_expired > n_seeds / 4);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(walks_seat_nobody_twice)};
    char                    dir[32], wal[80];
    int                     rc;

    if (argc > 1)
        n_seeds = (int)strtol(argv[1], NULL, 10);
    (void)snprintf(dir, sizeof(dir), "%s/phx-seats-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (n_seeds < 1 || mkdtemp(dir) == NULL)
        return 2;
    (void)snprintf(path, sizeof(path), "%s/s.db", dir);
    rc = cmocka_run_group_tests_name("sim/seat_walk", tests, NULL, NULL);
    (void)unlink(path); /* after a failure the store may still be open, with its log beside it */
    (void)snprintf(wal, sizeof(wal), "%s-wal", path);
    (void)unlink(wal);
    (void)snprintf(wal, sizeof(wal), "%s-shm", path);
    (void)unlink(wal);
    (void)rmdir(dir);
    return rc;
}
