/* What all requests to one registry have in common: addresses, certificates, TLS or not. */
#include "base/strv.h"
#include "oci/fetch_priv.h"
#include "oci/reference.h"

#include <stdio.h>

#define CONNECT_MS 10000L
#define PROBE_MAX  8192

/* "scheme://host:port" of a URL, the port always told; NULL when it is none. The caller frees it.
 */
static char *origin_of(const char *url)
{
    char *scheme = NULL, *host = NULL, *port = NULL, *out = NULL;
    CURLU *u = curl_url();

    if (u && !curl_url_set(u, CURLUPART_URL, url, 0) &&
        !curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) &&
        !curl_url_get(u, CURLUPART_HOST, &host, 0) &&
        !curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT))
        out = xasprintf("%s://%s:%s", scheme, host, port);
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(u);
    return out;
}

bool url_same_origin(const char *a, const char *b)
{
    AUTO_FREE char *one = origin_of(a), *two = origin_of(b);

    return one && two && strcmp(one, two) == 0;
}

char *registry_base(const struct registry *r)
{
    return xasprintf("%s://%s", r->http ? "http" : "https", r->host);
}

char *registry_url(const struct registry *r, const char *kind, const char *which)
{
    AUTO_FREE char *base = registry_base(r);

    return xasprintf("%s/v2/%s/%s/%s", base, r->name, kind, which);
}

bool registry_url_allowed(const struct registry *r, const char *url)
{
    AUTO_FREE char *origin = origin_of(url);

    if (!origin)
        return false;
    if (strncmp(origin, "https://", 8) == 0)
        return true;
    return strncmp(origin, "http://", 7) == 0 &&
           (r->insecure || reference_host_is_loopback(origin + 7));
}

static void trust(CURL *c, const struct registry_certs *certs, bool verify)
{
    struct curl_blob blob = {.data = certs->authorities.ptr, .len = certs->authorities.len};

    /* The system's stay trusted through their directory, which curl reads besides. */
    if (blob.len)
        curl_easy_setopt(c, CURLOPT_CAINFO_BLOB, &blob);
    if (certs->client_cert) {
        curl_easy_setopt(c, CURLOPT_SSLCERT, certs->client_cert);
        curl_easy_setopt(c, CURLOPT_SSLKEY, certs->client_key);
    }
    if (!verify) {
        curl_easy_setopt(c, CURLOPT_SSL_VERIFYPEER, 0L);
        curl_easy_setopt(c, CURLOPT_SSL_VERIFYHOST, 0L);
    }
}

/* A handle with what all transfers have in common. */
CURL *registry_curl(const struct registry *r, const char *url, bool home)
{
    AUTO_FREE char *origin = origin_of(url);
    const char *host = origin ? strstr(origin, "://") + 3 : "";
    CURL *c = curl_easy_init();

    if (!c)
        abort();
    curl_easy_setopt(c, CURLOPT_URL, url);
    /* No proxy knows our loopback. */
    if (reference_host_is_loopback(host))
        curl_easy_setopt(c, CURLOPT_PROXY, "");
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_USERAGENT, "capsule-cli");
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
    trust(c, home ? &r->certs : &r->others, !r->insecure);
    return c;
}

static size_t drop_body(char *ptr, size_t size, size_t count, void *arg)
{
    (void)ptr;
    (void)arg;
    return size * count > PROBE_MAX ? 0 : size * count;
}

/*
 * Whether plain HTTP is spoken there: servers with TLS say 400, redirect or hang up. No secret is
 * told.
 */
static bool speaks_http(const struct registry *r)
{
    AUTO_FREE char *url = xasprintf("http://%s/v2/", r->host);
    CURL *c = registry_curl(r, url, true);
    long status = 0;

    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, drop_body);
    curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, CONNECT_MS);
    curl_easy_perform(c);
    curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_cleanup(c);
    return status != 0 && status != 400 && status / 100 != 3;
}

int registry_open(struct registry *r, const char *host, const char *name,
                  const struct image_options *options, struct error *err)
{
    *r = (struct registry){.host = xstrdup(host),
                           .name = xstrdup(name),
                           .insecure = options->insecure,
                           .certs = REGISTRY_CERTS_NONE,
                           .others = REGISTRY_CERTS_NONE,
                           .authorization = BUF_SECRET((size_t)128 << 10)};
    curl_global_init(CURL_GLOBAL_DEFAULT);
    if (registry_certs_load(host, &r->certs, err) < 0)
        return -1;
    for (char **file = options->cacerts; file && *file; file++)
        if (registry_certs_add(&r->certs, *file, err) < 0 ||
            registry_certs_add(&r->others, *file, err) < 0)
            return -1;
    r->http = (r->insecure || reference_host_is_loopback(host)) && speaks_http(r);
    return 0;
}

void registry_close(struct registry *r)
{
    free(r->host);
    free(r->name);
    strv_free(r->from);
    registry_certs_free(&r->certs);
    registry_certs_free(&r->others);
    buf_free(&r->authorization);
}
