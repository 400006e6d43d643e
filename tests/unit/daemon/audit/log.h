/* SPDX-License-Identifier: Apache-2.0
 * A database with leaves, and the folder that is published from it. */
#ifndef PHX_TESTS_AUDIT_LOG_H
#define PHX_TESTS_AUDIT_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/audit/audit.h"
#include "daemon/store/store.h"

#define LOG_ORIGIN "phalanx/test-cluster"

struct log {
    char                     root[64]; /* a folder of this test */
    char                     db[96], dir[96], keys[96];
    struct phx_store        *store;
    struct phx_publisher    *publisher;
    struct phx_tlog_frontier frontier; /* of all leaves, by another way than the publisher's */
    int64_t                  key_life_s;
};

void log_make(struct log *l); /* with an open store */
void log_remove(struct log *l);
void log_sql(const struct log *l, const char *sql); /* on the database's file */
/* Appends n leaves in one job: {"at_ns":<number>,...}. */
void log_append(struct log *l, uint64_t n);
int  log_try_open(struct log *l, struct phx_err *err);
/* Opens the publisher and waits until all leaves are published. */
void log_open(struct log *l);
void log_close(struct log *l);
void log_wait(struct log *l);
/* Waits until the publisher tells a problem with that word; "" = until it tells none. */
void log_wait_problem(struct log *l, const char *word);
/* The checkpoint there is, whatever its size: every entry fits its tile and the tiles fit the root. */
void log_check_folder(const struct log *l);
/* All is published: the checkpoint has the frontier's root, the folder fits, and each note verifies. */
void log_check(const struct log *l);
bool log_has(const struct log *l, const char *name);
void log_delete(const struct log *l, const char *name);
void log_copy(const struct log *l, const char *from, const char *to); /* below root */
/* Every regular file below dir/, relative; owned strings. */
int  log_files(const struct log *l, char **names, int max);

#endif
