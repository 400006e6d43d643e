/* SPDX-License-Identifier: Apache-2.0
 * Preloaded: the wall clock stands as many nanoseconds ahead as the 8 bytes of the file MOVEDCLOCK_FILE say, also
 * when they change while the program runs.  Monotonic and boot clocks go on as they are, as under a wrong NTP reply. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { SECOND_NS = 1000000000 };

static const _Atomic int64_t *ahead_ns;
static int (*real_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void open_clock(void)
{
    const char *path = getenv("MOVEDCLOCK_FILE");
    int         fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void       *map;

    *(void **)&real_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    if (fd < 0)
        return;
    map = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (map != MAP_FAILED)
        ahead_ns = map;
}

int clock_gettime(clockid_t id, struct timespec *ts)
{
    int     rc;
    int64_t ns;

    if (real_gettime == NULL) /* another library's constructor came first */
        *(void **)&real_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    rc = real_gettime(id, ts);
    if (rc != 0 || ahead_ns == NULL || (id != CLOCK_REALTIME && id != CLOCK_REALTIME_COARSE))
        return rc;
    ns = (int64_t)ts->tv_sec * SECOND_NS + ts->tv_nsec + atomic_load(ahead_ns);
    ts->tv_sec = ns / SECOND_NS;
    ts->tv_nsec = ns % SECOND_NS;
    return 0;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
    struct timespec ts;

    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &ts) != 0)
        return -1;
    tv->tv_sec = ts.tv_sec;
    tv->tv_usec = ts.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out)
{
    struct timespec ts = {0, 0};

    (void)clock_gettime(CLOCK_REALTIME, &ts); /* cannot fail for this clock */
    if (out != NULL)
        *out = ts.tv_sec;
    return ts.tv_sec;
}
