#include "cli/http_fetch.h"

#include "base/file.h"
#include "base/strv.h"
#include "config.h"
#include "crypto/pem.h"

#include <curl/curl.h>
#include <jansson.h>
#include <string.h>

#define CONNECT_SECONDS 10L
#define TOTAL_SECONDS   60L
#define CACERTS_MAX     ((size_t)4 << 20) /* the bundle of Debian is 0.2 MiB */

void http_target_free(struct http_target *target)
{
    strv_free(target->cacerts);
    free(target->url);
    free(target->shown);
    *target = (struct http_target){0};
}

/* A copy of curl's text in our memory. */
static char *url_text(CURLU *parts)
{
    char *text = NULL, *copy = NULL;

    if (!curl_url_get(parts, CURLUPART_URL, &text, 0))
        copy = xstrdup(text);
    curl_free(text);
    return copy;
}

int http_target_set(struct http_target *target, const struct subcommand *cmd, const char *url,
                    const char *default_path, struct error *err)
{
    CURLU *parts = curl_url();
    char *path = NULL, *scheme = NULL;
    CURLUcode bad = parts ? curl_url_set(parts, CURLUPART_URL, url, 0) : CURLUE_OUT_OF_MEMORY;
    int ret = -1;

    if (bad) {
        error_set(err, ERR_USAGE, "%s: not a URL: %s", cmd->name, curl_url_strerror(bad));
    } else if (curl_url_get(parts, CURLUPART_SCHEME, &scheme, 0) ||
               (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0)) {
        error_set(err, ERR_USAGE, "%s: the URL is neither http nor https", cmd->name);
    } else {
        if (curl_url_get(parts, CURLUPART_PATH, &path, 0) || strcmp(path, "/") == 0)
            curl_url_set(parts, CURLUPART_PATH, default_path, 0);
        target->url = url_text(parts);
        curl_url_set(parts, CURLUPART_USER, NULL, 0);
        curl_url_set(parts, CURLUPART_PASSWORD, NULL, 0);
        target->shown = url_text(parts);
        ret = target->url && target->shown
                  ? 0
                  : error_set(err, ERR_INTERNAL, "%s: cannot use the URL", cmd->name);
    }
    if (ret < 0)
        error_hint(err, "give http://HOST:PORT or https://HOST:PORT");
    curl_free(path);
    curl_free(scheme);
    curl_url_cleanup(parts);
    return ret;
}

bool http_target_option(struct http_target *target, int option, const char *value)
{
    if (option == HTTP_OPTION_UNIX_SOCKET)
        target->unix_socket = value;
    else if (option == HTTP_OPTION_CACERT)
        strv_add(&target->cacerts, value);
    else
        return false;
    return true;
}

/* The files of --cacert one after another: curl takes only one, or bytes. */
static int load_cacerts(const struct http_target *target, struct buf *out, struct error *err)
{
    for (char **file = target->cacerts; file && *file; file++) {
        AUTO_BUF struct buf text = BUF(CACERTS_MAX), der = BUF(CACERTS_MAX);

        if (file_read(*file, &text, err) < 0 ||
            pem_decode("CERTIFICATE", buf_slice(&text), &der, err) < 0)
            return error_wrap(err, "--cacert %s: not a readable file of PEM certificates", *file);
        if (buf_append(out, text.ptr, text.len) < 0 || buf_append_byte(out, '\n') < 0)
            return error_set(err, ERR_LIMIT, "--cacert: more than %zu bytes of certificates",
                             out->max);
    }
    return 0;
}

static size_t take_body(char *ptr, size_t size, size_t count, void *arg)
{
    return buf_append(arg, ptr, size * count) == 0 ? size * count : 0;
}

static void set_options(CURL *curl, const struct http_target *target, struct slice request,
                        const struct buf *cacerts, struct curl_slist *headers, struct buf *answer,
                        char *reason)
{
    struct curl_blob trusted = {.data = cacerts->ptr, .len = cacerts->len};

    curl_easy_setopt(curl, CURLOPT_URL, target->url);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, request.ptr);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, (long)request.len);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "capsule-cli/" CAPSULE_VERSION);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, CONNECT_SECONDS);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, TOTAL_SECONDS);
    curl_easy_setopt(curl, CURLOPT_MAXFILESIZE, (long)answer->max);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, answer);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, reason);
    if (target->cacerts) {
        /* Only these: neither the system's file nor its directory. */
        curl_easy_setopt(curl, CURLOPT_CAINFO, NULL);
        curl_easy_setopt(curl, CURLOPT_CAPATH, NULL);
        curl_easy_setopt(curl, CURLOPT_CAINFO_BLOB, &trusted);
    }
    if (target->unix_socket) {
        curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, target->unix_socket);
        curl_easy_setopt(curl, CURLOPT_PROXY, "");
    }
}

/* Capsule's errors are {"error": text, ...}; anything else is not repeated. */
static int report_status(const char *url, long status, const struct buf *body, struct error *err)
{
    json_t *json = json_loadb((const char *)body->ptr, body->len, 0, NULL);
    const char *text = json_string_value(json_object_get(json, "error"));

    error_set(err, ERR_NET, "%s answers with status %ld%s%.200s", url, status, text ? ": " : "",
              text ? text : "");
    json_decref(json);
    if (status == 404)
        return error_hint(err, "is this the port of the Capsule API or the Aux API?");
    return -1;
}

int http_post_json(const struct http_target *target, struct slice request, const char *limit_hint,
                   struct buf *answer, struct error *err)
{
    AUTO_BUF struct buf cacerts = BUF(CACERTS_MAX);
    char reason[CURL_ERROR_SIZE] = "";
    struct curl_slist *headers;
    const char *through = target->unix_socket;
    long status = 0;
    CURLcode bad;
    CURL *curl;
    int ret = -1;

    if (load_cacerts(target, &cacerts, err) < 0)
        return -1;
    headers = curl_slist_append(NULL, "Content-Type: application/json");
    curl = curl_easy_init();
    if (!curl || !headers)
        abort();
    set_options(curl, target, request, &cacerts, headers, answer, reason);
    bad = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    if (bad == CURLE_WRITE_ERROR || bad == CURLE_FILESIZE_EXCEEDED)
        error_set(err, ERR_LIMIT, "%s sends more than %zu bytes: %s", target->shown, answer->max,
                  limit_hint);
    else if (bad)
        error_set(err, bad == CURLE_OPERATION_TIMEDOUT ? ERR_TIMEOUT : ERR_NET, "%s%s%s: %s",
                  target->shown, through ? " through " : "", through ? through : "",
                  reason[0] ? reason : curl_easy_strerror(bad));
    else if (status != 200)
        report_status(target->shown, status, answer, err);
    else
        ret = 0;
    if (bad == CURLE_PEER_FAILED_VERIFICATION)
        error_hint(err, "a private certificate authority is trusted with --cacert FILE");
    curl_easy_cleanup(curl);
    curl_slist_free_all(headers);
    return ret;
}
