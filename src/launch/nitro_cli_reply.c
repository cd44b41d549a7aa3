#include "launch/nitro_cli_reply.h"

#include "base/text.h"
#include "codec/json.h"

#include <ctype.h>
#include <stdio.h>

#define LOG_FOUND "provide the error log found at \""
#define ARRAY_MAX (1u << 20)

/* ---- standard output ---- */

int nitro_cli_parse_run(struct slice text, struct nitro_cli_enclave *out, struct error *err)
{
    AUTO_JSON json_t *json = NULL;
    uint64_t cid, process;
    const char *id;

    *out = (struct nitro_cli_enclave){0};
    if (json_read_object(text, &json, NULL, err) < 0)
        return error_wrap(err, "what nitro-cli printed");
    id = json_string_value(json_object_get(json, "EnclaveID"));
    if (!id || !id[0] || strlen(id) >= sizeof(out->id) ||
        json_member_u64(text, "EnclaveCID", UINT32_MAX, &cid) != 1)
        return error_set(err, ERR_INVALID, "what nitro-cli printed: no EnclaveID and EnclaveCID");
    snprintf(out->id, sizeof(out->id), "%s", id);
    out->cid = (uint32_t)cid;
    if (json_member_u64(text, "ProcessID", INT32_MAX, &process) == 1)
        out->process = (pid_t)process;
    return 0;
}

int nitro_cli_parse_terminate(struct slice text, struct error *err)
{
    AUTO_JSON json_t *json = NULL;

    if (json_read_object(text, &json, NULL, err) < 0)
        return error_wrap(err, "what nitro-cli printed");
    if (!json_is_true(json_object_get(json, "Terminated")))
        return error_set(err, ERR_INTERNAL, "nitro-cli says that the enclave was not terminated");
    return 0;
}

int nitro_cli_parse_has_cid(struct slice text, uint32_t cid, bool *found, struct error *err)
{
    AUTO_BUF struct buf object = BUF(ARRAY_MAX + 16);
    AUTO_JSON json_t *json = NULL;
    const json_t *list, *item;
    size_t i;

    *found = false;
    /* The strict reader takes objects. */
    if (buf_append_str(&object, "{\"list\":") < 0 || buf_append(&object, text.ptr, text.len) < 0 ||
        buf_append_byte(&object, '}') < 0)
        return error_set(err, ERR_LIMIT, "nitro-cli printed too much");
    if (json_read_object(buf_slice(&object), &json, NULL, err) < 0)
        return error_wrap(err, "what nitro-cli printed");
    list = json_object_get(json, "list");
    if (!json_is_array(list) || json_object_size(json) != 1)
        return error_set(err, ERR_INVALID, "what nitro-cli printed is not a list of enclaves");
    json_array_foreach (list, i, item) {
        const json_t *number = json_object_get(item, "EnclaveCID");

        *found = *found || (json_is_number(number) && json_number_value(number) == (double)cid);
    }
    return 0;
}

/* ---- standard error ---- */

static bool next_line(struct slice *rest, struct slice *line)
{
    const uint8_t *end;

    if (!rest->len)
        return false;
    end = memchr(rest->ptr, '\n', rest->len);
    *line = slice_of(rest->ptr, end ? (size_t)(end - rest->ptr) : rest->len);
    *rest = slice_of(rest->ptr + line->len, rest->len - line->len);
    if (rest->len)
        *rest = slice_of(rest->ptr + 1, rest->len - 1);
    return true;
}

static void copy_line(struct slice line, char out[NITRO_CLI_FAULT_MAX])
{
    size_t n = 0;

    for (; n < line.len && n + 1 < NITRO_CLI_FAULT_MAX; n++)
        out[n] = isprint(line.ptr[n]) ? (char)line.ptr[n] : ' ';
    out[n] = '\0';
}

static bool is_fault(struct slice line, int *number)
{
    struct reader r = reader_of(line);
    struct slice open, digits, shut;
    uint64_t n;

    if (!reader_take(&r, 3, &open) || !slice_equal_str(open, "[ E") ||
        !reader_take(&r, 2, &digits) || !reader_take(&r, 2, &shut) ||
        !slice_equal_str(shut, " ]") || !isdigit(digits.ptr[0]) || !isdigit(digits.ptr[1]))
        return false;
    n = (uint64_t)(digits.ptr[0] - '0') * 10 + (uint64_t)(digits.ptr[1] - '0');
    *number = (int)n;
    return true;
}

int nitro_cli_parse_fault(struct slice text, char out[NITRO_CLI_FAULT_MAX])
{
    struct slice line;
    int number;

    out[0] = '\0';
    while (next_line(&text, &line)) {
        if (line.len)
            copy_line(line, out);
        if (is_fault(line, &number))
            return number;
    }
    return -1;
}

bool nitro_cli_next_log(struct slice *text, struct slice *path)
{
    struct slice line;

    while (next_line(text, &line)) {
        const uint8_t *at = memmem(line.ptr, line.len, LOG_FOUND, sizeof(LOG_FOUND) - 1);
        const uint8_t *end = line.ptr + line.len, *quote;

        if (!at)
            continue;
        at += sizeof(LOG_FOUND) - 1;
        quote = memchr(at, '"', (size_t)(end - at));
        if (!quote || quote == at)
            continue;
        *path = slice_of(at, (size_t)(quote - at));
        return true;
    }
    return false;
}
