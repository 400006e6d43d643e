/* SPDX-License-Identifier: Apache-2.0
 * The licensor's root keys: "threshold N" and one hex key a line, # begins a comment. */
#include <stdio.h>
#include <string.h>

#include "daemon/license/roots_builtin.h" /* made from the file PHX_LICENSE_ROOTS names */
#include "daemon/license/terms.h"
#include "rpc/base/hex.h"

enum { FILE_MAX_BYTES = 16 << 10 };

static int read_line(const char *line, struct phx_license_roots *out, struct phx_err *err)
{
    int  threshold;
    char rest;

    if (strncmp(line, "threshold ", 10) == 0) {
        if (out->threshold != 0 || sscanf(line + 10, "%d%c", &threshold, &rest) != 1 || threshold < 1 ||
            threshold > PHX_ROOTS_MAX)
            return phx_fail(err, PHX_E_FORMAT, "threshold must be there once, 1 to %d", PHX_ROOTS_MAX);
        out->threshold = threshold;
        return 0;
    }
    if (out->n_keys == PHX_ROOTS_MAX)
        return phx_fail(err, PHX_E_TOOBIG, "more than %d root keys", PHX_ROOTS_MAX);
    if (phx_hex_decode(out->keys[out->n_keys], 32, line, NULL) != 0)
        return phx_fail(err, PHX_E_FORMAT, "a line is neither \"threshold N\" nor a key of 64 hex digits");
    for (int32_t i = 0; i < out->n_keys; i++) /* one key twice would be two signatures of one person */
        if (memcmp(out->keys[i], out->keys[out->n_keys], 32) == 0)
            return phx_fail(err, PHX_E_FORMAT, "a root key is there twice");
    out->n_keys++;
    return 0;
}

static int read_text(char *text, struct phx_license_roots *out, struct phx_err *err)
{
    char *save = NULL;
    int   rc = 0;

    memset(out, 0, sizeof(*out));
    for (char *line = strtok_r(text, "\n", &save); line != NULL && rc == 0; line = strtok_r(NULL, "\n", &save)) {
        size_t n = strcspn(line, "#");

        while (n > 0 && strchr(" \t\r", line[n - 1]) != NULL)
            n--;
        line[n] = '\0';
        if (n > 0)
            rc = read_line(line, out, err);
    }
    if (rc == 0 && (out->threshold == 0 || out->threshold > out->n_keys))
        rc = phx_fail(err, PHX_E_FORMAT, "%d root keys and threshold %d: no key set could be accepted",
                      out->n_keys, out->threshold);
    return rc;
}

int phx_license_roots_read(const char *path, struct phx_license_roots *out, struct phx_err *err)
{
    struct phx_buf text;
    int            rc = phx_buf_read_file(&text, path, FILE_MAX_BYTES, err);

    memset(out, 0, sizeof(*out));
    if (rc != 0)
        return rc;
    if (memchr(text.data, '\0', text.size) != NULL)
        rc = phx_fail(err, PHX_E_FORMAT, "not a text file");
    if (rc == 0)
        rc = read_text(text.data, out, err);
    if (rc != 0)
        phx_err_prefix(err, "%s: ", path);
    phx_buf_fini(&text);
    return rc;
}

void phx_license_roots_builtin(struct phx_license_roots *out)
{
    char          *text = phx_mem_strndup((const char *)roots_builtin, sizeof(roots_builtin));
    struct phx_err err = {0};

    if (read_text(text, out, &err) != 0) { /* the build was given a bad file: no licence will verify */
        fprintf(stderr, "phalanx: the roots compiled in are bad: %s\n", err.text);
        memset(out, 0, sizeof(*out));
        out->threshold = 1;
    }
    phx_mem_free(text);
}
