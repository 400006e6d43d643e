/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/nccl_api.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { PATH_BYTES = 4096 };

static struct nccl_api api;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* The library that came with the module goes before the system's. */
static void *open_library(void)
{
    static const char name[] = "libnccl.so.2";
    char              path[PATH_BYTES];
    Dl_info           own;
    void             *library = NULL;

    if (dladdr((const void *)(size_t)&phx_nccl_load, &own) != 0 && own.dli_fname != NULL &&
        strlen(own.dli_fname) + sizeof(name) + 1 < sizeof(path)) {
        char *slash;

        (void)snprintf(path, sizeof(path), "%s", own.dli_fname);
        slash = strrchr(path, '/');
        if (slash != NULL) {
            strcpy(slash + 1, name);
            library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        }
    }
    return library != NULL ? library : dlopen(name, RTLD_NOW | RTLD_LOCAL);
}

/* The name of the first symbol that is missing, or NULL. */
static const char *find_symbols(void *library, struct nccl_api *a)
{
    const struct {
        const char *name;
        void       *to;
    } symbols[] = {
        {"ncclGetVersion", &a->GetVersion},
        {"ncclGetUniqueId", &a->GetUniqueId},
        {"ncclCommInitRankConfig", &a->CommInitRankConfig},
        {"ncclCommFinalize", &a->CommFinalize},
        {"ncclCommDestroy", &a->CommDestroy},
        {"ncclCommAbort", &a->CommAbort},
        {"ncclCommGetAsyncError", &a->CommGetAsyncError},
        {"ncclGetErrorString", &a->GetErrorString},
        {"ncclAllReduce", &a->AllReduce},
        {"ncclAllGather", &a->AllGather},
        {"ncclSend", &a->Send},
        {"ncclRecv", &a->Recv},
        {"ncclGroupStart", &a->GroupStart},
        {"ncclGroupEnd", &a->GroupEnd},
    };

    for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
        void *found = dlsym(library, symbols[i].name);

        if (found == NULL)
            return symbols[i].name;
        memcpy(symbols[i].to, &found, sizeof(found)); /* POSIX: a function's address fits a pointer */
    }
    return NULL;
}

static void load(char *why, size_t why_size)
{
    struct nccl_api a = {.library = open_library()};
    const char     *missing;
    int             version = 0;

    if (a.library == NULL) {
        (void)snprintf(why, why_size, "NCCL was not found (libnccl.so.2): install it or use transport host");
        return;
    }
    missing = find_symbols(a.library, &a);
    if (missing != NULL)
        (void)snprintf(why, why_size, "libnccl.so.2 has no %s: 2.18 or newer is needed, or use transport host", missing);
    else if (a.GetVersion(&version) != NCCL_SUCCESS || version < NCCL_VERSION_MIN)
        (void)snprintf(why, why_size, "NCCL %d.%d is too old: 2.18 or newer is needed, or use transport host",
                       version / 10000, version / 100 % 100);
    else
        api = a;
    if (api.library == NULL)
        (void)dlclose(a.library); /* nothing of it is used */
}

const struct nccl_api *phx_nccl_load(char *why, size_t why_size)
{
    (void)pthread_mutex_lock(&lock); /* a plain mutex: cannot fail */
    if (api.library == NULL)
        load(why, why_size);
    (void)pthread_mutex_unlock(&lock);
    return api.library != NULL ? &api : NULL;
}
