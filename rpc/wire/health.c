/* SPDX-License-Identifier: Apache-2.0 */
#include "grpc/health/v1/health.pb-c.h"
#include "rpc/wire/convert.h"

int phx_wire_encode_health_request(const char *service, struct phx_arena *arena,
                                   struct phx_wire_out *out, struct phx_err *err)
{
    Grpc__Health__V1__HealthCheckRequest *m = phx_arena_calloc(arena, 1, sizeof(*m));

    grpc__health__v1__health_check_request__init(m);
    m->service = phx_wire_str(service);
    return phx_wire_finish(&m->base, out, err);
}

int phx_wire_decode_health_request(const uint8_t *data, size_t size, struct phx_arena *arena,
                                   const char **service, struct phx_err *err)
{
    struct phx_err                        local = {0};
    Grpc__Health__V1__HealthCheckRequest *m = phx_wire_unpack(
        &grpc__health__v1__health_check_request__descriptor, data, size, arena, &local);

    if (m == NULL)
        return phx_fail(err, local.code, "%s", local.text);
    *service = m->service;
    return 0;
}

int phx_wire_encode_health_answer(enum phx_wire_health status, struct phx_arena *arena,
                                  struct phx_wire_out *out, struct phx_err *err)
{
    Grpc__Health__V1__HealthCheckResponse *m = phx_arena_calloc(arena, 1, sizeof(*m));

    grpc__health__v1__health_check_response__init(m);
    m->status = (Grpc__Health__V1__HealthCheckResponse__ServingStatus)status;
    return phx_wire_finish(&m->base, out, err);
}

int phx_wire_decode_health_answer(const uint8_t *data, size_t size, struct phx_arena *arena,
                                  enum phx_wire_health *status, struct phx_err *err)
{
    struct phx_err                         local = {0};
    Grpc__Health__V1__HealthCheckResponse *m = phx_wire_unpack(
        &grpc__health__v1__health_check_response__descriptor, data, size, arena, &local);

    *status = PHX_HEALTH_UNKNOWN;
    if (m == NULL)
        return phx_fail(err, local.code, "%s", local.text);
    if (m->status == 1 || m->status == 2 || m->status == 3)
        *status = (enum phx_wire_health)m->status;
    return 0;
}
