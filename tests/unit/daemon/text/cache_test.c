/* SPDX-License-Identifier: Apache-2.0
 * The cache of encoded texts: the same ids as without it, never across tenants, never more than its bytes. */
#include "tests/unit/daemon/text/text_util.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "rpc/base/mem.h"

enum { MESSAGES_MAX = 9, CONTENT_MAX = 400, N_THREADS = 4 };

static const char *const formats[] = {"chatml", "llama2", "llama3", "llama31", "mistral01", "mistral02"};

static struct phx_text *open_chat(const char *name)
{
    struct phx_err   err = {0};
    struct phx_text *t = NULL;
    char            *dir = phx_mem_printf(DATA "chat/%s", name);
    int              rc = phx_text_open(dir, &t, &err);

    phx_mem_free(dir);
    return rc == 0 && phx_text_has_chat(t) ? t : NULL;
}

/* Texts that would betray a cut in the wrong place: spaces at the ends, marks spelled out, halves of words. */
static void put_content(char *out, uint32_t *seed)
{
    static const char *const pieces[] = {"hello ", " world", "\n\n", "  ", "Ünïcödé", "12345", "don't", "<|im_end|>", "<|eot_id|>",
                                         "</s>", "[/INST]", "\t", "a", "the quick brown fox ", "日本語", "’s", "...", "e"};
    size_t n = 0;

    out[0] = '\0';
    for (uint32_t i = 0, k = rand_r(seed) % 40 + 1; i < k; i++) {
        const char *p = pieces[(size_t)rand_r(seed) % (sizeof(pieces) / sizeof(pieces[0]))];

        if (n + strlen(p) >= CONTENT_MAX)
            break;
        n += (size_t)sprintf(out + n, "%s", p);
    }
}

struct conversation {
    char                    content[MESSAGES_MAX][CONTENT_MAX];
    struct phx_chat_message messages[MESSAGES_MAX];
    struct phx_chat         chat;
};

static void make(struct conversation *c, uint32_t *seed)
{
    for (size_t i = 0; i < MESSAGES_MAX; i++) {
        put_content(c->content[i], seed);
        c->messages[i] = (struct phx_chat_message){.role = i % 2 == 0 ? PHX_ROLE_USER : PHX_ROLE_ASSISTANT,
                                                   .content = c->content[i]};
    }
    c->chat = (struct phx_chat){.messages = c->messages};
}

static void check_turns(const struct phx_text *t, struct phx_text_cache *cache, const char *tenant, uint32_t *seed)
{
    const struct phx_text_scope scope = {cache, tenant};
    struct conversation         c;

    make(&c, seed);
    for (c.chat.n_messages = 1; c.chat.n_messages <= MESSAGES_MAX; c.chat.n_messages += 2) {
        struct phx_err err = {0};
        struct phx_ids plain = {0}, cached = {0};

        assert_ok(phx_text_render(t, &c.chat, &plain, &err));
        assert_ok(phx_text_render_cached(t, &scope, &c.chat, &cached, &err));
        assert_ids(&cached, plain.data, plain.n);
        phx_ids_fini(&plain);
        phx_ids_fini(&cached);
    }
}

static void conversations_give_the_same_ids(void **state)
{
    int n_formats = 0;

    (void)state;
    for (size_t f = 0; f < sizeof(formats) / sizeof(formats[0]); f++) {
        struct phx_text            *t = open_chat(formats[f]);
        struct phx_text_cache      *cache = phx_text_cache_create(1 << 20);
        struct phx_text_cache_facts facts;
        uint32_t                    seed = 7;

        if (t == NULL) {
            phx_text_cache_destroy(cache);
            continue;
        }
        n_formats++;
        for (int i = 0; i < 200; i++)
            check_turns(t, cache, "acme", &seed);
        phx_text_cache_facts(cache, &facts);
        assert_true(facts.n_hits > 500); /* old turns are found again */
        assert_true(facts.bytes <= 1 << 20);
        phx_text_cache_destroy(cache);
        phx_text_close(t);
    }
    assert_true(n_formats >= 2);
}

static struct phx_text *open_any(void)
{
    struct phx_text *t = NULL;

    for (size_t f = 0; f < sizeof(formats) / sizeof(formats[0]) && t == NULL; f++)
        t = open_chat(formats[f]);
    assert_non_null(t);
    return t;
}

static void prompt(const struct phx_text *t, const struct phx_text_scope *scope, const char *text)
{
    struct phx_err err = {0};
    struct phx_ids plain = {0}, cached = {0};

    assert_ok(phx_text_prompt(t, text, strlen(text), &plain, &err));
    assert_ok(phx_text_prompt_cached(t, scope, text, strlen(text), &cached, &err));
    assert_ids(&cached, plain.data, plain.n);
    phx_ids_fini(&plain);
    phx_ids_fini(&cached);
}

static void a_tenant_never_finds_what_another_sent(void **state)
{
    static const char           text[] = "a text that is long enough to be kept by the cache: sixty-four bytes at least";
    struct phx_text            *t = open_any();
    struct phx_text_cache      *cache = phx_text_cache_create(1 << 20);
    struct phx_text_cache_facts facts;

    (void)state;
    prompt(t, &(struct phx_text_scope){cache, "acme"}, text);
    prompt(t, &(struct phx_text_scope){cache, "umbrella"}, text);
    prompt(t, &(struct phx_text_scope){cache, ""}, text);
    phx_text_cache_facts(cache, &facts);
    assert_int_equal(facts.n_hits, 0);
    prompt(t, &(struct phx_text_scope){cache, "acme"}, text);
    phx_text_cache_facts(cache, &facts);
    assert_int_equal(facts.n_hits, 1);
    assert_int_equal(facts.n_misses, 3);
    phx_text_cache_destroy(cache);
    phx_text_close(t);
}

