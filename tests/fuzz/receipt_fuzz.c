/* SPDX-License-Identifier: Apache-2.0
 * A receipt from anybody.  Trust is in the key of tests/audit/make_log.py, whose receipts are the corpus: what
 * is accepted must be a record in the one canonical spelling.  The record alone goes through the scanner, too. */
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "daemon/verify/verify.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void init_trust(struct phx_trust *trust)
{
    static const unsigned char name[] = "test/1"; /* the seed of epoch 1 there is SHA-256("test/1") */
    uint8_t                    seed[crypto_hash_sha256_BYTES];
    struct phx_sign_key        key;
    struct phx_err             err;
    char                       hex[65], text[256];
    int                        n;

    phx_assert(phx_sign_init(&err) == 0);
    (void)crypto_hash_sha256(seed, name, sizeof(name) - 1);
    phx_sign_key_from_seed(seed, &key);
    n = snprintf(text, sizeof(text), "{\"keys\":[{\"epoch\":1,\"public_key\":\"%s\"}],"
                 "\"origin\":\"phalanx/test-cluster\",\"v\":1}",
                 sodium_bin2hex(hex, sizeof(hex), key.public_key, sizeof(key.public_key)));
    phx_assert(phx_trust_parse(trust, "trust", text, (size_t)n, PHX_E_INVALID, &err) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct phx_trust trust;
    struct phx_report       report;
    struct phx_fields       f;
    struct phx_err          err;

    if (trust.keys == NULL)
        init_trust(&trust);
    phx_report_init(&report, "fuzz");
    if (phx_check_receipt(data, size, &trust, &report, &err) == 0) {
        const char *record = json_string_value(json_object_get(report.facts, "record"));

        phx_assert(record != NULL && phx_record_scan(record, strlen(record), &f, &err) == 0);
    }
    phx_report_fini(&report);
    if (phx_record_scan((const char *)data, size, &f, &err) == 0)
        (void)(phx_record_check(&f, &err) == 0);
    return 0;
}
