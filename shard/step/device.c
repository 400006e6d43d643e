/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/step/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    DEVICES_MAX = 64,
    RESERVE_BYTES = 256 << 20, /* of the driver and of libraries, for kernels that come with the first steps */
    RESERVE_SHARE = 64         /* and this part of the device's memory */
};

static bool is_set(const char *text)
{
    return text != NULL && text[0] != '\0';
}

static int check_peer(const struct phx_step_options *o, struct phx_err *err)
{
    if (o->pp > 1)
        return phx_fail(err, PHX_E_INVALID, "transport peer carries no stages (pp %d); use auto, nccl or host", o->pp);
    if (is_set(o->interface) || is_set(o->ib_devices))
        return phx_fail(err, PHX_E_INVALID, "%s is of a network, and transport peer uses none",
                        is_set(o->interface) ? "interface" : "ib_devices");
    return 0;
}

int phx_step_check_device(const struct phx_step_options *o, struct phx_err *err)
{
    static const char only_cuda[] = "%s needs backend cuda; backend %s would not honour it";

    if (strcmp(o->backend, "cuda") == 0) {
        if (is_set(o->isa) && strcmp(o->isa, "auto") != 0)
            return phx_fail(err, PHX_E_INVALID, "isa %s needs backend cpu; a GPU has one instruction set", o->isa);
        if (o->n_threads > 0)
            return phx_fail(err, PHX_E_INVALID, "threads needs backend cpu; a rank on a GPU computes there");
        if (is_set(o->transport) && strcmp(o->transport, "peer") == 0)
            return check_peer(o, err);
        return 0;
    }
    if (o->is_fast)
        return phx_fail(err, PHX_E_INVALID, only_cuda, "class fast", o->backend);
    if (o->is_eager)
        return phx_fail(err, PHX_E_INVALID, only_cuda, "no-graphs", o->backend);
    if (o->is_serial)
        return phx_fail(err, PHX_E_INVALID, only_cuda, "no-overlap", o->backend);
    if (is_set(o->devices))
        return phx_fail(err, PHX_E_INVALID, only_cuda, "devices", o->backend);
    if (is_set(o->transport) && strcmp(o->transport, "auto") != 0)
        return phx_fail(err, PHX_E_INVALID, only_cuda, "transport", o->backend);
    if (is_set(o->interface) || is_set(o->ib_devices))
        return phx_fail(err, PHX_E_INVALID, only_cuda, is_set(o->interface) ? "interface" : "ib_devices", o->backend);
    return 0;
}

/* "0,2,3" as numbers; how many, or -1. */
static int32_t parse_list(const char *text, int32_t list[DEVICES_MAX])
{
    int32_t n = 0;

    for (const char *at = text; is_set(text); at++) {
        char *end = NULL;
        long  value = at[0] >= '0' && at[0] <= '9' ? strtol(at, &end, 10) : -1;

        if (value < 0 || value > 1023 || n == DEVICES_MAX || (*end != ',' && *end != '\0'))
            return -1;
        list[n++] = (int32_t)value;
        at = end;
        if (*at == '\0')
            break;
    }
    return n;
}

int phx_step_choose_device(const char *devices, int32_t place, struct phx_backend_options *options,
                           struct phx_err *err)
{
    int32_t list[DEVICES_MAX], n = parse_list(devices, list);

    if (n < 0)
        return phx_fail(err, PHX_E_INVALID, "devices: '%.60s' is not a list of up to %d GPUs such as 0,1", devices,
                        DEVICES_MAX);
    options->is_wrapped = n == 0;
    options->device = n > 0 ? list[place % n] : place;
    return 0;
}

int32_t phx_step_sharers(const char *devices, int32_t n_places, const struct phx_device_facts *facts)
{
    int32_t list[DEVICES_MAX], n = parse_list(devices, list), sharers = 0;

    for (int32_t place = 0; place < n_places; place++)
        sharers += n > 0 ? list[place % n] == facts->index
                         : facts->n_visible < 1 || place % facts->n_visible == facts->index;
    return sharers > 0 ? sharers : 1;
}

int64_t phx_device_room(const struct phx_device_facts *facts, int32_t n_sharers)
{
    int64_t free = facts->free_bytes - RESERVE_BYTES - facts->total_bytes / RESERVE_SHARE;

    return free > 0 ? free / n_sharers : 0;
}

static uint64_t fixed_bytes(const struct phx_part *p)
{
    uint64_t sum;

    return __builtin_add_overflow(p->weights_bytes, p->scratch_bytes, &sum) ||
                   __builtin_add_overflow(sum, p->overhead_bytes, &sum)
               ? UINT64_MAX
               : sum;
}

int64_t phx_device_blocks(const struct phx_part *p, int64_t room_bytes)
{
    uint64_t fixed = fixed_bytes(p);

    if (fixed >= (uint64_t)room_bytes || p->kv_bytes_per_block == 0)
        return 0;
    return (int64_t)(((uint64_t)room_bytes - fixed) / p->kv_bytes_per_block);
}

static double gib(double bytes)
{
    return bytes / (1 << 30);
}

int phx_device_check(const struct phx_part *p, int64_t n_blocks, const struct phx_device_facts *facts,
                     int32_t n_sharers, struct phx_err *err)
{
    int64_t room = phx_device_room(facts, n_sharers);
    double  kv = (double)p->kv_bytes_per_block * (double)n_blocks;

    if (n_blocks > 0 && n_blocks <= phx_device_blocks(p, room))
        return 0;
    return phx_fail(err, PHX_E_NOMEM,
                    "device memory: rank %d needs %.2f GiB (weights %.2f, kv %.2f, scratch %.2f, backend %.2f), %.2f of %.2f GiB of "
                    "device %d (%.40s) can be had by each of its %d ranks; use more GPUs or lower kv_memory, max_seqs, "
                    "max_rows",
                    p->rank, gib((double)fixed_bytes(p) + kv), gib((double)p->weights_bytes), gib(kv),
                    gib((double)p->scratch_bytes), gib((double)p->overhead_bytes), gib((double)room), gib((double)facts->total_bytes), facts->index,
                    facts->name, n_sharers);
}
