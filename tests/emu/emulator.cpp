// SPDX-License-Identifier: Apache-2.0
// Runs blocks of fibers, and does what a warp does together.
#include "emulator.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <memory>
#include <vector>

#include "tests/emu/block.h"
#include "tests/emu/control.h"
#include "tests/emu/fiber.h"
#include "tests/emu/grid.h"

dim3 phx_emu_thread_idx, phx_emu_block_idx, phx_emu_block_dim, phx_emu_grid_dim;

namespace {

enum { WARP = 32, THREADS_MAX = 1024, TRIED = 3 /* blocks at either end of a grid */ };

enum state { RUNS, SPINS, WAITS_FOR_WARP, WAITS_FOR_GROUP, SLEEPS, WAITS_FOR_BLOCK, IS_DONE };

struct copy {
    void       *to;
    const void *from; // nullptr: zeros
    int         group;
};

struct thread {
    phx_emu_fiber     fiber;
    dim3              idx;
    enum state        state;
    const void       *object; // that it sleeps for
    std::vector<copy> copies; // not done yet
    int               n_groups;
    bool              has_waited; // for the launch before
};

struct warp {
    int              n_arrived; // lanes that wait for the others
    phx_emu_warp_op *op;
    void            *args[WARP];
};

struct group {
    int               n_arrived;
    phx_emu_group_op *op;
    void             *args[PHX_EMU_WARPGROUP];
};

} // namespace

// A launch under way: the block that runs, or that waits for memory to change while other launches run.
struct phx_emu_grid {
    thread                     threads[THREADS_MAX];
    warp                       warps[THREADS_MAX / WARP];
    group                      groups[THREADS_MAX / PHX_EMU_WARPGROUP];
    phx_emu_fiber              scheduler;
    phx_emu_launch_shape       shape;
    std::function<void()>      kernel;
    bool                       is_backwards, is_inside; // inside a block
    bool                       is_trial;                // ends where it would wait for the launch before
    uint64_t                   n_done;                  // blocks
    dim3                       block;                   // which is inside
    int                        n_threads, current;
    alignas(128) unsigned char dynamic_shared[256 << 10];
};

namespace {

phx_emu_grid                              *now; // the one that runs
std::vector<std::unique_ptr<phx_emu_grid>> idle; // their stacks are used again

} // namespace

// "kernel<1, 2>, grid, ..." is what the launch says; the kernel's part.
static int name_size(const char *text)
{
    int n = 0, depth = 0;

    for (; text[n] != '\0' && (text[n] != ',' || depth > 0); n++)
        depth += (text[n] == '(') - (text[n] == ')');
    return n;
}

void phx_emu_die(const char *what)
{
    fprintf(stderr, "emulator: %.*s: block (%u, %u, %u), thread %d: %s\n", name_size(now->shape.name), now->shape.name,
            phx_emu_block_idx.x, phx_emu_block_idx.y, phx_emu_block_idx.z, now->current, what);
    abort();
}

