#include "eif_vectors.h"

#include "codec/crc32.h"
#include "crypto/hash.h"
#include "eif/metadata.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>

/* ---- vectors ---- */

static void test_images_are_read_and_measured(void **state)
{
    json_t *root = vectors_load("eif.json");
    const json_t *image, *section;
    size_t i, n;

    (void)state;
    json_array_foreach (json_object_get(root, "images"), i, image) {
        AUTO_BUF struct buf bytes = {0};
        AUTO_FD int fd = file_of(vectors_base64(image, "eif_base64", &bytes));
        enum eif_fault fault = EIF_CRC;
        struct eif_measurements m;
        struct eif_info info;
        char path[32], crc_hex[9];
        struct error err;
        uint32_t crc;

        assert_ok(eif_read_info(fd, "image", &info, &fault, &err));
        assert_int_equal(fault, EIF_SOUND);
        assert_int_equal(info.version, json_integer_value(json_object_get(image, "version")));
        assert_int_equal(info.flags, json_integer_value(json_object_get(image, "flags")));
        assert_int_equal(info.count, json_array_size(json_object_get(image, "sections")));
        json_array_foreach (json_object_get(image, "sections"), n, section) {
            const struct eif_section *s = &info.sections[n];
            AUTO_BUF struct buf data = BUF(1 << 16);
            AUTO_BUF struct buf want = {0};
            uint8_t digest[SHA384_LEN];

            assert_string_equal(eif_section_name(s->type), vectors_str(section, "type"));
            assert_int_equal(s->offset, json_integer_value(json_object_get(section, "offset")));
            assert_int_equal(s->size, json_integer_value(json_object_get(section, "size")));
            assert_ok(eif_read_section(fd, "image", s, &data, &err));
            hash_once(HASH_SHA384, buf_slice(&data), digest);
            vectors_hex(section, "sha384", &want);
            assert_memory_equal(digest, want.ptr, SHA384_LEN);
        }
        assert_ok(eif_measure_fd(fd, "image", &info, &m, &crc, &err));
        snprintf(crc_hex, sizeof(crc_hex), "%08x", crc);
        assert_string_equal(crc_hex, vectors_str(image, "crc32"));
        assert_int_equal(crc, info.crc);
        assert_ok(eif_measure_file(path_of(fd, path), &m, &err));
        assert_measurements(image, &m);
        assert_int_equal(m.has_signature, strncmp(vectors_str(image, "name"), "signed", 6) == 0);
    }
    json_decref(root);
}

static void patch(const json_t *reject, struct buf *bytes)
{
    const json_t *p, *cut = json_object_get(reject, "truncate_to");
    size_t i;

    json_array_foreach (json_object_get(reject, "patches"), i, p) {
        AUTO_BUF struct buf hex = {0};
        struct slice b = vectors_hex(p, "hex", &hex);

        memcpy(bytes->ptr + json_integer_value(json_object_get(p, "offset")), b.ptr, b.len);
    }
    if (cut)
        bytes->len = (size_t)json_integer_value(cut);
}

static void test_rejects(void **state)
{
    json_t *root = vectors_load("eif.json");
    const json_t *reject;
    size_t i;

    (void)state;
    json_array_foreach (json_object_get(root, "rejects"), i, reject) {
        const char *base = vectors_str(reject, "base"), *class = vectors_str(reject, "error");
        const json_t *from = base ? image_named(root, base) : reject;
        enum eif_fault fault = EIF_SOUND;
        AUTO_BUF struct buf bytes = {0};
        AUTO_FREE char *in_message = xasprintf(": %s: ", class);
        AUTO_FD int fd = -1;
        struct eif_measurements m;
        struct eif_info info;
        struct error err = {0};
        char path[32];

        vectors_base64(from, "eif_base64", &bytes);
        patch(reject, &bytes);
        fd = file_of(buf_slice(&bytes));
        if (eif_read_info(fd, "image", &info, &fault, &err) < 0)
            assert_string_equal(eif_fault_name(fault), class);
        else
            assert_string_equal("crc", class);
        assert_int_equal(eif_measure_file(path_of(fd, path), &m, &err), -1);
        assert_int_equal(err.kind, ERR_INVALID);
        assert_non_null(strstr(err.msg, in_message));
    }
    json_decref(root);
}

