/* SPDX-License-Identifier: Apache-2.0
 * `phalanx usage report`: to the terminal, or to a file that is there whole or not at all. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ctl/usage.h"
#include "daemon/store/store.h"
#include "rpc/base/buf.h"
#include "rpc/base/hash.h"
#include "rpc/base/hex.h"
#include "rpc/base/mem.h"

struct writer {
    const struct phx_ctl_usage *u;
    struct phx_usage_report     report;
    FILE                       *file;
    const char                 *path; /* for messages */
    struct phx_sha256           hash;
    struct phx_err             *err;
};

static int write_piece(void *ctx, const void *data, size_t size)
{
    struct writer *w = ctx;

    phx_sha256_update(&w->hash, data, size);
    if (fwrite(data, 1, size, w->file) != size)
        return phx_fail(w->err, PHX_E_IO, "write %s: %s", w->path, strerror(errno));
    return 0;
}

static int write_report(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct writer *w = ctx;

    return phx_usage_write(tx, &w->report, w->u->format, write_piece, w, err);
}

/* "HEX  NAME", as sha256sum -c reads it. */
static int write_sum(const char *out, const uint8_t digest[PHX_SHA256_BYTES], struct phx_err *err)
{
    const char *slash = strrchr(out, '/');
    char       *path = phx_mem_printf("%s.sha256", out), hex[PHX_SHA256_HEX], *line;
    int         rc;

    phx_hex_encode(hex, sizeof(hex), digest, PHX_SHA256_BYTES);
    line = phx_mem_printf("%s  %s\n", hex, slash != NULL ? slash + 1 : out);
    rc = phx_file_write(path, line, strlen(line), 0644, err);
    phx_mem_free(line);
    phx_mem_free(path);
    return rc;
}

static int close_file(struct writer *w, int rc)
{
    if (w->file == stdout)
        return fflush(stdout) == 0 || rc != 0 ? rc : phx_fail(w->err, PHX_E_IO, "write: %s", strerror(errno));
    if (rc == 0 && (fflush(w->file) != 0 || fsync(fileno(w->file)) != 0))
        rc = phx_fail(w->err, PHX_E_IO, "write %s: %s", w->path, strerror(errno));
    if (fclose(w->file) != 0 && rc == 0)
        rc = phx_fail(w->err, PHX_E_IO, "close %s: %s", w->path, strerror(errno));
    return rc;
}

static int write_to_file(struct writer *w, const char *out, struct phx_err *err)
{
    char   *part = phx_mem_printf("%s.part", out);
    uint8_t digest[PHX_SHA256_BYTES];
    int     rc;

    w->path = part;
    w->file = fopen(part, "we");
    if (w->file == NULL) {
        rc = phx_fail(err, PHX_E_IO, "open %s: %s", part, strerror(errno));
        phx_sha256_fini(&w->hash);
    } else {
        rc = phx_store_read(w->u->store, write_report, w, err);
        rc = close_file(w, rc);
        phx_sha256_final(&w->hash, digest);
        if (rc == 0)
            rc = write_sum(out, digest, err);
        if (rc == 0 && rename(part, out) != 0)
            rc = phx_fail(err, PHX_E_IO, "rename %s: %s", part, strerror(errno));
        if (rc != 0)
            (void)unlink(part); /* the error is told already */
    }
    phx_mem_free(part);
    return rc;
}

int phx_ctl_usage_report(struct phx_ctl_usage *u, struct phx_err *err)
{
    struct writer w = {.u = u, .file = stdout, .path = "standard output", .err = err};
    int           rc = phx_period_parse(u->period, &w.report.filter.from_ns, &w.report.filter.to_ns, err);

    if (rc == 0)
        rc = phx_usage_groups_parse(u->groups != NULL ? u->groups : "tenant,user,model", w.report.groups, err);
    if (rc != 0)
        return rc;
    w.report.cluster_id = u->cluster_id;
    w.report.firm = u->firm != NULL && u->firm[0] != '\0' ? u->firm : u->cluster_id;
    phx_sha256_init(&w.hash);
    if (u->out != NULL)
        return write_to_file(&w, u->out, err);
    rc = close_file(&w, phx_store_read(u->store, write_report, &w, err));
    phx_sha256_fini(&w.hash);
    return rc;
}
