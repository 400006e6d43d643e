/* SPDX-License-Identifier: Apache-2.0
 * How far the weights are, for who waits: a bar on a terminal, else a line now and then. */
#include <stdio.h>
#include <unistd.h>

#include "daemon/fleet/replica.h"
#include "rpc/base/clock.h"
#include "rpc/base/log.h"

enum { BAR_WIDTH = 30, LINE_NS = 2000000000 };

void phx_loading_format(const char *id, const struct phx_link_loading *l, char *text, size_t size)
{
    double part = l->fraction < 0 ? 0 : l->fraction > 1 ? 1 : l->fraction;
    char   bar[BAR_WIDTH + 1];

    for (int i = 0; i < BAR_WIDTH; i++)
        bar[i] = (double)i < part * BAR_WIDTH ? '#' : '.';
    bar[BAR_WIDTH] = '\0';
    (void)snprintf(text, size, "%s [%s] %3.0f%%  %.1f of %.1f GB  %.2f GB/s", id, bar, part * 100,
                   (double)l->bytes / 1e9, (double)l->bytes_total / 1e9, l->gb_per_s);
}

void phx_loading_show(struct phx_replica *r, const struct phx_link_loading *l)
{
    bool    is_over = l->bytes >= l->bytes_total;
    int64_t now = phx_clock_mono_ns();
    char    text[160];

    if (isatty(STDERR_FILENO) == 1) {
        phx_loading_format(r->id, l, text, sizeof(text));
        fprintf(stderr, "\r%s\033[K", is_over ? "" : text); /* the log goes on in its place */
        return;
    }
    if (!is_over && now - r->load_told_ns < LINE_NS)
        return;
    r->load_told_ns = now;
    phx_log(PHX_LOG_INFO, "fleet.replica.load", "replica=%s percent=%d bytes=%llu total=%llu gb_per_s=%.2f", r->id,
            (int)(l->fraction * 100), (unsigned long long)l->bytes, (unsigned long long)l->bytes_total,
            l->gb_per_s);
}
