#include "container/labelled.h"

#include "codec/json.h"
#include "container/life.h"

#include <stdio.h>

#define IMAGE_ROUNDS 64 /* each removes at least the uppermost of the layers on one another */

json_t *container_rows(const struct container_engine *e, const char *path, const char *label,
                       struct error *err)
{
    AUTO_FREE char *filter = xasprintf("{\"label\":[\"%s\"]}", label);
    AUTO_FREE char *escaped = container_escape(filter);
    AUTO_FREE char *url = xasprintf("%s?all=1&filters=%s", path, escaped);
    AUTO_FREE char *what = xasprintf("listing what has the label %s", label);
    AUTO_CONTAINER_ANSWER struct container_answer a = {0};
    AUTO_BUF struct buf text = BUF(CONTAINER_ANSWER_MAX + 64);
    AUTO_JSON json_t *doc = NULL;

    if (container_call(e, "GET", url, NULL, &a, err) < 0) {
        error_wrap(err, "%s", what);
        return NULL;
    }
    if (a.status != 200) {
        (void)container_refused(e, &a, what, err);
        return NULL;
    }
    /* The reader wants an object. */
    if (buf_printf(&text, "{\"rows\":%s}", buf_cstr(&a.body)) < 0 ||
        json_read_object(buf_slice(&text), &doc, NULL, err) < 0) {
        error_wrap(err, "%s: the engine's answer", what);
        return NULL;
    }
    return json_incref(json_object_get(doc, "rows"));
}

static int remove_containers(const struct container_engine *e, const char *label, size_t *removed,
                             struct error *err)
{
    AUTO_JSON json_t *rows = container_rows(e, "/containers/json", label, err);

    if (!rows)
        return -1;
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const char *id = json_string_value(json_object_get(json_array_get(rows, i), "Id"));

        if (!id || !container_id_valid(id))
            continue;
        if (container_remove(e, id, err) < 0)
            return -1;
        ++*removed;
    }
    return 0;
}

/* True when it is gone: one with others on top, or in use, is refused. */
static bool remove_image(const struct container_engine *e, const char *id)
{
    const char *hex = strncmp(id, "sha256:", 7) == 0 ? id + 7 : id;
    AUTO_FREE char *path = xasprintf("/images/%s?force=1", hex);
    AUTO_CONTAINER_ANSWER struct container_answer a = {0};

    return container_id_valid(hex) && container_call(e, "DELETE", path, NULL, &a, NULL) == 0 &&
           (a.status == 200 || a.status == 404);
}

/* Removes what can be; *left: how many are there still. */
static int remove_round(const struct container_engine *e, const char *label, size_t *removed,
                        size_t *left, struct error *err)
{
    AUTO_JSON json_t *rows = container_rows(e, "/images/json", label, err);

    if (!rows)
        return -1;
    *left = 0;
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const char *id = json_string_value(json_object_get(json_array_get(rows, i), "Id"));

        if (id && remove_image(e, id))
            ++*removed;
        else
            ++*left;
    }
    return 0;
}

int container_remove_labelled(const struct container_engine *e, const char *key, const char *value,
                              size_t *containers, size_t *images, struct error *err)
{
    AUTO_FREE char *label = xasprintf("%s=%s", key, value);
    size_t before, left = 1;

    if (remove_containers(e, label, containers, err) < 0)
        return -1;
    for (int i = 0; i < IMAGE_ROUNDS && left; i++) {
        before = *images;
        if (remove_round(e, label, images, &left, err) < 0)
            return -1;
        if (*images == before)
            break;
    }
    if (left == 0)
        return 0;
    error_set(err, ERR_EXISTS, "the engine at %s does not let go of %zu images with the label %s",
              e->socket, left, label);
    return error_hint(err, "remove the containers and images that use them, and try again");
}
