// SPDX-License-Identifier: Apache-2.0
// The emulated CUDA runtime: device memory is host memory, streams are queues that run when somebody waits.
#include <cuda_runtime_api.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "tests/emu/block.h"
#include "tests/emu/control.h"
#include "tests/emu/grid.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

// True when it is done, false when it waits for another stream.
typedef std::function<bool()> phx_emu_work;

struct phx_emu_stream {
    std::deque<phx_emu_work>          work;
    uint64_t                          n_queued, n_done;
    int                               device; // whose it is
    pthread_t                         owner;  // who made it
    bool                              is_running;
    struct phx_emu_graph             *capture; // what is queued goes there and is not done
};

// A graph and one ready to run are the same here.
struct phx_emu_graph {
    std::vector<phx_emu_work>          work;
    bool                               is_invalid;
    pthread_t                          thread; // whose capture it is
};

struct phx_emu_event {
    phx_emu_stream *stream; // of the last record, or nullptr
    uint64_t        at;
    bool            is_timed;
    std::shared_ptr<double> ms; // when the stream got there; nullptr before
};

namespace {

enum { QUEUE_MAX = 64, ALIGN_BYTES = 256, POISON_MAX = 4 << 20, HIDDEN_MAX = 1 << 16, HOST_PAGE_BYTES = 4096 };

std::recursive_mutex        lock;
std::map<uintptr_t, size_t> device_memory, pinned_memory;
cudaError_t                 dead = cudaSuccess; // what killed the device
thread_local cudaError_t    last_error = cudaSuccess;
thread_local int            current_device;
bool                        is_backwards;
int                         n_running;

void reset();
void drain();

} // namespace

extern "C" __attribute__((visibility("default"))) struct phx_emu phx_emu;
struct phx_emu phx_emu = {13000, 1, 90, 132, (size_t)4 << 30, 227 << 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, reset, 0, 0, 0,
                          256, 5000, 65536, 1 << 20, 1, drain, 0, 0, 0, 0, 2, (size_t)256 << 10, 0, 0,
                          0, 0, 0, 0, 0, 0, 0, (size_t)50 << 20, 0};