static void test_every_truncation_and_flipped_bit_is_noticed(void **state)
{
    json_t *root = vectors_load("eif.json");
    AUTO_BUF struct buf bytes = {0};
    AUTO_FD int fd = -1;
    struct eif_measurements m;
    struct error err = {0};
    char path[32];

    (void)state;
    vectors_base64(image_named(root, "signed-384"), "eif_base64", &bytes);
    fd = file_of(buf_slice(&bytes));
    path_of(fd, path);
    for (size_t at = 0; at < bytes.len; at += at < 1300 ? 1 : 61) {
        uint8_t flipped = bytes.ptr[at] ^ (uint8_t)(1 << (at & 7));

        assert_int_equal(pwrite(fd, &flipped, 1, (off_t)at), 1);
        if (eif_measure_file(path, &m, &err) == 0)
            fail_msg("bit %zu of byte %zu does not matter", at & 7, at);
        assert_int_equal(pwrite(fd, bytes.ptr + at, 1, (off_t)at), 1);
    }
    assert_ok(eif_measure_file(path, &m, &err));
    for (size_t len = bytes.len - 1; len > 0; len -= len < 1300 ? 1 : 31) {
        enum eif_fault fault = EIF_SOUND;
        struct eif_info info;

        assert_int_equal(ftruncate(fd, (off_t)len), 0);
        assert_int_equal(eif_read_info(fd, "image", &info, &fault, &err), -1);
        assert_int_equal(fault, len < 548 ? EIF_TRUNCATED : EIF_SECTION_BOUNDS);
        if (len <= 31)
            break;
    }
    json_decref(root);
}

static void test_writer_reproduces_images(void **state)
{
    json_t *root = vectors_load("eif.json");
    const json_t *image;
    size_t i;

    (void)state;
    json_array_foreach (json_object_get(root, "images"), i, image) {
        AUTO_BUF struct buf want = {0};
        AUTO_BUF struct buf got = {0};
        AUTO_FD int in = file_of(vectors_base64(image, "eif_base64", &want));
        AUTO_FD int out = file_of(slice_of("", 0));
        AUTO_EIF_WRITER struct eif_writer *w = NULL;
        struct eif_writer_options options = EIF_WRITER_DEFAULTS;
        struct eif_measurements m;
        struct eif_info info;
        struct error err;

        assert_ok(eif_read_info(in, "image", &info, NULL, &err));
        if (eif_section_find(&info, EIF_SIGNATURE, 0))
            continue; /* test_eif_sign.c */
        options.aarch64 = eif_is_aarch64(&info);
        options.version = info.version;
        if (strcmp(vectors_str(image, "name"), "single-ramdisk") == 0)
            options.default_mem = options.default_cpus = 0;
        options.keep_order = info.version == 3 || info.sections[0].type != EIF_KERNEL;
        w = eif_writer_new(out, "image", &options);
        write_sections(w, &info, buf_slice(&want));
        assert_ok(eif_writer_finish(w, NULL, &m, &err));
        read_file(out, &got);
        assert_true(slice_equal(buf_slice(&got), buf_slice(&want)));
        assert_measurements(image, &m);
    }
    json_decref(root);
}

