#include "eif_vectors.h"

#include "eif/sign.h"

#include <fcntl.h>

#define IN_2026 INT64_C(1768478400)

static struct eif_signer *signer_of(const json_t *image, int64_t now, struct error *err)
{
    return eif_signer_new(slice_str(vectors_str(image, "test_only_private_key_pem")),
                          slice_str(vectors_str(image, "signing_certificate_pem")), now, err);
}

/* A temporary directory with one image in it. */
struct workplace {
    char dir[32];
    char path[64];
};

static void set_up(struct workplace *p, struct slice image)
{
    struct error err;

    strcpy(p->dir, "/tmp/capsule-test.XXXXXX");
    assert_non_null(mkdtemp(p->dir));
    snprintf(p->path, sizeof(p->path), "%s/image.eif", p->dir);
    assert_ok(file_write_atomic(p->path, image, 0640, &err));
}

static void tear_down(struct workplace *p)
{
    struct error err;

    assert_ok(tree_remove(p->dir, &err));
}
#define AUTO_WORKPLACE CLEANUP(tear_down)

static void assert_file(const char *path, struct slice want)
{
    AUTO_BUF struct buf got = BUF(1 << 20);
    struct error err;

    assert_ok(file_read(path, &got, &err));
    assert_int_equal(got.len, want.len);
    assert_memory_equal(got.ptr, want.ptr, want.len);
}

static const char *const signed_names[] = {"signed-256", "signed-384", "signed-521"};

static void test_signed_images_are_reproduced(void **state)
{
    json_t *root = vectors_load("eif.json");

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(signed_names); i++) {
        const json_t *image = image_named(root, signed_names[i]);
        struct eif_writer_options options = EIF_WRITER_DEFAULTS;
        AUTO_BUF struct buf want = {0};
        AUTO_BUF struct buf got = {0};
        AUTO_FD int in = file_of(vectors_base64(image, "eif_base64", &want));
        AUTO_FD int out = file_of(slice_of("", 0));
        AUTO_EIF_WRITER struct eif_writer *w = eif_writer_new(out, "image", &options);
        AUTO_EIF_SIGNER struct eif_signer *signer = NULL;
        struct eif_measurements m;
        struct eif_info info;
        struct error err;

        signer = signer_of(image, IN_2026, &err);
        if (!signer)
            fail_msg("%s", err.msg);
        assert_ok(eif_read_info(in, "image", &info, NULL, &err));
        write_sections(w, &info, buf_slice(&want));
        assert_ok(eif_writer_finish(w, signer, &m, &err));
        read_file(out, &got);
        assert_true(slice_equal(buf_slice(&got), buf_slice(&want)));
        assert_measurements(image, &m);
        assert_true(m.has_signature);
    }
    json_decref(root);
}

static void read_signature(const json_t *image, struct eif_signature *s, struct eif_certificate *c)
{
    AUTO_BUF struct buf bytes = {0};
    AUTO_FD int fd = file_of(vectors_base64(image, "eif_base64", &bytes));
    struct eif_info info;
    struct error err;

    *s = EIF_SIGNATURE_NONE;
    *c = EIF_CERTIFICATE_NONE;
    assert_ok(eif_read_info(fd, "image", &info, NULL, &err));
    assert_ok(eif_signature_read(fd, "image", eif_section_find(&info, EIF_SIGNATURE, 0), s, &err));
    assert_ok(eif_certificate_parse(buf_slice(&s->certificate_pem), c, &err));
}

static void test_signatures_verify(void **state)
{
    json_t *root = vectors_load("eif.json");

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(signed_names); i++) {
        const json_t *image = image_named(root, signed_names[i]);
        CLEANUP(eif_signature_free) struct eif_signature s = EIF_SIGNATURE_NONE;
        CLEANUP(eif_certificate_free) struct eif_certificate c = EIF_CERTIFICATE_NONE;
        AUTO_BUF struct buf cose = {0};
        AUTO_BUF struct buf pcr0 = {0};
        struct error err = {0};

        read_signature(image, &s, &c);
        assert_true(slice_equal_str(buf_slice(&s.certificate_pem),
                                    vectors_str(image, "signing_certificate_pem")));
        vectors_hex(json_object_get(image, "signature_section"), "cose_sign1", &cose);
        assert_true(slice_equal(buf_slice(&s.cose), buf_slice(&cose)));
        assert_pcr(image, "PCR8", c.pcr8);
        assert_non_null(strstr(c.subject, "O=Capsule Test"));
        vectors_hex(json_object_get(image, "measurements"), "PCR0", &pcr0);
        assert_ok(eif_signature_verify(&s, &c, pcr0.ptr, IN_2026, &err));

        assert_int_equal(eif_signature_verify(&s, &c, pcr0.ptr, c.not_before - 1, &err), -1);
        assert_non_null(strstr(err.msg, "not valid before 2025-01-01T00:00:00Z"));
        assert_int_equal(eif_signature_verify(&s, &c, pcr0.ptr, c.not_after + 1, &err), -1);
        assert_non_null(strstr(err.msg, "ran out"));
        pcr0.ptr[47] ^= 1;
        assert_int_equal(eif_signature_verify(&s, &c, pcr0.ptr, IN_2026, &err), -1);
        assert_non_null(strstr(err.msg, "another PCR0"));
        pcr0.ptr[47] ^= 1;
        for (size_t at = 0; at < s.cose.len; at++) {
            s.cose.ptr[at] ^= 0x10;
            if (eif_signature_verify(&s, &c, pcr0.ptr, IN_2026, &err) == 0)
                fail_msg("%s: byte %zu of the signature does not matter", signed_names[i], at);
            s.cose.ptr[at] ^= 0x10;
        }
    }
    json_decref(root);
}