namespace {

using guard = std::lock_guard<std::recursive_mutex>;

void wait_for_device(int device);

void drain()
{
    guard hold(lock);

    wait_for_device(current_device);
}

void reset()
{
    guard hold(lock);

    phx_emu.driver_version = 13000;
    phx_emu.n_devices = 1;
    phx_emu.arch = 90;
    phx_emu.sm_count = 132;
    phx_emu.memory_bytes = (size_t)4 << 30;
    phx_emu.shared_max = 227 << 10;
    phx_emu.fail_malloc = phx_emu.fail_pinned = phx_emu.fail_copy = phx_emu.fail_launch = phx_emu.die_at_launch = 0;
    phx_emu.n_launches = phx_emu.n_copies = phx_emu.n_mallocs = phx_emu.n_syncs = 0;
    phx_emu.used_bytes_max = phx_emu.used_bytes;
    phx_emu.lacks_blas = phx_emu.blas_refuses = 0;
    phx_emu.n_blas = 0;
    phx_emu.share_below = 256;
    phx_emu.landing_bytes = 5000;
    phx_emu.top_bytes = 65536;
    phx_emu.pieces_bytes = 1 << 20;
    phx_emu.page_bytes = 1;
    phx_emu.fail_instantiate = phx_emu.fail_graph_launch = 0;
    phx_emu.n_graph_launches = 0;
    phx_emu.copy_threads = 2;
    phx_emu.copy_bytes = (size_t)256 << 10;
    phx_emu.is_sink = 0;
    phx_emu.truncates = 0;
    phx_emu.built_for = phx_emu.refuses_overlap = 0;
    phx_emu.n_overlapped = phx_emu.prefetched_bytes = 0;
    phx_emu.l2_bytes = (size_t)50 << 20;
    phx_emu.lacks_peers = phx_emu.fail_map = phx_emu.maps_own = 0;
    dead = last_error = cudaSuccess;
}

cudaError_t answer(cudaError_t rc)
{
    if (rc == cudaSuccess)
        rc = dead;
    if (rc != cudaSuccess)
        last_error = rc;
    return rc;
}

// A stream takes work only from a thread whose current device is its own.
cudaError_t check_stream(const phx_emu_stream *s)
{
    return answer(s->device == current_device ? cudaSuccess : cudaErrorInvalidResourceHandle);
}

bool strikes(int *n)
{
    return *n > 0 && --*n == 0;
}

// What the host may not touch is poison while no kernel runs, where the sanitizer can tell; of what is large, the beginning.
void show_device(bool is_shown)
{
#if defined(__SANITIZE_ADDRESS__)
    for (const auto &m : device_memory) {
        size_t bytes = m.second < (size_t)HIDDEN_MAX ? m.second : (size_t)HIDDEN_MAX;

        if (is_shown)
            __asan_unpoison_memory_region(reinterpret_cast<void *>(m.first), bytes);
        else
            __asan_poison_memory_region(reinterpret_cast<void *>(m.first), bytes);
    }
#else
    (void)is_shown;
#endif
}

// ---- out of reach: what a launch does before it waits for the one before is tried without device memory

std::atomic<bool> is_out_of_reach;
pthread_t         trier;

#if defined(__SANITIZE_ADDRESS__)

void *take_pages(size_t size_bytes)
{
    void *p = nullptr;

    return posix_memalign(&p, ALIGN_BYTES, size_bytes) == 0 ? p : nullptr;
}

void give_pages(void *p, size_t)
{
    free(p);
}

#else

size_t whole_pages(size_t size_bytes)
{
    return (size_bytes + ALIGN_BYTES + HOST_PAGE_BYTES - 1) / HOST_PAGE_BYTES * HOST_PAGE_BYTES;
}

// Memory begins at a multiple of ALIGN_BYTES and no more, in pages of its own.
void *take_pages(size_t size_bytes)
{
    void *p = mmap(nullptr, whole_pages(size_bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return p != MAP_FAILED ? static_cast<char *>(p) + ALIGN_BYTES : nullptr;
}

void give_pages(void *p, size_t size_bytes)
{
    (void)munmap(static_cast<char *>(p) - ALIGN_BYTES, whole_pages(size_bytes));
}

struct sigaction before_trials;

// A fault of another thread's passes with the trial; what faults again at the same place is not of a trial.
void on_fault(int signal_number, siginfo_t *about, void *context)
{
    static thread_local uintptr_t before;
    uintptr_t                     at = reinterpret_cast<uintptr_t>(about->si_addr);
    bool                          is_own = is_out_of_reach && pthread_equal(trier, pthread_self());

    (void)signal_number;
    (void)context;
    if (is_own) {
        auto after = device_memory.upper_bound(at);

        if (after != device_memory.begin() && at < (--after)->first + after->second)
            phx_emu_die("reads or writes device memory before it has waited for the launch before (phx_wait_previous)");
    }
    if (is_own || (!is_out_of_reach && at == before))
        (void)sigaction(SIGSEGV, &before_trials, nullptr);
    before = is_out_of_reach ? 0 : at;
    while (is_out_of_reach && !is_own)
        (void)usleep(20);
}

void watch_faults()
{
    static bool      is_watched;
    struct sigaction how = {};

    how.sa_sigaction = on_fault;
    how.sa_flags = SA_SIGINFO | SA_NODEFER;
    if (!is_watched)
        is_watched = sigaction(SIGSEGV, &how, &before_trials) == 0;
}

#endif

void set_reach(bool is_reached)
{
    if (!is_reached)
        is_out_of_reach = true;
#if defined(__SANITIZE_ADDRESS__)
    show_device(is_reached);
#else
    for (const auto &m : device_memory)
        if (mprotect(reinterpret_cast<void *>(m.first - ALIGN_BYTES), whole_pages(m.second),
                     is_reached ? PROT_READ | PROT_WRITE : PROT_NONE) != 0)
            abort();
#endif
    if (is_reached)
        is_out_of_reach = false;
}

// The first launches of a kernel, and then ever fewer.
bool is_to_try(const void *kernel)
{
    static std::map<const void *, uint64_t> launches;
    uint64_t                                n = ++launches[kernel];

    return (n & (n - 1)) == 0;
}

void try_early(const phx_emu_launch_shape &shape, const std::function<void()> &kernel, bool backwards)
{
#if !defined(__SANITIZE_ADDRESS__)
    watch_faults();
#endif
    trier = pthread_self();
    set_reach(false);
    phx_emu_grid_try(shape, kernel, backwards);
    set_reach(true);
}

// As far as it goes without waiting for another stream; true when all of it is done.
bool run_until(phx_emu_stream *s, uint64_t end)
{
    if (s->is_running) // waits for itself
        return s->n_done >= end;
    s->is_running = true;
    if (n_running++ == 0)
        show_device(true);
    while (s->n_done < end && !s->work.empty() && (dead != cudaSuccess || s->work.front()())) {
        s->work.pop_front();
        s->n_done++;
    }
    if (--n_running == 0)
        show_device(false);
    s->is_running = false;
    return s->n_done >= end || s->work.empty();
}

std::vector<phx_emu_stream *> streams;

void run_everything()
{
    for (size_t i = 0; i < streams.size(); i++)
        (void)run_until(streams[i], streams[i]->n_queued);
}

// What waits for a stream whose work another thread has not queued yet lets that thread go on.
void wait_until(phx_emu_stream *s, uint64_t end)
{
    while (!run_until(s, end)) {
        run_everything();
        lock.unlock();
        (void)usleep(20);
        lock.lock();
    }
}

void wait_for(phx_emu_stream *s)
{
    wait_until(s, s->n_queued);
}

// As cudaFree does.
void wait_for_device(int device)
{
    for (size_t i = 0; i < streams.size(); i++)
        if (streams[i]->device == device && pthread_equal(streams[i]->owner, pthread_self()))
            wait_for(streams[i]);
    run_everything();
}

// What a stream that is captured may not be asked; it spoils the capture.
cudaError_t check_capture(phx_emu_stream *s)
{
    if (s == nullptr || s->capture == nullptr)
        return cudaSuccess;
    s->capture->is_invalid = true;
    return answer(cudaErrorStreamCaptureUnsupported);
}

// The same of what concerns the whole device: a capture of another thread's does not mind (thread local mode).
cudaError_t check_captures()
{
    cudaError_t rc = cudaSuccess;

    for (phx_emu_stream *s : streams)
        if (s->capture != nullptr && pthread_equal(s->capture->thread, pthread_self()) && check_capture(s) != cudaSuccess)
            rc = cudaErrorStreamCaptureUnsupported;
    return rc;
}

void enqueue(phx_emu_stream *s, phx_emu_work work)
{
    if (s->capture != nullptr) {
        s->capture->work.push_back(std::move(work));
        return;
    }
    if (phx_emu.is_sink)
        return;
    s->work.push_back(std::move(work));
    s->n_queued++;
    if (s->work.size() >= QUEUE_MAX)
        (void)run_until(s, s->n_queued);
}

bool lies_in(const std::map<uintptr_t, size_t> &memory, const void *p, size_t size_bytes)
{
    uintptr_t at = reinterpret_cast<uintptr_t>(p);
    auto      after = memory.upper_bound(at);

    if (after == memory.begin())
        return false;
    --after;
    return at - after->first <= after->second && size_bytes <= after->second - (at - after->first);
}

cudaError_t take(std::map<uintptr_t, size_t> &memory, void **ptr, size_t size_bytes)
{
    void *p = size_bytes > 0 ? take_pages(size_bytes) : nullptr;

    if (p == nullptr)
        return size_bytes == 0 ? cudaErrorInvalidValue : cudaErrorMemoryAllocation;
    if (!phx_emu.is_sink)
        memset(p, 0xff, size_bytes < (size_t)POISON_MAX ? size_bytes : (size_t)POISON_MAX);
    memory[reinterpret_cast<uintptr_t>(p)] = size_bytes;
    *ptr = p;
    return cudaSuccess;
}

cudaError_t give(std::map<uintptr_t, size_t> &memory, void *ptr, size_t *bytes)
{
    auto found = memory.find(reinterpret_cast<uintptr_t>(ptr));

    *bytes = 0;
    if (ptr == nullptr)
        return cudaSuccess;
    if (found == memory.end())
        return cudaErrorInvalidValue;
    wait_for_device(current_device);
    *bytes = found->second;
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(ptr, found->second);
#endif
    memory.erase(found);
    give_pages(ptr, *bytes);
    return cudaSuccess;
}

// Why no device can be had, or success.
cudaError_t find_device()
{
    if (phx_emu.driver_version < CUDART_VERSION / 1000 * 1000)
        return cudaErrorInsufficientDriver;
    return phx_emu.n_devices > 0 ? cudaSuccess : cudaErrorNoDevice;
}

} // namespace

// ---- errors

const char *cudaGetErrorName(cudaError_t error)
{
    switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorECCUncorrectable: return "cudaErrorECCUncorrectable";
    case cudaErrorIllegalAddress: return "cudaErrorIllegalAddress";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
    default: return "cudaError";
    }
}

const char *cudaGetErrorString(cudaError_t error)
{
    switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorECCUncorrectable: return "uncorrectable ECC error encountered";
    case cudaErrorIllegalAddress: return "an illegal memory access was encountered";
    case cudaErrorLaunchFailure: return "unspecified launch failure";
    case cudaErrorLaunchOutOfResources: return "too many resources requested for launch";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorInvalidResourceHandle: return "invalid resource handle";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    default: return "an emulated error";
    }
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t rc = dead != cudaSuccess ? dead : last_error;

