/* SPDX-License-Identifier: Apache-2.0
 * The tree against a naive recursion of RFC 6962 and against the published test tree; files and checkpoints. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/tlog/tlog.h"
#include "rpc/base/hash.h"
#include "rpc/base/hex.h"
#include "rpc/base/mem.h"

enum { SIZE_MAX_TESTED = 130 };

static struct phx_tlog_hash leaves[SIZE_MAX_TESTED];

/* ---- RFC 6962 as it is written ------------------------------------------------------------------------- */

static uint64_t split(uint64_t n)
{
    uint64_t k = 1;

    while (k * 2 < n)
        k *= 2;
    return k;
}

static struct phx_tlog_hash naive_root(uint64_t from, uint64_t n)
{
    struct phx_tlog_hash left, right, out;

    if (n == 0) {
        phx_sha256("", 0, out.bytes);
        return out;
    }
    if (n == 1)
        return leaves[from];
    left = naive_root(from, split(n));
    right = naive_root(from + split(n), n - split(n));
    phx_tlog_node(&left, &right, &out);
    return out;
}

static int naive_path(uint64_t index, uint64_t from, uint64_t n, struct phx_tlog_hash *out)
{
    uint64_t k = n > 1 ? split(n) : 0;
    int      count;

    if (n <= 1)
        return 0;
    if (index < k) {
        count = naive_path(index, from, k, out);
        out[count] = naive_root(from + k, n - k);
    } else {
        count = naive_path(index - k, from + k, n - k, out);
        out[count] = naive_root(from, k);
    }
    return count + 1;
}

static int naive_proof(uint64_t m, uint64_t from, uint64_t n, bool is_whole, struct phx_tlog_hash *out)
{
    uint64_t k = n > 1 ? split(n) : 0;
    int      count;

    if (m == n) {
        if (is_whole)
            return 0;
        out[0] = naive_root(from, n);
        return 1;
    }
    if (m <= k) {
        count = naive_proof(m, from, k, is_whole, out);
        out[count] = naive_root(from + k, n - k);
    } else {
        count = naive_proof(m - k, from + k, n - k, false, out);
        out[count] = naive_root(from, k);
    }
    return count + 1;
}

/* ---- the tree ---------------------------------------------------------------------------------------------- */

static int read_subtree(void *ctx, int level, uint64_t index, struct phx_tlog_hash *out, struct phx_err *err)
{
    (void)ctx;
    (void)err;
    *out = naive_root(index << level, UINT64_C(1) << level);
    return 0;
}

static int make_leaves(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < SIZE_MAX_TESTED; i++)
        phx_tlog_leaf(&i, sizeof(i), &leaves[i]);
    return 0;
}

static void assert_hash(const struct phx_tlog_hash *a, const char *hex)
{
    char text[65];

    phx_hex_encode(text, sizeof(text), a->bytes, sizeof(a->bytes));
    assert_string_equal(text, hex);
}

/* The test tree of the certificate transparency project. */
static void the_published_tree_has_its_roots(void **state)
{
    static const struct {
        const char *hex;
        const char *root;
    } entries[] = {
        {"", "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"},
        {"00", "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"},
        {"10", "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"},
        {"2021", "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"},
        {"3031", "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4"},
        {"40414243", "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef"},
        {"5051525354555657", "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"},
        {"606162636465666768696a6b6c6d6e6f", "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"},
    };
    struct phx_tlog_frontier f;
    struct phx_tlog_hash     leaf, root;
    uint8_t                  bytes[16];

    (void)state;
    phx_tlog_frontier_init(&f);
    phx_tlog_frontier_root(&f, &root);
    assert_hash(&root, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
        size_t n = strlen(entries[i].hex) / 2;

        assert_int_equal(phx_hex_decode(bytes, n, entries[i].hex, NULL), 0);
        phx_tlog_leaf(bytes, n, &leaf);
        phx_tlog_frontier_push(&f, &leaf);
        phx_tlog_frontier_root(&f, &root);
        assert_hash(&root, entries[i].root);
    }
}

