/* SPDX-License-Identifier: Apache-2.0
 * Any bytes as the body of a chat and of a completion request: parsed or refused, never a crash. */
#include "daemon/api/request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct phx_api_limits limits = {
        .body_max_bytes = 1 << 20, .vocab_size = 1000, .max_context = 4096};
    const enum phx_api_kind kinds[] = {PHX_API_CHAT, PHX_API_COMPLETION};

    for (int i = 0; i < 2; i++) {
        struct phx_arena      *arena = phx_arena_create();
        struct phx_api_request request;
        struct phx_err         err = {0};
        int rc = phx_api_request_parse(kinds[i], (const char *)data, size, &limits, arena, &request,
                                       &err);

        phx_assert((rc == 0) == (err.code == 0));
        phx_arena_destroy(arena);
    }
    return 0;
}
