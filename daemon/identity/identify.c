/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/config/config.h"
#include "daemon/identity/identity.h"
#include "daemon/time/time.h"
#include "rpc/base/buf.h"
#include "rpc/base/clock.h"
#include "rpc/base/log.h"
#include "rpc/base/mem.h"

enum { FILE_MAX_BYTES = 256 << 10, LEEWAY_S = 60 };
static const int64_t LOOK_NS = 1000000000;

struct stamp { /* a file's state: another one = read it again */
    int64_t  mtime_ns, size;
    uint64_t inode;
};

struct phx_identities {
    struct phx_keys *keys;
    struct phx_time *time;
    char            *path; /* NULL = no tokens */
    char            *issuer, *audience, *tenant, *tenant_claim, *roles_claim;
    struct phx_jwks *jwks;
    struct stamp     stamp;
    int64_t          looked_ns; /* monotonic */
};

/* ---- the key file ------------------------------------------------------------------------------------------ */

static struct stamp read_stamp(const char *path)
{
    struct stat st;

    if (stat(path, &st) != 0)
        return (struct stamp){0, -1, 0};
    return (struct stamp){st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec, st.st_size,
                          st.st_ino};
}

/* Replaces the keys, or leaves them as they are. */
static int read_jwks(struct phx_identities *i, struct phx_err *err)
{
    struct phx_jwks *jwks = NULL;
    struct phx_buf   text = {0};
    int              rc;

    i->stamp = read_stamp(i->path); /* before the file: a change while it is read is seen next time */
    rc = phx_buf_read_file(&text, i->path, FILE_MAX_BYTES, err);
    if (rc == 0) {
        rc = phx_jwks_parse(text.data, text.size, &jwks, err);
        if (rc != 0)
            phx_err_prefix(err, "%s: ", i->path);
    }
    phx_buf_fini(&text);
    if (rc == 0) {
        phx_jwks_free(i->jwks);
        i->jwks = jwks;
    }
    return rc;
}

/* A file that is being written, or was damaged, must not lock everybody out: the keys before serve on. */
static void refresh(struct phx_identities *i)
{
    struct phx_err err = {0};
    struct stamp   now;
    int64_t        mono = phx_clock_mono_ns();

    if (mono - i->looked_ns < LOOK_NS)
        return;
    i->looked_ns = mono;
    now = read_stamp(i->path);
    if (now.mtime_ns == i->stamp.mtime_ns && now.size == i->stamp.size && now.inode == i->stamp.inode)
        return;
    if (read_jwks(i, &err) != 0)
        phx_log(PHX_LOG_WARN, "oidc.keys.fail", "reason=%s", err.text);
    else
        phx_log(PHX_LOG_INFO, "oidc.keys.read", "path=%s", i->path);
}

static int check_config(const struct phx_config *c, struct phx_err *err)
{
    if (c->oidc_issuer[0] == '\0' || c->oidc_audience[0] == '\0')
        return phx_fail(err, PHX_E_INVALID, "oidc.issuer and oidc.audience are needed with oidc.jwks_file");
    if (strlen(c->oidc_issuer) > PHX_SUBJECT_MAX)
        return phx_fail(err, PHX_E_INVALID, "oidc.issuer: at most %d bytes", PHX_SUBJECT_MAX);
    if (c->oidc_tenant_claim[0] == '\0' && phx_key_check_name("oidc.tenant", c->oidc_tenant, err) != 0)
        return phx_fail(err, PHX_E_INVALID,
                        "oidc.tenant (a name) or oidc.tenant_claim is needed with oidc.jwks_file");
    return 0;
}

int phx_identities_open(const struct phx_config *config, struct phx_keys *keys, struct phx_time *time,
                        struct phx_identities **out, struct phx_err *err)
{
    struct phx_identities *i = phx_mem_calloc(1, sizeof(*i));
    int                    rc = 0;

    *out = NULL;
    i->keys = keys;
    i->time = time;
    if (config->oidc_jwks_file[0] != '\0') {
        i->path = phx_mem_strdup(config->oidc_jwks_file);
        i->issuer = phx_mem_strdup(config->oidc_issuer);
        i->audience = phx_mem_strdup(config->oidc_audience);
        i->tenant = phx_mem_strdup(config->oidc_tenant);
        i->tenant_claim = phx_mem_strdup(config->oidc_tenant_claim);
        i->roles_claim = phx_mem_strdup(config->oidc_roles_claim);
        i->looked_ns = phx_clock_mono_ns();
        rc = check_config(config, err);
        if (rc == 0)
            rc = read_jwks(i, err);
    }
    if (rc != 0) {
        phx_identities_close(i);
        return rc;
    }
    *out = i;
    return 0;
}

