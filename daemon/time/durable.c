/* SPDX-License-Identifier: Apache-2.0
 * The mark as rows of the table meta, which holds integers only: a boot id is two of them. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "daemon/audit/audit.h"
#include "daemon/store/store.h"
#include "daemon/time/time.h"
#include "rpc/base/buf.h"
#include "rpc/base/clock.h"
#include "rpc/base/hex.h"

enum { BOOT_ID_CHARS = 36, BOOT_ID_BYTES = 16 };

static pthread_once_t boot_id_once = PTHREAD_ONCE_INIT;
static char           boot_id[40]; /* written once: it cannot change while a process runs */

static void read_boot_id(void)
{
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "r");

    if (file == NULL || fgets(boot_id, BOOT_ID_CHARS + 1, file) == NULL)
        boot_id[0] = '\0';
    if (file != NULL)
        (void)fclose(file); /* was only read */
}

void phx_time_read(struct phx_time_reading *out)
{
    struct timespec ts = {0, 0};

    memset(out, 0, sizeof(*out));
    out->wall_ns = phx_clock_wall_ns();
    phx_assert(clock_gettime(CLOCK_BOOTTIME, &ts) == 0);
    out->boot_ns = ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
    (void)pthread_once(&boot_id_once, read_boot_id); /* cannot fail on a static control */
    memcpy(out->boot_id, boot_id, sizeof(out->boot_id));
}

/* ---- boot ids as integers --------------------------------------------------------------------------- */

struct boot_id {
    int64_t high, low;
};

static struct boot_id pack_boot_id(const char *text)
{
    char           hex[2 * BOOT_ID_BYTES + 1];
    uint8_t        bytes[BOOT_ID_BYTES];
    struct boot_id id = {0, 0};
    size_t         n = 0;

    for (const char *p = text; *p != '\0' && n < sizeof(hex) - 1; p++)
        if (*p != '-')
            hex[n++] = *p;
    hex[n] = '\0';
    if (phx_hex_decode(bytes, sizeof(bytes), hex, NULL) != 0)
        return id;
    memcpy(&id.high, bytes, sizeof(id.high));
    memcpy(&id.low, bytes + sizeof(id.high), sizeof(id.low));
    return id;
}

static void unpack_boot_id(struct boot_id id, char text[40])
{
    uint8_t bytes[BOOT_ID_BYTES];
    char    hex[2 * BOOT_ID_BYTES + 1];

    text[0] = '\0';
    if (id.high == 0 && id.low == 0)
        return;
    memcpy(bytes, &id.high, sizeof(id.high));
    memcpy(bytes + sizeof(id.high), &id.low, sizeof(id.low));
    phx_hex_encode(hex, sizeof(hex), bytes, sizeof(bytes));
    (void)snprintf(text, 40, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16, hex + 20);
}

/* ---- rows ---------------------------------------------------------------------------------------------- */

struct loading {
    struct phx_time_mark *mark;
    struct boot_id        boot;
    int64_t               accept_ns;
};

static int take_row(void *ctx, const struct phx_value *columns, int n_columns)
{
    struct loading *l = ctx;
    const struct {
        const char *name;
        int64_t    *to;
    } rows[] = {{"clock_hwm_ns", &l->mark->hwm_ns},
                {"clock_boot_ns", &l->mark->boot_ns},
                {"clock_boot_high", &l->boot.high},
                {"clock_boot_low", &l->boot.low},
                {"clock_suspect_ns", &l->mark->suspect_since_ns},
                {"clock_accept_ns", &l->accept_ns}};

    (void)n_columns;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (strcmp(columns[0].data, rows[i].name) == 0)
            *rows[i].to = columns[1].number;
    return 0;
}

int phx_time_load(struct phx_tx *tx, struct phx_time_mark *out, int64_t *accept_ns, struct phx_err *err)
{
    struct loading l = {.mark = out};
    int            rc;

    memset(out, 0, sizeof(*out));
    rc = phx_tx_exec(tx, "SELECT name, value FROM meta WHERE name IN ('clock_hwm_ns', 'clock_boot_ns',"
                         " 'clock_boot_high', 'clock_boot_low', 'clock_suspect_ns', 'clock_accept_ns')",
                     NULL, 0, take_row, &l, err);
    unpack_boot_id(l.boot, out->boot_id);
    *accept_ns = l.accept_ns;
    return rc;
}

static int put_row(struct phx_tx *tx, const char *name, int64_t value, struct phx_err *err)
{
    const struct phx_value values[] = {phx_value_text(name), phx_value_int(value)};

    return phx_tx_exec(tx, "INSERT INTO meta(name, value) VALUES(?, ?)"
                           " ON CONFLICT(name) DO UPDATE SET value = excluded.value",
                       values, 2, NULL, NULL, err);
}

