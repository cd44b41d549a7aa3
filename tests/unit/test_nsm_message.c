/* The NSM's messages: both sides' encodings against the samples, and answers from a hostile module.
 */
#include "unit.h"
#include "vectors.h"

#include "nsm/message.h"

static void drop_root(json_t **root)
{
    json_decref(*root);
}
#define AUTO_ROOT CLEANUP(drop_root)

static enum nsm_op op_named(const char *name)
{
    for (int op = NSM_DESCRIBE_NSM; op <= NSM_GET_RANDOM; op++)
        if (strcmp(nsm_op_name((enum nsm_op)op), name) == 0)
            return (enum nsm_op)op;
    fail_msg("no operation %s", name);
    return NSM_DESCRIBE_NSM;
}

static struct nsm_option option_of(const json_t *parameters, const char *key, struct buf *b)
{
    struct nsm_option option = {.present = vectors_str(parameters, key) != NULL};

    if (option.present)
        option.bytes = vectors_hex(parameters, key, b);
    return option;
}

/* Builds a sample's request from its decoded form; the bytes must be the sample's. */
static void check_request(enum nsm_op op, const json_t *sample)
{
    AUTO_BUF struct buf data = {0}, user_data = {0}, nonce = {0}, public_key = {0}, want = {0},
                        got = BUF(NSM_REQUEST_MAX);
    json_t *p = json_object_get(json_object_get(sample, "request"), nsm_op_name(op));
    struct nsm_request request = {.op = op}, again;
    struct error err = {0};

    if (json_object_get(p, "index"))
        request.index = (uint16_t)json_integer_value(json_object_get(p, "index"));
    if (json_object_get(p, "range"))
        request.index = (uint16_t)json_integer_value(json_object_get(p, "range"));
    if (json_object_get(p, "data_hex"))
        request.data = vectors_hex(p, "data_hex", &data);
    request.user_data = option_of(p, "user_data_hex", &user_data);
    request.nonce = option_of(p, "nonce_hex", &nonce);
    request.public_key = option_of(p, "public_key_hex", &public_key);
    assert_ok(nsm_request_encode(&request, &got, &err));
    assert_true(slice_equal(buf_slice(&got), vectors_hex(sample, "request_hex", &want)));
    assert_ok(nsm_request_decode(buf_slice(&got), &again, &err));
    assert_int_equal(again.op, op);
    assert_int_equal(again.index, request.index);
    assert_true(slice_equal(again.data, request.data));
    assert_int_equal(again.nonce.present, request.nonce.present);
    assert_true(slice_equal(again.user_data.bytes, request.user_data.bytes));
    assert_true(slice_equal(again.public_key.bytes, request.public_key.bytes));
}

static void check_description(const struct nsm_description *d, const json_t *want)
{
    json_t *index;
    uint32_t locked = 0;
    size_t at;

    json_array_foreach (json_object_get(want, "locked_pcrs"), at, index)
        locked |= 1u << json_integer_value(index);
    assert_int_equal(d->locked, locked);
    assert_int_equal(d->max_pcrs, json_integer_value(json_object_get(want, "max_pcrs")));
    assert_int_equal(d->version_major, json_integer_value(json_object_get(want, "version_major")));
    assert_string_equal(d->module_id, vectors_str(want, "module_id"));
    assert_string_equal(d->digest, vectors_str(want, "digest"));
}

static void check_answer(enum nsm_op op, const json_t *sample)
{
    AUTO_BUF struct buf bytes = {0};
    const json_t *want = json_object_get(sample, "response");
    struct nsm_answer answer;
    struct error err = {0};
    const char *error = vectors_str(want, "Error");

    assert_ok(nsm_answer_decode(vectors_hex(sample, "response_hex", &bytes), op, &answer, &err));
    if (error) {
        assert_string_equal(nsm_status_name(answer.status), error);
        return;
    }
    assert_int_equal(answer.status, NSM_OK);
    if (op == NSM_DESCRIBE_NSM)
        check_description(&answer.description, want);
    if (op == NSM_DESCRIBE_PCR)
        assert_int_equal(answer.locked, json_is_true(json_object_get(want, "lock")));
    if (op == NSM_DESCRIBE_PCR || op == NSM_EXTEND_PCR) {
        AUTO_BUF struct buf data = {0};

        assert_true(slice_equal(answer.bytes, vectors_hex(want, "data_hex", &data)));
    }
    if (op == NSM_GET_RANDOM)
        assert_int_equal(answer.bytes.len, NSM_RANDOM_LEN);
}

static void test_message_samples(void **state)
{
    AUTO_ROOT json_t *root = vectors_load("nsm.json");
    json_t *group, *sample;
    size_t i, k;

    (void)state;
    json_array_foreach (json_object_get(root, "operations"), i, group) {
        const char *name = vectors_str(group, "operation");
        enum nsm_op op = strcmp(name, "Error") == 0 ? NSM_GET_RANDOM : op_named(name);

        json_array_foreach (json_object_get(group, "samples"), k, sample) {
            if (vectors_str(sample, "request_hex"))
                check_request(op, sample);
            if (vectors_str(sample, "response_hex"))
                check_answer(op, sample);
        }
    }
}

static void test_answers_that_make_no_sense(void **state)
{
    static const struct {
        enum nsm_op op;
        const char *hex;
    } rows[] = {
        {NSM_GET_RANDOM, ""},
        {NSM_GET_RANDOM, "674c6f636b504352"},
        {NSM_GET_RANDOM, "6947657452616e646f6d"},
        {NSM_GET_RANDOM, "a16947657452616e646f6da0"},
        {NSM_GET_RANDOM, "a16947657452616e646f6da16672616e646f6d6161"},
        {NSM_GET_RANDOM, "a1654572726f7200"},
        {NSM_LOCK_PCR, "684c6f636b50435273"},
        {NSM_LOCK_PCR, "a1674c6f636b504352a0"},
        {NSM_EXTEND_PCR, "a169457874656e64504352a1646461746141ff"},
        {NSM_DESCRIBE_NSM, "a16b44657363726962654e534da0"},
    };
    struct nsm_answer answer;
    struct error err = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        AUTO_BUF struct buf bytes = {0};

        if (nsm_answer_decode(hex_slice(&bytes, rows[i].hex), rows[i].op, &answer, &err) == 0)
            fail_msg("took %s", rows[i].hex);
    }
    /* an error that nobody has heard of is told verbatim */
    AUTO_BUF struct buf odd = {0};
    assert_ok(
        nsm_answer_decode(hex_slice(&odd, "a1654572726f72634f6464"), NSM_LOCK_PCR, &answer, &err));
    assert_int_equal(answer.status, NSM_INTERNAL_ERROR);
    assert_true(slice_equal_str(answer.error, "Odd"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_message_samples),
        cmocka_unit_test(test_answers_that_make_no_sense),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
