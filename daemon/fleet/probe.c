/* SPDX-License-Identifier: Apache-2.0
 * Whether this host has what the configured backend needs: the rank's program is asked before anything is started,
 * because the daemon itself never loads a driver. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/config/config.h"
#include "daemon/fleet/replica.h"
#include "rpc/base/clock.h"

extern char **environ;

enum { PROBE_MS = 30000, TEXT_BYTES = 512 }; /* a driver that starts may take many seconds */

/* What the child says until it closes the pipe; false when it takes too long. */
static bool read_all(int fd, char text[TEXT_BYTES])
{
    int64_t end_ns = phx_clock_mono_ns() + (int64_t)PROBE_MS * 1000000;
    size_t  n = 0;

    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int64_t       left_ms = (end_ns - phx_clock_mono_ns()) / 1000000;
        char          rest[64];
        ssize_t       got;

        if (left_ms <= 0 || poll(&p, 1, (int)left_ms) == 0)
            return false;
        got = n < TEXT_BYTES - 1 ? read(fd, text + n, TEXT_BYTES - 1 - n) : read(fd, rest, sizeof(rest));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return true;
        n += n < TEXT_BYTES - 1 ? (size_t)got : 0;
        text[n] = '\0';
    }
}

static int start(const struct phx_config *c, const char *program, int out_fd, pid_t *pid)
{
    char *argv[] = {(char *)(uintptr_t)program, (char *)(uintptr_t) "--probe", (char *)(uintptr_t) "--backend",
                    c->engine_backend, (char *)(uintptr_t) "--class", c->engine_class,
                    c->cluster_devices[0] != '\0' ? (char *)(uintptr_t) "--devices" : NULL, c->cluster_devices, NULL};
    posix_spawn_file_actions_t actions;
    int                        rc;

    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, out_fd, STDERR_FILENO);
    posix_spawn_file_actions_adddup2(&actions, out_fd, STDOUT_FILENO);
    rc = posix_spawn(pid, program, &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    return rc;
}

int phx_fleet_probe(const struct phx_config *c, const char *program, struct phx_err *err)
{
    char  text[TEXT_BYTES] = "", *said;
    int   fds[2], status = 0, rc;
    pid_t pid = 0;
    bool  is_told;

    if (strcmp(c->engine_backend, "cpu") == 0)
        return 0;
    if (pipe2(fds, O_CLOEXEC) != 0)
        return phx_fail(err, PHX_E_IO, "pipe: %s", strerror(errno));
    rc = start(c, program, fds[1], &pid);
    (void)close(fds[1]); /* the child has it */
    is_told = rc == 0 && read_all(fds[0], text);
    (void)close(fds[0]); /* nothing was written */
    if (rc != 0)
        return phx_fail(err, PHX_E_IO, "start %s: %s", program, strerror(rc));
    if (!is_told)
        (void)kill(pid, SIGKILL); /* our own child, not reaped yet */
    if (waitpid(pid, &status, 0) != pid)
        return phx_fail(err, PHX_E_IO, "wait for %s: %s", program, strerror(errno));
    if (!is_told)
        return phx_fail(err, PHX_E_TIMEOUT, "backend %s did not answer within %d s; is the driver healthy?",
                        c->engine_backend, PROBE_MS / 1000);
    text[strcspn(text, "\n")] = '\0';
    said = strncmp(text, "phalanx-rank: ", 14) == 0 ? text + 14 : text;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    return phx_fail(err, PHX_E_UNSUPPORTED, "%.220s", said[0] != '\0' ? said : "the rank's program ended without a word");
}
