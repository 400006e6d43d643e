/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/audit: files of a folder that are on disk when phx_folder_sync() has answered 0.
 *
 * A file is written under a new temporary name each time, synced, and renamed: after a failed sync the
 * kernel may have dropped the pages and call the file clean, so syncing it again would prove nothing. */
#ifndef PHX_DAEMON_AUDIT_FOLDER_H
#define PHX_DAEMON_AUDIT_FOLDER_H

#include <stdbool.h>
#include <stddef.h>

#include "rpc/base/buf.h"
#include "rpc/base/err.h"

enum { PHX_FOLDER_DIRTY_MAX = 32 };

struct phx_folder {
    char    *dir;
    unsigned file_mode, dir_mode;
    char    *dirty[PHX_FOLDER_DIRTY_MAX]; /* folders whose entries are not on disk yet */
    int      n_dirty;
    bool     has_failed; /* a folder's sync did: nothing about its parents is known either */
    unsigned n_temp;
};

/* Makes the folder where it is missing and removes temporary files of a process that died. */
int  phx_folder_open(struct phx_folder *f, const char *dir, unsigned file_mode, unsigned dir_mode,
                     struct phx_err *err) PHX_CHECKED;
void phx_folder_close(struct phx_folder *f); /* of one that is all zero too */

/* name is relative; folders on the way are made.  The bytes are on disk on return, the name after
 * phx_folder_sync().  PHX_E_IO. */
int  phx_folder_write(struct phx_folder *f, const char *name, const void *data, size_t size,
                      struct phx_err *err) PHX_CHECKED;
int  phx_folder_sync(struct phx_folder *f, struct phx_err *err) PHX_CHECKED;
/* PHX_E_NOTFOUND when there is no such file.  *out needs phx_buf_fini() when 0. */
int  phx_folder_read(const char *dir, const char *name, size_t max_bytes, struct phx_buf *out,
                     struct phx_err *err) PHX_CHECKED;
bool phx_folder_has(const struct phx_folder *f, const char *name);
bool phx_folder_equals(const struct phx_folder *f, const char *name, const void *data, size_t size);
/* Removes all files of the folder `name` but `keep` ("" = all, and then the folder).  Best effort. */
void phx_folder_clear(const struct phx_folder *f, const char *name, const char *keep);

#endif
