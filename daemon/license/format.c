/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "daemon/license/terms.h"

void phx_license_format(const struct phx_license *l, int64_t now_ns, char *text, size_t size)
{
    char from[PHX_DATE_BYTES], until[PHX_DATE_BYTES];

    if (l == NULL) {
        (void)snprintf(text, size, "no licence");
        return;
    }
    phx_date_format(l->terms.not_before_ns, from);
    phx_date_format(l->terms.not_after_ns, until);
    (void)snprintf(text, size, "%s licence %.48s serial %lld, %s, from %.10s until %.10s",
                   l->terms.class_name, l->terms.license_id, (long long)l->terms.serial,
                   phx_license_state_name(phx_license_state(l, now_ns)), from, until);
}
