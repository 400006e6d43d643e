// SPDX-License-Identifier: Apache-2.0
// The emulated device itself: what kernels are proven on must keep the rules of the real one.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <thread>

extern "C" {
#include <cmocka.h>
}

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/cuda/device.cuh"

namespace {

enum { WARP = 32 };

cudaStream_t stream;

int open_stream(void **state)
{
    (void)state;
    return cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) != cudaSuccess;
}

int close_stream(void **state)
{
    (void)state;
    return cudaStreamDestroy(stream) != cudaSuccess;
}

// ---- warps and blocks

__global__ void shuffle_kernel(int *out)
{
    int lane = (int)threadIdx.x, v = 100 + lane;
    int n = phx_shfl_up(1, 1);

    out[lane] = phx_shfl(v, 31 - lane);
    out[WARP + lane] = phx_shfl_xor(v, 5);
    out[2 * WARP + lane] = phx_shfl_up(v, 3);
    out[3 * WARP + lane] = (int)phx_ballot(lane % 3 == 0);
    out[4 * WARP + lane] = (int)phx_warp_sum((float)lane) + n - 1;
    out[5 * WARP + lane] = (int)phx_warp_max((float)-lane);
}

void lanes_exchange_values(void **state)
{
    int out[6 * WARP];

    (void)state;
    assert_int_equal(PHX_LAUNCH(shuffle_kernel, 1, WARP, 0, stream, out), cudaSuccess);
    assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess);
    for (int i = 0; i < WARP; i++) {
        assert_int_equal(out[i], 131 - i);
        assert_int_equal(out[WARP + i], 100 + (i ^ 5));
        assert_int_equal(out[2 * WARP + i], 100 + (i < 3 ? i : i - 3));
        assert_int_equal((uint32_t)out[3 * WARP + i], 0x49249249u);
        assert_int_equal(out[4 * WARP + i], 496);
        assert_int_equal(out[5 * WARP + i], 0);
    }
}

// Everybody reads what everybody wrote; static and dynamic shared memory.
__global__ void barrier_kernel(int *out, int rounds)
{
    __shared__ int fixed[96];
    PHX_SHARED(int, dynamic);
    int i = (int)threadIdx.x, sum = 0;

    for (int r = 0; r < rounds; r++) {
        fixed[i] = i + r;
        __syncthreads();
        dynamic[i] = fixed[(i + 40) % 96];
        __syncthreads();
        sum += dynamic[(i + 1) % 96];
        __syncthreads();
    }
    out[(blockIdx.y * gridDim.x + blockIdx.x) * blockDim.x + threadIdx.x] = sum;
}

void blocks_meet_at_barriers(void **state)
{
    static int out[6 * 96];

    (void)state;
    assert_int_equal(PHX_LAUNCH(barrier_kernel, dim3(3, 2), 96, 96 * sizeof(int), stream, out, 5), cudaSuccess);
    assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess);
    for (int b = 0; b < 6; b++)
        for (int i = 0; i < 96; i++)
            assert_int_equal(out[b * 96 + i], 5 * ((i + 41) % 96) + 10);
}

// Blocks of two streams wait for each other's flags; what they have in shared memory and on their stacks stays theirs.
__global__ void meet_kernel(uint64_t *own, const uint64_t *other, int *out, uint64_t turn)
{
    PHX_SHARED(int, kept);
    int i = (int)threadIdx.x, mine = 1000 * (int)turn + i;

    kept[i] = mine;
    __syncthreads();
    if (i == 7)
        phx_store_release(own, turn);
    if (i == 40 || i == 41)
        while (phx_load_acquire(other) < turn)
            phx_spin();
    mine = phx_shfl_xor(mine, 1);
    __syncthreads();
    out[i] += mine + kept[63 - i];
}

void blocks_wait_for_those_of_another_stream(void **state)
{
    static uint64_t flags[2];
    static int      out[2][64];
    cudaStream_t    both[2] = {stream, nullptr};

    (void)state;
    assert_int_equal(cudaStreamCreateWithFlags(&both[1], cudaStreamNonBlocking), cudaSuccess);
    for (int s = 0; s < 2; s++) /* all of one, then all of the other */
        for (uint64_t turn = 1; turn <= 50; turn++)
            assert_int_equal(PHX_LAUNCH(meet_kernel, 1, 64, 64 * sizeof(int), both[s], &flags[s], &flags[1 - s], out[s], turn),
                             cudaSuccess);
    std::thread other([&both] { assert_int_equal(cudaStreamSynchronize(both[1]), cudaSuccess); });
    assert_int_equal(cudaStreamSynchronize(both[0]), cudaSuccess);
    other.join();
    for (int s = 0; s < 2; s++)
        for (int i = 0; i < 64; i++)
            assert_int_equal(out[s][i], 2 * 1275000 + 50 * ((i ^ 1) + 63 - i));
    assert_int_equal(cudaStreamDestroy(both[1]), cudaSuccess);
}

