/* SPDX-License-Identifier: Apache-2.0
 * Machines that are not here: sockets, odd core sets, control groups of both versions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/machine.h"

/* ---- a machine in a folder ------------------------------------------------------------------ */

static char root[64];

static int make_root(void **state)
{
    (void)state;
    (void)snprintf(root, sizeof(root), "/tmp/phx-machine.XXXXXX");
    return mkdtemp(root) == NULL;
}

static int wipe_root(void **state)
{
    char command[128];

    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", root);
    return system(command);
}

static void put(const char *path, const char *text)
{
    char  full[512];
    FILE *f;

    (void)snprintf(full, sizeof(full), "%s%s", root, path);
    for (char *at = strchr(full + strlen(root) + 1, '/'); at != NULL; at = strchr(at + 1, '/')) {
        *at = '\0';
        (void)mkdir(full, 0700); /* there already, maybe */
        *at = '/';
    }
    f = fopen(full, "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static struct phx_topology read_cores(const char *allowed)
{
    struct phx_topology t;
    cpu_set_t           set;
    char                list[256];

    CPU_ZERO(&set);
    (void)snprintf(list, sizeof(list), "%s", allowed);
    for (char *save = NULL, *item = strtok_r(list, ",", &save); item != NULL;
         item = strtok_r(NULL, ",", &save)) {
        char *dash = strchr(item, '-');

        for (int c = atoi(item); c <= atoi(dash != NULL ? dash + 1 : item); c++)
            CPU_SET(c, &set);
    }
    phx_topology_read(root, &set, &t);
    return t;
}

static void put_two_sockets(void)
{
    put("/sys/devices/system/node/node0/cpulist", "0-3,8-11\n");
    put("/sys/devices/system/node/node1/cpulist", "4-7,12-15\n");
}

static void assert_cores(const struct phx_placement *p, int32_t n, const int32_t *cores)
{
    assert_int_equal(p->n_cores, n);
    for (int32_t i = 0; i < n; i++)
        assert_int_equal(p->core[i], cores[i]);
}

/* ---- cores ---------------------------------------------------------------------------------- */

static void test_two_sockets(void **state)
{
    struct phx_topology  t;
    struct phx_placement p;

    (void)state;
    put_two_sockets();
    t = read_cores("0-15");
    assert_int_equal(t.n_nodes, 2);
    assert_int_equal(t.n_cores, 16);
    phx_placement_plan(&t, 0, 2, 0, &p);
    assert_cores(&p, 8, (int32_t[]){0, 1, 2, 3, 8, 9, 10, 11});
    assert_true(p.is_pinned);
    assert_int_equal(p.n_threads, 8);
    assert_int_equal(p.n_nodes, 1);
    phx_placement_plan(&t, 1, 2, 0, &p);
    assert_cores(&p, 8, (int32_t[]){4, 5, 6, 7, 12, 13, 14, 15});
    assert_int_equal(p.n_nodes, 1);
    phx_placement_plan(&t, 3, 4, 0, &p); /* two on each node */
    assert_cores(&p, 4, (int32_t[]){12, 13, 14, 15});
    phx_placement_plan(&t, 0, 1, 0, &p); /* one alone takes both */
    assert_int_equal(p.n_threads, 16);
    assert_int_equal(p.n_nodes, 2);
    phx_placement_plan(&t, 1, 3, 0, &p); /* three do not go up: runs of the list */
    assert_cores(&p, 5, (int32_t[]){9, 10, 11, 4, 5});
    assert_int_equal(p.n_nodes, 2);
}

static void test_odd_core_set(void **state)
{
    struct phx_topology  t;
    struct phx_placement p;

    (void)state;
    put_two_sockets();
    t = read_cores("1,3,5,7,9,11,13,15");
    phx_placement_plan(&t, 1, 2, 3, &p); /* fewer threads than its share */
    assert_cores(&p, 4, (int32_t[]){5, 7, 13, 15});
    assert_int_equal(p.n_threads, 3);
    assert_true(p.is_pinned);
    t = read_cores("3,8-11"); /* one node is not allowed at all */
    assert_int_equal(t.n_nodes, 1);
    phx_placement_plan(&t, 0, 2, 0, &p);
    assert_cores(&p, 2, (int32_t[]){3, 8});
    phx_placement_plan(&t, 1, 2, 0, &p);
    assert_cores(&p, 3, (int32_t[]){9, 10, 11});
}

/* One core of a socket and seven of the other: the rank with the one core would hold up all. */
static void test_lopsided(void **state)
{
    struct phx_topology  t;
    struct phx_placement p;

    (void)state;
    put_two_sockets();
    t = read_cores("0,4-7,12-14");
    assert_int_equal(t.n_nodes, 2);
    phx_placement_plan(&t, 0, 2, 0, &p);
    assert_cores(&p, 4, (int32_t[]){0, 4, 5, 6});
    phx_placement_plan(&t, 1, 2, 0, &p);
    assert_cores(&p, 4, (int32_t[]){7, 12, 13, 14});
}

static void test_few_cores(void **state)
{
    struct phx_topology  t;
    struct phx_placement p;
    cpu_set_t            mask;

    (void)state;
    t = read_cores("5"); /* no node is told at all */
    assert_int_equal(t.n_nodes, 1);
    phx_placement_plan(&t, 0, 1, 0, &p);
    assert_cores(&p, 1, (int32_t[]){5});
    assert_true(p.is_pinned);
    phx_placement_plan(&t, 0, 1, 4, &p); /* more threads than cores */
    assert_int_equal(p.n_threads, 4);
    assert_false(p.is_pinned);
    phx_placement_plan(&t, 2, 3, 0, &p); /* more teams than cores: all share, one thread each */
    assert_cores(&p, 1, (int32_t[]){5});
    assert_int_equal(p.n_threads, 1);
    assert_false(p.is_pinned);
    phx_placement_mask(&p, &mask);
    assert_int_equal(CPU_COUNT(&mask), 1);
    assert_true(CPU_ISSET(5, &mask));
    t = read_cores("999"); /* allowed, but not of any node */
    assert_int_equal(t.n_cores, 1);
    phx_topology_here(&t);
    assert_true(t.n_cores >= 1);
}

/* Every way to share: all cores are handed out once, and no team is left without. */
static void test_shares_cover(void **state)
{
    struct phx_topology t;

    (void)state;
    put_two_sockets();
    t = read_cores("0-3,5-7,9,12-15");
    for (int32_t n = 1; n <= t.n_cores; n++) {
        int32_t times[PHX_CORES_MAX] = {0};

        for (int32_t i = 0; i < n; i++) {
            struct phx_placement p;

            phx_placement_plan(&t, i, n, 0, &p);
            assert_true(p.n_cores >= 1);
            for (int32_t c = 0; c < p.n_cores; c++)
                times[p.core[c]]++;
        }
        for (int32_t c = 0; c < t.n_cores; c++)
            assert_int_equal(times[t.core[c]], 1);
    }
}

/* ---- memory --------------------------------------------------------------------------------- */

static void test_machine_alone(void **state)
{
    struct phx_memory_room r;

    (void)state;
    phx_memory_room(root, &r);
    assert_true(r.free_bytes == INT64_MAX);
    put("/proc/meminfo", "MemTotal:  2048 kB\nMemAvailable:    1000 kB\n");
    phx_memory_room(root, &r);
    assert_int_equal(r.free_bytes, 1000 * 1024);
    assert_int_equal(r.limit_bytes, 0);
    assert_string_equal(r.source, "/proc/meminfo");
}

static void test_version_2(void **state)
{
    struct phx_memory_room r;

    (void)state;
    put("/proc/meminfo", "MemAvailable: 1000000 kB\n");
    put("/proc/self/cgroup", "0::/a/b\n");
    put("/sys/fs/cgroup/a/b/memory.max", "max\n");
    put("/sys/fs/cgroup/a/b/memory.current", "5000\n");
    phx_memory_room(root, &r);
    assert_int_equal(r.free_bytes, 1024000000);
    put("/sys/fs/cgroup/a/memory.max", "10000000\n"); /* a limit further up binds as well */
    put("/sys/fs/cgroup/a/memory.current", "7000000\n");
    phx_memory_room(root, &r);
    assert_int_equal(r.free_bytes, 3000000);
    assert_int_equal(r.limit_bytes, 10000000);
    assert_non_null(strstr(r.source, "/sys/fs/cgroup/a/memory.max"));
    put("/sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 2000000\nactive_file 1000000\n");
    phx_memory_room(root, &r); /* page cache counts as free */
    assert_int_equal(r.free_bytes, 6000000);
    put("/sys/fs/cgroup/a/memory.current", "20000000\n"); /* above its limit: nothing, not less */
    phx_memory_room(root, &r);
    assert_int_equal(r.free_bytes, 0);
}

static void test_version_1(void **state)
{
    struct phx_memory_room r;

    (void)state;
    put("/proc/self/cgroup", "4:memory:/not/here\n3:cpu,cpuacct:/\n2:memoryless:/\n0::/\n");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "8000000\n"); /* a container's own mount */
    put("/sys/fs/cgroup/memory/memory.usage_in_bytes", "3000000\n");
    put("/sys/fs/cgroup/memory/memory.stat", "inactive_file 7\ntotal_inactive_file 1000000\n");
    phx_memory_room(root, &r);
    assert_int_equal(r.free_bytes, 6000000);
    assert_int_equal(r.limit_bytes, 8000000);
    put("/proc/self/cgroup", "4:cpu,memory:/job\n");
    put("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "4000000\n");
    put("/sys/fs/cgroup/memory/job/memory.usage_in_bytes", "1000000\n");
    phx_memory_room(root, &r);
    assert_int_equal(r.free_bytes, 3000000);
    put("/proc/self/cgroup", "garbage\n4:memory\n:::\n");
    phx_memory_room(root, &r);
    assert_true(r.free_bytes == INT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_two_sockets, make_root, wipe_root),
        cmocka_unit_test_setup_teardown(test_odd_core_set, make_root, wipe_root),
        cmocka_unit_test_setup_teardown(test_lopsided, make_root, wipe_root),
        cmocka_unit_test_setup_teardown(test_few_cores, make_root, wipe_root),
        cmocka_unit_test_setup_teardown(test_shares_cover, make_root, wipe_root),
        cmocka_unit_test_setup_teardown(test_machine_alone, make_root, wipe_root),
        cmocka_unit_test_setup_teardown(test_version_2, make_root, wipe_root),
        cmocka_unit_test_setup_teardown(test_version_1, make_root, wipe_root),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
