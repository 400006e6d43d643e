/* SPDX-License-Identifier: Apache-2.0
 * Names and roles, without a database. */
#include <stdio.h>
#include <string.h>

#include "daemon/keys/keys.h"

static const struct {
    const char *name;
    unsigned    bit;
} role_names[] = {{"user", PHX_ROLE_BIT_USER},
                  {"operator", PHX_ROLE_BIT_OPERATOR},
                  {"auditor", PHX_ROLE_BIT_AUDITOR},
                  {"admin", PHX_ROLE_BIT_ADMIN}};

enum { N_ROLES = sizeof(role_names) / sizeof(role_names[0]) };

int phx_key_parse_roles(const char *text, unsigned *roles, struct phx_err *err)
{
    char  copy[128];
    char *save = NULL;

    *roles = 0;
    if (strlen(text) >= sizeof(copy))
        return phx_fail(err, PHX_E_INVALID, "roles: too long");
    memcpy(copy, text, strlen(text) + 1);
    for (char *word = strtok_r(copy, ",", &save); word != NULL; word = strtok_r(NULL, ",", &save)) {
        unsigned bit = 0;

        for (int i = 0; i < N_ROLES; i++)
            if (strcmp(word, role_names[i].name) == 0)
                bit = role_names[i].bit;
        if (bit == 0)
            return phx_fail(err, PHX_E_INVALID,
                            "roles: '%.30s' is unknown; user, operator, auditor, admin", word);
        *roles |= bit;
    }
    return *roles != 0 ? 0 : phx_fail(err, PHX_E_INVALID, "roles: at least one is needed");
}

void phx_key_format_roles(unsigned roles, char text[64])
{
    text[0] = '\0';
    for (int i = 0; i < N_ROLES; i++)
        if ((roles & role_names[i].bit) != 0) {
            if (text[0] != '\0')
                strcat(text, ",");
            strcat(text, role_names[i].name);
        }
}

int phx_key_check_name(const char *what, const char *name, struct phx_err *err)
{
    size_t n = strlen(name);

    if (n == 0 || n > PHX_KEY_NAME_MAX ||
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-@") != n)
        return phx_fail(err, PHX_E_INVALID,
                        "%s: 1 to %d letters, digits and . _ - @ are allowed", what, PHX_KEY_NAME_MAX);
    return 0;
}
