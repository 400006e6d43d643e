/* SPDX-License-Identifier: Apache-2.0
 * How fast leaves become durable, and are published:
 *   audit_append FOLDER [leaves [leaves per job]]     FOLDER must not exist yet; it is left behind */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "daemon/audit/audit.h"
#include "daemon/store/store.h"
#include "rpc/base/clock.h"
#include "rpc/base/mem.h"

struct batch {
    long first, n;
};

/* About 700 bytes, as an intent or a result. */
static int append_batch(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    const struct batch *b = ctx;
    static const char   filler[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    for (long i = b->first; i < b->first + b->n; i++) {
        struct phx_record r;
        char              receipt[PHX_RECEIPT_BYTES];
        int               rc;

        phx_receipt_make(receipt);
        phx_record_init(&r);
        phx_record_int(&r, "at_ns", i + 1);
        phx_record_open(&r, "hashes");
        for (char key[2] = "a"; key[0] < 'i'; key[0]++)
            phx_record_str(&r, key, filler);
        phx_record_close(&r);
        phx_record_str(&r, "kind", "intent");
        phx_record_str(&r, "receipt", receipt);
        phx_record_int(&r, "v", 1);
        rc = phx_audit_append(tx, "intent", receipt, "bench", &r, err);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static void report(const char *what, long n, int64_t start_ns)
{
    double s = (double)(phx_clock_mono_ns() - start_ns) / 1e9;

    printf("%-8s %9ld leaves %8.3f s %10.0f leaves/s\n", what, n, s, (double)n / s);
}

static int append_all(struct phx_store *store, long n, long per_job, struct phx_err *err)
{
    int64_t start_ns = phx_clock_mono_ns();
    int     rc = 0;

    for (long i = 0; i < n && rc == 0; i += per_job) {
        struct batch b = {i, n - i < per_job ? n - i : per_job};

        rc = phx_store_run(store, append_batch, &b, err);
    }
    if (rc == 0)
        report("append", n, start_ns);
    return rc;
}

static int publish_all(struct phx_store *store, const char *folder, const char *what, long n, struct phx_err *err)
{
    const struct timespec              nap = {0, 5000000};
    char                              *dir = phx_mem_printf("%s/audit", folder);
    char                              *keys = phx_mem_printf("%s/keys", folder);
    const struct phx_publisher_options o = {
        .dir = dir, .key_dir = keys, .origin = "phalanx/bench", .interval_ms = 10, .key_life_s = 3600};
    struct phx_publisher *p = NULL;
    int64_t               start_ns = phx_clock_mono_ns();
    int                   rc = phx_publisher_open(store, &o, &p, err);

    if (rc == 0) {
        report("open", n, start_ns);
        while (phx_publisher_size(p) < (uint64_t)n)
            (void)nanosleep(&nap, NULL); /* one that is cut short looks again */
        report(what, n, start_ns);
        phx_publisher_close(p);
    }
    phx_mem_free(keys);
    phx_mem_free(dir);
    return rc;
}

int main(int argc, char **argv)
{
    struct phx_err    err = {0};
    struct phx_store *store = NULL;
    long              n = argc > 2 ? strtol(argv[2], NULL, 10) : 100000;
    long              per_job = argc > 3 ? strtol(argv[3], NULL, 10) : 10000;
    char             *db;
    int               rc;

    if (argc < 2 || argc > 4 || n < 1 || per_job < 1 || mkdir(argv[1], 0700) != 0) {
        fprintf(stderr, "usage: audit_append NEW-FOLDER [leaves [leaves per job]]\n");
        return 2;
    }
    db = phx_mem_printf("%s/phalanx.db", argv[1]);
    rc = phx_store_open(db, NULL, &store, &err);
    if (rc == 0)
        rc = append_all(store, n, per_job, &err);
    if (rc == 0)
        rc = publish_all(store, argv[1], "publish", n, &err);
    if (rc == 0)
        rc = publish_all(store, argv[1], "again", n, &err);
    if (rc != 0)
        fprintf(stderr, "audit_append: %s\n", err.text);
    phx_store_close(store);
    phx_mem_free(db);
    return rc == 0 ? 0 : 1;
}
