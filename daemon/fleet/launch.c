/* SPDX-License-Identifier: Apache-2.0
 * The local launcher: one rank is started as it is, more through mpirun.  The children form a session of
 * their own, by which all of them can be found and ended. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <dirent.h>

#include "daemon/certs/certs.h"
#include "daemon/config/config.h"
#include "daemon/fleet/replica.h"
#include "rpc/base/buf.h"
#include "rpc/base/clock.h"
#include "rpc/base/id.h"
#include "rpc/base/log.h"

extern char **environ;

enum { RANK_CERT_S = 365 * 86400, WIPE_FDS = 16 };

static const int64_t TOKEN_NS = (int64_t)600 * 1000000000;

/* A name with a slash is a path; else PATH is searched. */
int phx_launch_find(const char *name, char **path, struct phx_err *err)
{
    const char *search = getenv("PATH");
    char       *copy, *save = NULL;

    *path = NULL;
    if (strchr(name, '/') != NULL) {
        if (access(name, X_OK) != 0)
            return phx_fail(err, PHX_E_NOTFOUND, "%s cannot be run: %s", name, strerror(errno));
        *path = phx_mem_strdup(name);
        return 0;
    }
    copy = phx_mem_strdup(search != NULL ? search : "");
    for (char *dir = strtok_r(copy, ":", &save); dir != NULL && *path == NULL;
         dir = strtok_r(NULL, ":", &save)) {
        char *candidate = phx_mem_printf("%s/%s", dir, name);

        if (access(candidate, X_OK) == 0)
            *path = candidate;
        else
            phx_mem_free(candidate);
    }
    phx_mem_free(copy);
    if (*path == NULL)
        return phx_fail(err, PHX_E_NOTFOUND,
                        "%s was not found in PATH; install Open MPI (package openmpi-bin) or set "
                        "launcher.mpirun", name);
    return 0;
}

struct argv {
    struct phx_arena *arena;
    char             *items[PHX_ARGV_MAX];
    int               n;
};

static void add(struct argv *a, const char *text)
{
    phx_assert(a->n < PHX_ARGV_MAX - 1);
    a->items[a->n++] = phx_arena_strdup(a->arena, text);
}

static void add_pair(struct argv *a, const char *name, const char *value)
{
    add(a, name);
    add(a, value);
}

static void add_number(struct argv *a, const char *name, int64_t value)
{
    char text[32];

    (void)snprintf(text, sizeof(text), "%lld", (long long)value);
    add_pair(a, name, text);
}

static void add_file(struct argv *a, const char *name, const char *dir, const char *file)
{
    char *path = phx_mem_printf("%s/%s", dir, file);

    add_pair(a, name, path);
    phx_mem_free(path);
}

static void add_mca(struct argv *a, const char *name, const char *value)
{
    add(a, "--mca");
    add_pair(a, name, value);
}

/* Open MPI 4.1: everything that could leave litter or wait for long is told otherwise. */
static void add_mpirun(struct argv *a, const struct phx_replica *r)
{
    const struct phx_config *c = r->fleet->options.config;

    add(a, r->fleet->mpirun);
    if (geteuid() == 0)
        add(a, "--allow-run-as-root");
    add(a, "--oversubscribe");
    add_pair(a, "--bind-to", "none");
    add_mca(a, "pml", "ob1");
    add_mca(a, "btl", "self,vader");
    add_mca(a, "mpi_yield_when_idle", "1");
    add_mca(a, "odls_base_sigkill_timeout", "0");
    add_mca(a, "orte_tmpdir_base", r->dir);
    add_mca(a, "btl_vader_backing_directory", r->dir);
    add_number(a, "-np", c->cluster_tp * c->cluster_pp);
    for (size_t i = 0; i < c->launcher_args.n; i++)
        add(a, c->launcher_args.items[i]);
}

/* Which of the replicas on the same machines: each rank then finds its own cores there. */
static void add_share(struct argv *a, const struct phx_replica *r)
{
    char text[64];

    (void)snprintf(text, sizeof(text), "%d/%lld", r->index,
                   (long long)r->fleet->options.config->cluster_replicas);
    add_pair(a, "--share", text);
}

