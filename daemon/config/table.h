/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/config: the one table of keys. */
#ifndef PHX_DAEMON_CONFIG_TABLE_H
#define PHX_DAEMON_CONFIG_TABLE_H

#include "daemon/config/config.h"

enum phx_option_kind {
    PHX_OPTION_TEXT = 1, /* char * */
    PHX_OPTION_INT,      /* int64_t within min..max */
    PHX_OPTION_BOOL,
    PHX_OPTION_CHOICE,   /* char *, one of `choices` */
    PHX_OPTION_LIST      /* struct phx_config_list */
};

struct phx_option {
    const char          *key; /* "section.name" or "name" */
    enum phx_option_kind kind;
    size_t               offset; /* in struct phx_config */
    const char          *fallback; /* the default, as it is written in the file */
    int64_t              min, max; /* INT */
    const char          *choices;  /* CHOICE: "a|b" */
    const char          *help;
};

extern const struct phx_option phx_options[];
extern const size_t            phx_n_options;

const struct phx_option *phx_option_find(const char *key); /* NULL = unknown */
/* PHX_E_INVALID naming key, value and bounds. */
int phx_option_set(struct phx_config *c, const struct phx_option *o, const char *value,
                   struct phx_err *err) PHX_CHECKED;

#endif
