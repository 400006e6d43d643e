/* SPDX-License-Identifier: Apache-2.0
 * The texts of the two kinds of notes in the folder. */
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/audit/logkey.h"

struct lines {
    const char *at, *end;
};

/* The next line without its newline; false at the end or when the line is too long for `out`. */
static bool take_line(struct lines *l, char *out, size_t out_size)
{
    const char *newline = l->at < l->end ? memchr(l->at, '\n', (size_t)(l->end - l->at)) : NULL;
    size_t      size;

    if (newline == NULL)
        return false;
    size = (size_t)(newline - l->at);
    if (size >= out_size || memchr(l->at, '\0', size) != NULL)
        return false;
    memcpy(out, l->at, size);
    out[size] = '\0';
    l->at = newline + 1;
    return true;
}

/* Digits only, no leading zero, at most INT64_MAX. */
static bool parse_number(const char *text, int64_t *out)
{
    size_t digits = strspn(text, "0123456789");

    if (digits == 0 || text[digits] != '\0' || digits > 19 || (text[0] == '0' && digits > 1))
        return false;
    errno = 0;
    *out = strtoll(text, NULL, 10);
    return errno == 0;
}

int phx_handover_parse(const void *text, size_t size, struct phx_handover *out, struct phx_err *err)
{
    struct lines lines = {text, (const char *)text + size};
    char         title[64], epoch[24], from[24], key[64];
    int64_t      from_size = 0;
    size_t       key_size = 0;

    memset(out, 0, sizeof(*out));
    if (!take_line(&lines, title, sizeof(title)) || strcmp(title, "phalanx log key") != 0 ||
        !take_line(&lines, out->origin, sizeof(out->origin)) ||
        !take_line(&lines, epoch, sizeof(epoch)) || !parse_number(epoch, &out->epoch) || out->epoch < 1 ||
        !take_line(&lines, from, sizeof(from)) || !parse_number(from, &from_size) ||
        !take_line(&lines, key, sizeof(key)) || lines.at != lines.end ||
        sodium_base642bin(out->public_key, sizeof(out->public_key), key, strlen(key), NULL, &key_size, NULL,
                          sodium_base64_VARIANT_ORIGINAL) != 0 ||
        key_size != sizeof(out->public_key))
        return phx_fail(err, PHX_E_FORMAT, "the note is not one of a log key");
    out->from_size = (uint64_t)from_size;
    return 0;
}

int phx_checkpoint_epoch(const void *text, size_t size, int64_t *epoch, struct phx_err *err)
{
    static const char prefix[] = "epoch ";
    struct lines      lines = {text, (const char *)text + size};
    char              line[512];
    int               n_found = 0;

    for (int i = 0; take_line(&lines, line, sizeof(line)); i++)
        if (i >= 3 && strncmp(line, prefix, sizeof(prefix) - 1) == 0 &&
            parse_number(line + sizeof(prefix) - 1, epoch) && *epoch >= 1)
            n_found++;
    if (n_found != 1 || lines.at != lines.end)
        return phx_fail(err, PHX_E_FORMAT, "the checkpoint does not name its key's epoch");
    return 0;
}
