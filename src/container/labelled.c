#include "container/labelled.h"

#include "codec/json.h"
#include "container/life.h"

#include <stdio.h>

#define IMAGE_ROUNDS 64 /* each removes at least the uppermost of the layers on one another */

/* {"rows": [...]} of what the engine lists under `path` with this label; NULL with err. */
static json_t *list(const struct container_engine *e, const char *path, const char *key,
                    const char *value, struct error *err)
{
    AUTO_FREE char *filter = xasprintf("{\"label\":[\"%s=%s\"]}", key, value);
    AUTO_FREE char *escaped = container_escape(filter);
    AUTO_FREE char *url = xasprintf("%s?all=1&filters=%s", path, escaped);
    AUTO_CONTAINER_ANSWER struct container_answer a = {0};
    AUTO_BUF struct buf text = BUF(CONTAINER_ANSWER_MAX + 64);
    json_t *doc = NULL;

    if (container_call(e, "GET", url, NULL, &a, err) < 0)
        return NULL;
    if (a.status != 200) {
        (void)container_refused(e, &a, "listing what has a label", err);
        return NULL;
    }
    /* The reader wants an object. */
    if (buf_printf(&text, "{\"rows\":%s}", buf_cstr(&a.body)) < 0 ||
        json_read_object(buf_slice(&text), &doc, NULL, err) < 0) {
        error_wrap(err, "listing what has a label: the engine's answer");
        return NULL;
    }
    return doc;
}

static int remove_containers(const struct container_engine *e, const char *key, const char *value,
                             size_t *removed, struct error *err)
{
    AUTO_JSON json_t *doc = list(e, "/containers/json", key, value, err);
    const json_t *rows = json_object_get(doc, "rows");

    if (!doc)
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
static int remove_round(const struct container_engine *e, const char *key, const char *value,
                        size_t *removed, size_t *left, struct error *err)
{
    AUTO_JSON json_t *doc = list(e, "/images/json", key, value, err);
    const json_t *rows = json_object_get(doc, "rows");

    if (!doc)
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
    size_t before, left = 1;

    if (remove_containers(e, key, value, containers, err) < 0)
        return -1;
    for (int i = 0; i < IMAGE_ROUNDS && left; i++) {
        before = *images;
        if (remove_round(e, key, value, images, &left, err) < 0)
            return -1;
        if (*images == before)
            break;
    }
    return left == 0 ? 0
                     : error_set(err, ERR_EXISTS,
                                 "the engine at %s does not let go of %zu images with the label "
                                 "%s=%s",
                                 e->socket, left, key, value);
}
