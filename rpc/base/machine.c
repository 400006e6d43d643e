/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/base/machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 1024, LINE_BYTES = 4096 };

/* ---- cores ---------------------------------------------------------------------------------- */

static bool read_line(const char *path, char *line, int size)
{
    FILE *f = fopen(path, "re");
    bool  is_read = f != NULL && fgets(line, size, f) != NULL;

    if (f != NULL)
        (void)fclose(f); /* was only read */
    return is_read;
}

/* "0-3,8,10-11": the cores that are in `left` move to the list. */
static void take_cores(const char *text, cpu_set_t *left, struct phx_topology *out)
{
    while (*text >= '0' && *text <= '9') {
        char *end;
        long  first = strtol(text, &end, 10), last = first;

        if (*end == '-')
            last = strtol(end + 1, &end, 10);
        for (long core = first; core <= last && core < PHX_CORES_MAX; core++)
            if (CPU_ISSET(core, left)) {
                CPU_CLR(core, left);
                out->core[out->n_cores++] = (int32_t)core;
            }
        text = *end == ',' ? end + 1 : end;
    }
}

static void end_node(struct phx_topology *out)
{
    if (out->n_cores > out->first[out->n_nodes])
        out->first[++out->n_nodes] = out->n_cores;
}

void phx_topology_read(const char *root, const cpu_set_t *allowed, struct phx_topology *out)
{
    cpu_set_t left = *allowed;
    char      path[PATH_BYTES], line[LINE_BYTES];

    out->n_nodes = out->n_cores = out->first[0] = 0;
    for (int node = 0; node < PHX_NODES_MAX - 1; node++) {
        (void)snprintf(path, sizeof(path), "%s/sys/devices/system/node/node%d/cpulist", root, node);
        if (!read_line(path, line, sizeof(line)))
            continue; /* numbers of nodes may have holes */
        take_cores(line, &left, out);
        end_node(out);
    }
    for (int32_t core = 0; core < PHX_CORES_MAX; core++) /* that no node claims */
        if (CPU_ISSET(core, &left))
            out->core[out->n_cores++] = core;
    end_node(out);
    if (out->n_cores == 0) {
        out->core[out->n_cores++] = 0;
        end_node(out);
    }
}

void phx_topology_here(struct phx_topology *out)
{
    cpu_set_t allowed;

    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0)
        CPU_ZERO(&allowed); /* a machine of more cores than the mask holds: taken as one */
    phx_topology_read("", &allowed, out);
}

/* ---- memory --------------------------------------------------------------------------------- */

/* The number behind `key` at the start of a line, -1 when there is none ("max" is none). */
static int64_t read_number(const char *path, const char *key)
{
    FILE     *f = fopen(path, "re");
    char      line[256];
    long long value = -1;

    while (f != NULL && value < 0 && fgets(line, sizeof(line), f) != NULL)
        if (strncmp(line, key, strlen(key)) != 0 || sscanf(line + strlen(key), " %lld", &value) != 1)
            value = -1;
    if (f != NULL)
        (void)fclose(f); /* was only read */
    return value;
}

struct files { /* of one version of control groups */
    const char *mount, *limit, *usage, *cache[2];
};

static const struct files VERSION_1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                                       "memory.usage_in_bytes",
                                       {"total_inactive_file ", "total_active_file "}};
static const struct files VERSION_2 = {"/sys/fs/cgroup", "memory.max", "memory.current",
                                       {"inactive_file ", "active_file "}};

/* One level.  What a full group holds as page cache is given up before anything fails. */
static void look_at(const char *folder, const struct files *v, struct phx_memory_room *out)
{
    char    limit_file[2 * PATH_BYTES], path[2 * PATH_BYTES];
    int64_t limit, used, left;

    (void)snprintf(limit_file, sizeof(limit_file), "%s/%s", folder, v->limit);
    (void)snprintf(path, sizeof(path), "%s/%s", folder, v->usage);
    limit = read_number(limit_file, "");
    used = read_number(path, "");
    if (limit < 0 || used < 0)
        return;
    (void)snprintf(path, sizeof(path), "%s/memory.stat", folder);
    for (int i = 0; i < 2; i++) {
        int64_t cache = read_number(path, v->cache[i]);

        used -= cache > 0 ? cache : 0;
    }
    left = limit - (used > 0 ? used : 0);
    if (left >= out->free_bytes)
        return;
    out->free_bytes = left > 0 ? left : 0;
    out->limit_bytes = limit;
    (void)snprintf(out->source, sizeof(out->source), "%s", limit_file);
}

/* A group and all above it; inside a container the path may not be there, its mount is the group then. */
static void look_up(const char *root, const char *group, const struct files *v, struct phx_memory_room *out)
{
    char  folder[PATH_BYTES];
    char *tail;
    int   n = snprintf(folder, sizeof(folder), "%s%s", root, v->mount);

    if (n < 0 || (size_t)n >= sizeof(folder) ||
        snprintf(folder + n, sizeof(folder) - (size_t)n, "%s", group) >= (int)sizeof(folder) - n)
        return;
    for (;;) {
        look_at(folder, v, out);
        tail = strrchr(folder + n, '/');
        if (tail == NULL)
            return;
        *tail = '\0';
    }
}

/* Has the line's list of controllers "memory"? */
static bool is_memory(const char *list, const char *end)
{
    for (const char *at = list; at < end; at += strcspn(at, ",:") + 1)
        if (strncmp(at, "memory", 6) == 0 && (at[6] == ',' || at[6] == ':'))
            return true;
    return false;
}

void phx_memory_room(const char *root, struct phx_memory_room *out)
{
    char  path[PATH_BYTES], line[PATH_BYTES];
    FILE *f;
    int64_t kib;

    *out = (struct phx_memory_room){.free_bytes = INT64_MAX, .source = "/proc/meminfo"};
    (void)snprintf(path, sizeof(path), "%s/proc/meminfo", root);
    kib = read_number(path, "MemAvailable:");
    if (kib >= 0)
        out->free_bytes = kib * 1024;
    (void)snprintf(path, sizeof(path), "%s/proc/self/cgroup", root);
    f = fopen(path, "re");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL) { /* NUMBER:CONTROLLERS:PATH */
        char *list = strchr(line, ':'), *group = list != NULL ? strchr(list + 1, ':') : NULL;

        if (group == NULL)
            continue;
        line[strcspn(line, "\n")] = '\0';
        if (group == list + 1)
            look_up(root, group + 1, &VERSION_2, out);
        else if (is_memory(list + 1, group))
            look_up(root, group + 1, &VERSION_1, out);
    }
    if (f != NULL)
        (void)fclose(f); /* was only read */
}
