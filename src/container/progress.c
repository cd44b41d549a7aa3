#include "container/progress.h"

#include "codec/json.h"

static bool take_line(struct container_progress *p)
{
    AUTO_JSON json_t *doc = NULL;
    const char *error, *text;

    if (json_read_object(buf_slice(&p->line), &doc, NULL, &p->fault) < 0) {
        error_wrap(&p->fault, "the engine's progress");
        return false;
    }
    error = json_string_value(json_object_get(doc, "error"));
    if (error) {
        error_set(&p->fault, ERR_NET, "the engine says: %.500s", error);
        return false;
    }
    text = json_string_value(json_object_get(doc, "stream"));
    if (!text && !json_object_get(doc, "progressDetail"))
        text = json_string_value(json_object_get(doc, "status"));
    return p->going(p->arg, text && text[strspn(text, "\r\n ")] ? text : "");
}

bool container_progress_take(void *progress, struct slice bytes)
{
    struct container_progress *p = progress;

    for (size_t i = 0; i < bytes.len; i++) {
        if (bytes.ptr[i] != '\n') {
            if (buf_append_byte(&p->line, bytes.ptr[i]) == 0)
                continue;
            error_set(&p->fault, ERR_LIMIT,
                      "the engine's progress has a line of more than %zu bytes", p->line.max);
            return false;
        }
        if (p->line.len > 1 && !take_line(p)) /* a CR may stand alone */
            return false;
        buf_clear(&p->line);
    }
    return true;
}
