/* SPDX-License-Identifier: Apache-2.0 */
#include "vault_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rpc/base/id.h"

void world_make(struct world *w)
{
    memset(w, 0, sizeof(*w));
    scratch_make(&w->s);
    phx_id_random(w->key, sizeof(w->key));
    assert_int_equal(phx_store_open(w->s.db, NULL, &w->store, &w->err), 0);
}

void world_remove(struct world *w)
{
    phx_store_close(w->store);
    scratch_remove(&w->s);
}

/* One job with whatever a call needs. */
struct call {
    struct world            *w;
    struct kept             *kept;
    struct phx_content_text *text;
    const char              *a, *b, *c;
    char                    *hex;
    int64_t                  at_ns;
    int                      max, result;
};

static int run(struct world *w, phx_store_fn fn, struct call *call)
{
    call->w = w;
    memset(&w->err, 0, sizeof(w->err));
    return phx_store_run(w->store, fn, call, &w->err);
}

static struct phx_content content_of(const struct kept *k, const uint8_t *salt)
{
    return (struct phx_content){
        .receipt = k->receipt,
        .tenant = k->tenant,
        .user = k->user,
        .mode = k->mode,
        .at_ns = k->at_ns,
        .keep_until_ns = k->at_ns + (k->days != 0 ? k->days : PHX_RETENTION_FLOOR_DAYS) * DAY,
        .salt = salt,
        .request = k->request,
        .request_size = k->request != NULL ? strlen(k->request) : 0,
        .response = k->response,
        .response_size = k->response != NULL ? strlen(k->response) : 0,
    };
}

static int do_request(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct call       *c = ctx;
    uint8_t            salt[32];
    struct phx_content content = content_of(c->kept, salt);

    memset(salt, 's', sizeof(salt));
    return phx_content_put_request(tx, c->w->key, &content, c->kept->request_sha256, err);
}

static int do_response(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct call       *c = ctx;
    struct phx_content content = content_of(c->kept, NULL);

    return phx_content_put_response(tx, c->w->key, &content, c->kept->response_sha256, err);
}

int put_request(struct world *w, struct kept *k)
{
    struct call c = {.kept = k};

    return run(w, do_request, &c);
}

int put_response(struct world *w, struct kept *k)
{
    struct call c = {.kept = k};

    return run(w, do_response, &c);
}

int put(struct world *w, struct kept *k)
{
    int rc = put_request(w, k);

    return rc == 0 && k->response != NULL ? put_response(w, k) : rc;
}

static int do_read(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct call *c = ctx;

    return phx_content_read(tx, c->w->key, c->a, "alice", "case 7", NOV, c->text, err);
}

int get(struct world *w, const char *receipt, struct phx_content_text *out)
{
    struct call c = {.a = receipt, .text = out};

    return run(w, do_read, &c);
}

static int do_shred(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct call *c = ctx;

    return c->b == NULL ? phx_content_shred(tx, c->a, "alice", c->at_ns, err)
                        : phx_content_shred_month(tx, c->a, c->b, "alice", c->at_ns, err);
}

int shred(struct world *w, const char *receipt, int64_t at_ns)
{
    struct call c = {.a = receipt, .at_ns = at_ns};

    return run(w, do_shred, &c);
}

int shred_month(struct world *w, const char *tenant, const char *period, int64_t at_ns)
{
    struct call c = {.a = tenant, .b = period, .at_ns = at_ns};

    return run(w, do_shred, &c);
}

static int do_sweep(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct call *c = ctx;

    c->result = phx_content_sweep(tx, NOV, c->max, err);
    return c->result < 0 ? c->result : 0;
}

int sweep(struct world *w, int max)
{
    struct call c = {.max = max};
    int         rc = run(w, do_sweep, &c);

    return rc == 0 ? c.result : rc;
}

static int do_expire(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct call *c = ctx;

    c->result = phx_content_expire(tx, c->at_ns, c->max, err);
    return c->result < 0 ? c->result : 0;
}

int expire(struct world *w, int64_t now_ns, int max)
{
    struct call c = {.at_ns = now_ns, .max = max};
    int         rc = run(w, do_expire, &c);

    return rc == 0 ? c.result : rc;
}

static int do_hold(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct call *c = ctx;

    return c->b != NULL ? phx_hold_open(tx, c->a, c->b, c->c, "case 7", "bob", NOV, err)
                        : phx_hold_close(tx, c->a, "bob", NOV + DAY, err);
}

int hold(struct world *w, const char *name, const char *tenant, const char *user)
{
    struct call c = {.a = name, .b = tenant, .c = user};

    return run(w, do_hold, &c);
}

int unhold(struct world *w, const char *name)
{
    struct call c = {.a = name};

    return run(w, do_hold, &c);
}

static int do_pseudonym(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct call *c = ctx;

    return phx_content_pseudonym(tx, c->w->key, c->a, c->b, c->at_ns, c->hex, err);
}

int pseudonym(struct world *w, const char *tenant, const char *subject, int64_t at_ns, char hex[65])
{
    struct call c = {.a = tenant, .b = subject, .at_ns = at_ns, .hex = hex};

    return run(w, do_pseudonym, &c);
}

static int do_key(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct call *c = ctx;

    return c->max == 0 ? phx_content_key_check(tx, c->w->key, err)
                       : phx_content_key_lost(tx, c->w->key, "alice and bob", "the disk died", NOV, err);
}

int key_check(struct world *w)
{
    struct call c = {0};

    return run(w, do_key, &c);
}

int key_lost(struct world *w)
{
    struct call c = {.max = 1};

    return run(w, do_key, &c);
}

void assert_reads(struct world *w, const char *receipt, const char *request, const char *response)
{
    struct phx_content_text t;

    assert_int_equal(get(w, receipt, &t), 0);
    assert_true(t.has_text);
    assert_int_equal(t.request.size, strlen(request));
    assert_memory_equal(t.request.data, request, strlen(request));
    assert_int_equal(t.response.size, strlen(response));
    if (response[0] != '\0')
        assert_memory_equal(t.response.data, response, strlen(response));
    for (int i = 0; i < 32; i++)
        assert_int_equal(t.salt[i], 's');
    phx_content_text_fini(&t);
}

int64_t leaves(struct world *w, const char *kind, const char *text)
{
    char sql[256];

    (void)snprintf(sql, sizeof(sql), "SELECT count(*) FROM audit WHERE kind = '%s' AND instr(record, '%s')",
                   kind, text);
    return scratch_int(&w->s, sql);
}

size_t count_in_files(struct world *w, const char *text)
{
    static const char *const ends[] = {"", "-wal", "-shm"};
    size_t                   n = 0;

    for (int i = 0; i < 3; i++) {
        char           path[128];
        struct phx_buf b;

        (void)snprintf(path, sizeof(path), "%s%s", w->s.db, ends[i]);
        if (phx_buf_read_file(&b, path, 1 << 28, NULL) != 0)
            continue;
        for (char *at = b.data; (at = memmem(at, b.size - (size_t)(at - b.data), text, strlen(text))); at++)
            n++;
        phx_buf_fini(&b);
    }
    return n;
}
