// SPDX-License-Identifier: Apache-2.0
// Warpgroups, barriers in shared memory and bulk copies, by the PTX ISA.
#include "tests/emu/warpgroup.h"

#include <vector>

#include "tests/emu/block.h"
#include "tests/emu/control.h"

namespace {

enum { THREADS = PHX_EMU_WARPGROUP, GROUPS = 1024 / THREADS, ROWS = 64, STEP_K = 16, COLUMNS_MAX = 256, WINDOW_START = 384 };

// ---- products

struct operands {
    float          *d;
    const uint32_t *a;
    uint64_t        b;
    bool            adds;
    int             columns;
};

struct product {
    operands of[THREADS];
    int      group;
};

struct warpgroup {
    std::vector<product> products; // under way
    int                  n_groups; // committed
};

warpgroup warpgroups[GROUPS];

warpgroup &this_group()
{
    return warpgroups[phx_emu_thread_now() / THREADS];
}

float half_of(uint32_t pair, int i)
{
    return __uint_as_float(i == 0 ? pair << 16 : pair & 0xffff0000u);
}

// Matrix descriptor: start address (bits 0 to 13), leading (16 to 29) and stride byte offset (32 to 45) in units of 16 bytes, base
// offset (49 to 51), swizzling mode (62, 63).  128-byte swizzle, K-major: rows of 128 bytes, eight rows to the next eight the
// stride byte offset; then bits 4 to 6 of an address are exclusive-or'ed with its bits 7 to 9.
float b_element(uint64_t descriptor, int column, int k)
{
    const unsigned char *window = static_cast<const unsigned char *>(phx_emu_shared()) - WINDOW_START;
    uint32_t             start = (uint32_t)(descriptor & 0x3fff) << 4, stride = (uint32_t)(descriptor >> 32 & 0x3fff) << 4;
    uint32_t             at = start + (uint32_t)(column / 8) * stride + (uint32_t)(column % 8) * 128 + (uint32_t)k * 2;
    uint16_t             bits;

    if (descriptor >> 62 != 1 || (descriptor >> 49 & 7u) != 0 || (start & 0x380u) != 0)
        phx_emu_die("a matrix descriptor other than of 128-byte swizzle from a multiple of 1024 bytes on");
    memcpy(&bits, window + (at ^ (at >> 3 & 0x70u)), sizeof(bits));
    return __uint_as_float((uint32_t)bits << 16);
}

float round_sum(double sum)
{
    float f = (float)sum;

    if (phx_emu.truncates != 0 && fabs((double)f) > fabs(sum))
        f = nextafterf(f, 0.0f);
    return f;
}

// Registers to matrices by the fragments of the PTX ISA, the products in double, one rounding: as do_mma() of a warp.
void multiply(const product &p)
{
    static double a[ROWS][STEP_K], b[STEP_K][COLUMNS_MAX], d[ROWS][COLUMNS_MAX];
    int           columns = p.of[0].columns;

    for (int thread = 0; thread < THREADS; thread++) {
        int warp = thread / 32, g = thread % 32 / 4, t = thread % 4;

        for (int i = 0; i < 8; i++)
            a[16 * warp + g + i / 2 % 2 * 8][2 * t + i / 4 * 8 + i % 2] = (double)half_of(p.of[thread].a[i / 2], i % 2);
        for (int i = 0; i < columns / 2; i++)
            d[16 * warp + g + i / 2 % 2 * 8][i / 4 * 8 + 2 * t + i % 2] = p.of[0].adds ? (double)p.of[thread].d[i] : 0.0;
    }
    for (int k = 0; k < STEP_K; k++)
        for (int column = 0; column < columns; column++)
            b[k][column] = (double)b_element(p.of[0].b, column, k);
    for (int row = 0; row < ROWS; row++)
        for (int k = 0; k < STEP_K; k++)
            for (int column = 0; column < columns; column++)
                d[row][column] += a[row][k] * b[k][column];
    for (int thread = 0; thread < THREADS; thread++)
        for (int i = 0; i < columns / 2; i++)
            p.of[thread].d[i] = round_sum(
                d[16 * (thread / 32) + thread % 32 / 4 + i / 2 % 2 * 8][i / 4 * 8 + 2 * (thread % 4) + i % 2]);
}

void do_start(void *const args[THREADS])
{
    warpgroup &w = this_group();
    product    p;

    p.group = w.n_groups;
    for (int i = 0; i < THREADS; i++) {
        p.of[i] = *static_cast<const operands *>(args[i]);
        if (p.of[i].b != p.of[0].b || p.of[i].adds != p.of[0].adds || p.of[i].columns != p.of[0].columns)
            phx_emu_die("the threads of a warpgroup disagree about a product");
    }
    if (phx_emu_is_eager())
        multiply(p);
    else
        w.products.push_back(p);
}

void do_commit(void *const args[THREADS])
{
    (void)args;
    this_group().n_groups++;
}

void do_wait(void *const args[THREADS])
{
    warpgroup &w = this_group();
    size_t     n = 0;

    while (n < w.products.size() && w.products[n].group < w.n_groups - *static_cast<const int *>(args[0]))
        multiply(w.products[n++]);
    w.products.erase(w.products.begin(), w.products.begin() + (long)n);
}

// ---- registers

enum { REGISTERS = 65536, REGISTERS_MAX = 255 }; // of a multiprocessor, of a thread

int registers_of[1024]; // of a thread

int count_threads()
{
    return (int)(blockDim.x * blockDim.y * blockDim.z);
}

// A block that has a multiprocessor for itself begins with what is left after rounding down.
int registers_at_start()
{
    int n = REGISTERS / count_threads() / 8 * 8;

    return n < REGISTERS_MAX ? n : REGISTERS_MAX;
}

// ---- barriers

struct barrier {
    uint16_t n, left; // arrivals of a phase
    int32_t  bytes : 31; // announced and not there
    uint32_t phase : 1;
};
static_assert(sizeof(barrier) == sizeof(uint64_t), "a barrier is 8 bytes");

struct bulk {
    void       *to;
    const void *from;
    uint32_t    bytes;
    uint64_t   *at;
};

std::vector<bulk> bulks; // under way

barrier load(const uint64_t *at)
{
    barrier b;

    memcpy(&b, at, sizeof(b));
    return b;
}

void store(uint64_t *at, barrier b)
{
    if (b.left == 0 && b.bytes == 0) {
        b.left = b.n;
        b.phase = b.phase + 1u;
        phx_emu_wake(at);
    }
    memcpy(at, &b, sizeof(b));
}

void arrive(uint64_t *at, uint32_t bytes)
{
    barrier b = load(at);

    if (b.left == 0)
        phx_emu_die("arrives at a barrier where all have arrived");
    b.left--;
    b.bytes = b.bytes + (int32_t)bytes;
    store(at, b);
}

void copy(const bulk &c)
{
    barrier b = load(c.at);

    memcpy(c.to, c.from, c.bytes);
    b.bytes = b.bytes - (int32_t)c.bytes;
    store(c.at, b);
}

// Those that end at this barrier.
void copy_all(const uint64_t *at)
{
    for (size_t i = 0; i < bulks.size();)
        if (bulks[i].at == at) {
            bulk c = bulks[i];

            bulks.erase(bulks.begin() + (long)i);
            copy(c);
        } else
            i++;
}

} // namespace

