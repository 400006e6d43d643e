/* SPDX-License-Identifier: Apache-2.0
 * RFC 6962, sections 2.1 to 2.1.2.  Every range whose hash is needed begins at a multiple of a power of
 * two that is at least its length; so it is a row of complete subtrees, one per bit set in the length,
 * the largest first, and a proof costs O(log n) reads for each of its O(log n) hashes. */
#include <string.h>

#include "daemon/tlog/tlog.h"

struct tree {
    phx_tlog_read_fn read;
    void            *ctx;
};

/* The largest power of two below n (n >= 2). */
static uint64_t split_at(uint64_t n)
{
    return UINT64_C(1) << (63 - __builtin_clzll(n - 1));
}

static int check_size(uint64_t size, struct phx_err *err)
{
    if (size > INT64_MAX)
        return phx_fail(err, PHX_E_INVALID, "tree size: over 2^63 - 1 leaves");
    return 0;
}

static int hash_range(const struct tree *t, uint64_t start, uint64_t n, struct phx_tlog_hash *out,
                      struct phx_err *err)
{
    struct phx_tlog_hash hash, left;
    bool                 is_first = true;

    phx_assert(n > 0);
    memset(&hash, 0, sizeof(hash));
    for (uint64_t rest = n; rest != 0; rest &= rest - 1) { /* the smallest subtree first, from the right */
        int      level = __builtin_ctzll(rest);
        uint64_t at = start + (rest & (rest - 1));
        int      rc = t->read(t->ctx, level, at >> level, &left, err);

        if (rc < 0)
            return rc;
        if (is_first)
            hash = left;
        else
            phx_tlog_node(&left, &hash, &hash);
        is_first = false;
    }
    *out = hash;
    return 0;
}

int phx_tlog_root(uint64_t size, phx_tlog_read_fn read, void *ctx, struct phx_tlog_hash *out,
                  struct phx_err *err)
{
    struct tree t = {read, ctx};
    int         rc = check_size(size, err);

    if (rc != 0)
        return rc;
    if (size == 0) {
        phx_tlog_empty(out);
        return 0;
    }
    return hash_range(&t, 0, size, out, err);
}

static void reverse(struct phx_tlog_hash *list, int n)
{
    for (int i = 0; i < n / 2; i++) {
        struct phx_tlog_hash swap = list[i];

        list[i] = list[n - 1 - i];
        list[n - 1 - i] = swap;
    }
}

int phx_tlog_prove_inclusion(uint64_t index, uint64_t size, phx_tlog_read_fn read, void *ctx,
                             struct phx_tlog_hash out[PHX_TLOG_PROOF_MAX], struct phx_err *err)
{
    struct tree t = {read, ctx};
    uint64_t    start = 0, n = size;
    int         count = 0, rc = check_size(size, err);

    if (rc == 0 && index >= size)
        rc = phx_fail(err, PHX_E_INVALID, "leaf %llu: the tree has %llu leaves",
                      (unsigned long long)index, (unsigned long long)size);
    while (rc == 0 && n > 1) {
        uint64_t k = split_at(n);

        if (index - start < k) {
            rc = hash_range(&t, start + k, n - k, &out[count++], err);
            n = k;
        } else {
            rc = hash_range(&t, start, k, &out[count++], err);
            start += k;
            n -= k;
        }
    }
    if (rc < 0)
        return rc;
    reverse(out, count);
    return count;
}

int phx_tlog_prove_consistency(uint64_t old_size, uint64_t size, phx_tlog_read_fn read, void *ctx,
                               struct phx_tlog_hash out[PHX_TLOG_PROOF_MAX], struct phx_err *err)
{
    struct tree t = {read, ctx};
    uint64_t    start = 0, n = size, m = old_size;
    int         count = 0, rc = check_size(size, err);

