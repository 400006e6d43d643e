/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/module.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 4096 };

/* The folder of the running program, without the last slash; false when the system does not say. */
static bool find_program_dir(char dir[PATH_BYTES])
{
    ssize_t n = readlink("/proc/self/exe", dir, PATH_BYTES - 1);
    char   *slash;

    if (n <= 0)
        return false;
    dir[n] = '\0';
    slash = strrchr(dir, '/');
    if (slash == NULL)
        return false;
    *slash = '\0';
    return true;
}

/* The module's path, or false when it is in neither place.  The system's library path is not searched: a
 * module must come with the program. */
static bool find_module(const char *name, char path[PATH_BYTES])
{
    static const char *const places[] = {"", "/../lib/phalanx"};
    char                     dir[PATH_BYTES];

    if (!find_program_dir(dir))
        return false;
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        int n = snprintf(path, PATH_BYTES, "%s%s/phalanx_%s.so", dir, places[i], name);

        if (n > 0 && n < PATH_BYTES && access(path, R_OK) == 0)
            return true;
    }
    return false;
}

static const struct phx_ops *check_module(const struct phx_module *m, const char *name, char *why,
                                          size_t why_size)
{
    char reason[PHX_WHY_BYTES - 24] = "";

    if (m == NULL || m->abi != PHX_BACKEND_ABI) {
        (void)snprintf(why, why_size, "backend %s: phalanx_%s.so is of another build; install both again",
                       name, name);
        return NULL;
    }
    if (m->probe(reason, sizeof(reason)) != 0) {
        (void)snprintf(why, why_size, "backend %s: %s", name, reason);
        return NULL;
    }
    return m->ops;
}

const struct phx_ops *phx_module_load(const char *name, void **handle, char *why, size_t why_size)
{
    char                  path[PATH_BYTES];
    const struct phx_ops *ops;
    void                 *module;

    *handle = NULL;
    if (!find_module(name, path)) {
        (void)snprintf(why, why_size,
                       "backend %s: module phalanx_%s.so was not found beside the program or in its "
                       "../lib/phalanx; install the package with it, build it (nvcc, docs/gpu.md) or use backend cpu",
                       name, name);
        return NULL;
    }
    module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (module == NULL) {
        (void)snprintf(why, why_size, "backend %s: %s", name, dlerror());
        return NULL;
    }
    ops = check_module(dlsym(module, "phx_backend_module"), name, why, why_size);
    if (ops == NULL)
        (void)dlclose(module); /* nothing of it is used */
    else
        *handle = module;
    return ops;
}

void phx_module_unload(void *handle)
{
    if (handle != NULL)
        (void)dlclose(handle); /* nothing of it is used any more */
}