uint32_t phx_shared_address(const void *shared)
{
    return (uint32_t)(static_cast<const unsigned char *>(shared) - static_cast<const unsigned char *>(phx_emu_shared())) + WINDOW_START;
}

void phx_emu_wgmma(float *d, const uint32_t *a, uint64_t b, bool adds, int columns)
{
    operands o = {d, a, b, adds, columns};

    phx_emu_group(do_start, &o);
}

void phx_wgmma_commit()
{
    phx_emu_group(do_commit, nullptr);
}

void phx_emu_wgmma_wait(int n)
{
    phx_emu_group(do_wait, &n);
}

void phx_barrier_init(uint64_t *at, int n)
{
    barrier b = {(uint16_t)n, (uint16_t)n, 0, 0};

    memcpy(at, &b, sizeof(b));
}

void phx_barrier_arrive(uint64_t *at)
{
    arrive(at, 0);
}

void phx_barrier_expect(uint64_t *at, uint32_t bytes)
{
    arrive(at, bytes);
}

void phx_barrier_wait(uint64_t *at, uint32_t parity)
{
    if (load(at).phase == parity)
        copy_all(at);
    while (load(at).phase == parity) {
        phx_emu_sleep(at);
        if (load(at).phase == parity)
            copy_all(at);
    }
}

void phx_bulk_copy(void *to, const void *from, uint32_t bytes, uint64_t *at)
{
    bulk c = {to, from, bytes, at};

    phx_emu_check_waited("copies in bulk before it has waited for the launch before");
    if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from) | bytes) % 16 != 0 || bytes == 0)
        phx_emu_die("a bulk copy is not of multiples of 16 bytes");
    if (phx_emu_is_eager())
        copy(c);
    else {
        bulks.push_back(c);
        phx_emu_wake(at);
    }
}

void phx_emu_registers(int n)
{
    phx_emu_warp(phx_emu_warp_nothing, nullptr);
    if (n % 8 != 0 || n < 24 || n > 256)
        phx_emu_die("asks for an odd number of registers");
    registers_of[phx_emu_thread_now()] = n;
}

void phx_emu_groups_start()
{
    for (int i = 0; i < count_threads(); i++)
        registers_of[i] = registers_at_start();
    for (warpgroup &w : warpgroups) {
        w.products.clear();
        w.n_groups = 0;
    }
}

void phx_emu_groups_end()
{
    int taken = 0;

    for (int i = 0; i < count_threads(); i++)
        taken += registers_of[i];
    if (taken > registers_at_start() * count_threads())
        phx_emu_die("waits for registers that nobody gives back");
    if (!bulks.empty())
        phx_emu_die("the block ends while bulk copies are under way");
    for (const warpgroup &w : warpgroups)
        if (!w.products.empty())
            phx_emu_die("the block ends while products are under way");
}