    if (rc == 0 && old_size > size)
        rc = phx_fail(err, PHX_E_INVALID, "old size %llu: the tree has %llu leaves",
                      (unsigned long long)old_size, (unsigned long long)size);
    if (rc < 0 || old_size == 0)
        return rc;
    while (rc == 0 && m < n) {
        uint64_t k = split_at(n);

        if (m <= k) {
            rc = hash_range(&t, start + k, n - k, &out[count++], err);
            n = k;
        } else {
            rc = hash_range(&t, start, k, &out[count++], err);
            start += k;
            m -= k;
            n -= k;
        }
    }
    if (rc == 0 && start != 0) /* the old tree's last part is no prefix of its own: it must be told */
        rc = hash_range(&t, start, n, &out[count++], err);
    if (rc < 0)
        return rc;
    reverse(out, count);
    return count;
}

static bool is_equal(const struct phx_tlog_hash *a, const struct phx_tlog_hash *b)
{
    return memcmp(a->bytes, b->bytes, PHX_TLOG_HASH_BYTES) == 0;
}

/* RFC 9162, 2.1.3.2: `node` and `last` are the positions, level by level, of the hash being built and of
 * the last one of its row. */
bool phx_tlog_check_inclusion(uint64_t index, uint64_t size, const struct phx_tlog_hash *leaf,
                              const struct phx_tlog_hash *proof, int n, const struct phx_tlog_hash *root)
{
    struct phx_tlog_hash hash = *leaf;
    uint64_t             node = index, last = size - 1;

    if (index >= size || n < 0 || n > PHX_TLOG_PROOF_MAX)
        return false;
    for (int i = 0; i < n; i++) {
        if (last == 0)
            return false;
        if ((node & 1) != 0 || node == last) {
            phx_tlog_node(&proof[i], &hash, &hash);
            for (; (node & 1) == 0 && node != 0; node >>= 1)
                last >>= 1;
        } else {
            phx_tlog_node(&hash, &proof[i], &hash);
        }
        node >>= 1;
        last >>= 1;
    }
    return last == 0 && is_equal(&hash, root);
}

/* RFC 9162, 2.1.4.2, after its easy cases: 0 < old_size < size and first is where both trees meet. */
static bool check_growth(uint64_t old_size, uint64_t size, const struct phx_tlog_hash *old_root,
                         const struct phx_tlog_hash *root, const struct phx_tlog_hash *first,
                         const struct phx_tlog_hash *proof, int n)
{
    struct phx_tlog_hash before = *first, after = *first;
    uint64_t             node = old_size - 1, last = size - 1;

    for (; (node & 1) != 0; node >>= 1)
        last >>= 1;
    for (int i = 0; i < n; i++) {
        if (last == 0)
            return false;
        if ((node & 1) != 0 || node == last) {
            phx_tlog_node(&proof[i], &before, &before);
            phx_tlog_node(&proof[i], &after, &after);
            for (; (node & 1) == 0 && node != 0; node >>= 1)
                last >>= 1;
        } else {
            phx_tlog_node(&after, &proof[i], &after);
        }
        node >>= 1;
        last >>= 1;
    }
    return last == 0 && is_equal(&before, old_root) && is_equal(&after, root);
}

bool phx_tlog_check_consistency(uint64_t old_size, uint64_t size, const struct phx_tlog_hash *old_root,
                                const struct phx_tlog_hash *root, const struct phx_tlog_hash *proof, int n)
{
    struct phx_tlog_hash empty;

    if (old_size > size || n < 0 || n > PHX_TLOG_PROOF_MAX)
        return false;
    if (old_size == 0) {
        phx_tlog_empty(&empty);
        return n == 0 && is_equal(old_root, &empty) && (size != 0 || is_equal(root, &empty));
    }
    if (old_size == size)
        return n == 0 && is_equal(old_root, root);
    if ((old_size & (old_size - 1)) == 0) /* a complete subtree of the new one: its root starts the walk */
        return check_growth(old_size, size, old_root, root, old_root, proof, n);
    return n > 0 && check_growth(old_size, size, old_root, root, proof, proof + 1, n - 1);
}
