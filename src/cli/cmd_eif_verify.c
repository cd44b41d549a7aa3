#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"
#include "cli/cmd_eif.h"
#include "eif/metadata.h"
#include "eif/sign.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The image under test. */
struct subject {
    int fd;
    const char *path;
    const char *certificate; /* file it must be signed with, or NULL */
    struct eif_info info;
    struct eif_measurements m;
};

/* Puts file and class of the failed check in front, as the structural checks have them. */
static int fail(const struct subject *s, const char *class, struct error *err)
{
    return error_wrap(err, "%s: %s", s->path, class);
}

static int check_sum(struct subject *s, struct error *err)
{
    uint32_t crc = 0;

    if (eif_measure_fd(s->fd, s->path, &s->info, &s->m, &crc, err) < 0)
        return -1;
    if (crc != s->info.crc) {
        error_set(err, ERR_INVALID, "the checksum is %08x, the header says %08x", crc, s->info.crc);
        return fail(s, eif_fault_name(EIF_CRC), err);
    }
    printf("checksum: ok (%08x)\n", crc);
    return 0;
}

static int check_metadata(struct subject *s, struct error *err)
{
    const struct eif_section *section = eif_section_find(&s->info, EIF_METADATA, 0);
    AUTO_BUF struct buf bytes = BUF(EIF_METADATA_MAX);
    json_t *metadata;

    if (!section) {
        printf("metadata: none (version %u)\n", s->info.version);
        return 0;
    }
    if (eif_read_section(s->fd, s->path, section, &bytes, err) < 0)
        return -1;
    metadata = eif_metadata_parse(buf_slice(&bytes), err);
    if (!metadata)
        return fail(s, "metadata", err);
    json_decref(metadata);
    printf("metadata: ok\n");
    return 0;
}

static int check_certificate(const struct subject *s, const struct eif_certificate *embedded,
                             struct error *err)
{
    CLEANUP(eif_certificate_free) struct eif_certificate want = EIF_CERTIFICATE_NONE;
    AUTO_BUF struct buf pem = BUF(EIF_SIGNATURE_MAX);

    if (file_read(s->certificate, &pem, err) < 0)
        return -1;
    if (eif_certificate_parse(buf_slice(&pem), &want, err) < 0)
        return error_wrap(err, "%s", s->certificate);
    if (!slice_equal(buf_slice(&want.der), buf_slice(&embedded->der))) {
        error_set(err, ERR_CRYPTO, "signed with another certificate (%s) than %s (%s)",
                  embedded->subject, s->certificate, want.subject);
        return fail(s, "certificate", err);
    }
    printf("certificate: ok (the one of %s)\n", s->certificate);
    return 0;
}

static int check_signature(struct subject *s, struct error *err)
{
    const struct eif_section *section = eif_section_find(&s->info, EIF_SIGNATURE, 0);
    CLEANUP(eif_signature_free) struct eif_signature signature = EIF_SIGNATURE_NONE;
    CLEANUP(eif_certificate_free) struct eif_certificate c = EIF_CERTIFICATE_NONE;

    if (!section && s->certificate) {
        error_set(err, ERR_CRYPTO, "the image is not signed");
        return fail(s, "signature", err);
    }
    if (!section) {
        printf("signature: none\n");
        return 0;
    }
    if (eif_signature_read(s->fd, s->path, section, &signature, err) < 0 ||
        eif_certificate_parse(buf_slice(&signature.certificate_pem), &c, err) < 0 ||
        eif_signature_verify(&signature, &c, s->m.pcr0, clock_real_ns() / INT64_C(1000000000),
                             err) < 0)
        return fail(s, "signature", err);
    printf("signature: ok (%s)\n", c.subject);
    memcpy(s->m.pcr8, c.pcr8, EIF_PCR_LEN);
    return s->certificate ? check_certificate(s, &c, err) : 0;
}

static void print_pcr(const char *name, const uint8_t *pcr)
{
    char hex[2 * EIF_PCR_LEN + 1];

    hex_encode(slice_of(pcr, EIF_PCR_LEN), hex);
    printf("%s: %s\n", name, hex);
}

static int verify(struct subject *s, struct error *err)
{
    s->fd = cmd_eif_open(s->path, err);
    if (s->fd < 0 || eif_read_info(s->fd, s->path, &s->info, NULL, err) < 0)
        return -1;
    printf("structure: ok (version %u, %s, %u sections, %" PRIu64 " bytes)\n", s->info.version,
           eif_is_aarch64(&s->info) ? "aarch64" : "x86_64", s->info.count, s->info.file_size);
    if (check_sum(s, err) < 0 || check_metadata(s, err) < 0 || check_signature(s, err) < 0)
        return -1;
    print_pcr("PCR0", s->m.pcr0);
    print_pcr("PCR1", s->m.pcr1);
    print_pcr("PCR2", s->m.pcr2);
    if (s->m.has_signature)
        print_pcr("PCR8", s->m.pcr8);
    return 0;
}

static int run_verify(int argc, char **argv, struct error *err)
{
    static const struct option options[] = {{"cert", required_argument, NULL, 'c'}, {0}};
    struct subject s = {.fd = -1};
    int c, rc;

    while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        if (c != 'c')
            return cli_option_error(&cmd_eif_verify, c, argv, err);
        s.certificate = optarg;
    }
    if (argc - optind != 1)
        return cli_usage_error(&cmd_eif_verify, argv, err, "needs one FILE");
    s.path = argv[optind];
    rc = verify(&s, err);
    fd_close(&s.fd);
    return rc;
}

const struct subcommand cmd_eif_verify = {.name = "eif verify", .run = run_verify};