static void test_metadata_of_inputs(void **state)
{
    json_t *root = vectors_load("eif.json");
    json_t *inputs = json_object_get(root, "inputs");
    const char *want = vectors_str(inputs, "metadata_json");
    json_t *parsed = json_loads(want, 0, NULL);
    const json_t *build = json_object_get(parsed, "BuildMetadata");
    AUTO_FREE char *custom = json_dumps(json_object_get(parsed, "CustomMetadata"), JSON_ENCODE_ANY);
    AUTO_FREE char *docker = json_dumps(json_object_get(parsed, "DockerInfo"), JSON_ENCODE_ANY);
    AUTO_BUF struct buf got = BUF(4096);
    struct eif_metadata m = {.image_name = vectors_str(parsed, "ImageName"),
                             .image_version = vectors_str(parsed, "ImageVersion"),
                             .build_time =
                                 json_integer_value(json_object_get(inputs, "source_date_epoch")),
                             .build_tool = vectors_str(build, "BuildTool"),
                             .build_tool_version = vectors_str(build, "BuildToolVersion"),
                             .operating_system = vectors_str(build, "OperatingSystem"),
                             .kernel_version = vectors_str(build, "KernelVersion"),
                             .docker_info = slice_str(docker),
                             .custom = slice_str(custom)};
    struct error err;

    (void)state;
    assert_ok(eif_metadata_build(&m, &got, &err));
    assert_string_equal(buf_cstr(&got), want);
    json_decref(parsed);
    json_decref(root);
}

/* ---- metadata ---- */

static void test_metadata_is_canonical(void **state)
{
    AUTO_BUF struct buf got = BUF(4096);
    struct eif_metadata m = {.image_name = "a\"\n\xc3\xa9",
                             .custom =
                                 slice_str(" { \"b\" : [1, 2.5, null],\n \"a\":{\"z\":0,\"B\":"
                                           "true}, \"\\u00e9\":\"/\"} ")};
    struct error err;

    (void)state;
    assert_ok(eif_metadata_build(&m, &got, &err));
    assert_string_equal(
        buf_cstr(&got),
        "{\"ImageName\":\"a\\\"\\n\xc3\xa9\",\"ImageVersion\":\"\",\"BuildMetadata\":{"
        "\"BuildTime\":"
        "\"1970-01-01T00:00:00+00:00\",\"BuildTool\":\"capsule\",\"BuildToolVersion\":\"\","
        "\"OperatingSystem\":\"\",\"KernelVersion\":\"\"},\"DockerInfo\":{},\"CustomMetadata\":"
        "{\"a\":{\"B\":true,\"z\":0},\"b\":[1,2.5,null],\"\xc3\xa9\":\"/\"}}");
}

static void test_metadata_refuses(void **state)
{
    AUTO_BUF struct buf out = BUF(8192);
    AUTO_BUF struct buf large = BUF(8192);
    struct error err = {0};

    (void)state;
    assert_int_equal(
        eif_metadata_build(&(struct eif_metadata){.custom = slice_str("{\"a\":}")}, &out, &err),
        -1);
    assert_non_null(strstr(err.msg, "CustomMetadata is not JSON"));
    assert_int_equal(
        eif_metadata_build(&(struct eif_metadata){.custom = slice_str("{\"a\":1,\"a\":2}")}, &out,
                           &err),
        -1);
    assert_int_equal(eif_metadata_build(&(struct eif_metadata){.image_name = "\xff"}, &out, &err),
                     -1);
    assert_non_null(strstr(err.msg, "ImageName"));
    assert_int_equal(buf_printf(&large, "\"%04095d\"", 0), 0);
    assert_int_equal(
        eif_metadata_build(&(struct eif_metadata){.custom = buf_slice(&large)}, &out, &err), -1);
    assert_int_equal(err.kind, ERR_LIMIT);
    assert_null(eif_metadata_parse(slice_str("[]"), &err));
    assert_null(eif_metadata_parse(slice_str(""), &err));
    assert_null(eif_metadata_parse(slice_str("{} x"), &err));
}

/* ---- writing ---- */

