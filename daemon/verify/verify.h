/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/verify: verification of a copied audit folder, without daemon, database or network.
 *
 * A finding is an error code of rpc/base/err.h; phx_verdict_of() says what it means for the evidence:
 * PHX_E_FORMAT, _LICENSE, _TOOBIG tampered; _NOTFOUND, _STATE, _IO incomplete; _UNSUPPORTED unknown key,
 * version or field; _INVALID usage.  A function that returns one cannot go on; findings that leave the rest
 * checkable go straight into the report. */
#ifndef PHX_DAEMON_VERIFY_H
#define PHX_DAEMON_VERIFY_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/sign/sign.h"
#include "daemon/tlog/tlog.h"
#include "rpc/base/buf.h"
#include "rpc/base/err.h"

enum {
    PHX_V_FILE_MAX = 64 << 10,
    PHX_V_BUNDLE_MAX = 256 * (2 + 65535),
    PHX_V_RECEIPT_MAX = 4 << 20,
    PHX_V_NAME_MAX = 128,
    PHX_V_DEPTH_MAX = 8,          /* objects inside each other in a record */
    PHX_V_CLOSED_MAX = 1000000,   /* finished receipts that are remembered */
    PHX_V_EPOCHS_MAX = 1 << 20,
    PHX_V_KEPT_MAX = 16,
    PHX_V_WITNESSES_MAX = 16
};

/* ---- the report of one folder or receipt ---------------------------------------------------------------- */

enum phx_verdict { PHX_V_OK = 0, PHX_V_TAMPERED = 1, PHX_V_INCOMPLETE = 2, PHX_V_USAGE = 3, PHX_V_UNKNOWN = 4 };