static void add_rank(struct argv *a, const struct phx_replica *r)
{
    const struct phx_fleet  *f = r->fleet;
    const struct phx_config *c = f->options.config;

    add(a, f->rank_program);
    add_pair(a, "--model", c->model_path);
    if (c->model_key[0] != '\0')
        add_pair(a, "--model-key", c->model_key);
    add_number(a, "--tp", c->cluster_tp);
    add_number(a, "--pp", c->cluster_pp);
    add_pair(a, "--backend", c->engine_backend);
    add_pair(a, "--class", c->engine_class);
    if (!c->engine_graphs)
        add(a, "--no-graphs");
    if (!c->engine_overlap)
        add(a, "--no-overlap");
    add_pair(a, "--transport", c->cluster_transport);
    if (c->cluster_devices[0] != '\0')
        add_pair(a, "--devices", c->cluster_devices);
    if (c->cluster_interface[0] != '\0')
        add_pair(a, "--interface", c->cluster_interface);
    if (c->cluster_ib_devices[0] != '\0')
        add_pair(a, "--ib-devices", c->cluster_ib_devices);
    if (c->engine_isa[0] != '\0')
        add_pair(a, "--isa", c->engine_isa);
    add_pair(a, "--compute", c->engine_compute);
    add_pair(a, "--dtype", c->engine_dtype);
    if (c->engine_threads > 0)
        add_number(a, "--threads", c->engine_threads);
    add_share(a, r);
    add_pair(a, "--kv-dtype", c->engine_kv_dtype);
    if (c->engine_kv_memory_bytes > 0)
        add_number(a, "--kv-memory", c->engine_kv_memory_bytes);
    add_number(a, "--block-tokens", c->engine_block_tokens);
    if (c->engine_max_seqs > 0)
        add_number(a, "--max-seqs", c->engine_max_seqs);
    if (c->engine_max_rows > 0)
        add_number(a, "--max-rows", c->engine_max_rows);
    add_number(a, "--max-context", c->engine_max_context);
    if (!c->engine_prefix_cache)
        add(a, "--no-prefix-cache");
    add_pair(a, "--speculate", c->engine_speculate);
    add_pair(a, "--log-level", c->log_level[0] != '\0' ? c->log_level : "info");
    add_pair(a, "--join", f->grpc_target);
    add_file(a, "--join-token-file", r->dir, "join.token");
    add_file(a, "--tls-ca", c->data_dir, "tls/ca.crt");
    add_file(a, "--tls-cert", r->dir, "rank.crt");
    add_file(a, "--tls-key", r->dir, "rank.key");
    add_pair(a, "--replica", r->id);
}

/* What would decide about NCCL beside the configuration. */
static bool is_foreign_nccl(const char *variable)
{
    if (strncmp(variable, "NCCL_", 5) != 0 || strncmp(variable, "NCCL_DEBUG", 10) == 0)
        return false;
    phx_log(PHX_LOG_WARN, "fleet.environment", "variable=%.*s reason=%s", (int)strcspn(variable, "="), variable,
            "not passed on; cluster.interface and cluster.ib_devices decide");
    return true;
}

/* The environment without what an outer MPI job may have left in it.  The strings stay where they are. */
static char **copy_environment(struct phx_arena *arena)
{
    size_t n = 0, n_kept = 0;
    char **out;

    while (environ[n] != NULL)
        n++;
    out = phx_arena_calloc(arena, n + 1, sizeof(*out));
    for (char **e = environ; *e != NULL; e++)
        if (strncmp(*e, "OMPI_", 5) != 0 && strncmp(*e, "PMIX_", 5) != 0 &&
            strncmp(*e, "PMI_", 4) != 0 && strncmp(*e, "PRTE_", 5) != 0 && !is_foreign_nccl(*e))
            out[n_kept++] = *e;
    return out;
}

static int wipe_entry(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)kind;
    (void)at;
    if (remove(path) != 0 && errno != ENOENT)
        phx_log(PHX_LOG_WARN, "fleet.wipe.fail", "path=%s reason=%s", path, strerror(errno));
    return 0;
}