static void test_writer_insists_on_order(void **state)
{
    static const enum eif_section_type wrong[][4] = {
        {EIF_CMDLINE},
        {EIF_KERNEL, EIF_RAMDISK},
        {EIF_KERNEL, EIF_CMDLINE, EIF_RAMDISK},
        {EIF_KERNEL, EIF_CMDLINE, EIF_METADATA, EIF_METADATA},
        {EIF_KERNEL, EIF_KERNEL},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        AUTO_FD int fd = file_of(slice_of("", 0));
        struct eif_writer_options options = EIF_WRITER_DEFAULTS;
        AUTO_EIF_WRITER struct eif_writer *w = eif_writer_new(fd, "image", &options);
        struct error err = {0};
        int rc = 0;

        for (size_t n = 0; n < 4 && wrong[i][n] && rc == 0; n++)
            rc = eif_writer_add(w, wrong[i][n], slice_str("x"), &err);
        assert_int_equal(rc, -1);
        assert_int_equal(err.kind, ERR_INTERNAL);
        assert_int_equal(eif_writer_finish(w, NULL, NULL, &err), -1);
    }
}

static void test_odd_ramdisk_is_refused(void **state)
{
    AUTO_FD int fd = file_of(slice_of("", 0));
    struct eif_writer_options options = EIF_WRITER_DEFAULTS;
    AUTO_EIF_WRITER struct eif_writer *w = eif_writer_new(fd, "image", &options);
    struct error err = {0};

    (void)state;
    assert_ok(eif_writer_add(w, EIF_KERNEL, slice_str("x"), &err));
    assert_ok(eif_writer_add(w, EIF_CMDLINE, slice_str("x"), &err));
    assert_ok(eif_writer_add(w, EIF_METADATA, slice_str("{}"), &err));
    assert_int_equal(eif_writer_add(w, EIF_RAMDISK, slice_str("abcde"), &err), -1);
    assert_non_null(strstr(err.msg, "divisible by 4"));
}

/* The three digests and the file's checksum, computed the plain way. */
struct oracle {
    struct hash *image, *boot, *app;
};

static void feed(struct oracle *o, enum eif_section_type type, unsigned int ramdisk, struct slice b)
{
    if (type == EIF_METADATA)
        return;
    hash_update(o->image, b);
    hash_update(type == EIF_RAMDISK && ramdisk > 0 ? o->app : o->boot, b);
}

static void assert_oracle(struct hash *h, const uint8_t *pcr)
{
    uint8_t digest[SHA384_LEN], want[SHA384_LEN];

    hash_final(h, digest);
    eif_extend(digest, want);
    assert_memory_equal(pcr, want, SHA384_LEN);
    hash_free(h);
}

static struct slice random_bytes(struct buf *b, size_t len)
{
    uint8_t *p = buf_reserve(b, len);
    uint32_t x = (uint32_t)rand();

    assert_non_null(p);
    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)((x = x * 1664525 + 1013904223) >> 24);
    b->len = len;
    return buf_slice(b);
}

/* Sections of sizes around the block size and the thread threshold, fed in odd pieces. */
static void test_random_round_trip(void **state)
{
    static const size_t sizes[] = {0,      1,      131071, 131072,  131073,
                                   524288, 524289, 655360, 2000003, 4194304};
    static const enum eif_section_type types[] = {EIF_KERNEL,  EIF_CMDLINE, EIF_METADATA,
                                                  EIF_RAMDISK, EIF_RAMDISK, EIF_RAMDISK};

    (void)state;
    srand(2);
    for (int round = 0; round < 12; round++) {
        struct oracle o = {hash_new(HASH_SHA384), hash_new(HASH_SHA384), hash_new(HASH_SHA384)};
        AUTO_FD int fd = file_of(slice_of("", 0));
        struct eif_writer_options options = EIF_WRITER_DEFAULTS;
        AUTO_EIF_WRITER struct eif_writer *w = eif_writer_new(fd, "image", &options);
        struct eif_measurements written, read;
        unsigned int ramdisk = 0;
        struct error err;
        char path[32];

        for (size_t i = 0; i < ARRAY_LEN(types); i++) {
            AUTO_BUF struct buf b = BUF(1 << 23);
            size_t len = sizes[(size_t)rand() % ARRAY_LEN(sizes)];
            struct slice data = random_bytes(&b, types[i] == EIF_RAMDISK ? len & ~(size_t)3 : len);

            feed(&o, types[i], ramdisk, data);
            ramdisk += types[i] == EIF_RAMDISK;
            assert_ok(eif_writer_begin(w, types[i], &err));
            while (data.len > 0) {
                size_t part = 1 + (size_t)rand() % 300000;

                if (part > data.len)
                    part = data.len;
                assert_ok(eif_writer_data(w, slice_of(data.ptr, part), &err));
                data = slice_of(data.ptr + part, data.len - part);
            }
            assert_ok(eif_writer_end(w, &err));
        }
        assert_ok(eif_writer_finish(w, NULL, &written, &err));
        assert_ok(eif_measure_file(path_of(fd, path), &read, &err));
        assert_memory_equal(&read, &written, sizeof(read));
        assert_oracle(o.image, read.pcr0);
        assert_oracle(o.boot, read.pcr1);
        assert_oracle(o.app, read.pcr2);
    }
}