namespace {

[[noreturn]] void die(const char *what)
{
    phx_emu_die(what);
}

int warp_end(int first)
{
    return first + WARP < now->n_threads ? first + WARP : now->n_threads;
}

// To a thread, or to the scheduler (-1).
void switch_to(int next)
{
    thread        *from = &now->threads[now->current];
    int            self = now->current;
    phx_emu_fiber *to = next < 0 ? &now->scheduler : &now->threads[next].fiber;

    if (next >= 0) {
        now->current = next;
        phx_emu_thread_idx = now->threads[next].idx;
    }
    phx_emu_fiber_switch(&from->fiber, to, from->state == IS_DONE);
    now->current = self;
    phx_emu_thread_idx = from->idx;
}

// The thread stops here until somebody lets it run: on to the next one of its warp that can.
void stop()
{
    int first = now->current / WARP * WARP, end = warp_end(first);

    int next = now->current;

    do
        next = next + 1 < end ? next + 1 : first;
    while (next != now->current && now->threads[next].state != RUNS);
    switch_to(next != now->current ? next : -1);
}

void end_thread()
{
    now->threads[now->current].copies.clear();
    now->threads[now->current].state = IS_DONE;
    stop();
}

void run_thread()
{
    phx_emu_fiber_arrived();
    now->kernel();
    if (now->shape.overlaps && !now->threads[now->current].has_waited)
        die("ends and has not waited for the launch before (phx_wait_previous)");
    end_thread();
}

void start_threads()
{
    dim3 d = phx_emu_block_dim;

    for (int i = 0; i < now->n_threads; i++) {
        thread &t = now->threads[i];

        t.idx = dim3((unsigned)i % d.x, (unsigned)i / d.x % d.y, (unsigned)i / d.x / d.y);
        t.state = RUNS;
        t.copies.clear();
        t.n_groups = 0;
        t.has_waited = false;
        phx_emu_fiber_prepare(&t.fiber, run_thread);
    }
    for (warp &w : now->warps)
        w.n_arrived = 0;
    for (group &g : now->groups)
        g.n_arrived = 0;
}

// False when none of its threads could run.
bool enter_warp(int first)
{
    for (int i = first; i < warp_end(first); i++)
        if (now->threads[i].state == RUNS) {
            now->current = i;
            phx_emu_thread_idx = now->threads[i].idx;
            phx_emu_fiber_switch(&now->scheduler, &now->threads[i].fiber, false);
            return true;
        }
    return false;
}

// False when the block is done.
bool pass_barrier()
{
    int n_done = 0;

    for (int i = 0; i < now->n_threads; i++) {
        now->current = i;
        if (now->threads[i].state == WAITS_FOR_WARP)
            die("waits for its warp, part of which is elsewhere");
        if (now->threads[i].state == WAITS_FOR_GROUP)
            die("waits for its warpgroup, part of which is elsewhere");
        if (now->threads[i].state == SLEEPS)
            die("waits for what nobody will do");
        n_done += now->threads[i].state == IS_DONE;
    }
    if (n_done == now->n_threads)
        return false;
    if (n_done > 0)
        die("has ended or waits at a barrier that others have passed by");
    for (int i = 0; i < now->n_threads; i++)
        now->threads[i].state = RUNS;
    return true;
}

// Whether somebody waits for memory to change; who does will look again.
bool stop_spinning()
{
    bool spins = false;

    for (int i = 0; i < now->n_threads; i++)
        if (now->threads[i].state == SPINS) {
            now->threads[i].state = RUNS;
            spins = true;
        }
    return spins;
}

// True when the block is done, false when it waits for memory to change.
bool run_block()
{
    int  n_warps = (now->n_threads + WARP - 1) / WARP;
    bool has_run;

    do {
        do {
            has_run = false;
            for (int w = 0; w < n_warps; w++)
                has_run = enter_warp((now->is_backwards ? n_warps - 1 - w : w) * WARP) || has_run;
        } while (has_run);
        if (stop_spinning())
            return false;
    } while (pass_barrier());
    phx_emu_groups_end();
    return true;
}

void start_block()
{
    uint64_t n_blocks = (uint64_t)now->shape.grid.x * now->shape.grid.y * now->shape.grid.z;
    uint64_t at = now->is_backwards ? n_blocks - 1 - now->n_done : now->n_done;
    dim3     grid = now->shape.grid;

    phx_emu_block_idx = dim3((unsigned)(at % grid.x), (unsigned)(at / grid.x % grid.y), (unsigned)(at / grid.x / grid.y));
    memset(now->dynamic_shared, 0xff, now->shape.shared_bytes); // NaN: nothing may count on zeros
    start_threads();
}

} // namespace

phx_emu_grid *phx_emu_grid_start(const phx_emu_launch_shape &shape, const std::function<void()> &body, bool is_backwards)
{
    phx_emu_grid *g;

    if (idle.empty())
        idle.push_back(std::make_unique<phx_emu_grid>());
    g = idle.back().release();
    idle.pop_back();
    g->shape = shape;
    g->kernel = body;
    g->is_backwards = is_backwards;
    g->is_inside = g->is_trial = false;
    g->n_done = 0;
    g->n_threads = (int)(shape.block.x * shape.block.y * shape.block.z);
    return g;
}

static uint64_t enter_grid(phx_emu_grid *g)
{
    now = g;
    phx_emu_grid_dim = g->shape.grid;
    phx_emu_block_dim = g->shape.block;
    return (uint64_t)g->shape.grid.x * g->shape.grid.y * g->shape.grid.z;
}

bool phx_emu_grid_go_on(phx_emu_grid *g)
{
    uint64_t n_blocks = enter_grid(g);

    for (; g->n_done < n_blocks; g->n_done++, g->is_inside = false) {
        if (g->is_inside)
            phx_emu_block_idx = g->block;
        else
            start_block();
        g->is_inside = true;
        g->block = phx_emu_block_idx;
        if (!run_block())
            return false;
    }
    phx_emu_grid_drop(g);
    return true;
}