static void every_size_agrees_with_the_recursion(void **state)
{
    struct phx_tlog_frontier f;
    struct phx_err           err = {0};

    (void)state;
    phx_tlog_frontier_init(&f);
    for (uint64_t n = 0; n <= SIZE_MAX_TESTED; n++) {
        struct phx_tlog_hash want = naive_root(0, n), root;

        phx_tlog_frontier_root(&f, &root);
        assert_memory_equal(&root, &want, sizeof(want));
        assert_int_equal(phx_tlog_root(n, read_subtree, NULL, &root, &err), 0);
        assert_memory_equal(&root, &want, sizeof(want));
        if (n < SIZE_MAX_TESTED)
            phx_tlog_frontier_push(&f, &leaves[n]);
    }
}

static void inclusion_proofs_are_the_one_right_list(void **state)
{
    struct phx_tlog_hash proof[PHX_TLOG_PROOF_MAX + 1], want[PHX_TLOG_PROOF_MAX], root;
    struct phx_err       err = {0};

    (void)state;
    for (uint64_t n = 1; n <= 40; n++) {
        root = naive_root(0, n);
        for (uint64_t i = 0; i < n; i++) {
            int count = phx_tlog_prove_inclusion(i, n, read_subtree, NULL, proof, &err);

            assert_int_equal(count, naive_path(i, 0, n, want));
            assert_memory_equal(proof, want, (size_t)count * sizeof(*want));
            assert_true(phx_tlog_check_inclusion(i, n, &leaves[i], proof, count, &root));
            assert_false(phx_tlog_check_inclusion(i, n, &leaves[(i + 1) % SIZE_MAX_TESTED], proof, count, &root));
            assert_false(phx_tlog_check_inclusion(i, n, &leaves[i], proof, count - 1, &root));
            proof[count] = root;
            assert_false(phx_tlog_check_inclusion(i, n, &leaves[i], proof, count + 1, &root));
            assert_false(phx_tlog_check_inclusion(i + n, n, &leaves[i], proof, count, &root));
            for (int h = 0; h < count; h++) {
                proof[h].bytes[h % 32] ^= 1;
                assert_false(phx_tlog_check_inclusion(i, n, &leaves[i], proof, count, &root));
                proof[h].bytes[h % 32] ^= 1;
            }
        }
        assert_int_equal(phx_tlog_prove_inclusion(n, n, read_subtree, NULL, proof, &err), PHX_E_INVALID);
    }
}

static void consistency_proofs_are_the_one_right_list(void **state)
{
    struct phx_tlog_hash proof[PHX_TLOG_PROOF_MAX + 1], want[PHX_TLOG_PROOF_MAX], root, old;
    struct phx_err       err = {0};

    (void)state;
    for (uint64_t n = 1; n <= 40; n++)
        for (uint64_t m = 1; m <= n; m++) {
            int count = phx_tlog_prove_consistency(m, n, read_subtree, NULL, proof, &err);

            root = naive_root(0, n);
            old = naive_root(0, m);
            assert_int_equal(count, naive_proof(m, 0, n, true, want));
            assert_memory_equal(proof, want, (size_t)count * sizeof(*want));
            assert_true(phx_tlog_check_consistency(m, n, &old, &root, proof, count));
            proof[count] = root;
            assert_false(phx_tlog_check_consistency(m, n, &old, &root, proof, count + 1));
            old.bytes[0] ^= 1;
            assert_false(phx_tlog_check_consistency(m, n, &old, &root, proof, count));
            old.bytes[0] ^= 1;
            for (int h = 0; h < count; h++) {
                proof[h].bytes[31] ^= 0x80;
                assert_false(phx_tlog_check_consistency(m, n, &old, &root, proof, count));
                proof[h].bytes[31] ^= 0x80;
            }
            assert_false(phx_tlog_check_consistency(n + 1, n, &old, &root, proof, count));
        }
}

/* ---- files ---------------------------------------------------------------------------------------------------- */