/* ---- memory ---- */

#define ZEROS (300u << 20)
/* KiB; the sanitizers' own memory for three threads comes on top */
#if defined(__SANITIZE_ADDRESS__) || defined(__clang__)
#define PEAK_MAX 16384
#else
#define PEAK_MAX 4096
#endif
/* The extension of the SHA-384 of that many zero bytes, as sha384sum(1) gives it. */
#define PCR_OF_ZEROS                                                                               \
    "bd40ed2428cbbedc488e404016985a2938e574284fbbe0ed"                                             \
    "b167efb5a34b35fb35d47f90907b2906c821a8ee9997dc1c"

/* Writes an image with a ramdisk of zeros and measures it again; exits with the outcome. */
static void large_image(size_t size, struct slice like, const struct eif_info *info)
{
    int out = file_of(slice_of("", 0)), zeros = file_of(slice_of("", 0));
    struct eif_writer_options options = EIF_WRITER_DEFAULTS;
    struct eif_writer *w = eif_writer_new(out, "image", &options);
    struct eif_measurements written, read;
    char path[32], hex[2 * EIF_PCR_LEN + 1];

    write_sections(w, info, like);
    if (ftruncate(zeros, (off_t)size) < 0 ||
        eif_writer_add_file(w, EIF_RAMDISK, zeros, "zeros", NULL) < 0 ||
        eif_writer_finish(w, NULL, &written, NULL) < 0 ||
        eif_measure_file(path_of(out, path), &read, NULL) < 0)
        _exit(1);
    eif_writer_free(w);
    hex_encode(slice_of(read.pcr2, EIF_PCR_LEN), hex);
    _exit(memcmp(&written, &read, sizeof(read)) != 0 ||
          (size == ZEROS && strcmp(hex, PCR_OF_ZEROS) != 0));
}

static long peak_kib(size_t size, struct slice like, const struct eif_info *info)
{
    struct rusage usage;
    int status;
    pid_t pid = fork();

    if (pid == 0)
        large_image(size, like, info);
    assert_int_equal(wait4(pid, &status, 0, &usage), pid);
    assert_int_equal(status, 0);
    return usage.ru_maxrss;
}

static void test_memory_does_not_depend_on_the_image(void **state)
{
    json_t *root = vectors_load("eif.json");
    AUTO_BUF struct buf small = {0};
    AUTO_FD int in =
        file_of(vectors_base64(image_named(root, "unsigned-x86_64"), "eif_base64", &small));
    struct eif_info info;
    struct error err;
    long few, many;

    (void)state;
    assert_ok(eif_read_info(in, "image", &info, NULL, &err));
    info.count -= 1; /* all but the app's ramdisk */
    few = peak_kib(512, buf_slice(&small), &info);
    many = peak_kib(ZEROS, buf_slice(&small), &info);
    if (many - few > PEAK_MAX)
        fail_msg("%ld KiB for a large image, %ld for a small one", many, few);
    json_decref(root);
}

/* ---- inputs ---- */

