/* SPDX-License-Identifier: Apache-2.0
 * The licence: what a signed file allows, and in which state it is.  Files are DSSE envelopes signed with
 * Ed25519, verified over the raw bytes before anything is parsed (daemon/sign).
 *
 *   roots      public keys of the licensor, compiled in or named in the configuration; they never sign
 *              licences, only
 *   key set    the issuers' keys and the revoked serials, signed by 2 roots, its version only goes up
 *   licence    signed by an issuer of the key set; its serial only goes up */
#ifndef PHX_DAEMON_LICENSE_H
#define PHX_DAEMON_LICENSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/base/buf.h"
#include "rpc/base/err.h"

#define PHX_LICENSE_PAYLOAD_TYPE "application/vnd.phalanx.licence+json;v=1"
#define PHX_KEY_SET_PAYLOAD_TYPE "application/vnd.phalanx.keyset+json;v=1"

enum {
    PHX_LICENSE_MAX_BYTES = 64 << 10,
    PHX_LICENSE_MODELS_MAX = 64,
    PHX_LICENSE_CLUSTERS_MAX = 64,
    PHX_LICENSE_PURPOSES_MAX = 64,
    PHX_LICENSE_TENANTS_MAX = 64,
    PHX_LICENSE_AFFILIATES_MAX = 64,
    PHX_ROOTS_MAX = 8,
    PHX_ISSUERS_MAX = 32,
    PHX_REVOKED_MAX = 256,
    PHX_LICENSE_NONE_HOURS = 72 /* how long a cluster without a readable licence only observes */
};

enum phx_enforce { PHX_ENFORCE_OBSERVE = 1, PHX_ENFORCE_SOFT, PHX_ENFORCE_HARD };

/* -1 = no limit */
struct phx_license_limits {
    int64_t seats;          /* people in a calendar month (UTC) */
    int64_t overdraft_pct;  /* 0..100, of seats */
    int64_t indirect_users; /* seats for callers without a verified person */
    int64_t concurrent;     /* requests at once */
    int64_t nodes, gpus;
    int64_t tokens_per_month;
};

struct phx_license_model {
    const char *manifest_root; /* "sha256:..." or "*" = any model */
    const char *policy;        /* name of its terms, "pplus-1.2" */
    const char *derived_from;  /* manifest root or "" */
    const char *redistribution;
    const char *const *denied_purposes;
    int32_t     n_denied_purposes;
    const char *const *denied_classes; /* licensee classes that may not use it */
    int32_t     n_denied_classes;
    bool        has_limits; /* own limits; else the licence's */
    struct phx_license_limits limits;
};

struct phx_license_terms { /* strings live in the licence */
    const char *license_id;
    int64_t     serial, supersedes;
    const char *legal_name, *licensee_id;
    const char *const *affiliates;
    int32_t     n_affiliates;
    const char *class_name; /* commercial, research, education, small-business, government, evaluation */
    const char *revenue_band, *attestation_sha256, *attested_by, *attested_on; /* "" = none */
    const struct phx_license_model *models;
    int32_t     n_models;
    struct phx_license_limits limits;
    uint8_t     seat_salt[32];
    const char *const *clusters; /* fingerprints; none = any cluster */
    int32_t     n_clusters;
    int64_t     not_before_ns, not_after_ns, issued_ns;
    int32_t     warn_days, grace_days, continuity_days;
    enum phx_enforce enforce;
    const char *const *exempt_tenants;
    int32_t     n_exempt_tenants;
    int32_t     exempt_cap_pct;
    const char *reporting_mode;
    int32_t     reporting_days, retain_days;
    int64_t     key_set_min_version;
    const char *issuer_kid; /* "ed25519:<hex>" */
    char        digest[65]; /* SHA-256 of the payload, hex */
};

struct phx_license_key {
    uint8_t public_key[32];
    int64_t not_before_ns, not_after_ns; /* when it may have signed */
};
struct phx_key_set {
    int64_t version, issued_ns;
    struct phx_license_key issuers[PHX_ISSUERS_MAX];
    int32_t n_issuers;
    int64_t revoked[PHX_REVOKED_MAX]; /* serials: a licensor numbers all its licences in one sequence */
    int32_t n_revoked;
    char    digest[65]; /* SHA-256 of the payload, hex */
};
struct phx_license_roots {
    uint8_t keys[PHX_ROOTS_MAX][32];
    int32_t n_keys, threshold;
};

struct phx_license;

