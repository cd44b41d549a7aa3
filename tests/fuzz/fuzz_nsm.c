/*
 * Both decoders of the NSM protocol. The first byte chooses: 0 to 6 reads the rest as the answer to
 * that operation, anything else gives the rest to a soft NSM and reads its answer.
 */
#include "base/file.h"
#include "base/log.h"
#include "nsm/soft.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static struct soft_nsm *soft;
static char dir[] = "/tmp/capsule-fuzz-nsm-XXXXXX";

static void clean_up(void)
{
    soft_nsm_free(soft);
    tree_remove(dir, NULL);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const struct soft_nsm_config config = {.ca_dir = dir, .form = SOFT_NSM_ALTERNATE};
    struct error err;

    (void)argc;
    (void)argv;
    log_setup(LOG_ERROR, LOG_TEXT);
    if (!mkdtemp(dir))
        abort();
    soft = soft_nsm_new(&config, &err);
    if (!soft)
        abort();
    atexit(clean_up);
    return 0;
}

static void read_answer(enum nsm_op op, struct slice bytes)
{
    AUTO_BUF struct buf again = BUF(2 * NSM_ANSWER_MAX);
    struct nsm_answer answer, same;
    struct error err;

    if (nsm_answer_decode(bytes, op, &answer, &err) < 0)
        return;
    if (nsm_answer_encode(&answer, &again, &err) < 0) {
        if (bytes.len <= NSM_ANSWER_MAX - 512)
            abort();
        return;
    }
    if (nsm_answer_decode(buf_slice(&again), op, &same, &err) < 0 || same.status != answer.status ||
        !slice_equal(same.bytes, answer.bytes) || same.locked != answer.locked ||
        same.description.locked != answer.description.locked)
        abort();
}

static void ask(struct slice bytes)
{
    AUTO_BUF struct buf out = BUF(NSM_ANSWER_MAX), again = BUF(2 * NSM_REQUEST_MAX);
    struct nsm_request request, same;
    struct nsm_answer answer;
    struct error err;
    bool good = nsm_request_decode(bytes, &request, &err) == 0;

    soft_nsm_answer(soft, bytes, &out);
    if (nsm_answer_decode(buf_slice(&out), good ? request.op : NSM_DESCRIBE_NSM, &answer, &err) < 0)
        abort();
    if (!good) {
        if (answer.status != NSM_INVALID_OPERATION && answer.status != NSM_INPUT_TOO_LARGE)
            abort();
        return;
    }
    if (answer.status == NSM_INTERNAL_ERROR)
        abort();
    if (nsm_request_encode(&request, &again, &err) == 0 &&
        (nsm_request_decode(buf_slice(&again), &same, &err) < 0 || same.op != request.op ||
         same.index != request.index || !slice_equal(same.data, request.data)))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] <= NSM_GET_RANDOM)
        read_answer((enum nsm_op)data[0], slice_of(data + 1, size - 1));
    else
        ask(slice_of(data + 1, size - 1));
    return 0;
}
