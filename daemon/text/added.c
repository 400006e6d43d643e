/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/text/added.h"

#include <string.h>
#include <utf8proc.h>

#include "daemon/text/utf8.h"
#include "rpc/base/mem.h"

struct phx_added_node {
    int32_t child, sibling; /* 0 = none: the root is nobody's child */
    int32_t token;          /* index + 1, 0 = no token ends here */
    char    byte;
};

static int32_t find_child(const struct phx_added *a, int32_t node, char byte)
{
    if (node == 0)
        return a->first[(unsigned char)byte];
    int32_t child = a->nodes[node].child;
    while (child != 0 && a->nodes[child].byte != byte)
        child = a->nodes[child].sibling;
    return child;
}

static int32_t add_child(struct phx_added *a, int32_t node, char byte)
{
    if (a->n_nodes == a->capacity) {
        a->capacity = a->capacity ? a->capacity * 2 : 256;
        a->nodes = phx_mem_realloc(a->nodes, a->capacity, sizeof *a->nodes);
    }
    int32_t child = (int32_t)a->n_nodes++;
    a->nodes[child] = (struct phx_added_node){.byte = byte, .sibling = a->nodes[node].child};
    if (node == 0) {
        a->nodes[child].sibling = 0;
        a->first[(unsigned char)byte] = child;
    } else {
        a->nodes[node].child = child;
    }
    return child;
}

int phx_added_put(struct phx_added *a, const char *content, size_t size,
                  struct phx_added_token token, const char *where, struct phx_err *err)
{
    if (size == 0 || size > PHX_ADDED_BYTES_MAX)
        return phx_fail(err, PHX_E_FORMAT, "%s: added token %d has %zu bytes (1 to %d allowed)",
                        where, token.id, size, PHX_ADDED_BYTES_MAX);
    if (a->n == PHX_ADDED_MAX)
        return phx_fail(err, PHX_E_TOOBIG, "%s: more than %d added tokens", where, PHX_ADDED_MAX);
    if (!a->nodes) {
        a->capacity = 256;
        a->nodes = phx_mem_calloc(a->capacity, sizeof *a->nodes);
        a->n_nodes = 1;
    }
    int32_t node = 0;
    for (size_t i = 0; i < size; i++) {
        int32_t child = find_child(a, node, content[i]);
        node = child ? child : add_child(a, node, content[i]);
    }
    if (a->nodes[node].token)
        return phx_fail(err, PHX_E_FORMAT, "%s: added tokens %d and %d have the same content",
                        where, a->tokens[a->nodes[node].token - 1].id, token.id);
    if ((a->n & (a->n - 1)) == 0)
        a->tokens = phx_mem_realloc(a->tokens, a->n ? a->n * 2 : 1, sizeof *a->tokens);
    a->tokens[a->n++] = token;
    a->nodes[node].token = (int32_t)a->n;
    return 0;
}

void phx_added_fini(struct phx_added *a)
{
    phx_mem_free(a->tokens);
    phx_mem_free(a->nodes);
    *a = (struct phx_added){0};
}

/* The longest token that starts here, or NULL. */
static const struct phx_added_token *match_here(const struct phx_added *a, const char *text,
                                                size_t size, size_t *length)
{
    const struct phx_added_token *best = NULL;
    int32_t                       node = 0;
    for (size_t i = 0; i < size; i++) {
        node = find_child(a, node, text[i]);
        if (node == 0)
            break;
        if (a->nodes[node].token) {
            best = &a->tokens[a->nodes[node].token - 1];
            *length = i + 1;
        }
    }
    return best;
}

static bool is_word(int32_t c)
{
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        return c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9);
    }
}

static bool is_space(int32_t c)
{
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

static bool stands_alone(const char *text, size_t size, size_t from, size_t to)
{
    size_t length = 0;
    if (from > 0) {
        size_t last = phx_utf8_last_length(text, from);
        if (is_word(phx_utf8_first(text + from - last, &length)))
            return false;
    }
    return to == size || !is_word(phx_utf8_first(text + to, &length));
}

static size_t strip_left(const char *text, size_t from, size_t floor)
{
    while (from > floor) {
        size_t length, last = phx_utf8_last_length(text, from);
        if (!is_space(phx_utf8_first(text + from - last, &length)))
            break;
        from -= last;
    }
    return from;
}

static size_t strip_right(const char *text, size_t size, size_t to)
{
    while (to < size) {
        size_t length;
        if (!is_space(phx_utf8_first(text + to, &length)))
            break;
        to += length;
    }
    return to;
}

bool phx_added_next(const struct phx_added *a, const char *text, size_t size, size_t *at,
                    size_t floor, bool with_special, struct phx_added_hit *hit)
{
    size_t i = *at;
    while (i < size) {
        size_t                        length = 0;
        const struct phx_added_token *token = NULL;
        if (a->first[(unsigned char)text[i]])
            token = match_here(a, text + i, size - i, &length);
        if (!token) {
            i++;
            continue;
        }
        size_t from = i, to = i + length;
        i = to; /* a match that does not count is passed over whole, as the reference does */
        if ((token->is_special && !with_special) || from < floor ||
            (token->is_single_word && !stands_alone(text, size, from, to)))
            continue;
        hit->from = token->is_lstrip ? strip_left(text, from, floor) : from;
        hit->to = token->is_rstrip ? strip_right(text, size, to) : to;
        hit->id = token->id;
        *at = i;
        return true;
    }
    *at = size;
    return false;
}
