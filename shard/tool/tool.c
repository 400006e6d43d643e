/* SPDX-License-Identifier: Apache-2.0
 * What the subcommands share: error lines, numbers, the progress bar. */
#include "shard/tool/tool.h"

#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "rpc/base/clock.h"

enum { BAR_WIDTH = 30 };

int phx_tool_fail(const struct phx_err *err)
{
    fprintf(stderr, "phalanx-model: %s\n", err->text);
    return PHX_TOOL_FAILED;
}

int64_t phx_tool_number(const struct argp_state *state, const char *option, const char *text,
                        int64_t min, int64_t max)
{
    char     *end;
    long long value;

    errno = 0;
    value = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < min || value > max)
        argp_error(state, "%s must be a whole number from %lld to %lld", option, (long long)min,
                   (long long)max);
    return value;
}

void phx_tool_progress_start(struct phx_tool_progress *p, const char *what)
{
    p->what = what;
    p->start_ns = phx_clock_mono_ns();
    p->shown_ns = 0;
    p->is_terminal = isatty(STDERR_FILENO);
}

void phx_tool_progress_show(void *progress, uint64_t done_bytes, uint64_t total_bytes)
{
    struct phx_tool_progress *p = progress;
    int64_t                   now = phx_clock_mono_ns();
    double                    part = total_bytes > 0 ? (double)done_bytes / (double)total_bytes : 1;
    double                    seconds = (double)(now - p->start_ns) / 1e9;
    char                      bar[BAR_WIDTH + 1], rate[24];

    if (!p->is_terminal || (now - p->shown_ns < 100000000 && done_bytes < total_bytes))
        return;
    p->shown_ns = now;
    for (int i = 0; i < BAR_WIDTH; i++)
        bar[i] = (double)i < part * BAR_WIDTH ? '#' : '.';
    bar[BAR_WIDTH] = '\0';
    phx_tool_format_bytes(seconds > 0 ? (uint64_t)((double)done_bytes / seconds) : 0, rate);
    if (done_bytes >= total_bytes)
        phx_tool_progress_end(p);
    else
        fprintf(stderr, "\r%s [%s] %3.0f%% %s/s \033[K", p->what, bar, part * 100, rate);
}

void phx_tool_progress_end(struct phx_tool_progress *p)
{
    if (p->is_terminal)
        fprintf(stderr, "\r\033[K");
}

int phx_tool_write_at(int fd, const void *data, size_t size, uint64_t offset)
{
    const uint8_t *from = data;

    while (size > 0) {
        ssize_t n = pwrite(fd, from, size, (off_t)offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        from += n;
        size -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

void phx_tool_format_bytes(uint64_t bytes, char text[24])
{
    static const char *const unit[] = {"B", "kB", "MB", "GB", "TB"};
    double                   value = (double)bytes;
    int                      i = 0;

    while (value >= 1000 && i < 4) {
        value /= 1000;
        i++;
    }
    (void)snprintf(text, 24, i == 0 ? "%.0f %s" : "%.1f %s", value, unit[i]);
}