    last_error = cudaSuccess;
    return rc;
}

cudaError_t cudaPeekAtLastError(void)
{
    return dead != cudaSuccess ? dead : last_error;
}

// ---- the device

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = phx_emu.driver_version;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *n)
{
    cudaError_t rc = find_device();

    *n = rc == cudaSuccess ? phx_emu.n_devices : 0;
    return answer(rc);
}

cudaError_t cudaSetDevice(int device)
{
    if (find_device() != cudaSuccess)
        return answer(find_device());
    if (device < 0 || device >= phx_emu.n_devices)
        return answer(cudaErrorInvalidDevice);
    current_device = device;
    return answer(cudaSuccess);
}

cudaError_t cudaGetDevice(int *device)
{
    *device = current_device;
    return answer(cudaSuccess);
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device)
{
    if (device < 0 || device >= phx_emu.n_devices)
        return answer(cudaErrorInvalidDevice);
    switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = phx_emu.sm_count; break;
    case cudaDevAttrL2CacheSize: *value = (int)phx_emu.l2_bytes; break;
    case cudaDevAttrComputeCapabilityMajor: *value = phx_emu.arch / 10; break;
    case cudaDevAttrComputeCapabilityMinor: *value = phx_emu.arch % 10; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = (int)phx_emu.shared_max; break;
    default: return answer(cudaErrorInvalidValue);
    }
    return answer(cudaSuccess);
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *about, int device)
{
    memset(about, 0, sizeof(*about));
    (void)snprintf(about->name, sizeof(about->name), "emulated device");
    about->uuid.bytes[15] = static_cast<char>(device + 1);
    return answer(cudaSuccess);
}

