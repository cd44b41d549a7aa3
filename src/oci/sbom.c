#include "oci/sbom.h"

#include "base/text.h"
#include "codec/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#define NONE      "NOASSERTION"
#define NAMESPACE "urn:uuid:"
#define UUID_LEN  16

/* "key": "text" */
static void put(struct json_writer *w, const char *key, const char *text)
{
    json_put_key(w, key);
    json_put_cstr(w, text);
}

/* ---- package URLs (purl-spec) ---- */

static int escape(struct buf *out, const char *text)
{
    for (; *text; text++) {
        bool plain = (*text >= 'a' && *text <= 'z') || (*text >= 'A' && *text <= 'Z') ||
                     (*text >= '0' && *text <= '9') || strchr(".-_~", *text);

        if (buf_printf(out, plain ? "%c" : "%%%02X", (uint8_t)*text) < 0)
            return -1;
    }
    return 0;
}

/* "?key=" or "&key=" and the value. */
static int qualify(struct buf *out, char *mark, const char *key, const char *value)
{
    int rc = buf_printf(out, "%c%s=", *mark, key) < 0 || escape(out, value) < 0 ? -1 : 0;

    *mark = '&';
    return rc;
}

/* pkg:deb/debian/NAME@VERSION?arch=ARCH&distro=debian-12 */
static int purl(const struct package_list *l, const struct package *p, struct buf *out)
{
    static const char *const types[] = {"deb", "apk", "rpm"};
    static const char *const families[] = {"debian", "alpine", NULL};
    const char *os = l->os_id ? l->os_id : families[p->kind];
    /* The epoch of rpm stands apart. */
    const char *colon = p->kind == PACKAGE_RPM ? strchr(p->version, ':') : NULL;
    AUTO_FREE char *epoch = colon ? xstrndup(p->version, (size_t)(colon - p->version)) : NULL;
    AUTO_FREE char *distro = os && l->os_version ? xasprintf("%s-%s", os, l->os_version) : NULL;
    char mark = '?';

    if (buf_printf(out, "pkg:%s/", types[p->kind]) < 0 ||
        (os && (escape(out, os) < 0 || buf_append_byte(out, '/') < 0)) ||
        escape(out, p->name) < 0 || buf_append_byte(out, '@') < 0 ||
        escape(out, colon ? colon + 1 : p->version) < 0)
        return -1;
    if ((p->arch && qualify(out, &mark, "arch", p->arch) < 0) ||
        (epoch && qualify(out, &mark, "epoch", epoch) < 0) ||
        (distro && qualify(out, &mark, "distro", distro) < 0))
        return -1;
    return 0;
}

/* ---- parts ---- */

/*
 * "Person: NAME (EMAIL)" of "NAME <EMAIL>", or "Organization: VENDOR". Parentheses are the format's
 * own. False when it does not have that form.
 */
static bool supplier(const struct package *p, struct buf *out)
{
    const char *maintainer = p->maintainer;
    const char *open = maintainer ? strchr(maintainer, '<') : NULL;
    const char *close = open ? strchr(open, '>') : NULL;
    size_t name = open ? (size_t)(open - maintainer) : 0;

    if (maintainer && p->kind == PACKAGE_RPM)
        return strcspn(maintainer, "()") == strlen(maintainer) &&
               buf_printf(out, "Organization: %s", maintainer) == 0;
    while (name && maintainer[name - 1] == ' ')
        name--;
    if (!close || name == 0 || close == open + 1 || close[1] ||
        strcspn(maintainer, "()") < strlen(maintainer))
        return false;
    return buf_printf(out, "Person: %.*s (%.*s)", (int)name, maintainer, (int)(close - open - 1),
                      open + 1) == 0;
}

static void put_license(struct json_writer *w, const char *comment)
{
    put(w, "licenseConcluded", NONE);
    put(w, "licenseDeclared", NONE);
    if (comment) {
        AUTO_FREE char *text = xasprintf("the package says: %s", comment);

        put(w, "licenseComments", text);
    }
    put(w, "copyrightText", NONE);
}

static void put_package(struct json_writer *w, const struct package_list *l, size_t index)
{
    const struct package *p = &l->items[index];
    AUTO_BUF struct buf url = BUF(16 * PACKAGES_FIELD_MAX), who = BUF(2 * PACKAGES_FIELD_MAX);
    char id[48];

    if (purl(l, p, &url) < 0) {
        w->failed = true;
        return;
    }
    snprintf(id, sizeof(id), "SPDXRef-Package-%zu", index + 1);
    json_put_object(w);
    put(w, "SPDXID", id);
    put(w, "name", p->name);
    put(w, "versionInfo", p->version);
    put(w, "supplier", supplier(p, &who) ? buf_cstr(&who) : NONE);
    put(w, "downloadLocation", NONE);
    json_put_key(w, "filesAnalyzed");
    json_put_bool(w, false);
    if (p->source) {
        AUTO_FREE char *text = xasprintf("built from %s", p->source);

        put(w, "sourceInfo", text);
    }
    put_license(w, p->license);
    json_put_key(w, "externalRefs");
    json_put_array(w);
    json_put_object(w);
    put(w, "referenceCategory", "PACKAGE-MANAGER");
    put(w, "referenceType", "purl");
    put(w, "referenceLocator", buf_cstr(&url));
    json_put_object_end(w);
    json_put_array_end(w);
    json_put_object_end(w);
}

