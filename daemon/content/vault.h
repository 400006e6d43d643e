/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/content: sealing under a key, the keys of the months, and which hold is in the way. */
#ifndef PHX_DAEMON_CONTENT_VAULT_H
#define PHX_DAEMON_CONTENT_VAULT_H

#include "daemon/content/content.h"
#include "daemon/store/store.h"

enum { PHX_SEAL_OVERHEAD = 24 + 16, PHX_SEALED_KEY_BYTES = PHX_CONTENT_KEY_BYTES + PHX_SEAL_OVERHEAD };

/* ---- sealing (XChaCha20-Poly1305) ------------------------------------------------------------------------ */

/* What a sealed text belongs to: all of it must be the same when it is opened.  Strings without NUL. */
struct phx_seal_place {
    const char *parts[10]; /* the first names the purpose; ends with NULL */
};
/* out: size + PHX_SEAL_OVERHEAD bytes: nonce, ciphertext, tag. */
void phx_seal(const uint8_t key[PHX_CONTENT_KEY_BYTES], const struct phx_seal_place *place, const void *text,
              size_t size, uint8_t *out);
/* out: size - PHX_SEAL_OVERHEAD bytes.  False: another key, another place, or changed bytes. */
bool phx_unseal(const uint8_t key[PHX_CONTENT_KEY_BYTES], const struct phx_seal_place *place,
                const void *sealed, size_t size, uint8_t *out);

/* ---- keys of a tenant and a period ("2026-11", or "2026" for the pepper of names) -------------------------- */

struct phx_kek { /* wipe it */
    uint8_t key[PHX_CONTENT_KEY_BYTES];
    int64_t generation, destroyed_ns; /* when the last one was destroyed; 0 = never */
    bool    has_key;
};
/* Reads it.  has_key is false when there is none (any more).  PHX_E_STATE: not wrapped by this site key. */
int phx_kek_find(struct phx_tx *tx, const uint8_t *site_key, const char *tenant, const char *period,
                 struct phx_kek *out, struct phx_err *err) PHX_CHECKED;
/* Reads or makes it. */
int phx_kek_need(struct phx_tx *tx, const uint8_t *site_key, const char *tenant, const char *period,
                 struct phx_kek *out, struct phx_err *err) PHX_CHECKED;
/* 1 = destroyed, 0 = there was none, or negative. */
int phx_kek_destroy(struct phx_tx *tx, const char *tenant, const char *period, int64_t at_ns,
                    struct phx_err *err) PHX_CHECKED;
void phx_month_format(int64_t at_ns, char period[8]);
void phx_year_format(int64_t at_ns, char period[8]);

/* ---- erasing ---------------------------------------------------------------------------------------------------- */

/* PHX_E_STATE naming the open hold on content of this tenant and user. */
int phx_hold_check(struct phx_tx *tx, const char *tenant, const char *user, struct phx_err *err) PHX_CHECKED;
/* PHX_E_STATE naming an open hold on any content of the month (period NULL: on anything of the tenant). */
int phx_hold_check_month(struct phx_tx *tx, const char *tenant, const char *period,
                         struct phx_err *err) PHX_CHECKED;
/* Takes keys, salt, text and user out of a row. */
int phx_row_erase(struct phx_tx *tx, const char *receipt, int64_t at_ns, struct phx_err *err) PHX_CHECKED;

/* ---- texts from outside --------------------------------------------------------------------------------------- */

/* 1 to max printable bytes.  PHX_E_INVALID naming the field. */
int phx_content_check_text(const char *field, const char *text, size_t max, struct phx_err *err) PHX_CHECKED;

#endif