cudaError_t cudaDeviceGetPCIBusId(char *id, int size, int device)
{
    (void)snprintf(id, (size_t)size, "0000:%02X:00.0", (unsigned)device);
    return answer(cudaSuccess);
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *about, const void *kernel)
{
    about->ptxVersion = phx_emu.built_for != 0 ? phx_emu.built_for : phx_emu.arch;
    return answer(kernel != nullptr ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaDeviceSynchronize(void)
{
    guard hold(lock);

    run_everything();
    return answer(cudaSuccess);
}

// ---- memory

// What an allocation takes of the device: whole pages.
static size_t pages_of(size_t size_bytes)
{
    return (size_bytes + phx_emu.page_bytes - 1) / phx_emu.page_bytes * phx_emu.page_bytes;
}

cudaError_t cudaMalloc(void **ptr, size_t size_bytes)
{
    guard hold(lock);

    *ptr = nullptr;
    phx_emu.n_mallocs++;
    if (check_captures() != cudaSuccess)
        return last_error;
    if (answer(cudaSuccess) != cudaSuccess)
        return dead;
    if (strikes(&phx_emu.fail_malloc) || phx_emu.used_bytes > phx_emu.memory_bytes ||
        pages_of(size_bytes) > phx_emu.memory_bytes - phx_emu.used_bytes)
        return answer(cudaErrorMemoryAllocation);
    cudaError_t rc = take(device_memory, ptr, size_bytes);

    if (rc == cudaSuccess)
        phx_emu.used_bytes += pages_of(size_bytes);
    if (phx_emu.used_bytes > phx_emu.used_bytes_max)
        phx_emu.used_bytes_max = phx_emu.used_bytes;
    show_device(false);
    return answer(rc);
}

cudaError_t cudaFree(void *ptr)
{
    guard       hold(lock);
    size_t      bytes;

    if (check_captures() != cudaSuccess)
        return last_error;
    cudaError_t rc = give(device_memory, ptr, &bytes);

    phx_emu.used_bytes -= pages_of(bytes);
    return answer(rc);
}

cudaError_t cudaHostAlloc(void **ptr, size_t size_bytes, unsigned flags)
{
    guard hold(lock);

    (void)flags;
    *ptr = nullptr;
    if (strikes(&phx_emu.fail_pinned))
        return answer(cudaErrorMemoryAllocation);
    cudaError_t rc = take(pinned_memory, ptr, size_bytes);

    if (rc == cudaSuccess)
        phx_emu.pinned_bytes += pinned_memory[reinterpret_cast<uintptr_t>(*ptr)];
    return answer(rc);
}

cudaError_t cudaFreeHost(void *ptr)
{
    guard       hold(lock);
    size_t      bytes;
    cudaError_t rc = give(pinned_memory, ptr, &bytes);

    phx_emu.pinned_bytes -= bytes;
    return answer(rc);
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    guard hold(lock);

    *total_bytes = phx_emu.memory_bytes;
    *free_bytes = phx_emu.used_bytes < phx_emu.memory_bytes ? phx_emu.memory_bytes - phx_emu.used_bytes : 0;
    return answer(cudaSuccess);
}

// ---- memory of peers

cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer)
{
    *can = device != peer && !phx_emu.lacks_peers;
    return answer(device < phx_emu.n_devices && peer < phx_emu.n_devices ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned flags)
{
    guard       hold(lock);
    static bool is_enabled[64][64];
    bool       *enabled = &is_enabled[current_device % 64][peer % 64];

    if (flags != 0 || peer == current_device || phx_emu.lacks_peers)
        return answer(cudaErrorPeerAccessUnsupported);
    if (*enabled)
        return answer(cudaErrorPeerAccessAlreadyEnabled);
    *enabled = true;
    return answer(cudaSuccess);
}

cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t *handle, void *ptr)
{
    guard hold(lock);

    memset(handle, 0, sizeof(*handle));
    if (device_memory.count(reinterpret_cast<uintptr_t>(ptr)) == 0) // a handle of a part would be one of the whole
        return answer(cudaErrorInvalidValue);
    memcpy(handle->reserved, &ptr, sizeof(ptr));
    return answer(cudaSuccess);
}

cudaError_t cudaIpcOpenMemHandle(void **ptr, cudaIpcMemHandle_t handle, unsigned flags)
{
    guard hold(lock);

    *ptr = nullptr;
    if (strikes(&phx_emu.fail_map))
        return answer(cudaErrorMapBufferObjectFailed);
    if (!phx_emu.maps_own || flags != cudaIpcMemLazyEnablePeerAccess)
        return answer(cudaErrorInvalidResourceHandle);
    memcpy(ptr, handle.reserved, sizeof(*ptr));
    phx_emu.n_maps++;
    return answer(cudaSuccess);
}

cudaError_t cudaIpcCloseMemHandle(void *ptr)
{
    guard hold(lock);

    phx_emu.n_maps--;
    return answer(ptr != nullptr ? cudaSuccess : cudaErrorInvalidValue);
}

bool phx_emu_is_on_device(const void *p, size_t size_bytes)
{
    return lies_in(device_memory, p, size_bytes);
}

// ---- copies

namespace {

struct rows {
    void       *to;
    const void *from;
    size_t      to_stride, from_stride, row_bytes, n;
};

void copy_rows(const rows &r)
{
    for (size_t i = 0; i < r.n; i++)
        memmove(static_cast<char *>(r.to) + i * r.to_stride, static_cast<const char *>(r.from) + i * r.from_stride,
                r.row_bytes);
}

// Memory that is not pinned is read at once, and written before the call returns, as the CUDA runtime does.
cudaError_t copy_async(rows r, enum cudaMemcpyKind kind, phx_emu_stream *s)
{
    size_t to_bytes = r.n == 0 ? 0 : (r.n - 1) * r.to_stride + r.row_bytes;
    size_t from_bytes = r.n == 0 ? 0 : (r.n - 1) * r.from_stride + r.row_bytes;
    bool   to_device = kind != cudaMemcpyDeviceToHost, from_device = kind != cudaMemcpyHostToDevice;

    phx_emu.n_copies++;
    if (strikes(&phx_emu.fail_copy))
        return answer(cudaErrorInvalidValue);
    if (check_stream(s) != cudaSuccess)
        return last_error;
    if (r.n == 0 || r.row_bytes == 0)
        return cudaSuccess;
    if ((to_device && !lies_in(device_memory, r.to, to_bytes)) ||
        (from_device && !lies_in(device_memory, r.from, from_bytes)))
        return answer(cudaErrorInvalidValue);
    if (s->capture != nullptr && ((!from_device && !lies_in(pinned_memory, r.from, from_bytes)) ||
                                  (!to_device && !lies_in(pinned_memory, r.to, to_bytes))))
        return check_capture(s); // memory that is read at some later time
    if (!from_device && !lies_in(pinned_memory, r.from, from_bytes)) {
        const char       *first = static_cast<const char *>(r.from);
        std::vector<char> kept(first, first + from_bytes);

        enqueue(s, [r, kept] {
            rows late = r;

            late.from = kept.data();
            copy_rows(late);
            return true;
        });
        return cudaSuccess;
    }
    enqueue(s, [r] {
        copy_rows(r);
        return true;
    });
    if (!to_device && !lies_in(pinned_memory, r.to, to_bytes))
        wait_for(s);
    return answer(cudaSuccess);
}

} // namespace

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size_bytes, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    guard hold(lock);

    return copy_async({to, from, size_bytes, size_bytes, size_bytes, 1}, kind, stream);
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_stride, const void *from, size_t from_stride, size_t row_bytes,
                              size_t n_rows, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    guard hold(lock);

    return copy_async({to, from, to_stride, from_stride, row_bytes, n_rows}, kind, stream);
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t size_bytes, cudaStream_t stream)
{
    guard hold(lock);

    if (check_stream(stream) != cudaSuccess)
        return last_error;
    if (!lies_in(device_memory, to, size_bytes))
        return answer(cudaErrorInvalidValue);
    enqueue(stream, [to, value, size_bytes] {
        memset(to, value, size_bytes);
        return true;
    });
    return cudaSuccess;
}