/* A prompt begins a text, a run inside a conversation does not: their ids differ although the bytes are the same. */
static void a_run_is_not_taken_for_a_prompt(void **state)
{
    static const char *const frames[] = {"[INST] %s [/INST]", "user\n%s", "\n\n%s", " [INST] %s [/INST]"};
    static const char        content[] = "some words that are sent as a prompt first and as a message afterwards";
    char                     text[200];

    (void)state;
    for (size_t f = 0; f < sizeof(formats) / sizeof(formats[0]); f++) {
        struct phx_text            *t = open_chat(formats[f]);
        struct phx_text_cache      *cache = phx_text_cache_create(1 << 20);
        const struct phx_text_scope scope = {cache, "acme"};
        struct phx_chat_message     message = {.role = PHX_ROLE_USER, .content = content};
        struct phx_chat             chat = {.messages = &message, .n_messages = 1};
        struct phx_ids              plain = {0}, cached = {0};
        struct phx_err              err = {0};

        assert_non_null(t);
        for (size_t i = 0; i < sizeof(frames) / sizeof(frames[0]); i++) {
            (void)snprintf(text, sizeof(text), frames[i], content); /* fits */
            prompt(t, &scope, text);
        }
        assert_ok(phx_text_render(t, &chat, &plain, &err));
        assert_ok(phx_text_render_cached(t, &scope, &chat, &cached, &err));
        assert_ids(&cached, plain.data, plain.n);
        phx_ids_fini(&plain);
        phx_ids_fini(&cached);
        phx_text_cache_destroy(cache);
        phx_text_close(t);
    }
}

static void the_oldest_leave_when_it_is_full(void **state)
{
    enum { MAX_BYTES = 20000 };
    struct phx_text            *t = open_any();
    struct phx_text_cache      *cache = phx_text_cache_create(MAX_BYTES), *none = phx_text_cache_create(0);
    struct phx_text_cache_facts facts;
    char                        text[200];

    (void)state;
    for (int i = 0; i < 500; i++) {
        (void)sprintf(text, "%0100d", i);
        prompt(t, &(struct phx_text_scope){cache, "acme"}, text);
        prompt(t, &(struct phx_text_scope){none, "acme"}, text);
        phx_text_cache_facts(cache, &facts);
        assert_true(facts.bytes <= MAX_BYTES);
    }
    assert_true(facts.n_entries > 10 && facts.n_entries < 200);
    (void)sprintf(text, "%0100d", 499);
    prompt(t, &(struct phx_text_scope){cache, "acme"}, text);
    (void)sprintf(text, "%0100d", 0);
    prompt(t, &(struct phx_text_scope){cache, "acme"}, text);
    phx_text_cache_facts(cache, &facts);
    assert_int_equal(facts.n_hits, 1);
    phx_text_cache_facts(none, &facts);
    assert_int_equal(facts.n_entries, 0);
    phx_text_cache_destroy(cache);
    phx_text_cache_destroy(none);
    phx_text_close(t);
}

static void bad_text_is_refused_and_not_kept(void **state)
{
    struct phx_text            *t = open_any();
    struct phx_text_cache      *cache = phx_text_cache_create(1 << 20);
    struct phx_text_cache_facts facts;
    struct phx_ids              ids = {0};
    struct phx_err              err = {0};
    char                        text[128];

    (void)state;
    memset(text, 0xff, sizeof(text));
    for (int i = 0; i < 2; i++)
        assert_int_equal(phx_text_prompt_cached(t, &(struct phx_text_scope){cache, "acme"}, text, sizeof(text), &ids, &err),
                         PHX_E_FORMAT);
    phx_text_cache_facts(cache, &facts);
    assert_int_equal(facts.n_entries, 0);
    assert_int_equal(ids.n, 0);
    phx_ids_fini(&ids);
    phx_text_cache_destroy(cache);
    phx_text_close(t);
}

struct worker {
    struct phx_text       *text;
    struct phx_text_cache *cache;
};

static void *work(void *ctx)
{
    struct worker *w = ctx;
    uint32_t       seed = 11; /* the same texts in all threads, at the same time */

    for (int i = 0; i < 50; i++)
        check_turns(w->text, w->cache, "acme", &seed);
    return NULL;
}

static void threads_share_a_small_one(void **state)
{
    struct worker w = {open_any(), phx_text_cache_create(30000)};
    pthread_t     threads[N_THREADS];

    (void)state;
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, &w), 0);
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    phx_text_cache_destroy(w.cache);
    phx_text_close(w.text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conversations_give_the_same_ids),
        cmocka_unit_test(a_tenant_never_finds_what_another_sent),
        cmocka_unit_test(a_run_is_not_taken_for_a_prompt),
        cmocka_unit_test(the_oldest_leave_when_it_is_full),
        cmocka_unit_test(bad_text_is_refused_and_not_kept),
        cmocka_unit_test(threads_share_a_small_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