// ---- matrices

struct product {
    const uint16_t *a, *b, *c; // a [16][16], b [8][16] (columns), c [16][16] for the transposed load
    float          *d, *e;     // [16][8]
};

// b comes by plain loads of its columns, in e by transposed loads of its rows.
__global__ void product_kernel(product p)
{
    __shared__ __align__(16) uint16_t a[16 * 16], b[16 * 16], c[16 * 16];
    int      lane = (int)threadIdx.x, g = lane / 4, t = lane % 4;
    uint32_t ra[4], rb[4], rc[4];
    float    d[4] = {1, 2, 3, 4}, e[4] = {0, 0, 0, 0};

    for (int i = lane; i < 256; i += WARP) {
        a[i] = p.a[i];
        b[i] = i < 128 ? p.b[i] : 0;
        c[i] = p.c[i];
    }
    __syncthreads();
    phx_ldmatrix_x4(ra, a + lane % 16 * 16 + lane / 16 * 8);
    phx_ldmatrix_x4(rb, b + lane % 8 * 16 + lane / 8 % 2 * 8);
    phx_ldmatrix_x4_trans(rc, c + lane % 16 * 16 + lane / 16 * 8);
    phx_mma_bf16(d, ra, rb);
    phx_mma_bf16(e, ra, rc);
    for (int i = 0; i < 4; i++) {
        p.d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = d[i];
        p.e[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = e[i];
    }
}

void matrices_multiply(void **state)
{
    uint16_t a[256], b[128], c[256];
    float    d[128], e[128];

    (void)state;
    for (int i = 0; i < 256; i++) {
        a[i] = phx_bf16_bits((float)(i * 7 % 31 - 15));
        c[i] = phx_bf16_bits((float)(i * 11 % 29 - 14));
    }
    for (int i = 0; i < 128; i++)
        b[i] = phx_bf16_bits((float)(i * 5 % 23 - 11) / 8);
    assert_int_equal(PHX_LAUNCH(product_kernel, 1, WARP, 0, stream, product{a, b, c, d, e}), cudaSuccess);
    assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess);
    for (int row = 0; row < 16; row++)
        for (int n = 0; n < 8; n++) {
            float plain = 1.0f + (float)(row / 8 * 2 + n % 2), transposed = 0;

            for (int k = 0; k < 16; k++) {
                plain += phx_bf16_float(a[row * 16 + k]) * phx_bf16_float(b[n * 16 + k]);
                transposed += phx_bf16_float(a[row * 16 + k]) * phx_bf16_float(c[k * 16 + n]);
            }
            assert_true(d[row * 8 + n] == plain);
            assert_true(e[row * 8 + n] == transposed);
        }
}

// ---- copies

__global__ void copy_kernel(const uint4 *from, uint4 *out)
{
    __shared__ uint4 tile[4];
    int              i = (int)threadIdx.x;

    tile[i] = make_uint4(7, 7, 7, 7);
    phx_cp_async16_if(&tile[i], from + i, i != 3);
    phx_cp_async_commit();
    out[i] = tile[i]; // not there yet
    phx_cp_async16(&tile[i], from + 4 + i);
    phx_cp_async_commit();
    phx_cp_async_wait<1>();
    __syncthreads();
    out[4 + i] = tile[3 - i];
    __syncthreads();
    phx_cp_async_wait<0>();
    out[8 + i] = tile[i];
}

void copies_arrive_when_waited_for(void **state)
{
    uint4 from[8], out[12];

    (void)state;
    for (unsigned i = 0; i < 8; i++)
        from[i] = make_uint4(i + 10, 0, 0, i);
    assert_int_equal(PHX_LAUNCH(copy_kernel, 1, 4, 0, stream, from, out), cudaSuccess);
    assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(out[i].x, 7);
        assert_int_equal(out[4 + i].x, i == 0 ? 0 : 13 - i);
        assert_int_equal(out[8 + i].x, 14 + i);
    }
}

// ---- order, and what is refused

__global__ void order_kernel(int *next, int *out)
{
    if (threadIdx.x == 0)
        out[blockIdx.x] = atomicAdd(next, 1);
}

