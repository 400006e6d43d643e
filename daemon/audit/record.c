/* SPDX-License-Identifier: Apache-2.0
 * Records have one spelling, so that a verifier that parses one and writes it again gets the same bytes:
 * RFC 8785, but integers in full and no other numbers. */
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "daemon/audit/audit.h"
#include "rpc/base/hash.h"
#include "rpc/base/hex.h"
#include "rpc/base/id.h"
#include "rpc/base/utf8.h"

enum { DEPTH_MAX = sizeof(((struct phx_record *)0)->last_key) / sizeof(((struct phx_record *)0)->last_key[0]) };

void phx_receipt_make(char receipt[PHX_RECEIPT_BYTES])
{
    char hex[33];

    phx_id_hex(hex, sizeof(hex), 16);
    (void)snprintf(receipt, PHX_RECEIPT_BYTES, "rcpt_%s", hex); /* 37 characters */
}

static const char *find_shorthand(unsigned char c)
{
    switch (c) {
    case '"': return "\\\"";
    case '\\': return "\\\\";
    case '\b': return "\\b";
    case '\f': return "\\f";
    case '\n': return "\\n";
    case '\r': return "\\r";
    case '\t': return "\\t";
    default: return NULL;
    }
}

static void put_valid(struct phx_buf *b, const char *s, size_t size)
{
    size_t plain = 0;

    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)s[i];
        const char   *shorthand;

        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        shorthand = find_shorthand(c);
        phx_buf_put(b, s + plain, i - plain);
        plain = i + 1;
        if (shorthand != NULL)
            phx_buf_puts(b, shorthand);
        else
            phx_buf_printf(b, "\\u%04x", c);
    }
    phx_buf_put(b, s + plain, size - plain);
}

/* Bytes that are no UTF-8 become U+FFFD each: a record must be readable by any strict parser. */
static void put_string(struct phx_buf *b, const char *s)
{
    size_t size = strlen(s);

    phx_buf_putc(b, '"');
    while (size > 0) {
        size_t valid = phx_utf8_valid_prefix(s, size);

        put_valid(b, s, valid);
        s += valid;
        size -= valid;
        if (size > 0) {
            phx_buf_puts(b, "\xef\xbf\xbd");
            s++;
            size--;
        }
    }
    phx_buf_putc(b, '"');
}

static void put_key(struct phx_record *r, const char *key)
{
    char  *last = r->last_key[r->depth];
    size_t size = strlen(key);

    phx_assert(strcmp(last, key) < 0); /* ascending, and no key twice */
    phx_assert(size < sizeof(r->last_key[0]));
    if (last[0] != '\0')
        phx_buf_putc(&r->text, ',');
    memcpy(last, key, size + 1);
    phx_buf_putc(&r->text, '"'); /* a name in the source: nothing in it needs an escape */
    phx_buf_put(&r->text, key, size);
    phx_buf_put(&r->text, "\":", 2);
}

void phx_record_init(struct phx_record *r)
{
    memset(r, 0, sizeof(*r));
    phx_buf_init(&r->text, PHX_RECORD_MAX_BYTES);
    phx_buf_putc(&r->text, '{');
}

void phx_record_fini(struct phx_record *r)
{
    phx_buf_fini(&r->text);
}

void phx_record_str(struct phx_record *r, const char *key, const char *value)
{
    put_key(r, key);
    put_string(&r->text, value);
}

void phx_record_int(struct phx_record *r, const char *key, int64_t value)
{
    put_key(r, key);
    phx_buf_printf(&r->text, "%lld", (long long)value);
    if (r->depth == 0 && strcmp(key, "at_ns") == 0) {
        r->at_ns = value;
        r->has_at_ns = true;
    }
}

void phx_record_open(struct phx_record *r, const char *key)
{
    put_key(r, key);
    phx_assert(r->depth + 1 < DEPTH_MAX);
    r->last_key[++r->depth][0] = '\0';
    phx_buf_putc(&r->text, '{');
}

void phx_record_close(struct phx_record *r)
{
    phx_assert(r->depth > 0);
    r->depth--;
    phx_buf_putc(&r->text, '}');
}

int phx_record_end(struct phx_record *r, struct phx_err *err)
{
    phx_assert(r->depth == 0);
    phx_buf_putc(&r->text, '}');
    return phx_buf_check(&r->text, "audit record", err);
}

/* ---- commitments ----------------------------------------------------------------------------------------- */

void phx_audit_commit(const uint8_t salt[PHX_SALT_BYTES], const int32_t *ids, size_t n, char hex[65])
{
    crypto_auth_hmacsha256_state h;
    uint8_t                      digest[crypto_auth_hmacsha256_BYTES];

    (void)crypto_auth_hmacsha256_init(&h, salt, PHX_SALT_BYTES); /* these three always answer 0 */
    for (size_t i = 0; i < n; i++) {
        uint32_t      v = (uint32_t)ids[i];
        const uint8_t bytes[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16),
                                  (uint8_t)(v >> 24)};

        (void)crypto_auth_hmacsha256_update(&h, bytes, sizeof(bytes));
    }
    (void)crypto_auth_hmacsha256_final(&h, digest);
    phx_hex_encode(hex, 65, digest, sizeof(digest));
    phx_secret_wipe(&h, sizeof(h));
}

void phx_audit_commit_bytes(const uint8_t salt[PHX_SALT_BYTES], const void *data, size_t size, char hex[65])
{
    uint8_t digest[PHX_SHA256_BYTES];

    phx_hmac_sha256(salt, PHX_SALT_BYTES, data, size, digest);
    phx_hex_encode(hex, 65, digest, sizeof(digest));
}
