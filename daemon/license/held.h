/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/license: the licence of a running daemon and its rows. */
#ifndef PHX_DAEMON_LICENSE_HELD_H
#define PHX_DAEMON_LICENSE_HELD_H

#include "daemon/license/terms.h"
#include "daemon/store/store.h"

struct phx_license_store {
    struct phx_store        *store;
    char                    *file, *key_set_file, *fingerprint;
    struct phx_license_roots roots;
    struct phx_license     **held; /* every one that was current: jobs may still look at them */
    int32_t                  n_held;
    struct phx_license      *current; /* the last of held, or NULL */
    int64_t                  serial_seen; /* the highest ever installed or serving, readable or not */
    int64_t                  serial_stored, version_stored; /* the newest rows */
    struct phx_key_set       keys;    /* version: the highest ever seen; no issuers = none is readable */
    int64_t                  none_since_ns; /* 0 = there is a licence */
    bool                     is_read_only;
    char                     problem[240];
};

/* What a pair of files holds once verified; license and keys are owned by whoever takes them. */
struct phx_license_pair {
    struct phx_license *license;
    struct phx_key_set  keys;
    struct phx_buf      license_file, key_set_file;
    bool                is_new_license, is_new_key_set; /* to be written down */
};
void phx_license_pair_fini(struct phx_license_pair *p);

/* The newest of each, as it was installed; empty buffers when there is none. */
struct phx_license_rows {
    struct phx_buf license, key_set;
    int64_t        serial, key_set_version, none_since_ns;
};
int phx_license_rows_read(struct phx_store *store, struct phx_license_rows *out, struct phx_err *err) PHX_CHECKED;
void phx_license_rows_fini(struct phx_license_rows *r);

/* Adds what is new, each with its leaf.  PHX_E_STATE: another program installed a newer one meanwhile. */
int phx_license_rows_add(struct phx_tx *tx, const struct phx_license_pair *p, const char *by, int64_t now_ns,
                         struct phx_err *err) PHX_CHECKED;
int phx_license_rows_set_none(struct phx_tx *tx, int64_t since_ns, struct phx_err *err) PHX_CHECKED;

/* May `next` follow `keys`?  PHX_E_LICENSE: rolled back, or another one of the same version. */
int phx_key_set_follows(const struct phx_key_set *keys, const struct phx_key_set *next, struct phx_err *err)
    PHX_CHECKED;
/* May `next` follow the installed one (NULL = none is readable)?  The same one may. */
int phx_license_follows(const struct phx_license *installed, int64_t serial_seen, const struct phx_license *next,
                        struct phx_err *err) PHX_CHECKED;
/* The pair's new parts are in the rows now. */
void phx_license_note_stored(struct phx_license_store *s, const struct phx_license_pair *p);
/* Makes the pair's contents current; takes the licence out of it. */
void phx_license_take(struct phx_license_store *s, struct phx_license_pair *p);

#endif
