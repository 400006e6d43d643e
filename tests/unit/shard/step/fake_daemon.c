/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/shard/step/fake_daemon.h"

#include <dirent.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "rpc/base/buf.h"
#include "rpc/base/clock.h"

extern char **environ;

static const char TOKEN[] = "one-time-secret";

static void on_attached(void *ctx, struct phx_rpc_link *link, const struct phx_link_hello *hello,
                        const struct phx_rpc_peer *peer)
{
    const struct phx_link_settings settings = {.heartbeat_ms = 200, .lost_after_ms = 5000};
    struct fake_daemon            *d = ctx;
    struct phx_err                 err;

    (void)peer;
    if (d->is_refusing || strcmp(hello->join_token, TOKEN) != 0) {
        phx_rpc_link_close(link, PHX_E_UNAUTH, "the join token is not known");
        return;
    }
    assert_true(hello->n_ranks <= FAKE_RANKS_MAX);
    d->link = link;
    d->n_ranks = hello->n_ranks;
    d->tp_size = hello->tp_size;
    d->pp_size = hello->pp_size;
    (void)snprintf(d->replica, sizeof(d->replica), "%s", hello->replica_id);
    (void)snprintf(d->device, sizeof(d->device), "%s", hello->ranks[0].device);
    for (int32_t i = 0; i < hello->n_ranks; i++) {
        assert_int_equal(hello->ranks[i].rank, i);
        assert_int_equal(hello->ranks[i].pp * hello->tp_size + hello->ranks[i].tp, i);
        d->rank_pids[i] = hello->ranks[i].pid;
    }
    assert_int_equal(phx_rpc_link_welcome(link, &settings, &err), 0);
    d->n_attached++;
}

static void take_step(struct fake_daemon *d, const struct phx_link_step *step)
{
    d->n_steps++;
    for (int32_t i = 0; i < step->n_tokens && d->n_tokens < FAKE_TOKENS_MAX; i++)
        d->tokens[d->n_tokens++] = (struct fake_token){
            step->tokens[i].seq_id, step->tokens[i].token, step->tokens[i].index,
            step->tokens[i].error_code, step->tokens[i].finish};
}

static void on_message(void *ctx, struct phx_rpc_link *link, const struct phx_link_msg *msg)
{
    struct fake_daemon *d = ctx;

    (void)link;
    switch (msg->kind) {
    case PHX_LINK_LOADING:
        d->n_loading++;
        d->fraction = msg->u.loading.fraction;
        break;
    case PHX_LINK_READY:
        d->ready = msg->u.ready;
        assert_int_equal(msg->u.ready.n_ranks, d->n_ranks);
        memcpy(d->facts, msg->u.ready.ranks, (size_t)d->n_ranks * sizeof(*d->facts));
        d->n_ready++;
        break;
    case PHX_LINK_STEP: take_step(d, &msg->u.step); break;
    case PHX_LINK_HEARTBEAT:
        d->n_heartbeats++;
        d->is_busy = msg->u.heartbeat.is_busy;
        d->progress = msg->u.heartbeat.progress;
        break;
    case PHX_LINK_FATAL:
        (void)snprintf(d->fatal, sizeof(d->fatal), "%s", msg->u.fatal.text);
        d->n_fatal++;
        break;
    case PHX_LINK_BYE: d->n_bye++; break;
    default: fail_msg("unexpected %s", phx_link_kind_name(msg->kind));
    }
}

static void on_detached(void *ctx, struct phx_rpc_link *link, const struct phx_err *reason)
{
    struct fake_daemon *d = ctx;

    (void)link;
    (void)reason;
    d->link = NULL;
    d->n_detached++;
}

static void write_file(struct fake_daemon *d, const char *name, const char *text)
{
    char           path[128];
    struct phx_err err;

    (void)snprintf(path, sizeof(path), "%s/%s", d->folder, name);
    assert_int_equal(phx_file_write(path, text, strlen(text), 0600, &err), 0);
}

