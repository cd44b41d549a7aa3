/* A run's record, and the log stream of a container engine: what is accepted survives a round trip.
 */
#include "base/mem.h"
#include "container/frames.h"
#include "runs/record.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_record(struct slice text)
{
    AUTO_RUN_RECORD struct run_record r = {0}, again = {0};
    AUTO_BUF struct buf out = BUF(RUN_RECORD_MAX * 8);
    struct error err;

    if (run_record_parse(text, &r, &err) < 0)
        return;
    if (run_record_format(&r, &out, &err) < 0)
        abort();
    if (out.len > RUN_RECORD_MAX)
        return; /* escapes make it longer than what is read */
    if (run_record_parse(buf_slice(&out), &again, &err) < 0 || strcmp(r.name, again.name) != 0 ||
        r.shell.start != again.shell.start || r.status != again.status)
        abort();
}

static void count(void *arg, int stream, struct slice bytes)
{
    size_t *sum = arg;

    if (stream != 1 && stream != 2)
        abort();
    *sum += bytes.len;
}

/* In one piece and in two: the same bytes. */
static void check_frames(struct slice bytes)
{
    struct container_frames one = {0}, two = {0};
    size_t whole = 0, parts = 0, cut = bytes.len / 3;
    struct error err;
    int rc = container_frames_feed(&one, bytes, count, &whole, &err);

    if (container_frames_feed(&two, slice_of(bytes.ptr, cut), count, &parts, &err) == 0 &&
        container_frames_feed(&two, slice_of(bytes.ptr + cut, bytes.len - cut), count, &parts,
                              &err) != rc)
        abort();
    if (rc == 0 && (whole != parts || whole > bytes.len))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] == '{')
        check_record(slice_of(data, size));
    else
        check_frames(slice_of(data, size));
    return 0;
}
