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

enum { SETTINGS_MAX = 4, VALUE_BYTES = 128 };

struct setting {
    const char *name;
    char        value[VALUE_BYTES];
};

static bool is_setting(const char *variable, const struct setting *s)
{
    size_t n = strlen(s->name);

    return strncmp(variable, s->name, n) == 0 && variable[n] == '=' && strcmp(variable + n + 1, s->value) == 0;
}

/* A variable of NCCL that is neither one of the settings nor about its own log. */
static bool is_stray(const char *variable, const struct setting *settings, int n)
{
    if (strncmp(variable, "NCCL_", 5) != 0 || strncmp(variable, "NCCL_DEBUG=", 11) == 0 ||
        strncmp(variable, "NCCL_DEBUG_FILE=", 16) == 0)
        return false;
    for (int i = 0; i < n; i++)
        if (is_setting(variable, &settings[i]))
            return false;
    return true;
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

static int make_settings(const struct phx_comm_device_options *o, struct setting settings[SETTINGS_MAX])
{
    int n = 0;

    settings[n++] = (struct setting){"NCCL_CONF_FILE", "/dev/null"}; /* nor do files of the host decide */
    if (o->interface[0] != '\0') { /* "=": that name and no other that begins so */
        settings[n].name = "NCCL_SOCKET_IFNAME";
        (void)snprintf(settings[n++].value, VALUE_BYTES, "=%s", o->interface);
    }
    if (strcmp(o->ib_devices, "none") == 0) {
        settings[n++] = (struct setting){"NCCL_IB_DISABLE", "1"};
    } else if (o->ib_devices[0] != '\0') {
        settings[n].name = "NCCL_IB_HCA";
        (void)snprintf(settings[n++].value, VALUE_BYTES, "%s", o->ib_devices);
    }
    return n;
}

int phx_comm_device_environment(const struct phx_comm_device_options *o, struct phx_err *err)
{
    struct setting settings[SETTINGS_MAX];
    int            n = make_settings(o, settings), rc = 0;

    if (strlen(o->interface) + 2 > VALUE_BYTES || strlen(o->ib_devices) + 1 > VALUE_BYTES)
        return phx_fail(err, PHX_E_INVALID, "interface and ib_devices have at most %d bytes", VALUE_BYTES - 2);
    for (char **e = environ; *e != NULL; e++)
        if (is_stray(*e, settings, n))
            return phx_fail(err, PHX_E_INVALID, "%.*s is set in the environment; unset it and use cluster.transport, "
                            "cluster.interface or cluster.ib_devices", (int)strcspn(*e, "="), *e);
    if (o->interface[0] != '\0')
        rc = check_interface(o->interface, err);
    for (int i = 0; i < n && rc == 0; i++)
        if (setenv(settings[i].name, settings[i].value, 1) != 0)
            rc = phx_fail(err, PHX_E_NOMEM, "setenv: %s", strerror(errno));
    if (rc == 0)
        phx_log(PHX_LOG_INFO, "comm.interface", "socket=%s ib=%s", o->interface[0] != '\0' ? o->interface : "any",
                o->ib_devices[0] != '\0' ? o->ib_devices : "any");
    return rc;
}
