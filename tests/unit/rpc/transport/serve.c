/* SPDX-License-Identifier: Apache-2.0
 * A small server for stock clients: rpc_serve DIR writes ca.pem, client.pem and client.key into DIR,
 * prints its port, and obeys lines on stdin (serving, draining, hold, answer) until it ends. */
#include <stdio.h>
#include <string.h>

#include "rpc/base/buf.h"
#include "tests/unit/rpc/transport/loop.h"

static void write_pem(const char *dir, const char *name, const char *text)
{
    char           path[512];
    struct phx_err err;

    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    phx_assert(phx_file_write(path, text, strlen(text), 0600, &err) == 0);
}

int main(int argc, char **argv)
{
    static struct test_loop t;
    char                    line[64];

    if (argc != 2)
        return 2;
    test_loop_start(&t, 0);
    atomic_store(&t.n_events, 5);
    write_pem(argv[1], "ca.pem", t.client_tls.ca_pem);
    write_pem(argv[1], "client.pem", t.client_tls.cert_pem);
    write_pem(argv[1], "client.key", t.client_tls.key_pem);
    printf("%d\n", phx_rpc_server_port(t.server));
    (void)fflush(stdout);
    while (fgets(line, sizeof(line), stdin) != NULL) {
        if (strcmp(line, "hold\n") == 0)
            atomic_store(&t.is_holding, true);
        else if (strcmp(line, "answer\n") == 0)
            atomic_store(&t.is_holding, false);
        else
            atomic_store(&t.health, strcmp(line, "serving\n") == 0 ? 1 : 2);
        printf("%d %d\n", atomic_load(&t.requests), atomic_load(&t.cancelled));
        (void)fflush(stdout);
    }
    test_loop_stop(&t);
    return 0;
}
