/* SPDX-License-Identifier: Apache-2.0
 * Signed notes (https://c2sp.org/signed-note): text, a blank line, signature lines. */
#include <string.h>

#include "daemon/sign/base64.h"
#include "daemon/sign/sign.h"
#include "rpc/base/hash.h"
#include "rpc/base/hex.h"
#include "rpc/base/utf8.h"

enum { ALGORITHM_ED25519 = 0x01, HASH_BYTES = 4, SIGNED_BYTES = HASH_BYTES + 64 };

static const char DASH[] = "\xe2\x80\x94 "; /* an em dash and a blank begin a signature line */

static void hash_of(const char *name, const uint8_t public_key[32], uint8_t hash[HASH_BYTES])
{
    struct phx_sha256 h;
    uint8_t           digest[PHX_SHA256_BYTES];
    const uint8_t     rest[2] = {'\n', ALGORITHM_ED25519};

    phx_sha256_init(&h);
    phx_sha256_update(&h, name, strlen(name));
    phx_sha256_update(&h, rest, sizeof(rest));
    phx_sha256_update(&h, public_key, 32);
    phx_sha256_final(&h, digest);
    memcpy(hash, digest, HASH_BYTES);
}

/* ---- keys ------------------------------------------------------------------------------------------------ */

static bool is_name(const char *name, size_t size)
{
    if (size == 0 || size > PHX_NOTE_NAME_MAX)
        return false;
    for (size_t i = 0; i < size; i++)
        if ((unsigned char)name[i] <= ' ' || name[i] == '+' || name[i] == 0x7f)
            return false;
    return true;
}

void phx_note_vkey(const char *name, const uint8_t public_key[32], struct phx_buf *out)
{
    uint8_t hash[HASH_BYTES], key[33] = {ALGORITHM_ED25519};
    char    hex[2 * HASH_BYTES + 1];

    hash_of(name, public_key, hash);
    memcpy(key + 1, public_key, 32);
    phx_hex_encode(hex, sizeof(hex), hash, sizeof(hash));
    phx_buf_printf(out, "%s+%s+", name, hex);
    phx_base64_put(out, key, sizeof(key));
}

int phx_note_vkey_parse(const char *text, struct phx_note_verifier *out, struct phx_err *err)
{
    const char    *plus = strchr(text, '+');
    size_t         n = plus != NULL ? (size_t)(plus - text) : 0;
    struct phx_buf key;
    char           hex[2 * HASH_BYTES + 1];
    uint8_t        hash[HASH_BYTES];
    bool           is_good;

    memset(out, 0, sizeof(*out));
    if (plus == NULL || !is_name(text, n) || strlen(plus) < 2 + 2 * HASH_BYTES || plus[1 + 2 * HASH_BYTES] != '+')
        return phx_fail(err, PHX_E_FORMAT, "verifier key: must be NAME+HASH+KEY");
    memcpy(hex, plus + 1, 2 * HASH_BYTES);
    hex[2 * HASH_BYTES] = '\0';
    memcpy(out->name, text, n);
    phx_buf_init(&key, 64);
    is_good = phx_hex_decode(out->hash, HASH_BYTES, hex, NULL) == 0 &&
              phx_base64_get(plus + 2 + 2 * HASH_BYTES, strlen(plus + 2 + 2 * HASH_BYTES), &key) &&
              key.size == 33 && key.data[0] == ALGORITHM_ED25519;
    if (is_good) {
        memcpy(out->public_key, key.data + 1, 32);
        hash_of(out->name, out->public_key, hash);
        is_good = memcmp(hash, out->hash, HASH_BYTES) == 0;
    }
    phx_buf_fini(&key);
    return is_good ? 0 : phx_fail(err, PHX_E_FORMAT, "verifier key '%.80s': not an Ed25519 key with its hash",
                                  out->name);
}

/* ---- signing ------------------------------------------------------------------------------------------------ */

static int check_text(const char *text, size_t size, struct phx_err *err)
{
    if (size == 0 || text[size - 1] != '\n' || size > PHX_NOTE_MAX_BYTES / 2)
        return phx_fail(err, PHX_E_FORMAT, "note: the text must end with a newline and have at most %d bytes",
                        PHX_NOTE_MAX_BYTES / 2);
    for (size_t i = 0; i < size; i++)
        if ((unsigned char)text[i] < 0x20 && text[i] != '\n')
            return phx_fail(err, PHX_E_FORMAT, "note: a control character at byte %zu", i);
    return phx_utf8_is_valid(text, size) ? 0 : phx_fail(err, PHX_E_FORMAT, "note: not UTF-8");
}

static void put_signature(const char *text, size_t size, const char *name, const struct phx_sign_key *key,
                          struct phx_buf *out)
{
    uint8_t both[SIGNED_BYTES];