void phx_emu_grid_try(const phx_emu_launch_shape &shape, const std::function<void()> &body, bool is_backwards)
{
    phx_emu_grid *g = phx_emu_grid_start(shape, body, is_backwards);
    uint64_t      n_blocks = enter_grid(g);

    g->is_trial = true;
    for (g->n_done = 0; g->n_done < n_blocks; g->n_done++) {
        if (g->n_done == TRIED && n_blocks > 2 * TRIED)
            g->n_done = n_blocks - TRIED;
        start_block();
        (void)run_block();
    }
    phx_emu_grid_drop(g);
}

void phx_emu_grid_drop(phx_emu_grid *g)
{
    g->kernel = nullptr;
    idle.emplace_back(g);
}

void phx_spin()
{
    now->threads[now->current].state = SPINS;
    stop();
}

void phx_wait_previous()
{
    thread &t = now->threads[now->current];

    if (!now->shape.overlaps)
        return;
    if (t.has_waited)
        die("waits for the launch before a second time");
    t.has_waited = true;
    if (now->is_trial)
        end_thread();
}

void phx_emu_check_waited(const char *what)
{
    if (now->shape.overlaps && !now->threads[now->current].has_waited)
        die(what);
}

void phx_let_next()
{
    phx_emu_check_waited("lets the next launch begin before it has waited for the one before");
}

void phx_prefetch(const void *p, uint32_t bytes)
{
    if (reinterpret_cast<uintptr_t>(p) % 16 != 0 || bytes % 16 != 0 || bytes >= 1u << 20)
        die("a prefetch is not of multiples of 16 bytes, or too large");
    phx_emu.prefetched_bytes += now->is_trial ? 0 : bytes;
    if (!phx_emu_is_on_device(p, bytes))
        die("prefetches what is no memory of the device");
}

void phx_prefetch_line(const void *p)
{
    if (!phx_emu_is_on_device(p, 1))
        die("prefetches what is no memory of the device");
}

void *phx_emu_shared()
{
    return now->dynamic_shared;
}

void phx_emu_block_barrier()
{
    now->threads[now->current].state = WAITS_FOR_BLOCK;
    stop();
}

void phx_emu_warp(phx_emu_warp_op *op, void *args)
{
    int   first = now->current / WARP * WARP;
    warp &w = now->warps[now->current / WARP];

    if (warp_end(first) - first != WARP)
        die("a warp of fewer than 32 threads works together");
    if (w.n_arrived > 0 && w.op != op)
        die("does something else than another lane of its warp");
    w.op = op;
    w.args[now->current - first] = args;
    if (++w.n_arrived < WARP) {
        now->threads[now->current].state = WAITS_FOR_WARP;
        stop();
        return;
    }
    op(w.args);
    w.n_arrived = 0;
    for (int i = first; i < first + WARP; i++)
        now->threads[i].state = RUNS;
}

void phx_emu_warp_nothing(void *const args[32])
{
    (void)args;
}

int phx_emu_thread_now()
{
    return now->current;
}

bool phx_emu_is_eager()
{
    return now->is_backwards;
}

void phx_emu_group(phx_emu_group_op *op, void *args)
{
    int    first = now->current / PHX_EMU_WARPGROUP * PHX_EMU_WARPGROUP;
    group &g = now->groups[now->current / PHX_EMU_WARPGROUP];

    if (first + PHX_EMU_WARPGROUP > now->n_threads)
        die("a warpgroup of fewer than 128 threads works together");
    if (g.n_arrived > 0 && g.op != op)
        die("does something else than another thread of its warpgroup");
    g.op = op;
    g.args[now->current - first] = args;
    if (++g.n_arrived < PHX_EMU_WARPGROUP) {
        now->threads[now->current].state = WAITS_FOR_GROUP;
        stop();
        return;
    }
    op(g.args);
    g.n_arrived = 0;
    for (int i = first; i < first + PHX_EMU_WARPGROUP; i++)
        now->threads[i].state = RUNS;
}

void phx_emu_sleep(const void *object)
{
    now->threads[now->current].state = SLEEPS;
    now->threads[now->current].object = object;
    stop();
}

void phx_emu_wake(const void *object)
{
    for (int i = 0; i < now->n_threads; i++)
        if (now->threads[i].state == SLEEPS && now->threads[i].object == object)
            now->threads[i].state = RUNS;
}

void phx_emu_do_shuffle(void *const args[32])
{
    for (int i = 0; i < WARP; i++) {
        phx_emu_shuffle *s = static_cast<phx_emu_shuffle *>(args[i]);

        s->result = static_cast<phx_emu_shuffle *>(args[s->lane])->value;
    }
}

uint32_t phx_ballot(bool yes)
{
    uint32_t mask = 0;

    for (int i = 0; i < WARP; i++)
        mask |= (uint32_t)phx_shfl((int)yes, i) << i;
    return mask;
}

// ---- matrices

