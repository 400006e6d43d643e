/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/audit/audit.h"
#include "daemon/control/job.h"
#include "daemon/ledger/ledger.h"
#include "daemon/license/license.h"
#include "daemon/seat/seat.h"
#include "daemon/store/store.h"
#include "daemon/time/time.h"
#include "rpc/base/hex.h"

/* ---- Get ------------------------------------------------------------------------------------------- */

static int read_facts(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    return phx_control_facts_seats(tx, ctx, err);
}

static int work_facts(struct phx_control_job *job, struct phx_err *err)
{
    return phx_store_read(job->d->store, read_facts, &job->answer.u.license.facts, err);
}

static void answer_facts(struct phx_control_job *job)
{
    phx_control_facts(job, &job->answer.u.license.facts);
    phx_control_read(job, work_facts, phx_control_finish);
}

/* ---- Install --------------------------------------------------------------------------------------- */

struct install {
    const char *note;
    char        serial[24];
};

/* The answers of Get and Install begin alike. */
_Static_assert(offsetof(struct phx_rpc_license_answer, facts) ==
               offsetof(struct phx_rpc_license_install_answer, facts), "facts come first in both");

static int write_note(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    const struct phx_control_job *job = ctx;
    const struct install         *i = job->state;

    return phx_audit_event(tx, "admin", "licence.note", i->serial, job->by, i->note, job->now_ns, err);
}

static void on_noted(void *ctx, const struct phx_err *err)
{
    struct phx_control_job *job = ctx;

    if (err != NULL)
        phx_control_finish(job, err);
    else
        answer_facts(job);
}

static void on_installed(void *ctx, const struct phx_err *err)
{
    struct phx_control_job *job = ctx;
    struct install         *i = job->state;

    if (err != NULL) {
        phx_control_finish(job, err);
    } else if (*i->note == '\0') {
        answer_facts(job);
    } else {
        (void)snprintf(i->serial, sizeof(i->serial), "%" PRId64,
                       phx_license_terms(phx_license_now(job->d->license))->serial);
        phx_store_submit(job->d->store, write_note, on_noted, job);
    }
}

/* What it would be: serial, key set, state and the line that describes it; the rest stays as it is. */
static void answer_preview(struct phx_control_job *job, const struct phx_rpc_license_install *in)
{
    struct phx_rpc_license    *facts = &job->answer.u.license_install.facts;
    struct phx_license_preview preview;
    struct phx_err             err = {0};
    int                        rc;

    rc = phx_license_preview(job->d->license, in->envelope.data, in->envelope.size, in->key_set.data,
                             in->key_set.size, job->now_ns, &preview, &err);
    if (rc != 0) {
        phx_control_fail(job, &err, -1);
        return;
    }
    *facts = (struct phx_rpc_license){
        .serial = preview.serial,
        .state = phx_control_license_state(preview.state),
        .state_reason = preview.text,
        .key_set_version = preview.key_set_version,
        .seats = -1, .indirect_users = -1, .concurrent = -1, .nodes = -1, .gpus = -1,
        .tokens_per_month = -1,
    };
    job->answer.u.license_install.is_dry_run = true;
    phx_control_reply(job);
}

static void install(struct phx_control_job *job, const struct phx_rpc_license_install *in)
{
    struct install *i = phx_arena_calloc(job->arena, 1, sizeof(*i));

    if (in->is_dry_run) {
        answer_preview(job, in);
        return;
    }
    i->note = phx_control_keep(job, in->note);
    job->state = i;
    phx_license_install(job->d->license, in->envelope.data, in->envelope.size, in->key_set.data,
                        in->key_set.size, false, job->by, job->now_ns, on_installed, job);
}

/* ---- ListSeats ------------------------------------------------------------------------------------- */

struct seats {
    const char          *period, *tenant;
    uint8_t              after[PHX_SEAT_ID_BYTES];
    bool                 has_after;
    int32_t              max, n;
    struct phx_rpc_seat *rows;
    bool                 is_more;
    struct phx_arena    *arena;
};

static int keep_seat(void *ctx, const struct phx_seat *seat)
{
    struct seats *s = ctx;
    char          hex[2 * PHX_SEAT_ID_BYTES + 1];

    if (s->has_after && memcmp(seat->seat_id, s->after, sizeof(s->after)) <= 0)
        return 0;
    if (s->n == s->max) {
        s->is_more = true;
        return 1; /* ends the walk */
    }
    phx_hex_encode(hex, sizeof(hex), seat->seat_id, sizeof(seat->seat_id));
    s->rows[s->n++] = (struct phx_rpc_seat){
        .seat_id = phx_arena_strdup(s->arena, hex),
        .tenant = phx_arena_strdup(s->arena, seat->tenant),
        .first_unix_ns = seat->first_ns,
        .is_overdraft = seat->is_overdraft,
        .is_indirect = seat->is_indirect,
        .is_exempt = seat->is_exempt,
    };
    return 0;
}