    hash_of(name, key->public_key, both);
    phx_sign_bytes(key, text, size, both + HASH_BYTES);
    phx_buf_printf(out, "%s%s ", DASH, name);
    phx_base64_put(out, both, sizeof(both));
    phx_buf_putc(out, '\n');
}

int phx_note_sign(const char *text, const char *name, const struct phx_sign_key *key, struct phx_buf *out,
                  struct phx_err *err)
{
    int rc = check_text(text, strlen(text), err);

    if (rc == 0 && !is_name(name, strlen(name)))
        rc = phx_fail(err, PHX_E_INVALID, "note: '%.80s' cannot be a key name", name);
    if (rc != 0)
        return rc;
    phx_buf_puts(out, text);
    phx_buf_putc(out, '\n');
    put_signature(text, strlen(text), name, key, out);
    return 0;
}

/* Where the text ends: before the last blank line. */
static bool find_end(const char *note, size_t size, size_t *text_size)
{
    for (size_t i = size; i-- > 1;)
        if (note[i] == '\n' && note[i - 1] == '\n') {
            *text_size = i;
            return true;
        }
    return false;
}

int phx_note_cosign(struct phx_buf *note, const char *name, const struct phx_sign_key *key,
                    struct phx_err *err)
{
    size_t text_size = 0;

    if (!find_end(note->data, note->size, &text_size))
        return phx_fail(err, PHX_E_FORMAT, "note: no signatures");
    if (!is_name(name, strlen(name)))
        return phx_fail(err, PHX_E_INVALID, "note: '%.80s' cannot be a key name", name);
    put_signature(note->data, text_size, name, key, note);
    return 0;
}

/* ---- opening ------------------------------------------------------------------------------------------------ */

struct line {
    const char    *name;
    size_t         name_size;
    struct phx_buf bytes; /* hash and signature */
};

static int read_line(const char *p, size_t size, struct line *l, struct phx_err *err)
{
    const char *blank;

    phx_buf_init(&l->bytes, PHX_NOTE_MAX_BYTES);
    if (size < sizeof(DASH) || memcmp(p, DASH, sizeof(DASH) - 1) != 0)
        return phx_fail(err, PHX_E_FORMAT, "note: a signature line must begin with an em dash");
    p += sizeof(DASH) - 1;
    size -= sizeof(DASH) - 1;
    blank = memchr(p, ' ', size);
    l->name = p;
    l->name_size = blank != NULL ? (size_t)(blank - p) : 0;
    if (!is_name(l->name, l->name_size) ||
        !phx_base64_get(blank + 1, size - l->name_size - 1, &l->bytes) || l->bytes.size <= HASH_BYTES)
        return phx_fail(err, PHX_E_FORMAT, "note: a signature line must be NAME and base64");
    return 0;
}

static int match_line(const struct line *l, const char *text, size_t text_size,
                      const struct phx_note_verifier *v, bool *is_signed, struct phx_err *err)
{
    if (strlen(v->name) != l->name_size || memcmp(v->name, l->name, l->name_size) != 0 ||
        memcmp(v->hash, l->bytes.data, HASH_BYTES) != 0)
        return 0;
    if (l->bytes.size != SIGNED_BYTES ||
        !phx_sign_verify(v->public_key, text, text_size, (const uint8_t *)l->bytes.data + HASH_BYTES))
        return phx_fail(err, PHX_E_LICENSE, "note: the signature of '%.80s' does not verify", v->name);
    *is_signed = true;
    return 0;
}

int phx_note_open(const void *note, size_t size, const struct phx_note_verifier *verifiers,
                  int32_t n_verifiers, bool *is_signed, size_t *text_size, struct phx_err *err)
{
    const char *text = note, *p, *end = text + size;
    int         rc, n_lines = 0;

    for (int32_t i = 0; i < n_verifiers; i++)
        is_signed[i] = false;
    if (size == 0 || size > PHX_NOTE_MAX_BYTES || text[size - 1] != '\n' || !find_end(text, size, text_size))
        return phx_fail(err, PHX_E_FORMAT, "note: must be text, a blank line and signatures, at most %d bytes",
                        PHX_NOTE_MAX_BYTES);
    rc = check_text(text, *text_size, err);
    for (p = text + *text_size + 1; p < end && rc == 0;) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        struct line l = {0};

        rc = ++n_lines > PHX_NOTE_SIGNATURES_MAX
                 ? phx_fail(err, PHX_E_TOOBIG, "note: more than %d signatures", PHX_NOTE_SIGNATURES_MAX)
                 : read_line(p, (size_t)(newline - p), &l, err);
        for (int32_t i = 0; i < n_verifiers && rc == 0; i++)
            rc = match_line(&l, text, *text_size, &verifiers[i], &is_signed[i], err);
        phx_buf_fini(&l.bytes);
        p = newline + 1;
    }
    if (rc == 0 && n_lines == 0)
        rc = phx_fail(err, PHX_E_FORMAT, "note: no signatures");
    return rc;
}
