/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/audit: the key that signs checkpoints, and how it moves on.
 *
 * seed(E + 1) = BLAKE2b keyed with seed(E); a seed is gone once its epoch has ended, so that whoever takes
 * the machine over can sign nothing that was signed before.  The steps of a move are each safe to repeat,
 * and a crash between any two of them is finished by the next phx_logkey_move(). */
#ifndef PHX_DAEMON_AUDIT_LOGKEY_H
#define PHX_DAEMON_AUDIT_LOGKEY_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/audit/folder.h"
#include "daemon/sign/sign.h"
#include "daemon/tlog/tlog.h"

enum { PHX_LOGKEY_PATH_BYTES = 40, PHX_LOGKEY_FILE_MAX_BYTES = 64 << 10 };

struct phx_logkey {
    struct phx_folder  *audit, *keys; /* borrowed */
    const char         *origin;       /* borrowed */
    int64_t             epoch;
    uint64_t            from_size; /* size of closing/<epoch - 1> */
    uint8_t             seed[32];
    struct phx_sign_key key;
};

/* A signed size of the tree. */
struct phx_signed_tree {
    struct phx_checkpoint checkpoint;
    int64_t               epoch;
    struct phx_buf        note;
};
void phx_signed_tree_fini(struct phx_signed_tree *t);

/* What keys/<E> says. */
struct phx_handover {
    char     origin[256];
    int64_t  epoch;
    uint64_t from_size;
    uint8_t  public_key[32];
};

/* Reads log.seed, or begins with epoch 1 in an empty folder.  PHX_E_STATE: the seed is missing or of an
 * older epoch than the folder, or evidence of an epoch that has ended is missing. */
int  phx_logkey_open(struct phx_logkey *k, struct phx_folder *audit, struct phx_folder *keys,
                     const char *origin, struct phx_err *err) PHX_CHECKED;
void phx_logkey_close(struct phx_logkey *k); /* wipes */

/* Signs a checkpoint with the present key. */
int phx_logkey_sign(const struct phx_logkey *k, uint64_t size, const struct phx_tlog_hash *root,
                    struct phx_signed_tree *out, struct phx_err *err) PHX_CHECKED;
/* Reads "checkpoint" or "closing/<E>" and checks its signature by the key of its epoch.  PHX_E_NOTFOUND;
 * PHX_E_FORMAT; PHX_E_LICENSE for a bad signature. */
int phx_logkey_read(const struct phx_logkey *k, const char *name, struct phx_signed_tree *out,
                    struct phx_err *err) PHX_CHECKED;

/* Closes the present epoch at `last` (what was published last) and begins the next one: closing/<E>,
 * keys/<E + 1>, log.seed, in this order, each on disk before the next. */
int phx_logkey_move(struct phx_logkey *k, const struct phx_signed_tree *last, struct phx_err *err) PHX_CHECKED;

/* The text of a handover note; strict. */
int phx_handover_parse(const void *text, size_t size, struct phx_handover *out, struct phx_err *err) PHX_CHECKED;
/* The number in the extension line "epoch <E>" of a checkpoint's text; PHX_E_FORMAT without one. */
int phx_checkpoint_epoch(const void *text, size_t size, int64_t *epoch, struct phx_err *err) PHX_CHECKED;

#endif