void blocks_run_in_both_orders_and_late(void **state)
{
    int next = 0, out[2][4] = {{-1, -1, -1, -1}, {-1, -1, -1, -1}};

    (void)state;
    for (int i = 0; i < 2; i++)
        assert_int_equal(PHX_LAUNCH(order_kernel, 4, WARP, 0, stream, &next, out[i]), cudaSuccess);
    assert_int_equal(out[0][0], -1); // nobody has waited
    assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess);
    assert_true((out[0][0] < out[0][3]) != (out[1][0] < out[1][3]));
}

void impossible_launches_are_refused(void **state)
{
    int next = 0, out[1];

    (void)state;
    assert_int_equal(PHX_LAUNCH(order_kernel, 1, 2048, 0, stream, &next, out), cudaErrorInvalidConfiguration);
    assert_int_equal(PHX_LAUNCH(order_kernel, dim3(1, 70000), 1, 0, stream, &next, out), cudaErrorInvalidConfiguration);
    assert_int_equal(PHX_LAUNCH(order_kernel, 1, 32, 300 << 10, stream, &next, out), cudaErrorInvalidValue);
    assert_int_equal(PHX_LAUNCH(order_kernel, 0, 32, 0, stream, &next, out), cudaSuccess);
    assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess);
    assert_int_equal(next, 0);
    (void)cudaGetLastError();
}

__global__ void half_barrier_kernel()
{
    if (threadIdx.x < 16)
        __syncthreads();
}

__global__ void half_shuffle_kernel()
{
    if (threadIdx.x < 16)
        (void)phx_shfl(1, 0);
}

__global__ void two_things_kernel()
{
    if (threadIdx.x < 16)
        (void)phx_shfl(1, 0);
    else
        __syncwarp();
}

__global__ void short_warp_kernel()
{
    (void)phx_shfl(1, 0);
}

// The program ends, and says these words.
template <typename Launch> void expect_death_at(const Launch &launch, const char *words)
{
    char    said[1000];
    int     ends[2], status = 0;
    ssize_t n, size = 0;
    pid_t   pid;

    assert_int_equal(pipe(ends), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)signal(SIGABRT, SIG_DFL);
        (void)dup2(ends[1], STDERR_FILENO);
        launch();
        (void)cudaStreamSynchronize(stream);
        _exit(0);
    }
    (void)close(ends[1]);
    while ((n = read(ends[0], said + size, sizeof(said) - 1 - (size_t)size)) > 0)
        size += n;
    (void)close(ends[0]);
    said[size] = '\0';
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) != 0); // the address sanitizer exits
    if (strstr(said, words) == nullptr)
        fail_msg("expected %s, got %s", words, said);
}

void expect_death(void (*kernel)(), unsigned threads)
{
    expect_death_at([kernel, threads] { (void)PHX_LAUNCH(kernel, 1, threads, 0, stream); }, "emulator: kernel");
}

void threads_that_part_are_found(void **state)
{
    (void)state;
    expect_death(half_barrier_kernel, WARP);
    expect_death(half_shuffle_kernel, WARP);
    expect_death(two_things_kernel, WARP);
    expect_death(short_warp_kernel, 16);
}

// ---- launches that overlap

const char *const EARLY =
#if defined(__SANITIZE_ADDRESS__)
    "use-after-poison";
#else
    "before it has waited for the launch before";
#endif

// Each block writes what the block behind it had, and one more.
__global__ void step_kernel(const int *from, int *to)
{
    __shared__ int kept;

    phx_prefetch(from, 16);
    phx_prefetch_line(from + 63);
    if (threadIdx.x == 0)
        kept = 1;
    __syncthreads();
    phx_wait_previous();
    phx_let_next();
    if (threadIdx.x < 4)
        to[blockIdx.x * 4 + threadIdx.x] = from[(blockIdx.x + 1) % gridDim.x * 4 + threadIdx.x] + kept;
}

__global__ void hasty_reader(const int *from, int *to)
{
    int v = from[threadIdx.x];

    phx_wait_previous();
    to[threadIdx.x] = v;
}

__global__ void hasty_writer(const int *from, int *to)
{
    if (blockIdx.x == gridDim.x - 1)
        to[threadIdx.x] = 1;
    phx_wait_previous();
    to[threadIdx.x] = from[threadIdx.x];
}

__global__ void hasty_copier(const int *from, int *to)
{
    PHX_SHARED(int, shared);

    phx_cp_async16(shared, from);
    phx_wait_previous();
    phx_cp_async_wait<0>();
    to[threadIdx.x] = shared[0];
}