const char *fake_daemon_cuda_rank;

static void start_ranks(struct fake_daemon *d, int32_t tp, int32_t pp)
{
    char target[32], token[128], ca[128], cert[128], key[128], n[16], tps[16], pps[16];
    char *mpirun[] = {PHX_MPIRUN_PATH, "--allow-run-as-root", "--oversubscribe", "--bind-to", "none",
                      "--mca", "pml", "ob1", "--mca", "btl", "self,vader", "--mca",
                      "odls_base_sigkill_timeout", "0", "-np", n, NULL};
    char *rank[] = {PHX_BIN_DIR "/phalanx-rank", "--model", PHX_SOURCE_DIR "/deploy/demo/model", "--tp",
                    tps, "--pp", pps, "--max-seqs", "4", "--max-rows", "64",
                    "--kv-blocks", "600", "--log-level", "error", "--join", target,
                    "--join-token-file", token, "--tls-ca", ca, "--tls-cert", cert, "--tls-key", key,
                    "--replica", "r7", NULL};
    char *on_cpu[] = {"--threads", "1", NULL}, *on_cuda[] = {"--backend", "cuda", "--transport", "host", NULL};
    char **more = fake_daemon_cuda_rank != NULL ? on_cuda : on_cpu;
    char *argv[64];
    int   at = 0;

    (void)snprintf(target, sizeof(target), "127.0.0.1:%d", phx_rpc_server_port(d->server));
    (void)snprintf(token, sizeof(token), "%s/token", d->folder);
    (void)snprintf(ca, sizeof(ca), "%s/ca.crt", d->folder);
    (void)snprintf(cert, sizeof(cert), "%s/rank.crt", d->folder);
    (void)snprintf(key, sizeof(key), "%s/rank.key", d->folder);
    (void)snprintf(n, sizeof(n), "%d", tp * pp);
    (void)snprintf(tps, sizeof(tps), "%d", tp);
    (void)snprintf(pps, sizeof(pps), "%d", pp);
    for (int i = 0; tp * pp > 1 && mpirun[i] != NULL; i++)
        argv[at++] = mpirun[i];
    for (int i = 0; rank[i] != NULL; i++)
        argv[at++] = i == 0 && fake_daemon_cuda_rank != NULL ? (char *)(uintptr_t)fake_daemon_cuda_rank : rank[i];
    for (int i = 0; more[i] != NULL; i++)
        argv[at++] = more[i];
    argv[at] = NULL;
    assert_int_equal(posix_spawn(&d->pid, argv[0], NULL, NULL, argv, environ), 0);
}

void fake_daemon_start(struct fake_daemon *d, int32_t tp, int32_t pp, bool is_refusing)
{
    struct phx_rpc_server_options o = {
        .listen = "127.0.0.1:0", .ctx = d,
        .handlers = {.attached = on_attached, .message = on_message, .detached = on_detached}};
    struct phx_err err;

    memset(d, 0, sizeof(*d));
    d->is_refusing = is_refusing;
    d->ca = test_ca_create("test CA");
    test_ca_issue(d->ca, "localhost", &d->server_tls);
    test_ca_issue(d->ca, "rank", &d->rank_tls);
    o.tls = d->server_tls;
    if (phx_rpc_server_open(&d->server, &o, &err) != 0)
        fail_msg("%s", err.text);
    (void)snprintf(d->folder, sizeof(d->folder), "/tmp/phx-serve-XXXXXX");
    assert_non_null(mkdtemp(d->folder));
    write_file(d, "token", "one-time-secret\n");
    write_file(d, "ca.crt", d->rank_tls.ca_pem);
    write_file(d, "rank.crt", d->rank_tls.cert_pem);
    write_file(d, "rank.key", d->rank_tls.key_pem);
    start_ranks(d, tp, pp);
}