static int read_number(void *ctx, const struct phx_value *columns, int n_columns)
{
    (void)n_columns;
    *(int64_t *)ctx = columns[0].number;
    return 0;
}

int phx_time_taken(struct phx_tx *tx, int64_t *accept_ns, struct phx_err *err)
{
    *accept_ns = 0;
    return phx_tx_exec(tx, "SELECT value FROM meta WHERE name = 'clock_taken_ns'", NULL, 0, read_number, accept_ns,
                       err);
}

int phx_time_take(struct phx_tx *tx, int64_t accept_ns, struct phx_err *err)
{
    return put_row(tx, "clock_taken_ns", accept_ns, err);
}

/* Mark and boot clock belong together: both are written, or none. */
static int raise_mark(struct phx_tx *tx, int64_t hwm_ns, int64_t boot_ns, const char *id,
                      struct phx_err *err)
{
    struct phx_time_mark   stored;
    int64_t                accept_ns;
    struct boot_id         boot = pack_boot_id(id);
    const struct phx_value values[] = {phx_value_int(hwm_ns), phx_value_int(boot_ns),
                                       phx_value_int(boot.high), phx_value_int(boot.low)};
    int                    rc = phx_time_load(tx, &stored, &accept_ns, err);

    if (rc != 0 || hwm_ns <= stored.hwm_ns)
        return rc;
    return phx_tx_exec(tx, "INSERT INTO meta(name, value) VALUES('clock_hwm_ns', ?), ('clock_boot_ns', ?),"
                           " ('clock_boot_high', ?), ('clock_boot_low', ?)"
                           " ON CONFLICT(name) DO UPDATE SET value = excluded.value",
                       values, 4, NULL, NULL, err);
}

int phx_time_store(struct phx_tx *tx, const struct phx_time_mark *mark, struct phx_err *err)
{
    int rc = raise_mark(tx, mark->hwm_ns, mark->boot_ns, mark->boot_id, err);

    return rc == 0 ? put_row(tx, "clock_suspect_ns", mark->suspect_since_ns, err) : rc;
}

int phx_time_save(struct phx_tx *tx, int64_t at_ns, struct phx_err *err)
{
    struct phx_time_reading now;

    /* the boot clock is read later than at_ns was: what passed in between is lost, never counted twice */
    phx_time_read(&now);
    return raise_mark(tx, at_ns, now.boot_ns, now.boot_id, err);
}

int phx_time_in(struct phx_tx *tx, int64_t *t_ns, struct phx_err *err)
{
    struct phx_time_reading now;
    struct phx_time_mark    mark;
    enum phx_clock_state    state;
    int64_t                 accept_ns;
    int                     rc = phx_time_load(tx, &mark, &accept_ns, err);

    phx_time_read(&now);
    *t_ns = phx_time_step(&mark, &now, &state);
    return rc;
}

/* ---- accepting --------------------------------------------------------------------------------------------- */

static int check_people(const char *by, const char *approved_by, struct phx_err *err)
{
    if (by[0] == '\0' || approved_by[0] == '\0' || strlen(by) > 64 || strlen(approved_by) > 64)
        return phx_fail(err, PHX_E_INVALID, "clock accept: two names of 1 to 64 bytes are needed");
    if (strcasecmp(by, approved_by) == 0)
        return phx_fail(err, PHX_E_INVALID,
                        "clock accept: '%s' cannot approve the own command; another person must", by);
    return 0;
}

int phx_time_accept_in(struct phx_tx *tx, const struct phx_time_reading *now, const char *by,
                       const char *approved_by, struct phx_err *err)
{
    struct phx_time_mark mark;
    enum phx_clock_state state;
    int64_t              before_ns, accept_ns;
    char                 from[32], to[32], detail[160];
    int                  rc = check_people(by, approved_by, err);

    if (rc == 0)
        rc = phx_time_load(tx, &mark, &accept_ns, err);
    if (rc != 0)
        return rc;
    before_ns = phx_time_step(&mark, now, &state);
    if (state != PHX_CLOCK_SUSPECT && state != PHX_CLOCK_SUSPECT_LONG)
        return phx_fail(err, PHX_E_STATE, "clock accept: the clock is %s, not suspect: nothing to accept",
                        phx_clock_state_name(state));
    phx_time_accept(&mark, now);
    phx_clock_format_utc(before_ns, from);
    phx_clock_format_utc(mark.hwm_ns, to);
    (void)snprintf(detail, sizeof(detail), "from %s to %s, approved by %s", from, to, approved_by);
    rc = phx_time_store(tx, &mark, err);
    if (rc == 0)
        rc = put_row(tx, "clock_accept_ns", mark.hwm_ns, err);
    if (rc == 0) /* at the time before: a running daemon goes on with it until it has seen this, and no log goes back */
        rc = phx_audit_event(tx, "clock", "clock.accept", "clock", by, detail, before_ns, err);
    return rc;
}