/* ---- files (pure) ------------------------------------------------------------------------------------------ */

/* The roots that were compiled in, or those of a file: one hex key a line, "threshold N", # comments. */
void phx_license_roots_builtin(struct phx_license_roots *out);
int  phx_license_roots_read(const char *path, struct phx_license_roots *out, struct phx_err *err) PHX_CHECKED;

int phx_key_set_parse(const void *data, size_t size, const struct phx_license_roots *roots,
                      struct phx_key_set *out, struct phx_err *err) PHX_CHECKED;
/* Verifies and parses.  PHX_E_LICENSE: signature, unknown or out-of-date issuer, revoked serial, key set too
 * old; PHX_E_FORMAT / _INVALID naming the field.  Owned: phx_license_free(). */
int  phx_license_parse(const void *data, size_t size, const struct phx_key_set *keys,
                       struct phx_license **out, struct phx_err *err) PHX_CHECKED;
void phx_license_free(struct phx_license *l); /* NULL is allowed */
const struct phx_license_terms *phx_license_terms(const struct phx_license *l); /* borrowed */
/* May it be used on this cluster?  PHX_E_LICENSE naming the fingerprint. */
int phx_license_binds(const struct phx_license *l, const char *cluster_fingerprint,
                      struct phx_err *err) PHX_CHECKED;
/* The entry for a model ("sha256:..." or "" when unknown): its own, else the one of "*"; NULL = the licence
 * does not name it. */
const struct phx_license_model *phx_license_find_model(const struct phx_license *l, const char *manifest_root);
/* The model's own limits, else the licence's.  model may be NULL. */
const struct phx_license_limits *phx_license_limits(const struct phx_license *l,
                                                    const struct phx_license_model *model);

/* ---- state (pure) --------------------------------------------------------------------------------------------- */

enum phx_license_state {
    PHX_LICENSE_NONE = 0,   /* none installed or readable: observe, for 72 h */
    PHX_LICENSE_EARLY,      /* before not_before */
    PHX_LICENSE_VALID,
    PHX_LICENSE_EXPIRING,   /* within warn_days of its end */
    PHX_LICENSE_GRACE,      /* after it: everybody is served */
    PHX_LICENSE_CONTINUITY, /* known users are served, new ones refused */
    PHX_LICENSE_EXPIRED     /* exempt tenants alone, up to their cap */
};
const char *phx_license_state_name(enum phx_license_state state); /* "valid", ... */
/* l NULL = PHX_LICENSE_NONE. */
enum phx_license_state phx_license_state(const struct phx_license *l, int64_t now_ns);
bool    phx_license_is_exempt(const struct phx_license *l, const char *tenant);
/* Seats that exempt tenants may use once the licence has expired; INT64_MAX when seats are not limited. */
int64_t phx_license_exempt_cap(const struct phx_license *l);

enum phx_license_verdict {
    PHX_VERDICT_SERVE = 1,
    PHX_VERDICT_OVERDRAFT, /* serve, marked for true-up */
    PHX_VERDICT_REFUSE
};
struct phx_license_question {
    enum phx_license_state state;
    enum phx_enforce       enforce;
    struct phx_license_limits limits;
    bool    is_observing;    /* state NONE only: phx_license_is_observing() */
    /* Has a seat in this period; in state CONTINUITY also: in the period before (else the first of a month would
     * shut everybody out, since seats start anew). */
    bool    is_known;
    bool    is_indirect;
    int64_t seats_used, indirect_used; /* in this period, before this request */
    bool    is_exempt;       /* the tenant is exempt */
    int64_t exempt_used, exempt_cap; /* seats */
};
struct phx_license_answer {
    enum phx_license_verdict verdict;
    const char *rule;    /* "licence.expired", "licence.seats", ...; "" = none */
    const char *reason;  /* static text, with what to do */
    int32_t     warning_pct; /* 0, 80, 90 or 100: the threshold that use has reached */
};
/* The table of states: what happens to a known or new user in each.  Rules: licence.early, .seats, .indirect,
 * .continuity, .expired, .none.  An answer OVERDRAFT names its rule too. */
void phx_license_decide(const struct phx_license_question *q, struct phx_license_answer *out);
/* May this model be used for this purpose ("" = none said)?  SERVE or REFUSE by licence.model, .class or
 * .purpose.  *model (may be NULL): the entry, NULL when the licence does not name it. */
void phx_license_decide_model(const struct phx_license *l, const char *manifest_root, const char *purpose,
                              const struct phx_license_model **model, struct phx_license_answer *out);