struct phx_report {
    const char *name;
    bool        has[5]; /* per verdict */
    int64_t     n_problems;
    json_t     *problems, *skipped, *facts; /* the first 20 of each list */
};
void phx_report_init(struct phx_report *r, const char *name);
void phx_report_fini(struct phx_report *r);
enum phx_verdict phx_verdict_of(int code);
void phx_report_add(struct phx_report *r, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void phx_report_err(struct phx_report *r, const struct phx_err *err);
void phx_report_skip(struct phx_report *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void phx_report_fact(struct phx_report *r, const char *key, json_t *value); /* takes value */
enum phx_verdict phx_report_verdict(const struct phx_report *r);
enum phx_verdict phx_verdict_worse(enum phx_verdict a, enum phx_verdict b);
enum phx_verdict phx_report_show(const struct phx_report *r, bool is_json);

/* ---- files ---------------------------------------------------------------------------------------------- */

struct phx_vfolder {
    int fd;
};
int  phx_vfolder_open(const char *path, struct phx_vfolder *out, struct phx_err *err) PHX_CHECKED;
void phx_vfolder_close(struct phx_vfolder *f);
/* Replaces what is in out.  PHX_E_NOTFOUND without setting err's text apart: "NAME: missing". */
int phx_vfolder_read(const struct phx_vfolder *f, const char *name, size_t max_bytes, struct phx_buf *out,
                    struct phx_err *err) PHX_CHECKED;
/* The epochs that have a file under keys or closing, ascending; owned array. */
int phx_vfolder_epochs(const struct phx_vfolder *f, const char *dir, int64_t **out, size_t *n,
                      struct phx_err *err) PHX_CHECKED;
/* Reads the tile at a path without width, or a wider one when the exact one is not there (the log may have
 * grown).  is_entries: a bundle.  *found_width: of the file.  name: of the exact or the found file. */
int phx_vfolder_tile(const struct phx_vfolder *f, const char *base, int width, bool is_entries,
                    struct phx_buf *out, int *found_width, char name[PHX_V_NAME_MAX],
                    struct phx_err *err) PHX_CHECKED;
/* "tile/0/x001/234" or "tile/entries/..." (level -1) without a width. */
void phx_tile_base(int level, uint64_t index, char base[PHX_TLOG_PATH_BYTES]);
/* Files that are part of no current tree: older partial tiles are compared, the rest is reported. */
struct phx_walk {
    const struct phx_vfolder *folder;
    const char              *path;
    uint64_t                 size;
    struct phx_report       *report;
    bool                     is_behind; /* out: files of records behind the checkpoint are there */
};
int phx_vfolder_walk(struct phx_walk *w, struct phx_err *err) PHX_CHECKED;

/* ---- keys, checkpoints ---------------------------------------------------------------------------------- */

struct phx_vcheckpoint {
    const char           *what; /* for messages */
    struct phx_buf        note;
    struct phx_checkpoint c;
    int64_t               epoch;
};
int  phx_vcheckpoint_parse(struct phx_vcheckpoint *cp, const char *what, const void *note, size_t size,
                           struct phx_err *err) PHX_CHECKED;
void phx_vcheckpoint_fini(struct phx_vcheckpoint *cp);

struct phx_log_key {
    uint8_t  key[32];
    uint64_t from_size;
};
struct phx_chain {
    char                origin[256];
    struct phx_log_key *keys; /* of epoch i + 1 */
    int64_t             n;
};
void phx_chain_init(struct phx_chain *c, const char *origin);
void phx_chain_fini(struct phx_chain *c);
/* The next handover: signed by the key before and by itself, by nobody else. */
int phx_chain_push(struct phx_chain *c, const char *what, const void *note, size_t size,
                   struct phx_err *err) PHX_CHECKED;
/* Signed by the key of its epoch and by no other log key, and of a size of that epoch.  others (may be NULL)
 * gets the names of unknown signers. */
int phx_chain_check(const struct phx_chain *c, const struct phx_vcheckpoint *cp, json_t *others,
                    struct phx_err *err) PHX_CHECKED;

struct phx_trust {
    char    origin[256];
    json_t *keys; /* [{epoch, public_key}] checked */
};
/* bad: the code of malformed content.  PHX_E_UNSUPPORTED: version or key. */
int     phx_trust_parse(struct phx_trust *t, const char *what, const void *data, size_t size, int bad,
                        struct phx_err *err) PHX_CHECKED;
void    phx_trust_fini(struct phx_trust *t);
int     phx_trust_check(const struct phx_trust *t, const struct phx_chain *c, const char *what, int bad,
                        struct phx_err *err) PHX_CHECKED;
int64_t phx_trust_first(const struct phx_trust *t); /* the lowest trusted epoch */

/* ---- records -------------------------------------------------------------------------------------------- */

struct phx_slice { /* a string as it is spelled, without quotes; borrowed */
    const char *at;
    size_t      size;
};
enum phx_value_type { PHX_V_NONE = 0, PHX_V_INT, PHX_V_STR, PHX_V_OBJECT };
struct phx_field {
    enum phx_value_type type;
    int64_t             number;
    struct phx_slice    text;
};
enum phx_field_id {
    PHX_F_AT_NS, PHX_F_CRIT, PHX_F_EPOCH, PHX_F_EVENT, PHX_F_FINISH, PHX_F_KIND, PHX_F_LEDGER, PHX_F_RECEIPT,
    PHX_F_RULE, PHX_F_SUBJECT, PHX_F_TENANT, PHX_F_V, PHX_F_ASKED, PHX_F_ENGINE, PHX_F_MODEL, PHX_F_RULES,
    PHX_F_SAMPLE, PHX_F_WHO, PHX_F_COST, PHX_F_OUT, PHX_F_TIMING, PHX_F_PRIVACY, PHX_F_WHO_TENANT,
    PHX_F_WHO_USER, PHX_F_CACHED, PHX_F_COMPUTE_MS, PHX_F_OUTPUT, PHX_F_PROMPT, PHX_F_QUEUE_MS,
    PHX_F_REASONING, PHX_F_UPPER, PHX_F_COUNT
};
struct phx_fields {
    struct phx_field f[PHX_F_COUNT];
};
/* PHX_E_FORMAT unless the bytes are the one canonical spelling of a record: objects, strings and 64-bit
 * integers, keys ascending, shortest escapes, valid UTF-8.  Fields are borrowed from the bytes. */
int  phx_record_scan(const char *bytes, size_t size, struct phx_fields *out, struct phx_err *err) PHX_CHECKED;
/* What a record must be by itself. */
int  phx_record_check(const struct phx_fields *f, struct phx_err *err) PHX_CHECKED;
bool phx_slice_is(struct phx_slice s, const char *text);    /* as it is spelled */
bool phx_slice_means(struct phx_slice s, const char *text); /* without escapes */
bool phx_record_is_start(const struct phx_fields *f);

struct phx_rules {
    struct phx_report  *report;
    struct phx_receipt *slots; /* open addressing */
    size_t              n_slots, n_used, n_closed, n_open, n_gateway; /* open: gateways', too */
    bool                has_epoch, is_forgetful;
    int64_t             epoch, newest_ns, n_requests;
    json_t             *kinds; /* name -> count */
};
void phx_rules_init(struct phx_rules *r, struct phx_report *report);
void phx_rules_fini(struct phx_rules *r);
/* Adds to the report what is wrong with the record in its place. */
void phx_rules_push(struct phx_rules *r, uint64_t leaf, const char *bytes, size_t size);
bool phx_kind_is_known(const char *kind);

/* ---- a folder whose signatures were checked: for everything but verify ----------------------------------- */

struct phx_witness {
    char                     what[80];
    struct phx_note_verifier verifiers[PHX_V_WITNESSES_MAX];
    int                      n, least;
};
struct phx_options {
    const char        *command;
    bool               is_json, is_intent;
    bool               has_trust;
    struct phx_trust   trust;
    struct phx_vcheckpoint kept[PHX_V_KEPT_MAX];
    int                n_kept;
    struct phx_witness witnesses[PHX_V_WITNESSES_MAX];
    int                n_witnesses;
    char             **args;
    int                n_args;
};
struct phx_log {
    struct phx_vfolder      folder;
    struct phx_chain       chain;
    struct phx_vcheckpoint cp;
    struct phx_buf        *key_notes; /* per epoch */
    char                   tile_base[PHX_TLOG_PATH_BYTES]; /* the cached tile */
    struct phx_buf         tile;
    struct phx_buf         bundle;
};
/* Opens, checks the chain of keys, trust (the folder's own without --trust) and the checkpoint. */
int  phx_log_open(struct phx_log *l, const char *dir, const struct phx_options *o, struct phx_err *err) PHX_CHECKED;
void phx_log_close(struct phx_log *l);
/* Walks all records of the checkpoint.  fn answers 0, 1 to stop, or a negative code. */
typedef int (*phx_log_fn)(void *ctx, uint64_t leaf, const char *bytes, size_t size, struct phx_err *err);
int phx_log_walk(struct phx_log *l, phx_log_fn fn, void *ctx, struct phx_err *err) PHX_CHECKED;
int phx_log_entry(struct phx_log *l, uint64_t leaf, struct phx_buf *out, struct phx_err *err) PHX_CHECKED;
/* The inclusion proof of a leaf, checked against the checkpoint before it is given.  Number of hashes. */
int phx_log_prove(struct phx_log *l, uint64_t leaf, const struct phx_buf *record,
                  struct phx_tlog_hash proof[PHX_TLOG_PROOF_MAX], struct phx_err *err);
int phx_log_read(void *log, int level, uint64_t index, struct phx_tlog_hash *out, struct phx_err *err);

/* ---- commands: answer the verdict ------------------------------------------------------------------------- */

int phx_check_receipt(const void *data, size_t size, const struct phx_trust *trust, struct phx_report *report,
                      struct phx_err *err) PHX_CHECKED;
enum phx_verdict phx_cmd_verify(const struct phx_options *o, const char *dir);
enum phx_verdict phx_cmd_check(const struct phx_options *o, const char *path);
enum phx_verdict phx_cmd_prove(const struct phx_options *o);
enum phx_verdict phx_cmd_explain(const struct phx_options *o);
enum phx_verdict phx_cmd_consistency(const struct phx_options *o);
enum phx_verdict phx_cmd_reconcile(const struct phx_options *o);
enum phx_verdict phx_cmd_shred_proof(const struct phx_options *o);
/* "phalanx-audit: TEXT" on stderr; the verdict of the error. */
enum phx_verdict phx_cmd_fail(const struct phx_err *err);

#endif
