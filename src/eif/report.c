#include "eif/report.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "eif/metadata.h"
#include "eif/sign.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

static json_t *hex_json(struct slice bytes)
{
    AUTO_FREE char *hex = hex_encode_dup("", bytes);

    return json_string(hex);
}

static json_t *pcr_json(const uint8_t pcr[EIF_PCR_LEN])
{
    return hex_json(slice_of(pcr, EIF_PCR_LEN));
}

json_t *eif_measurements_json(const struct eif_measurements *m)
{
    json_t *o = json_object();

    json_object_set_new(o, "HashAlgorithm", json_string("Sha384 { ... }"));
    json_object_set_new(o, "PCR0", pcr_json(m->pcr0));
    json_object_set_new(o, "PCR1", pcr_json(m->pcr1));
    json_object_set_new(o, "PCR2", pcr_json(m->pcr2));
    if (m->has_signature)
        json_object_set_new(o, "PCR8", pcr_json(m->pcr8));
    return o;
}

/* JSON integers are signed; the header's sizes are whatever the file says. */
static json_t *u64_json(uint64_t value)
{
    char text[24];

    if (value <= INT64_MAX)
        return json_integer((json_int_t)value);
    snprintf(text, sizeof(text), "%" PRIu64, value);
    return json_string(text);
}

static json_t *header_json(const struct eif_info *info)
{
    json_t *o = json_object();
    char crc[9];

    snprintf(crc, sizeof(crc), "%08x", info->crc);
    json_object_set_new(o, "Version", json_integer(info->version));
    json_object_set_new(o, "Flags", json_integer(info->flags));
    json_object_set_new(o, "DefaultMemory", u64_json(info->default_mem));
    json_object_set_new(o, "DefaultCpus", u64_json(info->default_cpus));
    json_object_set_new(o, "SectionCount", json_integer(info->count));
    json_object_set_new(o, "CRC32", json_string(crc));
    return o;
}

static json_t *sections_json(const struct eif_info *info)
{
    json_t *list = json_array();

    for (unsigned int i = 0; i < info->count; i++) {
        const struct eif_section *s = &info->sections[i];
        json_t *o = json_object();

        json_object_set_new(o, "Type", json_string(eif_section_name(s->type)));
        json_object_set_new(o, "Offset", u64_json(s->offset));
        json_object_set_new(o, "Size", u64_json(s->size));
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *time_json(int64_t seconds)
{
    time_t t = (time_t)seconds;
    struct tm tm = {0};
    char text[64];

    gmtime_r(&t, &tm);
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
    return json_string(text);
}

static const char *algorithm_name(const struct eif_certificate *c)
{
    if (!c->key)
        return "unsupported";
    switch (ecdsa_pub_curve(c->key)) {
    case ECDSA_P256:
        return "ES256";
    case ECDSA_P384:
        return "ES384";
    case ECDSA_P521:
        break;
    }
    return "ES512";
}

static json_t *certificate_json(const struct eif_certificate *c)
{
    json_t *o = json_object();
    json_t *subject = json_string(c->subject), *issuer = json_string(c->issuer);

    json_object_set_new(o, "SubjectName", subject ? subject : json_null());
    json_object_set_new(o, "IssuerName", issuer ? issuer : json_null());
    json_object_set_new(o, "Algorithm", json_string(algorithm_name(c)));
    json_object_set_new(o, "NotBefore", time_json(c->not_before));
    json_object_set_new(o, "NotAfter", time_json(c->not_after));
    return o;
}

/* Puts certificate and verdict into `o`, and PCR8 into *m. */
static int check_signature(int fd, const char *name, const struct eif_section *section,
                           struct eif_measurements *m, json_t *o, struct error *err)
{
    CLEANUP(eif_signature_free) struct eif_signature s = EIF_SIGNATURE_NONE;
    CLEANUP(eif_certificate_free) struct eif_certificate c = EIF_CERTIFICATE_NONE;

    if (eif_signature_read(fd, name, section, &s, err) < 0 ||
        eif_certificate_parse(buf_slice(&s.certificate_pem), &c, err) < 0)
        return -1;
    memcpy(m->pcr8, c.pcr8, EIF_PCR_LEN);
    json_object_set_new(o, "SigningCertificate", certificate_json(&c));
    return eif_signature_verify(&s, &c, m->pcr0, clock_real_ns() / INT64_C(1000000000), err);
}

static void add_signature(int fd, const char *name, const struct eif_info *info,
                          struct eif_measurements *m, json_t *o)
{
    const struct eif_section *section = eif_section_find(info, EIF_SIGNATURE, 0);
    struct error why = {0};
    bool good;

    json_object_set_new(o, "IsSigned", json_boolean(section != NULL));
    if (!section)
        return;
    good = check_signature(fd, name, section, m, o, &why) == 0;
    json_object_set_new(o, "SignatureCheck", json_boolean(good));
    if (!good)
        json_object_set_new(o, "SignatureError", json_string(why.msg));
}

static json_t *read_metadata(int fd, const char *name, const struct eif_info *info)
{
    const struct eif_section *section = eif_section_find(info, EIF_METADATA, 0);
    AUTO_BUF struct buf bytes = BUF(EIF_METADATA_MAX);
    struct error why = {0};
    json_t *metadata;

    if (!section)
        return json_null();
    metadata = eif_read_section(fd, name, section, &bytes, &why) < 0
                   ? NULL
                   : eif_metadata_parse(buf_slice(&bytes), &why);
    if (!metadata) {
        log_warn("eif", why.msg, kv_str("file", name));
        return json_null();
    }
    return metadata;
}

json_t *eif_describe(int fd, const char *name, struct error *err)
{
    struct eif_measurements m;
    struct eif_info info;
    uint32_t crc = 0;
    json_t *o, *metadata;

    if (eif_read_info(fd, name, &info, NULL, err) < 0 ||
        eif_measure_fd(fd, name, &info, &m, &crc, err) < 0)
        return NULL;
    o = json_object();
    json_object_set_new(o, "EifVersion", json_integer(info.version));
    json_object_set_new(o, "Architecture",
                        json_string(eif_is_aarch64(&info) ? "aarch64" : "x86_64"));
    json_object_set_new(o, "FileSize", u64_json(info.file_size));
    json_object_set_new(o, "Header", header_json(&info));
    json_object_set_new(o, "Sections", sections_json(&info));
    json_object_set_new(o, "CheckCRC", json_boolean(crc == info.crc));
    json_object_set_new(o, "Measurements", json_null()); /* keeps its place; needs PCR8 */
    add_signature(fd, name, &info, &m, o);
    json_object_set_new(o, "Measurements", eif_measurements_json(&m));
    metadata = read_metadata(fd, name, &info);
    json_object_set(o, "ImageName", json_object_get(metadata, "ImageName"));
    json_object_set(o, "ImageVersion", json_object_get(metadata, "ImageVersion"));
    json_object_set_new(o, "Metadata", metadata);
    return o;
}