/* ---- the licence of a running daemon ----------------------------------------------------------------------------- */

struct phx_store;
struct phx_tx;
struct phx_time;
struct phx_license_store;
struct phx_license_source {
    const char *file, *key_set_file, *roots_file; /* roots "" = compiled in */
    const char *cluster_fingerprint; /* phx_certs_fingerprint() */
    int64_t     now_ns;              /* T; 0 = the wall clock */
    bool        is_read_only;        /* looks, installs nothing (command line) */
};
/* Reads the files; when they cannot be read or verified, or are older than what was installed, the last
 * verified copy in the store serves, with an alert; when there is none either, the state is NONE.  Never fails
 * for a bad licence: `problem` tells.  Newer files are installed, with their audit leaves.  Waits for the
 * store: before the loop runs. */
int  phx_license_open(struct phx_store *store, const struct phx_license_source *source,
                      struct phx_license_store **out, struct phx_err *err) PHX_CHECKED;
void phx_license_close(struct phx_license_store *s); /* NULL is allowed */
/* NULL = none.  Stays valid until phx_license_close(), also when another one is installed: a job on the store's
 * thread may hold it.  Loop thread. */
const struct phx_license *phx_license_now(const struct phx_license_store *s);
/* No licence for less than 72 hours (counted across restarts). */
bool        phx_license_is_observing(const struct phx_license_store *s, int64_t now_ns);
int64_t     phx_license_key_set_version(const struct phx_license_store *s);
const char *phx_license_problem(const struct phx_license_store *s); /* "" = none */
/* Would it be taken?  Verified, bound to this cluster, in force (not early, not expired), serial above the
 * installed one, which must not be above what it says it supersedes; key set not below the highest ever seen.
 * Size 0 = the present key set. */
struct phx_license_preview {
    int64_t serial, key_set_version;
    enum phx_license_state state;
    bool    is_same;     /* installed already: nothing would change */
    bool    is_new_salt; /* seats of this month are counted anew: known people take a second one */
    char    text[256]; /* phx_license_format() */
};
int phx_license_preview(const struct phx_license_store *s, const void *licence, size_t licence_size,
                        const void *key_set, size_t key_set_size, int64_t now_ns,
                        struct phx_license_preview *out, struct phx_err *err) PHX_CHECKED;
/* Replaces the licence when phx_license_preview() allows it: in the store, with its audit leaves in the same
 * transaction, then the files.  is_dry_run: only the check.  The installed one again is a
 * success that writes the files alone.  fn runs on the loop, before this returns when refused or dry; err NULL
 * = durable.  licence and key_set are copied. */
typedef void (*phx_license_installed_fn)(void *ctx, const struct phx_err *err);
void phx_license_install(struct phx_license_store *s, const void *licence, size_t licence_size,
                         const void *key_set, size_t key_set_size, /* 0 = keep */
                         bool is_dry_run, const char *by, int64_t now_ns, phx_license_installed_fn fn,
                         void *ctx);
/* The same without a loop (command line): waits. */
int phx_license_install_run(struct phx_license_store *s, const void *licence, size_t licence_size,
                            const void *key_set, size_t key_set_size, const char *by, int64_t now_ns,
                            struct phx_err *err) PHX_CHECKED;
/* "evaluation licence 01AB.. serial 1, valid until 2026-02-14" into text. */
void phx_license_format(const struct phx_license *l, int64_t now_ns, char *text, size_t size);

/* ---- issuing ----------------------------------------------------------------------------------------------------- */

/* Payload -> envelope with the payload in canonical form (sorted keys, no spaces); the same checks as parsing.
 * A licence without seat_salt, issued_at (now_ns) or issuer_kid gets them.  Owned text in *out. */
struct phx_sign_key;
int phx_license_issue(const char *payload_json, const struct phx_sign_key *issuer, int64_t now_ns, char **out,
                      struct phx_err *err) PHX_CHECKED;
/* The payload with the seat_salt of the licence `before`, which the same issuer signed: a person who has a seat in
 * this month keeps it.  PHX_E_INVALID when the payload has one.  Owned text in *out. */
int phx_license_renew(const char *payload_json, const char *before, const struct phx_sign_key *issuer, char **out,
                      struct phx_err *err) PHX_CHECKED;
int phx_key_set_issue(const char *payload_json, const struct phx_sign_key *roots, int32_t n_roots,
                      char **out, struct phx_err *err) PHX_CHECKED;

#endif
