/* SPDX-License-Identifier: Apache-2.0
 * A model's manifest from outside: bundle and statement.  The input is DIR/model.sig. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/base/buf.h"
#include "shard/manifest/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char               dir[] = "/tmp/phx-fuzz-manifest-XXXXXX", path[64];
    struct phx_manifest      *m;
    struct phx_manifest_facts facts;
    struct phx_err            err = {0};

    if (path[0] == '\0') {
        if (mkdtemp(dir) == NULL)
            abort();
        (void)snprintf(path, sizeof(path), "%s/" PHX_MANIFEST_FILE, dir);
    }
    if (phx_file_write(path, data, size, 0600, &err) != 0)
        abort();
    if (phx_manifest_open(dir, "", &m, &err) != 0)
        return 0;
    phx_manifest_facts(m, &facts);
    if (strncmp(facts.root, "sha256:", 7) != 0)
        abort();
    if (phx_manifest_check(m, dir, 0, 1, NULL, NULL, &err) == 0 && facts.n_files > 0)
        abort(); /* the folder is empty */
    phx_manifest_close(m);
    return 0;
}