static int read_seats(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct seats *s = ctx;
    int           rc = phx_seat_list(tx, s->period, s->tenant, keep_seat, s, err);

    return rc > 0 ? 0 : rc;
}

static int work_seats(struct phx_control_job *job, struct phx_err *err)
{
    struct seats *s = job->state;
    int           rc = phx_store_read(job->d->store, read_seats, s, err);

    job->answer.u.seats = (struct phx_rpc_seats_answer){
        s->rows, s->n, s->is_more ? s->rows[s->n - 1].seat_id : ""};
    return rc;
}

static int parse_seats(struct phx_control_job *job, const struct phx_rpc_seats *in, struct seats *s,
                       struct phx_err *err)
{
    int64_t from_ns, to_ns;
    char    period[8];

    phx_period_format(job->now_ns, period);
    s->period = phx_control_keep(job, *in->period != '\0' ? in->period : period);
    s->tenant = phx_control_filter(job, in->tenant);
    s->max = in->page_size > 0 ? in->page_size : 100;
    s->rows = phx_arena_calloc(job->arena, (size_t)s->max, sizeof(*s->rows));
    s->arena = job->arena;
    s->has_after = *in->page_token != '\0';
    if (s->has_after && phx_hex_decode(s->after, sizeof(s->after), in->page_token, NULL) != 0)
        return phx_fail(err, PHX_E_INVALID, "page_token is not one of this call's");
    return phx_period_parse(s->period, &from_ns, &to_ns, err);
}

static void list_seats(struct phx_control_job *job, const struct phx_rpc_seats *in)
{
    struct phx_err err = {0};

    job->state = phx_arena_calloc(job->arena, 1, sizeof(struct seats));
    if (parse_seats(job, in, job->state, &err) != 0)
        phx_control_fail(job, &err, -1);
    else
        phx_control_read(job, work_seats, phx_control_finish);
}

/* ---- AcceptClock ----------------------------------------------------------------------------------- */

struct acceptance {
    const char *by, *approved_by;
    struct phx_time_reading reading;
};

static int write_acceptance(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    const struct phx_control_job *job = ctx;
    const struct acceptance      *a = job->state;

    return phx_time_accept_in(tx, &a->reading, a->by, a->approved_by, err);
}

static void on_accepted(void *ctx, const struct phx_err *err)
{
    struct phx_control_job *job = ctx;

    if (err == NULL) {
        job->answer.u.accept_clock.now_unix_ns = ((struct acceptance *)job->state)->reading.wall_ns;
        job->answer.u.accept_clock.clock_state = phx_clock_state_name(PHX_CLOCK_OK);
    }
    phx_control_finish(job, err);
}

/* Whoever comes with a key or a token speaks for nobody else; at the operator's console any two may stand. */
static void accept_clock(struct phx_control_job *job, const struct phx_rpc_accept_clock *in)
{
    struct acceptance *a = phx_arena_calloc(job->arena, 1, sizeof(*a));
    struct phx_err     err = {0};
    bool               is_console = job->who.auth == PHX_AUTH_CERT && job->who.tenant[0] == '\0';

    if (*in->by != '\0' && !is_console && strcmp(in->by, job->by) != 0) {
        (void)phx_fail(&err, PHX_E_DENIED, "by: the caller is %.100s and may not speak for another", job->by);
        phx_control_fail(job, &err, -1);
        return;
    }
    a->by = phx_control_keep(job, *in->by != '\0' ? in->by : job->by);
    a->approved_by = phx_control_keep(job, in->approved_by);
    phx_time_read(&a->reading);
    job->state = a;
    phx_store_submit(job->d->store, write_acceptance, on_accepted, job);
}

void phx_control_license(struct phx_control_job *job, const struct phx_rpc_request *request)
{
    switch (request->method) {
    case PHX_RPC_LICENSE_INSTALL:
        install(job, &request->u.license_install);
        break;
    case PHX_RPC_LICENSE_SEATS:
        list_seats(job, &request->u.seats);
        break;
    case PHX_RPC_LICENSE_ACCEPT_CLOCK:
        accept_clock(job, &request->u.accept_clock);
        break;
    default:
        answer_facts(job);
        break;
    }
}
