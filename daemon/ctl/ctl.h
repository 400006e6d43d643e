/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/ctl: the subcommands of `phalanx` and what they share.  Each command takes its own
 * argv (argv[0] is "phalanx NAME") and answers an exit code: 0 ok, 1 the operation failed, 2 usage. */
#ifndef PHX_DAEMON_CTL_H
#define PHX_DAEMON_CTL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/base/err.h"

enum { PHX_EXIT_OK = 0, PHX_EXIT_FAILED = 1, PHX_EXIT_USAGE = 2 };

int phx_ctl_up(int argc, char **argv);
int phx_ctl_ask(int argc, char **argv);
int phx_ctl_chat(int argc, char **argv);
int phx_ctl_model(int argc, char **argv);
int phx_ctl_bench(int argc, char **argv);
int phx_ctl_cluster(int argc, char **argv);
int phx_ctl_key(int argc, char **argv);
int phx_ctl_user(int argc, char **argv);
int phx_ctl_clock(int argc, char **argv);
int phx_ctl_usage(int argc, char **argv);
int phx_ctl_budget(int argc, char **argv);
int phx_ctl_audit(int argc, char **argv);
int phx_ctl_content(int argc, char **argv);
int phx_ctl_tenant(int argc, char **argv);
int phx_ctl_license(int argc, char **argv);

/* `phalanx model tokenize`: runs in this program, since tokenizers belong to the daemon. */
int phx_ctl_tokenize(int argc, char **argv);

/* `phalanx bench http`. */
int phx_ctl_bench_http(int argc, char **argv);

/* Replaces this process by the program of that name beside it; returns an exit code when it cannot. */
int phx_ctl_exec_beside(const char *program, char **argv);

/* "phalanx: TEXT" on stderr; returns PHX_EXIT_FAILED. */
int phx_ctl_fail(const struct phx_err *err);

/* Reads a secret file (an API key) without its line end.  Owned. */
int phx_ctl_read_key(const char *path, char **key, struct phx_err *err) PHX_CHECKED;

/* The path of a file under the data folder: DIR/NAME.  Owned. */
char *phx_ctl_path(const char *data_dir, const char *name);

/* Opens the database of a data folder, also beside a running daemon; one that is not there is PHX_E_NOTFOUND,
 * never made.  *now_ns: the cluster's time, which a moved clock does not bend. */
struct phx_store;
int phx_ctl_store_open(const char *data_dir, struct phx_store **store, int64_t *now_ns,
                       struct phx_err *err) PHX_CHECKED;
/* One line on standard output; takes the value. */
void phx_ctl_print_json(json_t *value);
/* The login name of whoever runs this program.  Owned. */
char *phx_ctl_login(void);

/* Copies the evaluation licence that came with the program into a data folder that has no licence. */
int phx_ctl_license_ensure(const char *data_dir, struct phx_err *err) PHX_CHECKED;

/* Where a cluster listens: the first running ready line under DIR/run/ready.json. */
struct phx_ctl_endpoint {
    char *url;
    char *grpc;
    char *key_file;
    char *model;
};
int  phx_ctl_endpoint_load(const char *data_dir, struct phx_ctl_endpoint *out, struct phx_err *err)
    PHX_CHECKED;
void phx_ctl_endpoint_fini(struct phx_ctl_endpoint *e);

#endif
