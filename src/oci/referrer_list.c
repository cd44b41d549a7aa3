#include "oci/referrer_list.h"

#include "oci/fetch_priv.h"
#include "oci/manifest_write.h"

#include <jansson.h>

void referrer_tag(const struct digest *subject, char out[DIGEST_TEXT_MAX])
{
    digest_text(subject, out);
    out[strcspn(out, ":")] = '-';
}

/* Parses an index. NULL with err. */
static json_t *parse_index(const struct buf *text, const char *what, struct error *err)
{
    json_t *doc = oci_json_parse(buf_slice(text), what, err);

    if (!doc || json_is_array(json_object_get(doc, "manifests")))
        return doc;
    error_set(err, ERR_INVALID, "%s: not an image index", what);
    json_decref(doc);
    return NULL;
}

json_t *referrer_index(struct registry *r, const char *tag, struct error *err)
{
    AUTO_BUF struct buf text = BUF(BLOB_JSON_MAX);
    struct fetch f = {
        .accept = OCI_INDEX_TYPE, .text = &text, .fd = -1, .size = FETCH_SIZE_UNKNOWN};
    struct error why = {0};
    json_t *doc = NULL;

    f.url = registry_url(r, "manifests", tag);
    f.what = xasprintf("list of referrers %s", tag);
    if (fetch_all(r, &f, 1, NULL, &why) == 0)
        doc = parse_index(&text, f.what, err);
    else if (why.kind == ERR_NOT_FOUND)
        doc = oci_index_new();
    else if (err)
        *err = why;
    fetch_free(&f);
    return doc;
}

/* ---- page by page ---- */

static int append(json_t *list, const json_t *index, struct error *err)
{
    json_t *o;
    size_t i;

    json_array_foreach (json_object_get(index, "manifests"), i, o) {
        if (json_array_size(list) >= REFERRER_LIST_MAX)
            return error_set(err, ERR_LIMIT, "the registry lists more than %d artifacts",
                             REFERRER_LIST_MAX);
        json_array_append(list, o);
    }
    return 0;
}

/*
 * The address of the next page (RFC 8288: <URL>; rel="next"), NULL for none. Credentials go along,
 * so it has to be the registry's own.
 */
static int next_page(const struct registry *r, const struct fetch *f, char **next,
                     struct error *err)
{
    AUTO_FREE char *base = registry_base(r);
    const char *end = f->link && f->link[0] == '<' ? strchr(f->link, '>') : NULL;
    AUTO_FREE char *target = NULL;
    char *text = NULL;
    CURLU *u;

    *next = NULL;
    if (!end || !strstr(end, "next"))
        return 0;
    target = xstrndup(f->link + 1, (size_t)(end - f->link - 1));
    u = curl_url();
    if (u && !curl_url_set(u, CURLUPART_URL, f->url, 0) &&
        !curl_url_set(u, CURLUPART_URL, target, 0) && !curl_url_get(u, CURLUPART_URL, &text, 0) &&
        url_same_origin(text, base))
        *next = xstrdup(text);
    curl_free(text);
    curl_url_cleanup(u);
    return *next
               ? 0
               : error_set(err, ERR_NET, "the registry continues its list of referrers elsewhere");
}

/* One page; *url becomes the next one's, NULL behind the last. */
static int get_page(struct registry *r, char **url, const char *digest, json_t *list,
                    struct error *err)
{
    AUTO_BUF struct buf text = BUF(BLOB_JSON_MAX);
    struct fetch f = {
        .accept = OCI_INDEX_TYPE, .text = &text, .fd = -1, .size = FETCH_SIZE_UNKNOWN};
    json_t *doc = NULL;
    int rc;

    f.url = *url;
    f.what = xasprintf("referrers of %s", digest);
    *url = NULL;
    rc = fetch_all(r, &f, 1, NULL, err);
    if (rc == 0) {
        doc = parse_index(&text, f.what, err);
        rc = doc ? append(list, doc, err) : -1;
        json_decref(doc);
    }
    if (rc == 0)
        rc = next_page(r, &f, url, err);
    fetch_free(&f);
    return rc;
}

static int get_pages(struct registry *r, const char *digest, json_t *list, struct error *err)
{
    char *url = registry_url(r, "referrers", digest);
    int rc = 0;

    for (int page = 0; url && rc == 0; page++)
        rc = page < REFERRER_PAGES_MAX
                 ? get_page(r, &url, digest, list, err)
                 : error_set(err, ERR_LIMIT,
                             "the registry's list of referrers has more than %d pages",
                             REFERRER_PAGES_MAX);
    free(url);
    return rc;
}

static int get_tagged(struct registry *r, const struct digest *subject, json_t *list,
                      struct error *err)
{
    char tag[DIGEST_TEXT_MAX];
    json_t *doc;
    int rc;

    referrer_tag(subject, tag);
    doc = referrer_index(r, tag, err);
    rc = doc ? append(list, doc, err) : -1;
    json_decref(doc);
    return rc;
}

int referrer_list(struct registry *r, const struct digest *subject, json_t *list, struct error *err)
{
    char text[DIGEST_TEXT_MAX];
    struct error why = {0};

    if (get_pages(r, digest_text(subject, text), list, &why) == 0)
        return 0;
    if (why.kind == ERR_NOT_FOUND && json_array_size(list) == 0)
        return get_tagged(r, subject, list, err);
    if (err)
        *err = why;
    return -1;
}