// ---- streams and events

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    guard hold(lock);

    (void)flags;
    *stream = nullptr;
    if (answer(find_device()) != cudaSuccess)
        return last_error;
    *stream = new phx_emu_stream();
    (*stream)->device = current_device;
    (*stream)->owner = pthread_self();
    streams.push_back(*stream);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    guard hold(lock);

    wait_for(stream);
    for (size_t i = 0; i < streams.size(); i++)
        if (streams[i] == stream)
            streams.erase(streams.begin() + (long)i--);
    delete stream;
    return answer(cudaSuccess);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    guard hold(lock);

    phx_emu.n_syncs++;
    if (check_capture(stream) != cudaSuccess)
        return last_error;
    wait_for(stream);
    return answer(cudaSuccess);
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    guard hold(lock);

    if (dead != cudaSuccess)
        return dead;
    if (stream->work.empty())
        return cudaSuccess;
    run_everything(); // the device goes on while it is asked: the next question finds it done
    return cudaErrorNotReady;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    guard           hold(lock);
    phx_emu_stream *of = event->stream;
    uint64_t        at = event->at;

    (void)flags;
    if (of != nullptr && of != stream)
        enqueue(stream, [of, at] { return run_until(of, at); });
    return answer(cudaSuccess);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    *event = new phx_emu_event();
    (*event)->is_timed = (flags & cudaEventDisableTiming) == 0;
    return answer(cudaSuccess);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    delete event;
    return answer(cudaSuccess);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    guard hold(lock);

    if (event->is_timed && stream->capture == nullptr) {
        std::shared_ptr<double> ms = event->ms = std::make_shared<double>(0);

        enqueue(stream, [ms] {
            struct timespec now;

            (void)clock_gettime(CLOCK_MONOTONIC, &now);
            *ms = static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
            return true;
        });
    }
    event->stream = stream;
    event->at = stream->n_queued;
    return answer(cudaSuccess);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    guard hold(lock);

    if (event->stream != nullptr)
        wait_until(event->stream, event->at);
    return answer(cudaSuccess);
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    guard hold(lock);

    if (from->ms == nullptr || to->ms == nullptr)
        return answer(cudaErrorInvalidResourceHandle);
    if (from->stream->n_done < from->at || to->stream->n_done < to->at)
        return cudaErrorNotReady;
    *ms = static_cast<float>(*to->ms - *from->ms);
    return answer(cudaSuccess);
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    guard hold(lock);

    if (dead != cudaSuccess)
        return dead;
    return event->stream == nullptr || event->stream->n_done >= event->at ? cudaSuccess : cudaErrorNotReady;
}

