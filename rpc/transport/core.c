/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/transport/core.h"

#include <grpc/byte_buffer_reader.h>
#include <grpc/support/alloc.h>
#include <grpc/support/log.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "rpc/base/log.h"

/* A failed handshake of some stranger is an "error" to gRPC; to us it is worth a warning. */
static void take_log(gpr_log_func_args *args)
{
    enum phx_log_level level = args->severity == GPR_LOG_SEVERITY_ERROR  ? PHX_LOG_WARN
                               : args->severity == GPR_LOG_SEVERITY_INFO ? PHX_LOG_DEBUG
                                                                         : PHX_LOG_TRACE;

    phx_log(level, "rpc.grpc", "source=%s line=%d text=%s", args->file, args->line, args->message);
}

void phx_core_mask_signals(sigset_t *old)
{
    sigset_t all;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_BLOCK, &all, old); /* cannot fail with valid arguments */
}

void phx_core_unmask_signals(const sigset_t *old)
{
    (void)pthread_sigmask(SIG_SETMASK, old, NULL);
}

void phx_core_open(void)
{
    sigset_t old;

    phx_core_mask_signals(&old);
    gpr_set_log_function(take_log);
    gpr_set_log_verbosity(GPR_LOG_SEVERITY_ERROR); /* not the environment's choice */
    grpc_init();
    phx_core_unmask_signals(&old);
}

void phx_core_close(void)
{
    grpc_shutdown_blocking();
}

gpr_timespec phx_core_deadline(int timeout_ms)
{
    if (timeout_ms <= 0)
        return gpr_inf_future(GPR_CLOCK_MONOTONIC);
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                        gpr_time_from_millis(timeout_ms, GPR_TIMESPAN));
}

grpc_byte_buffer *phx_core_pack(const struct phx_wire_out *out)
{
    grpc_slice        slice = grpc_slice_malloc(out->size);
    grpc_byte_buffer *buffer;

    phx_wire_pack(out, GRPC_SLICE_START_PTR(slice));
    buffer = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    return buffer;
}

bool phx_core_read(grpc_byte_buffer *buffer, grpc_slice *out)
{
    grpc_byte_buffer_reader reader;

    if (!grpc_byte_buffer_reader_init(&reader, buffer))
        return false;
    *out = grpc_byte_buffer_reader_readall(&reader);
    grpc_byte_buffer_reader_destroy(&reader);
    return true;
}

size_t phx_core_bearer(const char *bearer, grpc_metadata *entry)
{
    char *value;

    if (bearer == NULL)
        return 0;
    value = phx_mem_printf("Bearer %s", bearer);
    memset(entry, 0, sizeof(*entry));
    entry->key = grpc_slice_from_static_string("authorization");
    entry->value = grpc_slice_from_copied_string(value);
    phx_mem_free(value);
    return 1;
}

char *phx_core_text(grpc_slice slice)
{
    return phx_mem_strndup((const char *)GRPC_SLICE_START_PTR(slice), GRPC_SLICE_LENGTH(slice));
}

/* The exact code when the peer is one of ours, else the nearest one. */
static int find_code(grpc_status_code status, const grpc_metadata_array *trailing)
{
    for (size_t i = 0; trailing != NULL && i < trailing->count; i++) {
        const grpc_metadata *m = &trailing->metadata[i];

        if (grpc_slice_str_cmp(m->key, PHX_META_ERROR) != 0)
            continue;
        for (int code = -1; code >= PHX_E_INTERNAL; code--)
            if (grpc_slice_str_cmp(m->value, phx_err_name(code)) == 0)
                return code;
    }
    if (status == GRPC_STATUS_UNAVAILABLE)
        return PHX_E_PEER;
    if (status == GRPC_STATUS_UNIMPLEMENTED)
        return PHX_E_UNSUPPORTED;
    return phx_err_from_grpc((int)status);
}

int phx_core_status(grpc_status_code status, grpc_slice details, const grpc_metadata_array *trailing,
                    struct phx_err *err)
{
    char *text;
    int   code;

    if (status == GRPC_STATUS_OK)
        return 0;
    text = phx_core_text(details);
    code = find_code(status, trailing);
    (void)phx_fail(err, code, "%s", *text != '\0' ? text : phx_err_text(code));
    phx_mem_free(text);
    return code;
}

static void copy_value(grpc_slice value, char *out, size_t size)
{
    size_t n = GRPC_SLICE_LENGTH(value);

    if (n >= size)
        n = size - 1;
    memcpy(out, GRPC_SLICE_START_PTR(value), n);
    out[n] = '\0';
}

void phx_core_refusal(const grpc_metadata_array *trailing, struct phx_rpc_refusal *out)
{
    char  number[24];
    char *end;

    *out = (struct phx_rpc_refusal){.retry_after_ms = -1};
    for (size_t i = 0; i < trailing->count; i++) {
        const grpc_metadata *m = &trailing->metadata[i];

        if (grpc_slice_str_cmp(m->key, PHX_META_RULE) == 0) {
            copy_value(m->value, out->rule, sizeof(out->rule));
        } else if (grpc_slice_str_cmp(m->key, PHX_META_RETRY) == 0) {
            copy_value(m->value, number, sizeof(number));
            out->retry_after_ms = strtoll(number, &end, 10);
            if (end == number || *end != '\0' || out->retry_after_ms < 0)
                out->retry_after_ms = -1;
        }
    }
}
