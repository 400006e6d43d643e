/* SPDX-License-Identifier: Apache-2.0
 * API keys: "phx_" and 43 random base62 characters.  Only their SHA-256 is stored; a key is shown once. */
#ifndef PHX_DAEMON_KEYS_H
#define PHX_DAEMON_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/base/err.h"

struct phx_store;
struct phx_keys;

enum phx_key_role { /* bits */
    PHX_ROLE_BIT_USER = 1,
    PHX_ROLE_BIT_OPERATOR = 2,
    PHX_ROLE_BIT_AUDITOR = 4,
    PHX_ROLE_BIT_ADMIN = 8
};

enum { PHX_KEY_NAME_MAX = 64, PHX_SUBJECT_MAX = 128, PHX_KEY_TEXT_BYTES = 64 };

enum phx_auth { PHX_AUTH_KEY = 1, PHX_AUTH_CERT, PHX_AUTH_TOKEN };

struct phx_identity {
    enum phx_auth auth;
    char     key_id[33]; /* random, not the key; "" without a key */
    char     tenant[PHX_KEY_NAME_MAX + 1];
    char     user[PHX_SUBJECT_MAX + 1];   /* immutable subject, not an e-mail address */
    char     issuer[PHX_SUBJECT_MAX + 1]; /* who vouches for the subject: "phalanx", a token's issuer, a CA */
    char     service[PHX_KEY_NAME_MAX + 1]; /* the account that asks on behalf of `user`; "" = the user itself */
    bool     is_person; /* false: a service account without a verified end user */
    char     cost_centre[PHX_KEY_NAME_MAX + 1];
    unsigned roles;         /* of enum phx_key_role */
    int64_t  created_ns, expires_ns, revoked_ns; /* 0 = never */
};

struct event_base;

/* Reads all keys.  Owned: phx_keys_close(). */
int  phx_keys_open(struct phx_store *store, struct phx_keys **out, struct phx_err *err) PHX_CHECKED;
/* From now on changes by other processes are seen within a second, also while nobody asks. */
void phx_keys_watch(struct phx_keys *k, struct event_base *base);
void phx_keys_close(struct phx_keys *k);

/* Who holds this key.  PHX_E_UNAUTH for an unknown, expired or revoked one (never says which to a caller
 * without a valid key).  *out is copied. */
int phx_keys_check(struct phx_keys *k, const char *key, int64_t now_ns, struct phx_identity *out,
                   struct phx_err *err) PHX_CHECKED;
/* 1 to PHX_KEY_NAME_MAX letters, digits and . _ - @; PHX_E_INVALID naming `what`. */
int phx_key_check_name(const char *what, const char *name, struct phx_err *err) PHX_CHECKED;

/* For the command line: work on a store opened by the same process. */
struct phx_key_new {
    const char *tenant, *user;
    const char *cost_centre; /* NULL or "" = none */
    unsigned    roles;
    bool        is_service;  /* a program, not a person: counts as indirect use */
    int64_t     expires_ns;  /* 0 = never */
};
/* *out tells what was made; `key` is the one copy of the key. */
int phx_key_create(struct phx_store *store, const struct phx_key_new *what, char key[PHX_KEY_TEXT_BYTES],
                   struct phx_identity *out, struct phx_err *err) PHX_CHECKED;
/* At most max identities into out; returns how many there are, or a negative code. */
int phx_key_list(struct phx_store *store, struct phx_identity *out, size_t max, struct phx_err *err);
int phx_key_revoke(struct phx_store *store, const char *key_id, struct phx_err *err) PHX_CHECKED;
/* "user,admin" to bits and back. */
int  phx_key_parse_roles(const char *text, unsigned *roles, struct phx_err *err) PHX_CHECKED;
void phx_key_format_roles(unsigned roles, char text[64]);

#endif
