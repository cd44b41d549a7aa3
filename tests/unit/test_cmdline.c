/* The launcher's words on a kernel command line. */
#include "unit.h"

#include "codec/cmdline.h"

static struct cmdline_words parse(const char *text)
{
    return cmdline_parse(slice_str(text));
}

static void test_words(void **state)
{
    struct cmdline_words w =
        parse("panic=30 capsule.soft_nsm=1 capsule.verbose=2 capsule.log_format=json\n");

    (void)state;
    assert_true(w.soft_nsm && w.log_json && !w.no_half_close);
    assert_true(parse("capsule.half_close=0").no_half_close);
    assert_int_equal(w.verbosity, 2);
    assert_true(parse("capsule.soft_nsm=1").soft_nsm);
    assert_true(parse("\t\"a b\" capsule.soft_nsm=1\n").soft_nsm);
}

static void test_what_is_none(void **state)
{
    static const char *const texts[] = {
        "",
        "   \n",
        "capsule.soft_nsm=10 xcapsule.soft_nsm=1 capsule.soft_nsm capsule.soft_nsm=0",
        "a=\"x capsule.soft_nsm=1 y\"",
        "\"capsule.soft_nsm=1",
        "capsule.verbose=3 capsule.verbose= capsule.verbose=11 capsule.log_format=text",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct cmdline_words w = parse(texts[i]);

        assert_false(w.soft_nsm || w.log_json);
        assert_int_equal(w.verbosity, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_what_is_none),
    };

    return cmocka_run_group_tests_name("cmdline", tests, NULL, NULL);
}