void phx_identities_close(struct phx_identities *i)
{
    if (i == NULL)
        return;
    phx_jwks_free(i->jwks);
    phx_mem_free(i->path);
    phx_mem_free(i->issuer);
    phx_mem_free(i->audience);
    phx_mem_free(i->tenant);
    phx_mem_free(i->tenant_claim);
    phx_mem_free(i->roles_claim);
    phx_mem_free(i);
}

/* ---- credentials --------------------------------------------------------------------------------------------- */

static int identify_token(struct phx_identities *i, const char *token, struct phx_identity *out,
                          struct phx_err *err)
{
    struct phx_token_claims claims;
    struct phx_token_rules  rules;
    int                     rc;

    if (i->path == NULL)
        return phx_fail(err, PHX_E_UNAUTH, "the API key is not valid"); /* the only thing taken here */
    refresh(i);
    rules = (struct phx_token_rules){.issuer = i->issuer,
                                     .audience = i->audience,
                                     .tenant_claim = i->tenant_claim,
                                     .roles_claim = i->roles_claim,
                                     .tenant = i->tenant,
                                     .leeway_s = LEEWAY_S};
    rc = phx_token_verify(i->jwks, &rules, token, phx_time_now(i->time), phx_clock_wall_ns(), &claims, err);
    if (rc != 0)
        return rc;
    *out = (struct phx_identity){
        .auth = PHX_AUTH_TOKEN, .is_person = true, .roles = claims.roles, .expires_ns = claims.expires_ns};
    memcpy(out->tenant, claims.tenant, sizeof(out->tenant));
    memcpy(out->user, claims.subject, sizeof(out->user));
    memcpy(out->issuer, claims.issuer, sizeof(out->issuer));
    return 0;
}

static int identify_cert(const struct phx_credentials *c, struct phx_identity *out, struct phx_err *err)
{
    int n_found = 0;

    for (int32_t k = 0; k < c->n_alt_names; k++) {
        struct phx_identity found;
        int                 rc = phx_identity_parse_uri(c->alt_names[k], &found, err);

        if (rc < 0)
            return rc;
        if (rc == 1 && n_found++ == 0)
            *out = found;
    }
    if (n_found > 1)
        return phx_fail(err, PHX_E_UNAUTH, "the certificate names more than one user or service");
    if (n_found == 0)
        return phx_fail(err, PHX_E_UNAUTH,
                        "an API key, a token or a client certificate of a user or service is needed");
    return 0;
}

/* The end user of the token, with the tenant of the service and no right that one of the two lacks. */
static int act_for(struct phx_identities *i, const char *token, struct phx_identity *out,
                   struct phx_err *err)
{
    struct phx_identity service = *out, user;
    int                 rc;

    if (service.is_person)
        return phx_fail(err, PHX_E_DENIED, "only a service account may ask on behalf of somebody");
    if (i->path == NULL)
        return phx_fail(err, PHX_E_UNAUTH, "tokens of end users are not taken: oidc.jwks_file is not set");
    rc = identify_token(i, token, &user, err);
    if (rc != 0) {
        phx_err_prefix(err, "on behalf of: ");
        return rc;
    }
    if (i->tenant_claim[0] != '\0' && strcmp(user.tenant, service.tenant) != 0)
        return phx_fail(err, PHX_E_DENIED, "on behalf of: the user is of another tenant than the service");
    *out = service;
    out->auth = PHX_AUTH_TOKEN;
    out->is_person = true;
    out->roles = service.roles & user.roles;
    if (out->expires_ns == 0 || user.expires_ns < out->expires_ns)
        out->expires_ns = user.expires_ns;
    (void)snprintf(out->service, sizeof(out->service), "%.64s", service.user);
    memcpy(out->user, user.user, sizeof(out->user));
    memcpy(out->issuer, user.issuer, sizeof(out->issuer));
    return 0;
}

int phx_identify(struct phx_identities *i, const struct phx_credentials *c, struct phx_identity *out,
                 struct phx_err *err)
{
    int rc;

    memset(out, 0, sizeof(*out));
    if (c->bearer == NULL)
        rc = identify_cert(c, out, err);
    else if (strncmp(c->bearer, "phx_", 4) == 0)
        rc = phx_keys_check(i->keys, c->bearer, phx_time_now(i->time), out, err);
    else
        rc = identify_token(i, c->bearer, out, err);
    if (rc == 0 && c->on_behalf_of != NULL)
        rc = act_for(i, c->on_behalf_of, out, err);
    if (rc != 0)
        memset(out, 0, sizeof(*out));
    return rc;
}