// ---- launches

namespace {

struct launch {
    phx_emu_launch_shape          shape;
    std::function<void()>         kernel;
    bool                          is_backwards;
    std::shared_ptr<phx_emu_grid *> grid; // when it has begun

    bool operator()()
    {
        if (grid == nullptr && shape.overlaps && is_to_try(shape.kernel))
            try_early(shape, kernel, is_backwards);
        if (grid == nullptr)
            grid.reset(new phx_emu_grid *(phx_emu_grid_start(shape, kernel, is_backwards)), give_up);
        if (!phx_emu_grid_go_on(*grid))
            return false;
        *grid = nullptr;
        return true;
    }

    static void give_up(phx_emu_grid **g)
    {
        if (*g != nullptr)
            phx_emu_grid_drop(*g);
        delete g;
    }
};

} // namespace

cudaError_t phx_emu_launch(const phx_emu_launch_shape &shape, cudaStream_t stream, std::function<void()> kernel)
{
    guard    hold(lock);
    uint64_t n_threads = (uint64_t)shape.block.x * shape.block.y * shape.block.z;

    phx_emu.n_launches++;
    if (check_stream(stream) != cudaSuccess)
        return last_error;
    if (strikes(&phx_emu.fail_launch))
        return answer(cudaErrorLaunchOutOfResources);
    if (shape.overlaps && phx_emu.refuses_overlap == (stream->capture != nullptr ? 2 : 1)) {
        if (stream->capture != nullptr)
            stream->capture->is_invalid = true;
        return answer(cudaErrorNotSupported);
    }
    phx_emu.n_overlapped += shape.overlaps;
    if (n_threads == 0 || n_threads > 1024 || shape.block.z > 64 || shape.grid.y > 65535 || shape.grid.z > 65535)
        return answer(cudaErrorInvalidConfiguration);
    if (shape.shared_bytes > phx_emu.shared_max)
        return answer(cudaErrorInvalidValue);
    if (strikes(&phx_emu.die_at_launch)) {
        cudaError_t how = (cudaError_t)phx_emu.die_error;

        enqueue(stream, [how] {
            dead = how;
            return true;
        });
        return cudaSuccess;
    }
    is_backwards = !is_backwards;
    bool backwards = is_backwards;

    enqueue(stream, launch{shape, std::move(kernel), backwards, nullptr});
    return cudaSuccess;
}