/* A killed mpirun leaves its session folder and its ranks' shared memory files behind. */
void phx_replica_wipe(const struct phx_replica *r)
{
    if (nftw(r->dir, wipe_entry, WIPE_FDS, FTW_DEPTH | FTW_PHYS) != 0 && errno != ENOENT)
        phx_log(PHX_LOG_WARN, "fleet.wipe.fail", "path=%s reason=%s", r->dir, strerror(errno));
}

static int make_secrets(struct phx_replica *r, struct phx_err *err)
{
    const char *data_dir = r->fleet->options.config->data_dir;
    char       *token_path = phx_mem_printf("%s/join.token", r->dir);
    char       *cert_path = phx_mem_printf("%s/rank.crt", r->dir);
    char       *key_path = phx_mem_printf("%s/rank.key", r->dir);
    int         rc = 0;

    phx_replica_wipe(r);
    if (mkdir(r->dir, 0700) != 0 && errno != EEXIST)
        rc = phx_fail(err, PHX_E_IO, "mkdir %s: %s", r->dir, strerror(errno));
    phx_id_hex(r->token, sizeof(r->token), 32);
    r->token_until_ns = phx_clock_mono_ns() + TOKEN_NS;
    if (rc == 0)
        rc = phx_file_write(token_path, r->token, strlen(r->token), 0600, err);
    if (rc == 0)
        rc = phx_certs_issue(data_dir, PHX_CERT_RANK, r->id, RANK_CERT_S, cert_path, key_path, err);
    phx_mem_free(token_path);
    phx_mem_free(cert_path);
    phx_mem_free(key_path);
    return rc;
}

static int spawn(struct phx_replica *r, char *const *argv, char *const *env, struct phx_err *err)
{
    posix_spawnattr_t          attr;
    posix_spawn_file_actions_t actions;
    sigset_t                   none, all;
    int                        rc;

    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_init(&attr);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK |
                                        POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO); /* stdout is ours */
    rc = posix_spawn(&r->pid, argv[0], &actions, &attr, argv, env);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attr);
    if (rc != 0) {
        r->pid = 0;
        return phx_fail(err, PHX_E_IO, "start %s: %s", argv[0], strerror(rc));
    }
    r->pid_fd = (int)syscall(SYS_pidfd_open, r->pid, 0);
    return 0;
}

int phx_replica_launch(struct phx_replica *r, struct phx_err *err)
{
    const struct phx_config *c = r->fleet->options.config;
    struct argv              argv = {.arena = phx_arena_create()};
    int                      rc = make_secrets(r, err);

    if (c->cluster_tp * c->cluster_pp > 1)
        add_mpirun(&argv, r);
    add_rank(&argv, r);
    if (rc == 0)
        rc = spawn(r, argv.items, copy_environment(argv.arena), err);
    phx_arena_destroy(argv.arena);
    return rc;
}

/* The session of a process, from /proc; -1 when it is gone. */
static pid_t session_of(pid_t pid)
{
    char    path[64], text[1024];
    int     fd, session = -1;
    ssize_t n;

    (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    n = read(fd, text, sizeof(text) - 1);
    (void)close(fd); /* nothing was written */
    if (n <= 0)
        return -1;
    text[n] = '\0';
    char *after = strrchr(text, ')'); /* the name may hold anything */
    if (after == NULL || sscanf(after + 1, " %*c %*d %*d %d", &session) != 1)
        return -1;
    return session;
}

void phx_replica_kill(struct phx_replica *r)
{
    DIR           *dir;
    struct dirent *entry;

    if (r->pid <= 0)
        return;
    dir = opendir("/proc");
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        pid_t pid = (pid_t)atoi(entry->d_name);

        if (pid > 0 && pid != r->pid && session_of(pid) == r->pid)
            (void)kill(pid, SIGKILL); /* gone already is fine */
    }
    if (dir != NULL)
        closedir(dir);
    if (session_of(r->pid) == r->pid) /* not reaped: the number is still its own */
        (void)kill(r->pid, SIGKILL);
}
