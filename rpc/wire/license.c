/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/wire/map.h"

#define T struct phx_rpc_licensed_model
static const struct phx_map_row model_rows[] = {
    PHX_MAP_ANY(1, T, manifest_root),
    PHX_MAP_ANY(2, T, policy),
    PHX_MAP_LIST(3, T, denied_purposes, n_denied_purposes, NULL),
};
static const struct phx_map model = {PHX_MAP(T, licensed_model, model)};
#undef T

#define T struct phx_rpc_license
#define LIMIT(no, m) PHX_MAP_INT(no, T, m, -1, PHX_RPC_COUNT_MAX)
static const struct phx_map_row facts_rows[] = {
    PHX_MAP_ANY(1, T, license_id),
    PHX_MAP_COUNT(2, T, serial),
    PHX_MAP_ANY(3, T, legal_name),
    PHX_MAP_ANY(4, T, licensee_class),
    PHX_MAP_INT(5, T, state, 0, PHX_RPC_LICENSE_EARLY),
    PHX_MAP_ANY(6, T, state_reason),
    PHX_MAP_ANY(7, T, unit),
    LIMIT(8, seats),
    PHX_MAP_INT(9, T, overdraft_pct, 0, 100),
    PHX_MAP_COUNT(10, T, seats_used),
    PHX_MAP_ANY(11, T, period),
    PHX_MAP_TIME(12, T, not_before_unix_s),
    PHX_MAP_TIME(13, T, not_after_unix_s),
    PHX_MAP_ANY(14, T, enforce),
    PHX_MAP_LIST(15, T, models, n_models, &model),
    PHX_MAP_ANY(16, T, is_clock_suspect),
    PHX_MAP_ANY(17, T, clock_state),
    PHX_MAP_COUNT(18, T, key_set_version),
    PHX_MAP_ANY(19, T, problem),
    LIMIT(20, indirect_users),
    LIMIT(21, concurrent),
    LIMIT(22, nodes),
    LIMIT(23, gpus),
    LIMIT(24, tokens_per_month),
    PHX_MAP_COUNT(25, T, indirect_used),
    PHX_MAP_COUNT(26, T, overdraft_used),
    PHX_MAP_COUNT(27, T, exempt_used),
};
static const struct phx_map facts = {PHX_MAP(T, license_facts, facts)};
#undef T

const struct phx_map phx_map_license_get = {
    .type = &phalanx__v1__get_license_request__descriptor, .size = sizeof(struct phx_rpc_empty)};

#define T struct phx_rpc_license_answer
static const struct phx_map_row license_answer_rows[] = {
    PHX_MAP_SUB(1, T, facts, &facts),
};
const struct phx_map phx_map_license_answer = {PHX_MAP(T, get_license_response, license_answer)};
#undef T

#define T struct phx_rpc_license_install
static const struct phx_map_row install_rows[] = {
    PHX_MAP_RULE(1, T, envelope, PHX_MAP_NEEDED),
    PHX_MAP_ANY(2, T, note),
    PHX_MAP_ANY(3, T, key_set),
    PHX_MAP_ANY(4, T, is_dry_run),
};
const struct phx_map phx_map_license_install = {PHX_MAP(T, install_license_request, install)};
#undef T

#define T struct phx_rpc_license_install_answer
static const struct phx_map_row install_answer_rows[] = {
    PHX_MAP_SUB(1, T, facts, &facts),
    PHX_MAP_ANY(2, T, is_dry_run),
};
const struct phx_map phx_map_license_install_answer = {
    PHX_MAP(T, install_license_response, install_answer)};
#undef T

#define T struct phx_rpc_seats
static const struct phx_map_row seats_rows[] = {
    PHX_MAP_ANY(1, T, period),
    PHX_MAP_ANY(2, T, tenant),
    PHX_MAP_INT(3, T, page_size, 0, PHX_RPC_SEATS_MAX),
    PHX_MAP_ANY(4, T, page_token),
};
const struct phx_map phx_map_seats = {PHX_MAP(T, list_seats_request, seats)};
#undef T

#define T struct phx_rpc_seat
static const struct phx_map_row seat_rows[] = {
    PHX_MAP_ANY(1, T, seat_id),
    PHX_MAP_ANY(2, T, tenant),
    PHX_MAP_TIME(3, T, first_unix_ns),
    PHX_MAP_TIME(4, T, last_unix_ns),
    PHX_MAP_ANY(5, T, is_overdraft),
    PHX_MAP_ANY(6, T, is_indirect),
    PHX_MAP_ANY(7, T, is_exempt),
};
static const struct phx_map seat = {PHX_MAP(T, seat, seat)};
#undef T

#define T struct phx_rpc_seats_answer
static const struct phx_map_row seats_answer_rows[] = {
    PHX_MAP_LIST(1, T, seats, n_seats, &seat),
    PHX_MAP_ANY(2, T, next_page_token),
};
const struct phx_map phx_map_seats_answer = {PHX_MAP(T, list_seats_response, seats_answer)};
#undef T

#define T struct phx_rpc_accept_clock
static const struct phx_map_row accept_clock_rows[] = {
    PHX_MAP_ANY(1, T, by),
    PHX_MAP_RULE(2, T, approved_by, PHX_MAP_NEEDED),
};
const struct phx_map phx_map_accept_clock = {PHX_MAP(T, accept_clock_request, accept_clock)};
#undef T

#define T struct phx_rpc_accept_clock_answer
static const struct phx_map_row accept_clock_answer_rows[] = {
    PHX_MAP_ANY(1, T, clock_state),
    PHX_MAP_TIME(2, T, now_unix_ns),
};
const struct phx_map phx_map_accept_clock_answer = {
    PHX_MAP(T, accept_clock_response, accept_clock_answer)};
#undef T