__global__ void early_leaver(const int *, int *)
{
    if (threadIdx.x != 5)
        phx_wait_previous();
}

__global__ void double_waiter(const int *, int *)
{
    phx_wait_previous();
    phx_wait_previous();
}

__global__ void early_host(const int *, int *)
{
    phx_let_next();
    phx_wait_previous();
}

__global__ void wild_line(const int *from, int *)
{
    phx_prefetch_line(from + 64);
    phx_wait_previous();
}

__global__ void wild_prefetcher(const int *from, int *)
{
    phx_prefetch(from, 1 << 16);
    phx_wait_previous();
}

void launches_overlap_where_kernels_wait(void **state)
{
    void *memory[2];
    int   host[64];

    (void)state;
    assert_true(phx_cuda_launches_start_overlap(stream));
    for (void *&m : memory)
        assert_int_equal(cudaMalloc(&m, sizeof(host)), cudaSuccess);
    assert_int_equal(cudaMemsetAsync(memory[0], 0, sizeof(host), stream), cudaSuccess);
    for (int i = 0; i < 40; i++)
        assert_int_equal(PHX_LAUNCH(step_kernel, 16, WARP, 0, stream, (const int *)memory[i % 2], (int *)memory[1 - i % 2]), cudaSuccess);
    assert_int_equal(cudaMemcpyAsync(host, memory[0], sizeof(host), cudaMemcpyDeviceToHost, stream), cudaSuccess);
    assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess);
    for (int v : host)
        assert_int_equal(v, 40);
    const struct {
        void (*kernel)(const int *, int *);
        const char *words;
    } wrong[] = {{hasty_reader, EARLY},
                 {hasty_writer, EARLY},
                 {hasty_copier, "before it has waited"},
                 {early_leaver, "thread 5: ends and has not waited"},
                 {double_waiter, "a second time"},
                 {early_host, "lets the next launch begin before"},
                 {wild_line, "no memory of the device"},
                 {wild_prefetcher, "no memory of the device"}};

    for (const auto &w : wrong)
        expect_death_at([&] { (void)PHX_LAUNCH(w.kernel, 9, WARP, 64, stream, (const int *)memory[0], (int *)memory[1]); }, w.words);
    expect_death_at([&] { (void)PHX_LAUNCH(early_leaver, 1, WARP, 0, stream, nullptr, nullptr); }, "early_leaver"); // is named
    phx_cuda_launches_stop_overlap(stream);
    assert_int_equal(PHX_LAUNCH(hasty_reader, 1, WARP, 0, stream, (const int *)memory[0], (int *)memory[1]), cudaSuccess); // may
    for (void *m : memory)
        assert_int_equal(cudaFree(m), cudaSuccess);
}

void streams_overlap_each_for_itself(void **state)
{
    char streams[70];

    (void)state;
    assert_false(phx_cuda_launches_overlap(nullptr));
    for (char &s : streams)
        assert_int_equal(phx_cuda_launches_start_overlap((cudaStream_t)(void *)&s), &s < streams + 64);
    phx_cuda_launches_stop_overlap((cudaStream_t)(void *)&streams[7]);
    phx_cuda_launches_stop_overlap((cudaStream_t)(void *)&streams[69]);
    for (char &s : streams)
        assert_int_equal(phx_cuda_launches_overlap((cudaStream_t)(void *)&s), &s < streams + 64 && &s != streams + 7);
    assert_false(phx_cuda_launches_overlap(nullptr));
    assert_true(phx_cuda_launches_start_overlap((cudaStream_t)(void *)&streams[69]));
    for (char &s : streams)
        phx_cuda_launches_stop_overlap((cudaStream_t)(void *)&s);
    for (char &s : streams)
        assert_false(phx_cuda_launches_overlap((cudaStream_t)(void *)&s));
}

} // namespace

int main()
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lanes_exchange_values),
        cmocka_unit_test(blocks_meet_at_barriers),
        cmocka_unit_test(blocks_wait_for_those_of_another_stream),
        cmocka_unit_test(matrices_multiply),
        cmocka_unit_test(copies_arrive_when_waited_for),
        cmocka_unit_test(blocks_run_in_both_orders_and_late),
        cmocka_unit_test(impossible_launches_are_refused),
        cmocka_unit_test(threads_that_part_are_found),
        cmocka_unit_test(launches_overlap_where_kernels_wait),
        cmocka_unit_test(streams_overlap_each_for_itself),
    };

    return cmocka_run_group_tests(tests, open_stream, close_stream);
}