static void test_signature_of_another_key_is_refused(void **state)
{
    json_t *root = vectors_load("eif.json");
    CLEANUP(eif_signature_free) struct eif_signature s256 = EIF_SIGNATURE_NONE;
    CLEANUP(eif_signature_free) struct eif_signature s384 = EIF_SIGNATURE_NONE;
    CLEANUP(eif_certificate_free) struct eif_certificate c256 = EIF_CERTIFICATE_NONE;
    CLEANUP(eif_certificate_free) struct eif_certificate c384 = EIF_CERTIFICATE_NONE;
    AUTO_BUF struct buf pcr0 = {0};
    struct error err = {0};

    (void)state;
    read_signature(image_named(root, "signed-256"), &s256, &c256);
    read_signature(image_named(root, "signed-384"), &s384, &c384);
    vectors_hex(json_object_get(image_named(root, "signed-256"), "measurements"), "PCR0", &pcr0);
    assert_int_equal(eif_signature_verify(&s256, &c384, pcr0.ptr, IN_2026, &err), -1);
    assert_non_null(strstr(err.msg, "algorithm"));
    json_decref(root);
}

static void test_signer_refuses(void **state)
{
    json_t *root = vectors_load("eif.json");
    const json_t *a = image_named(root, "signed-256"), *b = image_named(root, "signed-384");
    struct slice key = slice_str(vectors_str(a, "test_only_private_key_pem"));
    struct slice cert = slice_str(vectors_str(a, "signing_certificate_pem"));
    struct error err = {0};

    (void)state;
    assert_null(
        eif_signer_new(key, slice_str(vectors_str(b, "signing_certificate_pem")), IN_2026, &err));
    assert_non_null(strstr(err.msg, "does not belong to the private key"));
    assert_null(eif_signer_new(key, cert, INT64_C(4000000000), &err));
    assert_non_null(strstr(err.msg, "ran out"));
    assert_null(eif_signer_new(key, key, IN_2026, &err));
    assert_null(eif_signer_new(cert, cert, IN_2026, &err));
    json_decref(root);
}

static void test_existing_images_are_signed(void **state)
{
    json_t *root = vectors_load("eif.json");
    AUTO_BUF struct buf unsigned_image = {0};
    struct error err;

    (void)state;
    vectors_base64(image_named(root, "unsigned-x86_64"), "eif_base64", &unsigned_image);
    AUTO_WORKPLACE struct workplace p;
    set_up(&p, buf_slice(&unsigned_image));
    /* In place, one signature replacing the other, longer and shorter. */
    for (size_t i = 0; i < 5; i++) {
        const json_t *image = image_named(root, signed_names[i * 2 % 3]);
        AUTO_EIF_SIGNER struct eif_signer *signer = signer_of(image, IN_2026, &err);
        AUTO_BUF struct buf want = {0};
        struct eif_measurements m;
        struct stat st;

        assert_non_null(signer);
        assert_ok(eif_sign_file(p.path, p.path, signer, &m, &err));
        assert_file(p.path, vectors_base64(image, "eif_base64", &want));
        assert_measurements(image, &m);
        assert_int_equal(stat(p.path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0640);
    }
    json_decref(root);
}

static void test_damaged_image_is_not_signed(void **state)
{
    json_t *root = vectors_load("eif.json");
    const json_t *image = image_named(root, "signed-256");
    AUTO_BUF struct buf bytes = {0};
    AUTO_EIF_SIGNER struct eif_signer *signer = NULL;
    AUTO_WORKPLACE struct workplace p;
    struct error err = {0};

    (void)state;
    signer = signer_of(image, IN_2026, &err);
    vectors_base64(image, "eif_base64", &bytes);
    bytes.ptr[bytes.len - 1] ^= 1; /* in the old signature, which goes */
    set_up(&p, buf_slice(&bytes));
    assert_int_equal(eif_sign_file(p.path, p.path, signer, NULL, &err), -1);
    assert_non_null(strstr(err.msg, ": crc: "));
    assert_file(p.path, buf_slice(&bytes));
    json_decref(root);
}

static void test_malformed_sections_are_refused(void **state)
{
    static const struct {
        const char *hex, *why;
    } cases[] = {
        {"", "ends early"},
        {"80", "list of one"},
        {"82a0a0", "list of one"},
        {"a0", "list of one"},
        {"8101", "map of two"},
        {"81a0", "map of two"},
        /* {"signature": [], "signing_certificate": []}: the wrong order */
        {"81a2697369676e617475726580737369676e696e675f636572746966696361746580", "in this order"},
        /* byte strings instead of arrays */
        {"81a2737369676e696e675f636572746966696361746540697369676e617475726540", "array of bytes"},
        /* an element that is no byte */
        {"81a2737369676e696e675f636572746966696361746581190100697369676e617475726580",
         "array of bytes"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct eif_signature s = EIF_SIGNATURE_NONE;
        AUTO_BUF struct buf b = {0};
        struct error err = {0};

        assert_int_equal(eif_signature_decode(hex_slice(&b, cases[i].hex), &s, &err), -1);
        if (!strstr(err.msg, cases[i].why))
            fail_msg("%s: wanted %s", err.msg, cases[i].why);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_signed_images_are_reproduced),
        cmocka_unit_test(test_signatures_verify),
        cmocka_unit_test(test_signature_of_another_key_is_refused),
        cmocka_unit_test(test_signer_refuses),
        cmocka_unit_test(test_existing_images_are_signed),
        cmocka_unit_test(test_damaged_image_is_not_signed),
        cmocka_unit_test(test_malformed_sections_are_refused),
    };

    return cmocka_run_group_tests_name("eif_sign", tests, NULL, NULL);
}
