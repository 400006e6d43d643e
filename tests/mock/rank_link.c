/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/mock/rank_link.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/buf.h"

enum { BUSY_WAIT_US = 200 };

const char *mock_option(int argc, char **argv, const char *name)
{
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return argv[i + 1];
    return "";
}

static char *read_text(const char *path)
{
    struct phx_buf b;

    if (phx_buf_read_file(&b, path, 1 << 20, NULL) != 0)
        _exit(4);
    return b.data;
}

struct phx_link *mock_join(int argc, char **argv, int32_t tp_size, const char *token)
{
    struct phx_link              *link = NULL;
    struct phx_rank_info          rank = {0, getpid(), "test", 0, 0, "cpu"};
    struct phx_rpc_client_options o = {.target = mock_option(argc, argv, "--join"),
                                       .server_name = "localhost"};
    struct phx_link_hello         hello = {
                .replica_id = mock_option(argc, argv, "--replica"),
                .join_token = token != NULL ? token : read_text(mock_option(argc, argv, "--join-token-file")),
                .model_name = mock_option(argc, argv, "--model"),
                .model_digest = "",
                .pp_size = 1,
                .tp_size = tp_size,
                .ranks = &rank,
                .n_ranks = 1,
    };
    struct phx_err err = {0};

    o.tls.ca_pem = read_text(mock_option(argc, argv, "--tls-ca"));
    o.tls.cert_pem = read_text(mock_option(argc, argv, "--tls-cert"));
    o.tls.key_pem = read_text(mock_option(argc, argv, "--tls-key"));
    if (phx_link_connect(&link, &o, &hello, NULL, &err) != 0) {
        fprintf(stderr, "mock rank: %s\n", err.text);
        _exit(5);
    }
    return link;
}

void mock_send(struct phx_link *link, const struct phx_link_msg *msg)
{
    int rc;

    while ((rc = phx_link_send(link, msg, NULL)) == PHX_E_BUSY)
        usleep(BUSY_WAIT_US); /* the daemon is behind: no engine computes so fast */
    if (rc != 0)
        _exit(6);
}

void mock_ready(struct phx_link *link, const struct phx_link_ready *shape)
{
    struct phx_rank_facts facts = {0, 1000, 2000, 300};
    struct phx_link_msg   msg = {.kind = PHX_LINK_READY};

    msg.u.ready = *shape;
    msg.u.ready.ranks = &facts;
    msg.u.ready.n_ranks = 1;
    mock_send(link, &msg);
}

_Noreturn void mock_leave(struct phx_link *link)
{
    struct phx_link_msg msg = {.kind = PHX_LINK_BYE};

    mock_send(link, &msg);
    phx_link_close(link, 1000);
    _exit(0);
}
