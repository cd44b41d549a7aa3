/*
 * One blob into a registry (OCI distribution-spec, "Pushing blobs"): look whether it is there, or
 * mount it, or begin an upload; then one PUT, or PATCHes and a PUT. After a cut the registry is
 * asked how far it got.
 */
#include "base/text.h"
#include "oci/push_priv.h"

#include <inttypes.h>
#include <stdio.h>

#define WHOLE_MAX ((uint64_t)16 << 20) /* sent at once up to here */
#define CHUNK     ((uint64_t)32 << 20) /* reverse proxies often refuse requests of 100 MB */
#define BYTES     "application/octet-stream"

const char *upload_source(const struct registry *r, const struct content_blob *blob)
{
    size_t len = strlen(r->host);

    if (!blob->source || strncmp(blob->source, r->host, len) != 0 || blob->source[len] != '/' ||
        strcmp(blob->source + len + 1, r->name) == 0)
        return NULL;
    return blob->source + len + 1;
}

int push_check_digest(const struct fetch_answer *a, const struct digest *ours, struct error *err)
{
    char text[DIGEST_TEXT_MAX];

    if (!a->digest || strcmp(a->digest, digest_text(ours, text)) == 0)
        return 0;
    return error_set(err, ERR_INVALID, "the registry says that it has %.150s, not %s", a->digest,
                     text);
}

/* ---- requests ---- */

static void request(struct fetch *f, const char *method, char *url)
{
    free(f->url);
    f->url = url;
    f->method = method;
    f->send = (struct fetch_send){0};
}

static enum fetch_next look(struct fetch *f)
{
    struct upload *u = f->arg;
    char text[DIGEST_TEXT_MAX];

    u->stage = UPLOAD_LOOK;
    request(f, "HEAD", registry_url(u->registry, "blobs", digest_text(&u->blob->digest, text)));
    return FETCH_GO_ON;
}

/* A new upload; what an earlier one holds is forgotten, and goes away at the registry by itself. */
static enum fetch_next begin(struct fetch *f)
{
    struct upload *u = f->arg;
    const char *from = u->from_elsewhere ? NULL : upload_source(u->registry, u->blob);
    AUTO_FREE char *query = NULL;
    char text[DIGEST_TEXT_MAX];

    u->stage = UPLOAD_BEGIN;
    u->offset = 0;
    free(u->location);
    u->location = NULL;
    /* Neither digests nor names of repositories have characters that a query must escape. */
    if (from)
        query = xasprintf("uploads/?mount=%s&from=%s", digest_text(&u->blob->digest, text), from);
    u->from_elsewhere = true;
    request(f, "POST", registry_url(u->registry, "blobs", query ? query : "uploads/"));
    return FETCH_GO_ON;
}

static enum fetch_next ask(struct fetch *f)
{
    struct upload *u = f->arg;

    u->stage = UPLOAD_ASK;
    request(f, NULL, xstrdup(u->location));
    return FETCH_GO_ON;
}

static enum fetch_next commit(struct fetch *f, struct error *err)
{
    struct upload *u = f->arg;
    char digest[DIGEST_TEXT_MAX], *text = NULL;
    AUTO_FREE char *query = xasprintf("digest=%s", digest_text(&u->blob->digest, digest));
    CURLU *url = curl_url();

    u->stage = UPLOAD_COMMIT;
    if (url && !curl_url_set(url, CURLUPART_URL, u->location, 0) &&
        !curl_url_set(url, CURLUPART_QUERY, query, CURLU_APPENDQUERY))
        curl_url_get(url, CURLUPART_URL, &text, 0);
    curl_url_cleanup(url);
    if (!text) {
        error_set(err, ERR_NET, "the registry names no usable place for an upload");
        return FETCH_FAILED;
    }
    request(f, "PUT", xstrdup(text));
    curl_free(text);
    f->send = (struct fetch_send){
        .content = u->blob, .offset = u->offset, .size = u->blob->size - u->offset, .type = BYTES};
    return FETCH_GO_ON;
}

static enum fetch_next send_next(struct fetch *f, struct error *err)
{
    struct upload *u = f->arg;
    uint64_t left = u->blob->size - u->offset;

    f->received = u->offset;
    if (u->whole || left == 0)
        return commit(f, err);
    u->stage = UPLOAD_CHUNK;
    request(f, "PATCH", xstrdup(u->location));
    f->send = (struct fetch_send){.content = u->blob,
                                  .offset = u->offset,
                                  .size = left < u->chunk ? left : u->chunk,
                                  .type = BYTES,
                                  .ranged = true};
    return FETCH_GO_ON;
}

/* ---- answers ---- */

static enum fetch_next looked(struct fetch *f, const struct fetch_answer *a, struct error *err)
{
    struct upload *u = f->arg;

    if (a->status == 404)
        return u->location && !u->whole ? ask(f) : begin(f);
    if (a->status != 200)
        return FETCH_REFUSED;
    if (push_check_digest(a, &u->blob->digest, err) < 0)
        return FETCH_FAILED;
    if (a->length != FETCH_SIZE_UNKNOWN && a->length != u->blob->size) {
        error_set(err, ERR_INVALID,
                  "the registry has %" PRIu64 " bytes under this digest, and it is of %" PRIu64,
                  a->length, u->blob->size);
        return FETCH_FAILED;
    }
    f->received = u->blob->size;
    return FETCH_DONE;
}

