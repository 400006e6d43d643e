/* SPDX-License-Identifier: Apache-2.0
 * Every message that can come over gRPC: the first byte selects the decoder, the rest is the message.
 * What a link decoder accepts must encode and decode again. */
#include <string.h>

#include "rpc/wire/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { N_CONTROL = PHX_RPC_METHODS - PHX_RPC_ADMIT };

static void run_link(const uint8_t *data, size_t size, enum phx_wire_side side,
                     struct phx_arena *arena)
{
    struct phx_link_msg msg, again;
    struct phx_wire_out out;
    struct phx_err      err;
    uint8_t            *bytes;

    if (phx_wire_decode_link(data, size, side, arena, &msg, &err) != 0) {
        phx_assert(err.code < 0 && strlen(err.text) > 0);
        return;
    }
    phx_assert(phx_wire_encode_link(&msg, arena, &out, &err) == 0);
    bytes = phx_arena_calloc(arena, 1, out.size);
    phx_wire_pack(&out, bytes);
    phx_assert(phx_wire_decode_link(bytes, out.size, side, arena, &again, &err) == 0);
    phx_assert(again.kind == msg.kind);
}

static void run_call(const uint8_t *data, size_t size, enum phx_rpc_method method, bool is_answer,
                     struct phx_arena *arena)
{
    struct phx_rpc_request request;
    struct phx_rpc_answer  answer;
    struct phx_err         err;

    if (is_answer)
        (void)(phx_wire_decode_answer(method, data, size, arena, &answer, &err) == 0);
    else
        (void)(phx_wire_decode_request(method, data, size, arena, &request, &err) == 0);
}

/* What is accepted encodes, and decodes again to the same bytes. */
static void run_control(const uint8_t *data, size_t size, enum phx_rpc_method method, bool is_answer,
                        struct phx_arena *arena)
{
    struct phx_rpc_request request = {0};
    struct phx_rpc_answer  answer = {0};
    struct phx_wire_out    out;
    struct phx_err         err = {0};
    uint8_t               *bytes[2];
    size_t                 sizes[2] = {0, 0};

    for (int i = 0; i < 2; i++) {
        int rc = is_answer
                     ? phx_wire_decode_answer(method, data, size, arena, &answer, &err)
                     : phx_wire_decode_request(method, data, size, arena, &request, &err);

        if (rc != 0) {
            phx_assert(i == 0 && rc < 0 && strlen(err.text) > 0);
            return;
        }
        phx_assert((is_answer ? phx_wire_encode_answer(method, &answer, arena, &out, &err)
                              : phx_wire_encode_request(&request, arena, &out, &err)) == 0);
        sizes[i] = out.size;
        bytes[i] = phx_arena_calloc(arena, 1, out.size);
        phx_wire_pack(&out, bytes[i]);
        data = bytes[i];
        size = out.size;
    }
    phx_assert(sizes[0] == sizes[1] && memcmp(bytes[0], bytes[1], sizes[0]) == 0);
}

static void run_standard(const uint8_t *data, size_t size, unsigned which, struct phx_arena *arena)
{
    static const char *const services[] = {"phalanx.v1.Cluster", NULL};
    enum phx_wire_health     status;
    struct phx_wire_out      out;
    const char              *service;
    struct phx_err           err;

    if (which == 0)
        (void)(phx_wire_decode_health_request(data, size, arena, &service, &err) == 0);
    else if (which == 1)
        (void)(phx_wire_decode_health_answer(data, size, arena, &status, &err) == 0);
    else
        (void)(phx_wire_answer_reflection(data, size, services, arena, &out, &err) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct phx_arena *arena;
    unsigned          which;

    if (size == 0)
        return 0;
    arena = phx_arena_create();
    which = data[0] % (15 + 2 * N_CONTROL);
    data++;
    size--;
    if (which < 2)
        run_link(data, size, which == 0 ? PHX_WIRE_FROM_RANK : PHX_WIRE_FROM_DAEMON, arena);
    else if (which < 12)
        run_call(data, size, (enum phx_rpc_method)(1 + (which - 2) / 2), which % 2 == 1, arena);
    else if (which < 15)
        run_standard(data, size, which - 12, arena);
    else
        run_control(data, size, (enum phx_rpc_method)(PHX_RPC_ADMIT + (which - 15) / 2),
                    which % 2 == 0, arena);
    phx_arena_destroy(arena);
    return 0;
}