// ---- graphs

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    guard hold(lock);

    (void)mode;
    if (check_stream(stream) != cudaSuccess || check_capture(stream) != cudaSuccess)
        return last_error;
    stream->capture = new phx_emu_graph();
    stream->capture->thread = pthread_self();
    return answer(cudaSuccess);
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    guard          hold(lock);
    phx_emu_graph *made = stream->capture;

    *graph = nullptr;
    stream->capture = nullptr;
    if (made == nullptr || made->is_invalid) {
        delete made;
        return answer(cudaErrorStreamCaptureInvalidated);
    }
    phx_emu.n_graphs++;
    *graph = made;
    return answer(cudaSuccess);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags)
{
    guard hold(lock);

    (void)flags;
    *exec = nullptr;
    if (strikes(&phx_emu.fail_instantiate))
        return answer(cudaErrorMemoryAllocation);
    phx_emu.n_graphs++;
    *exec = new phx_emu_graph(*graph);
    return answer(cudaSuccess);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    guard hold(lock);

    if (check_stream(stream) != cudaSuccess)
        return last_error;
    if (strikes(&phx_emu.fail_graph_launch))
        return answer(cudaErrorLaunchOutOfResources);
    phx_emu.n_graph_launches++;
    for (const phx_emu_work &work : exec->work)
        enqueue(stream, work);
    return answer(cudaSuccess);
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    guard hold(lock);

    delete graph;
    phx_emu.n_graphs--;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    return cudaGraphDestroy(exec);
}