bool fake_daemon_wait(struct fake_daemon *d, const int32_t *value, int32_t want, double seconds)
{
    int64_t end = phx_clock_mono_ns() + (int64_t)(seconds * 1e9);

    while (*value < want && phx_clock_mono_ns() < end) {
        struct pollfd p = {.fd = phx_rpc_server_fd(d->server), .events = POLLIN};

        (void)poll(&p, 1, 20);
        phx_rpc_server_dispatch(d->server);
    }
    return *value >= want;
}

void fake_daemon_idle(struct fake_daemon *d, double seconds)
{
    const int32_t never = 0;

    (void)fake_daemon_wait(d, &never, 1, seconds);
}

void fake_daemon_send(struct fake_daemon *d, const struct phx_link_msg *msg)
{
    struct phx_err err;

    assert_non_null(d->link);
    if (phx_rpc_link_send(d->link, msg, &err) != 0)
        fail_msg("%s", err.text);
}

void fake_daemon_submit(struct fake_daemon *d, uint64_t seq_id, int32_t max_new)
{
    const int32_t       tokens[] = {65, 66, 67, 68};
    struct phx_submit   r = {.seq_id = seq_id, .tokens = tokens, .n_tokens = 4, .n_prompt = 4,
                             .max_new = max_new};
    struct phx_link_msg msg = {.kind = PHX_LINK_SUBMIT};

    phx_sampling_init(&r.sampling);
    r.sampling.temperature = 0;
    r.sampling.ignore_eos = true;
    msg.u.submit = (struct phx_link_submit){&r, 1};
    fake_daemon_send(d, &msg);
}

int fake_daemon_reap(struct fake_daemon *d, double seconds)
{
    int64_t end = phx_clock_mono_ns() + (int64_t)(seconds * 1e9);
    int     status;

    while (phx_clock_mono_ns() < end) {
        if (waitpid(d->pid, &status, WNOHANG) == d->pid) {
            d->pid = 0;
            return status;
        }
        if (d->server != NULL)
            fake_daemon_idle(d, 0.02);
        else
            (void)poll(NULL, 0, 20);
    }
    return -1;
}

/* A zombie has left: whoever adopted it reaps it when it likes. */
static bool is_running(pid_t pid)
{
    char  path[64], line[512] = "";
    FILE *f;

    (void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    f = fopen(path, "r");
    if (f == NULL)
        return false;
    if (fgets(line, sizeof(line), f) == NULL)
        line[0] = '\0';
    fclose(f);
    return strrchr(line, ')') != NULL && strncmp(strrchr(line, ')'), ") Z", 3) != 0;
}

bool fake_daemon_ranks_left(const struct fake_daemon *d, double seconds)
{
    int64_t end = phx_clock_mono_ns() + (int64_t)(seconds * 1e9);
    int32_t n_alive;

    do {
        n_alive = 0;
        for (int32_t i = 0; i < d->n_ranks; i++)
            n_alive += is_running(d->rank_pids[i]);
        if (n_alive > 0)
            (void)poll(NULL, 0, 20);
    } while (n_alive > 0 && phx_clock_mono_ns() < end);
    return n_alive == 0;
}

void fake_daemon_vanish(struct fake_daemon *d)
{
    phx_rpc_server_close(d->server, 0);
    d->server = NULL;
}

static void remove_folder(const char *folder)
{
    DIR           *dir = opendir(folder);
    struct dirent *entry;

    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL)
        if (entry->d_name[0] != '.')
            (void)unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
    (void)rmdir(folder);
}

void fake_daemon_stop(struct fake_daemon *d)
{
    if (d->pid > 0) {
        (void)kill(d->pid, SIGKILL);
        (void)waitpid(d->pid, NULL, 0);
    }
    phx_rpc_server_close(d->server, 0);
    test_tls_fini(&d->server_tls);
    test_tls_fini(&d->rank_tls);
    test_ca_destroy(d->ca);
    remove_folder(d->folder);
}
