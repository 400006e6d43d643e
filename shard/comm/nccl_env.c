/* SPDX-License-Identifier: Apache-2.0
 * NCCL is told by its environment which network it may use.  What phalanx's own options say is put there; what is
 * there already is refused by name, so that nothing decides unseen. */
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/base/log.h"
#include "shard/comm/nccl.h"

extern char **environ;

static bool is_harmless(const char *variable)
{
    return strncmp(variable, "NCCL_DEBUG=", 11) == 0 || strncmp(variable, "NCCL_DEBUG_FILE=", 16) == 0;
}

/* Addresses of private networks, links and the host itself (RFC 1918, 6598, 3927, 4193, 4291). */
static bool is_private(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        uint32_t a = ntohl(((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr);

        return a >> 24 == 10 || a >> 20 == 0xac1 || a >> 16 == 0xc0a8 || a >> 22 == 0x191 || a >> 16 == 0xa9fe ||
               a >> 24 == 127;
    }
    if (address->sa_family == AF_INET6) {
        const uint8_t *a = ((const struct sockaddr_in6 *)(const void *)address)->sin6_addr.s6_addr;

        return (a[0] & 0xfe) == 0xfc || (a[0] == 0xfe && (a[1] & 0xc0) == 0x80) ||
               IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
    }
    return true;
}

static int check_interface(const char *name, struct phx_err *err)
{
    struct ifaddrs *all = NULL;
    bool            is_there = false, is_public = false;

    if (getifaddrs(&all) != 0)
        return phx_fail(err, PHX_E_IO, "the network interfaces cannot be read: %s", strerror(errno));
    for (const struct ifaddrs *i = all; i != NULL; i = i->ifa_next)
        if (strcmp(i->ifa_name, name) == 0 && i->ifa_addr != NULL) {
            is_there = true;
            is_public = is_public || !is_private(i->ifa_addr);
        }
    freeifaddrs(all);
    if (!is_there)
        return phx_fail(err, PHX_E_INVALID, "interface %s: there is none of that name here", name);
    if (is_public)
        return phx_fail(err, PHX_E_INVALID, "interface %s has a public address; activations travel unencrypted: use "
                        "one of a private network or a tunnel", name);
    return 0;
}

int phx_comm_device_environment(const struct phx_comm_device_options *o, struct phx_err *err)
{
    char value[128];
    int  rc = 0;

    for (char **e = environ; *e != NULL; e++)
        if (strncmp(*e, "NCCL_", 5) == 0 && !is_harmless(*e))
            return phx_fail(err, PHX_E_INVALID, "%.*s is set in the environment; unset it and use cluster.transport, "
                            "cluster.interface or cluster.ib_devices", (int)strcspn(*e, "="), *e);
    if (o->interface[0] != '\0')
        rc = check_interface(o->interface, err);
    if (rc != 0)
        return rc;
    (void)snprintf(value, sizeof(value), "=%s", o->interface); /* "=": that name and no other that begins so */
    if ((o->interface[0] != '\0' && setenv("NCCL_SOCKET_IFNAME", value, 1) != 0) ||
        setenv("NCCL_CONF_FILE", "/dev/null", 1) != 0)
        return phx_fail(err, PHX_E_NOMEM, "setenv: %s", strerror(errno));
    if (strcmp(o->ib_devices, "none") == 0)
        rc = setenv("NCCL_IB_DISABLE", "1", 1);
    else if (o->ib_devices[0] != '\0')
        rc = setenv("NCCL_IB_HCA", o->ib_devices, 1);
    if (rc != 0)
        return phx_fail(err, PHX_E_NOMEM, "setenv: %s", strerror(errno));
    phx_log(PHX_LOG_INFO, "comm.interface", "socket=%s ib=%s", o->interface[0] != '\0' ? o->interface : "any",
            o->ib_devices[0] != '\0' ? o->ib_devices : "any");
    return 0;
}