namespace {

struct mma {
    float          *d;
    const uint32_t *a, *b;
};

float half_of(uint32_t pair, int i)
{
    return __uint_as_float(i == 0 ? pair << 16 : pair & 0xffff0000u);
}

// Registers to matrices by the fragments of the PTX ISA, the products in double, one rounding.
void do_mma(void *const args[32])
{
    double a[16][16], b[16][8], d[16][8];

    for (int lane = 0; lane < WARP; lane++) {
        const mma *m = static_cast<const mma *>(args[lane]);
        int        g = lane / 4, t = lane % 4;

        for (int i = 0; i < 2; i++) {
            for (int r = 0; r < 4; r++)
                a[g + r % 2 * 8][2 * t + r / 2 * 8 + i] = (double)half_of(m->a[r], i);
            for (int r = 0; r < 2; r++) {
                b[2 * t + r * 8 + i][g] = (double)half_of(m->b[r], i);
                d[g + r * 8][2 * t + i] = (double)m->d[2 * r + i];
            }
        }
    }
    for (int row = 0; row < 16; row++)
        for (int k = 0; k < 16; k++)
            for (int column = 0; column < 8; column++)
                d[row][column] += a[row][k] * b[k][column];
    for (int lane = 0; lane < WARP; lane++)
        for (int i = 0; i < 4; i++)
            static_cast<const mma *>(args[lane])->d[i] = (float)d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
}

struct load {
    uint32_t   *r;
    const void *row;
};

void do_load(void *const args[32], bool is_transposed)
{
    for (int lane = 0; lane < WARP; lane++)
        for (int j = 0; j < 4; j++) {
            uint16_t pair[2];

            for (int i = 0; i < 2; i++) {
                int         row = is_transposed ? lane % 4 * 2 + i : lane / 4;
                int         column = is_transposed ? lane / 4 : lane % 4 * 2 + i;
                const void *at = static_cast<const load *>(args[j * 8 + row])->row;

                if (reinterpret_cast<uintptr_t>(at) % 16 != 0)
                    die("a row of ldmatrix is not aligned to 16 bytes");
                memcpy(&pair[i], static_cast<const char *>(at) + column * 2, 2);
            }
            static_cast<const load *>(args[lane])->r[j] = (uint32_t)pair[0] | (uint32_t)pair[1] << 16;
        }
}

void do_load_plain(void *const args[32])
{
    do_load(args, false);
}

void do_load_transposed(void *const args[32])
{
    do_load(args, true);
}

} // namespace

void phx_mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    mma m = {d, a, b};

    phx_emu_warp(do_mma, &m);
}

void phx_ldmatrix_x4(uint32_t r[4], const void *shared_row)
{
    load l = {r, shared_row};

    phx_emu_warp(do_load_plain, &l);
}

void phx_ldmatrix_x4_trans(uint32_t r[4], const void *shared_row)
{
    load l = {r, shared_row};

    phx_emu_warp(do_load_transposed, &l);
}

// ---- copies behind a thread's back: done when somebody waits and not before, or in odd launches at once

static void make_copy(void *to, const void *from)
{
    if (from != nullptr)
        memcpy(to, from, 16);
    else
        memset(to, 0, 16);
}

void phx_cp_async16_if(void *shared, const void *global, bool is_wanted)
{
    thread &t = now->threads[now->current];

    phx_emu_check_waited("copies (cp.async) before it has waited for the launch before");
    if (reinterpret_cast<uintptr_t>(shared) % 16 != 0 || reinterpret_cast<uintptr_t>(global) % 16 != 0)
        die("cp.async is not aligned to 16 bytes");
    if (now->is_backwards)
        make_copy(shared, is_wanted ? global : nullptr);
    else
        t.copies.push_back({shared, is_wanted ? global : nullptr, t.n_groups});
}

void phx_cp_async_commit()
{
    now->threads[now->current].n_groups++;
}

void phx_emu_cp_async_wait(int n)
{
    thread &t = now->threads[now->current];
    size_t  kept = 0;

    for (const copy &c : t.copies)
        if (c.group >= t.n_groups - n)
            t.copies[kept++] = c;
        else
            make_copy(c.to, c.from);
    t.copies.resize(kept);
}

uint64_t phx_now_ns()
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

// ---- numbers

float phx_f16_float(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000u) << 16, e = (bits >> 10) & 31u, m = bits & 0x3ffu;

    if (e == 31)
        return __uint_as_float(sign | 0x7f800000u | m << 13);
    if (e == 0)
        return __uint_as_float(sign | __float_as_uint((float)m * 0x1p-24f));
    return __uint_as_float(sign | (e + 112u) << 23 | m << 13);
}