/* Where to go on; without a Location as before. */
static int take_location(struct upload *u, const struct fetch_answer *a, struct error *err)
{
    if (a->location) {
        if (!registry_url_allowed(u->registry, a->location))
            return error_set(err, ERR_NET,
                             "the registry wants uploads at a place that is not https");
        free(u->location);
        u->location = xstrdup(a->location);
    }
    return u->location ? 0
                       : error_set(err, ERR_NET, "the registry does not say where to upload to");
}

static enum fetch_next begun(struct fetch *f, const struct fetch_answer *a, struct error *err)
{
    struct upload *u = f->arg;

    if (a->status == 201 && strchr(f->url, '?')) {
        u->how = "mounted";
        f->received = u->blob->size;
        return push_check_digest(a, &u->blob->digest, err) == 0 ? FETCH_DONE : FETCH_FAILED;
    }
    if (a->status != 202)
        return FETCH_REFUSED;
    if (take_location(u, a, err) < 0)
        return FETCH_FAILED;
    u->how = "sent";
    u->chunk = a->chunk_min > CHUNK ? a->chunk_min : CHUNK;
    return send_next(f, err);
}

/*
 * "0-LAST" of what has arrived; false when it is not told. Some registries write 0-0 for nothing,
 * and nobody has reason to take one byte.
 */
static bool arrived(const struct fetch_answer *a, uint64_t *end)
{
    struct slice text = slice_str(a->range ? a->range : "");
    uint64_t last;

    if (text.len > 6 && memcmp(text.ptr, "bytes=", 6) == 0)
        text = slice_of(text.ptr + 6, text.len - 6);
    if (text.len < 3 || memcmp(text.ptr, "0-", 2) != 0 ||
        parse_u64(slice_of(text.ptr + 2, text.len - 2), INT64_MAX - 1, &last) < 0)
        return false;
    *end = last ? last + 1 : 0;
    return true;
}

static enum fetch_next claims_more(const struct upload *u, uint64_t end, struct error *err)
{
    error_set(err, ERR_NET, "the registry claims %" PRIu64 " bytes of the %" PRIu64 " there are",
              end, u->blob->size);
    return FETCH_FAILED;
}

static enum fetch_next took_chunk(struct fetch *f, const struct fetch_answer *a, struct error *err)
{
    struct upload *u = f->arg;
    uint64_t want = u->offset + f->send.size, end = want;

    switch (a->status) {
    case 202:
    case 204:
        break;
    case 405:
    case 501: /* takes no chunks */
        u->whole = true;
        return begin(f);
    case 404: /* has forgotten the upload */
    case 416: /* has another idea of how far it got */
        return FETCH_LATER;
    default:
        return FETCH_REFUSED;
    }
    if (take_location(u, a, err) < 0)
        return FETCH_FAILED;
    if (a->range && !arrived(a, &end))
        end = u->offset;
    if (end > want)
        return claims_more(u, end, err);
    if (end < want) /* nothing that is asked for again and again */
        return FETCH_LATER;
    u->offset = end;
    return send_next(f, err);
}

static enum fetch_next asked(struct fetch *f, const struct fetch_answer *a, struct error *err)
{
    struct upload *u = f->arg;
    uint64_t end;

    if (a->status == 404)
        return begin(f);
    if (a->status / 100 != 2)
        return FETCH_REFUSED;
    if (take_location(u, a, err) < 0)
        return FETCH_FAILED;
    if (!arrived(a, &end) || end == 0)
        return begin(f);
    if (end > u->blob->size)
        return claims_more(u, end, err);
    u->offset = end;
    return send_next(f, err);
}

static enum fetch_next committed(const struct fetch *f, const struct fetch_answer *a,
                                 struct error *err)
{
    const struct upload *u = f->arg;

    if (a->status == 404 || a->status == 416)
        return FETCH_LATER;
    if (a->status != 201)
        return FETCH_REFUSED;
    return push_check_digest(a, &u->blob->digest, err) == 0 ? FETCH_DONE : FETCH_FAILED;
}

static enum fetch_next answered(struct fetch *f, const struct fetch_answer *a, struct error *err)
{
    const struct upload *u = f->arg;

    switch (u->stage) {
    case UPLOAD_LOOK:
        return looked(f, a, err);
    case UPLOAD_BEGIN:
        return begun(f, a, err);
    case UPLOAD_CHUNK:
        return took_chunk(f, a, err);
    case UPLOAD_ASK:
        return asked(f, a, err);
    case UPLOAD_COMMIT:
    default:
        return committed(f, a, err);
    }
}

/* What has failed may have been done all the same. */
static void interrupted(struct fetch *f)
{
    const struct upload *u = f->arg;

    if (u->stage == UPLOAD_CHUNK)
        ask(f);
    else if (u->stage == UPLOAD_COMMIT)
        look(f);
}

void upload_prepare(struct upload *u, const struct registry *r, const struct content_blob *blob,
                    struct fetch *f)
{
    static const struct fetch_steps steps = {.answered = answered, .interrupted = interrupted};
    char text[DIGEST_TEXT_MAX];

    *u = (struct upload){
        .registry = r, .blob = blob, .whole = blob->size <= WHOLE_MAX, .how = "there already"};
    *f = (struct fetch){.what = xasprintf("blob %s", digest_text(&blob->digest, text)),
                        .steps = &steps,
                        .arg = u,
                        .fd = -1,
                        .size = blob->size};
    look(f);
}

void upload_free(struct upload *u)
{
    free(u->location);
    u->location = NULL;
}
