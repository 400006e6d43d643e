/* SPDX-License-Identifier: Apache-2.0
 * The daemon's side of a RankLink in a test: starts ranks as processes, tells them what to do, and writes
 * down what they say. */
#ifndef PHX_TESTS_FAKE_DAEMON_H
#define PHX_TESTS_FAKE_DAEMON_H

#include <sys/types.h>

#include "rpc/rpc.h"
#include "tests/unit/rpc/transport/certs.h"

enum { FAKE_RANKS_MAX = 8, FAKE_TOKENS_MAX = 8192 };

struct fake_token {
    uint64_t        seq_id;
    int32_t         token, index, error_code;
    enum phx_finish finish;
};

struct fake_daemon {
    struct test_ca        *ca;
    struct phx_rpc_tls     server_tls, rank_tls;
    struct phx_rpc_server *server;
    struct phx_rpc_link   *link;
    char                   folder[64];
    pid_t                  pid; /* what was started: the rank, or mpirun */
    bool                   is_refusing;
    /* what it said */
    int32_t                n_attached, n_detached, n_ranks, tp_size, pp_size;
    pid_t                  rank_pids[FAKE_RANKS_MAX];
    char                   replica[32], device[16], fatal[128];
    double                 fraction; /* of the last LOADING */
    int32_t                n_loading, n_ready, n_heartbeats, n_steps, n_fatal, n_bye;
    bool                   is_busy;  /* by the last heartbeat */
    uint64_t               progress;
    struct phx_link_ready  ready;    /* numbers only */
    struct phx_rank_facts  facts[FAKE_RANKS_MAX];
    struct fake_token      tokens[FAKE_TOKENS_MAX];
    int32_t                n_tokens;
};

/* The program of ranks that compute with the module cuda beside it; NULL: phalanx-rank on the CPU. */
extern const char *fake_daemon_cuda_rank;

/* Listens, and starts tp x pp ranks of the demo model that dial it. */
void fake_daemon_start(struct fake_daemon *d, int32_t tp, int32_t pp, bool is_refusing);
/* Dispatches until *value >= want, at most that many seconds; false then. */
bool fake_daemon_wait(struct fake_daemon *d, const int32_t *value, int32_t want, double seconds);
/* Dispatches for so long. */
void fake_daemon_idle(struct fake_daemon *d, double seconds);
void fake_daemon_submit(struct fake_daemon *d, uint64_t seq_id, int32_t max_new);
void fake_daemon_send(struct fake_daemon *d, const struct phx_link_msg *msg);
/* Waits for what was started to end; its wait status, or -1 after so many seconds. */
int fake_daemon_reap(struct fake_daemon *d, double seconds);
/* Whether every rank's process is gone, waiting at most that many seconds. */
bool fake_daemon_ranks_left(const struct fake_daemon *d, double seconds);
/* Goes away without a word to the ranks. */
void fake_daemon_vanish(struct fake_daemon *d);
void fake_daemon_stop(struct fake_daemon *d);

#endif
