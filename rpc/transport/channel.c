/* SPDX-License-Identifier: Apache-2.0
 * Credentials and channel settings.  There is no insecure mode: both sides always show a certificate. */
#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <string.h>

#include "rpc/transport/core.h"

/* Pings: the server notices a dead connection after 3 + 2 seconds; clients may ping every second. */
enum {
    SERVER_PING_MS = 3000,
    CLIENT_PING_MS = 10000,
    PING_TIMEOUT_MS = 2000,
    STREAMS_MAX = 1024,
    METADATA_MAX_BYTES = 16 << 10,
    HANDSHAKE_MS = 5000
};

static int count_certificates(const char *pem)
{
    BIO  *bio = BIO_new_mem_buf(pem, -1);
    X509 *x;
    int   n = 0;

    phx_assert(bio != NULL);
    while ((x = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL) {
        X509_free(x);
        n++;
    }
    (void)BIO_free(bio);
    return n;
}

/* The certificate's public key must belong to the private key. */
static int check_pair(const char *cert_pem, const char *key_pem, struct phx_err *err)
{
    BIO      *cert_bio = BIO_new_mem_buf(cert_pem, -1), *key_bio = BIO_new_mem_buf(key_pem, -1);
    X509     *cert = PEM_read_bio_X509(cert_bio, NULL, NULL, NULL);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(key_bio, NULL, NULL, NULL);
    int       rc = 0;

    if (key == NULL)
        rc = phx_fail(err, PHX_E_INVALID, "TLS: key_pem holds no private key");
    else if (X509_check_private_key(cert, key) != 1)
        rc = phx_fail(err, PHX_E_INVALID, "TLS: cert_pem and key_pem do not belong together");
    EVP_PKEY_free(key);
    X509_free(cert);
    (void)BIO_free(cert_bio);
    (void)BIO_free(key_bio);
    return rc;
}

static int check_tls(const struct phx_rpc_tls *tls, struct phx_err *err)
{
    if (tls->ca_pem == NULL || tls->cert_pem == NULL || tls->key_pem == NULL)
        return phx_fail(err, PHX_E_INVALID, "TLS: ca_pem, cert_pem and key_pem are all needed");
    if (count_certificates(tls->ca_pem) == 0)
        return phx_fail(err, PHX_E_INVALID, "TLS: ca_pem holds no certificate");
    if (count_certificates(tls->cert_pem) == 0)
        return phx_fail(err, PHX_E_INVALID, "TLS: cert_pem holds no certificate");
    return check_pair(tls->cert_pem, tls->key_pem, err);
}

int phx_core_server_credentials(const struct phx_rpc_tls *tls, grpc_server_credentials **out,
                                struct phx_err *err)
{
    grpc_ssl_pem_key_cert_pair pair = {tls->key_pem, tls->cert_pem};
    int                        rc = check_tls(tls, err);

    *out = NULL;
    if (rc != 0)
        return rc;
    *out = grpc_ssl_server_credentials_create_ex(
        tls->ca_pem, &pair, 1, GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY, NULL);
    if (*out == NULL)
        return phx_fail(err, PHX_E_INVALID, "TLS: gRPC refuses the certificates");
    return 0;
}

static grpc_arg integer_arg(const char *key, int value)
{
    grpc_arg arg = {.type = GRPC_ARG_INTEGER, .key = (char *)key};

    arg.value.integer = value;
    return arg;
}

grpc_channel_args phx_core_server_args(void)
{
    static grpc_arg args[16]; /* written with the same values each time */
    size_t          n = 0;

    args[n++] = integer_arg(GRPC_ARG_ALLOW_REUSEPORT, 0); /* two daemons must not share a port */
    args[n++] = integer_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, PHX_RPC_MESSAGE_MAX_BYTES);
    args[n++] = integer_arg(GRPC_ARG_MAX_CONCURRENT_STREAMS, STREAMS_MAX);
    args[n++] = integer_arg(GRPC_ARG_MAX_METADATA_SIZE, METADATA_MAX_BYTES);
    args[n++] = integer_arg(GRPC_ARG_KEEPALIVE_TIME_MS, SERVER_PING_MS);
    args[n++] = integer_arg(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, PING_TIMEOUT_MS);
    args[n++] = integer_arg(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    args[n++] = integer_arg(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0); /* 0 = no limit */
    args[n++] = integer_arg(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 1000);
    args[n++] = integer_arg(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, HANDSHAKE_MS);
    phx_assert(n <= sizeof(args) / sizeof(args[0]));
    return (grpc_channel_args){n, args};
}

int phx_core_channel(const struct phx_rpc_client_options *options, grpc_channel **out,
                     struct phx_err *err)
{
    grpc_ssl_pem_key_cert_pair pair = {options->tls.key_pem, options->tls.cert_pem};
    grpc_channel_credentials  *credentials;
    grpc_channel_args          args;
    grpc_arg                   list[8];
    size_t                     n = 0;
    int                        rc = check_tls(&options->tls, err);

    *out = NULL;
    if (rc != 0)
        return rc;
    if (options->target == NULL || strchr(options->target, ':') == NULL)
        return phx_fail(err, PHX_E_INVALID, "target must be host:port");
    list[n++] = integer_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, PHX_RPC_MESSAGE_MAX_BYTES);
    list[n++] = integer_arg(GRPC_ARG_KEEPALIVE_TIME_MS, CLIENT_PING_MS);
    list[n++] = integer_arg(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, PING_TIMEOUT_MS);
    list[n++] = integer_arg(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
    list[n++] = integer_arg(GRPC_ARG_ENABLE_RETRIES, 0); /* a call is never sent twice unseen */
    list[n++] = integer_arg(GRPC_ARG_ENABLE_HTTP_PROXY, 0); /* not the environment's choice */
    list[n++] = integer_arg(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1); /* nor the DNS server's */
    if (options->server_name != NULL) {
        list[n] = (grpc_arg){.type = GRPC_ARG_STRING, .key = GRPC_SSL_TARGET_NAME_OVERRIDE_ARG};
        list[n++].value.string = (char *)options->server_name;
    }
    args = (grpc_channel_args){n, list};
    credentials = grpc_ssl_credentials_create_ex(options->tls.ca_pem, &pair, NULL, NULL);
    if (credentials == NULL)
        return phx_fail(err, PHX_E_INVALID, "TLS: gRPC refuses the certificates");
    *out = grpc_channel_create(options->target, credentials, &args);
    grpc_channel_credentials_release(credentials);
    if (*out == NULL)
        return phx_fail(err, PHX_E_INVALID, "no channel to %s can be made", options->target);
    return 0;
}