static void test_kernel_check(void **state)
{
    uint8_t bz[EIF_KERNEL_HEAD] = {0}, arm[64] = {0};
    struct error err = {0};

    (void)state;
    memcpy(bz + 0x1fe, "\x55\xaa", 2);
    memcpy(bz + 0x202, "HdrS", 4);
    memcpy(arm + 0x38, "ARM\x64", 4);
    arm[10] = 0x20;
    assert_ok(eif_kernel_check(slice_of(bz, sizeof(bz)), false, "bzImage", &err));
    assert_ok(eif_kernel_check(slice_of(arm, sizeof(arm)), true, "Image", &err));
    assert_int_equal(eif_kernel_check(slice_of(bz, sizeof(bz)), true, "bzImage", &err), -1);
    assert_non_null(strstr(err.msg, "is for x86_64, the image is for aarch64"));
    assert_int_equal(eif_kernel_check(slice_of(arm, sizeof(arm)), false, "Image", &err), -1);
    assert_non_null(strstr(err.msg, "is for aarch64, the image is for x86_64"));
    arm[10] = 0;
    assert_int_equal(eif_kernel_check(slice_of(arm, sizeof(arm)), true, "Image", &err), -1);
    assert_non_null(strstr(err.msg, "text_offset"));
    assert_int_equal(eif_kernel_check(slice_of(bz, sizeof(bz) - 1), false, "short", &err), -1);
    assert_int_equal(eif_kernel_check(slice_of("", 0), true, "empty", &err), -1);
}

static void test_cmdline_clean(void **state)
{
    char longest[EIF_CMDLINE_MAX + 2];
    struct error err = {0};
    struct slice out;

    (void)state;
    memset(longest, 'x', sizeof(longest));
    assert_ok(eif_cmdline_clean(slice_str("\t reboot=k panic=30 \r\n"), &out, &err));
    assert_true(slice_equal_str(out, "reboot=k panic=30"));
    assert_ok(eif_cmdline_clean(slice_of(longest, EIF_CMDLINE_MAX), &out, &err));
    assert_int_equal(eif_cmdline_clean(slice_of(longest, EIF_CMDLINE_MAX + 1), &out, &err), -1);
    assert_int_equal(err.kind, ERR_LIMIT);
    assert_int_equal(eif_cmdline_clean(slice_str("a\nb"), &out, &err), -1);
    assert_int_equal(eif_cmdline_clean(slice_of("a\0b", 3), &out, &err), -1);
    assert_int_equal(eif_cmdline_clean(slice_str(" \n"), &out, &err), -1);
}

static void test_path_check(void **state)
{
    static const struct eif_path platform[] = {{"dev", true}, {"init", false}};
    struct error err = {0};

    (void)state;
    assert_ok(eif_path_check(platform, 2, slice_str("rootfs/init"), false, &err));
    assert_ok(eif_path_check(platform, 2, slice_str("dev"), true, &err));
    assert_int_equal(eif_path_check(platform, 2, slice_str("init"), false, &err), -1);
    assert_int_equal(eif_path_check(platform, 2, slice_str("init"), true, &err), -1);
    assert_int_equal(eif_path_check(platform, 2, slice_str("dev"), false, &err), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_images_are_read_and_measured),
        cmocka_unit_test(test_rejects),
        cmocka_unit_test(test_every_truncation_and_flipped_bit_is_noticed),
        cmocka_unit_test(test_writer_reproduces_images),
        cmocka_unit_test(test_metadata_of_inputs),
        cmocka_unit_test(test_metadata_is_canonical),
        cmocka_unit_test(test_metadata_refuses),
        cmocka_unit_test(test_writer_insists_on_order),
        cmocka_unit_test(test_odd_ramdisk_is_refused),
        cmocka_unit_test(test_random_round_trip),
        cmocka_unit_test(test_memory_does_not_depend_on_the_image),
        cmocka_unit_test(test_kernel_check),
        cmocka_unit_test(test_cmdline_clean),
        cmocka_unit_test(test_path_check),
    };

    return cmocka_run_group_tests_name("eif", tests, NULL, NULL);
}