static void paths_are_those_of_the_specification(void **state)
{
    char path[PHX_TLOG_PATH_BYTES];

    (void)state;
    phx_tlog_tile_path(0, 0, 256, path);
    assert_string_equal(path, "tile/0/000");
    phx_tlog_tile_path(0, 1234067, 256, path);
    assert_string_equal(path, "tile/0/x001/x234/067");
    phx_tlog_tile_path(2, 273, 112, path);
    assert_string_equal(path, "tile/2/273.p/112");
    phx_tlog_entries_path(70000, 17, path);
    assert_string_equal(path, "tile/entries/x070/000.p/17");
    phx_tlog_entries_path(UINT64_MAX >> 8, 256, path);
    assert_string_equal(path, "tile/entries/x072/x057/x594/x037/x927/935");
}

static int note_size(void *ctx, int i, const void *entry, size_t size)
{
    (void)entry;
    ((size_t *)ctx)[i] = size;
    return 0;
}

static void bundles_hold_exactly_their_entries(void **state)
{
    static char    large[PHX_TLOG_ENTRY_MAX_BYTES + 1];
    struct phx_buf b;
    struct phx_err err = {0};
    size_t         sizes[4] = {0};

    (void)state;
    phx_buf_init(&b, 0);
    assert_int_equal(phx_tlog_entry_put(&b, "", 0, &err), 0);
    assert_int_equal(phx_tlog_entry_put(&b, "abc", 3, &err), 0);
    assert_int_equal(phx_tlog_entry_put(&b, large, PHX_TLOG_ENTRY_MAX_BYTES, &err), 0);
    assert_int_equal(phx_tlog_entry_put(&b, large, sizeof(large), &err), PHX_E_TOOBIG);
    assert_int_equal(phx_tlog_entries_walk(b.data, b.size, 3, note_size, sizes, &err), 0);
    assert_int_equal(sizes[1], 3);
    assert_int_equal(sizes[2], PHX_TLOG_ENTRY_MAX_BYTES);
    assert_int_equal(phx_tlog_entries_walk(b.data, b.size, 2, note_size, sizes, &err), PHX_E_FORMAT);
    assert_int_equal(phx_tlog_entries_walk(b.data, b.size, 4, note_size, sizes, &err), PHX_E_FORMAT);
    assert_int_equal(phx_tlog_entries_walk(b.data, b.size - 1, 3, note_size, sizes, &err), PHX_E_FORMAT);
    phx_buf_fini(&b);
}

static void checkpoints_are_read_strictly(void **state)
{
    static const char good[] = "example.com/log\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
    static const char *const bad[] = {
        "",
        "example.com/log\n",
        "\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        "example.com/log\n020852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        "example.com/log\n-1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        "example.com/log\n99999999999999999999\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        "example.com/log\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2J=\n", /* not canonical */
        "example.com/log\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I\n",
        "example.com/log\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=",
        "example.com/log\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n",
        "example.com/log\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\nepoch 1",
    };
    struct phx_checkpoint c;
    struct phx_buf        again;
    struct phx_err        err = {0};

    (void)state;
    assert_int_equal(phx_checkpoint_parse(good, strlen(good), &c, &err), 0);
    assert_string_equal(c.origin, "example.com/log");
    assert_int_equal(c.size, 20852163);
    phx_buf_init(&again, 0);
    phx_checkpoint_format(&c, &again);
    assert_string_equal(again.data, good);
    phx_buf_puts(&again, "epoch 1\n");
    assert_int_equal(phx_checkpoint_parse(again.data, again.size, &c, &err), 0);
    phx_buf_fini(&again);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(phx_checkpoint_parse(bad[i], strlen(bad[i]), &c, &err), PHX_E_FORMAT);
    assert_int_equal(phx_checkpoint_parse(good, sizeof(good), &c, &err), PHX_E_FORMAT); /* a NUL behind it */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_published_tree_has_its_roots),
        cmocka_unit_test(every_size_agrees_with_the_recursion),
        cmocka_unit_test(inclusion_proofs_are_the_one_right_list),
        cmocka_unit_test(consistency_proofs_are_the_one_right_list),
        cmocka_unit_test(paths_are_those_of_the_specification),
        cmocka_unit_test(bundles_hold_exactly_their_entries),
        cmocka_unit_test(checkpoints_are_read_strictly),
    };

    return cmocka_run_group_tests(tests, make_leaves, NULL);
}