/* The image itself, as what contains the packages. */
static void put_image(struct json_writer *w, const struct sbom_input *in)
{
    char text[DIGEST_TEXT_MAX];

    json_put_object(w);
    put(w, "SPDXID", "SPDXRef-Image");
    put(w, "name", in->name);
    if (in->image->has_id)
        put(w, "versionInfo", digest_text(&in->image->id, text));
    put(w, "supplier", NONE);
    put(w, "downloadLocation", NONE);
    json_put_key(w, "filesAnalyzed");
    json_put_bool(w, false);
    put(w, "primaryPackagePurpose", "CONTAINER");
    put_license(w, NULL);
    json_put_object_end(w);
}

static void put_relationship(struct json_writer *w, const char *from, const char *type,
                             const char *to)
{
    json_put_object(w);
    put(w, "spdxElementId", from);
    put(w, "relationshipType", type);
    put(w, "relatedSpdxElement", to);
    json_put_object_end(w);
}

static void put_creation(struct json_writer *w, const struct sbom_input *in)
{
    AUTO_FREE char *tool = xasprintf("Tool: capsule-cli-%s", in->tool_version);
    time_t t = (time_t)in->created;
    char when[32] = "";
    struct tm tm;

    if (gmtime_r(&t, &tm))
        strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
    json_put_key(w, "creationInfo");
    json_put_object(w);
    put(w, "created", when);
    json_put_key(w, "creators");
    json_put_array(w);
    json_put_cstr(w, tool);
    json_put_array_end(w);
    json_put_object_end(w);
}

static void put_document(struct json_writer *w, const struct sbom_input *in, const char *namespace)
{
    json_put_object(w);
    put(w, "spdxVersion", "SPDX-2.3");
    put(w, "dataLicense", "CC0-1.0");
    put(w, "SPDXID", "SPDXRef-DOCUMENT");
    put(w, "name", in->name);
    put(w, "documentNamespace", namespace);
    if (in->packages->rpm_unread) {
        AUTO_FREE char *text = xasprintf("The image has a database of rpm packages in a form that "
                                         "is not read (%s); they are missing here.",
                                         in->packages->rpm_unread);

        put(w, "comment", text);
    }
    put_creation(w, in);
    json_put_key(w, "packages");
    json_put_array(w);
    put_image(w, in);
    for (size_t i = 0; i < in->packages->count; i++)
        put_package(w, in->packages, i);
    json_put_array_end(w);
    json_put_key(w, "relationships");
    json_put_array(w);
    put_relationship(w, "SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Image");
    for (size_t i = 0; i < in->packages->count; i++) {
        char id[48];

        snprintf(id, sizeof(id), "SPDXRef-Package-%zu", i + 1);
        put_relationship(w, "SPDXRef-Image", "CONTAINS", id);
    }
    json_put_array_end(w);
    json_put_object_end(w);
}

/* A name-based UUID of our own making (RFC 9562 section 5.8, version 8). */
static void uuid_of(struct slice text, char *out, size_t size)
{
    uint8_t sum[SHA256_LEN];
    char hex[2 * UUID_LEN + 1];

    hash_once(HASH_SHA256, text, sum);
    sum[6] = (uint8_t)((sum[6] & 0x0f) | 0x80);
    sum[8] = (uint8_t)((sum[8] & 0x3f) | 0x80);
    hex_encode(slice_of(sum, UUID_LEN), hex);
    snprintf(out, size, NAMESPACE "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16,
             hex + 20);
}

int sbom_write(const struct sbom_input *in, struct buf *out, struct error *err)
{
    AUTO_BUF struct buf draft = BUF(SBOM_MAX);
    struct json_writer first = {.out = &draft}, second = {.out = out};
    char namespace[64] = NAMESPACE;

    put_document(&first, in, namespace);
    uuid_of(buf_slice(&draft), namespace, sizeof(namespace));
    if (!first.failed)
        put_document(&second, in, namespace);
    if (first.failed || second.failed || buf_append_byte(out, '\n') < 0)
        return error_set(err, ERR_LIMIT, "a bill of materials of more than %zu bytes", SBOM_MAX);
    return 0;
}
