/* SPDX-License-Identifier: Apache-2.0
 * Signatures over files: Ed25519 keys, DSSE envelopes, C2SP signed notes.  Pure; libsodium inside. */
#ifndef PHX_DAEMON_SIGN_H
#define PHX_DAEMON_SIGN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/base/buf.h"
#include "rpc/base/err.h"

/* ---- keys --------------------------------------------------------------------------------------------- */

enum { PHX_KEY_ID_BYTES = 73 }; /* "ed25519:" and 64 hex digits (the SHA-256 of the public key) and NUL */

struct phx_sign_key { /* wipe with phx_sign_wipe() */
    uint8_t secret[64];
    uint8_t public_key[32];
};
/* Must be called once before anything else here (the crypto library's own start).  PHX_E_INTERNAL. */
int  phx_sign_init(struct phx_err *err) PHX_CHECKED;
void phx_sign_key_make(struct phx_sign_key *out);
void phx_sign_key_from_seed(const uint8_t seed[32], struct phx_sign_key *out);
void phx_sign_wipe(struct phx_sign_key *k);
void phx_sign_key_id(const uint8_t public_key[32], char id[PHX_KEY_ID_BYTES]);
/* Files: "phalanx-secret-key:ed25519:<hex seed>" (0600) and "phalanx-public-key:ed25519:<hex>". */
int phx_sign_key_read(const char *path, struct phx_sign_key *out, struct phx_err *err) PHX_CHECKED;
int phx_sign_key_write(const char *path, const struct phx_sign_key *k, struct phx_err *err) PHX_CHECKED;
int phx_sign_public_read(const char *path, uint8_t out[32], struct phx_err *err) PHX_CHECKED;
int phx_sign_public_write(const char *path, const uint8_t key[32], struct phx_err *err) PHX_CHECKED;
void phx_sign_bytes(const struct phx_sign_key *k, const void *data, size_t size, uint8_t sig[64]);
bool phx_sign_verify(const uint8_t public_key[32], const void *data, size_t size, const uint8_t sig[64]);

/* ---- DSSE ---------------------------------------------------------------------------------------------- */

enum { PHX_DSSE_SIGNATURES_MAX = 8, PHX_DSSE_DEPTH_MAX = 4 };
struct phx_dsse_signers { /* which of the given keys have signed (each counts once) */
    int32_t index[PHX_DSSE_SIGNATURES_MAX];
    int32_t n;
};
/* Verifies an envelope over its raw bytes: type, strict base64, strict JSON (duplicate or unknown keys are
 * refused), at least `threshold` different keys.  payload: filled only when it verified.  PHX_E_FORMAT;
 * PHX_E_LICENSE: too few valid signatures; PHX_E_TOOBIG. */
int phx_dsse_open(const void *data, size_t size, size_t max_bytes, const char *payload_type,
                  const uint8_t (*keys)[32], size_t n_keys, int32_t threshold, struct phx_buf *payload,
                  struct phx_dsse_signers *signers, struct phx_err *err) PHX_CHECKED;
/* Owned text. */
char *phx_dsse_seal(const char *payload_type, const void *payload, size_t size,
                    const struct phx_sign_key *keys, int32_t n_keys);

/* ---- signed notes (C2SP signed-note; Ed25519, algorithm byte 1) --------------------------------------- */

enum { PHX_NOTE_MAX_BYTES = 64 << 10, PHX_NOTE_NAME_MAX = 255, PHX_NOTE_SIGNATURES_MAX = 16 };

/* "<name>+<hash hex>+<base64(0x01 || key)>" */
void phx_note_vkey(const char *name, const uint8_t public_key[32], struct phx_buf *out);
struct phx_note_verifier {
    char    name[PHX_NOTE_NAME_MAX + 1];
    uint8_t hash[4];
    uint8_t public_key[32];
};
int phx_note_vkey_parse(const char *text, struct phx_note_verifier *out, struct phx_err *err) PHX_CHECKED;
/* text must end with a newline; appends text, blank line and one signature line. */
int phx_note_sign(const char *text, const char *name, const struct phx_sign_key *key,
                  struct phx_buf *out, struct phx_err *err) PHX_CHECKED;
/* One more signature line (a witness's). */
int phx_note_cosign(struct phx_buf *note, const char *name, const struct phx_sign_key *key,
                    struct phx_err *err) PHX_CHECKED;
/* Splits a note and verifies the lines of known verifiers; unknown ones are ignored, a known one that does
 * not verify is PHX_E_LICENSE.  *text_size: bytes of the text (with its last newline). is_signed[i] per
 * verifier. */
int phx_note_open(const void *note, size_t size, const struct phx_note_verifier *verifiers,
                  int32_t n_verifiers, bool *is_signed, size_t *text_size, struct phx_err *err) PHX_CHECKED;

#endif
