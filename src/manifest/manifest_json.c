#include "manifest/manifest_json.h"

#include "manifest/schema.h"

static json_t *object_json(const struct schema_object *o, const void *base);

static json_t *list_json(const struct schema_field *f, const struct schema_list *list)
{
    json_t *array = json_array();

    for (size_t i = 0; i < list->count; i++) {
        if (f->type == SCHEMA_STRINGS)
            json_array_append_new(array, json_string(((char **)list->items)[i]));
        else
            json_array_append_new(
                array, object_json(f->object, (char *)list->items + i * f->object->size));
    }
    return array;
}

/* What does not fit jansson's integers is given as text: exact, if of another type. */
static json_t *number_json(uint64_t value)
{
    if (value > INT64_MAX)
        return json_sprintf("%llu", (unsigned long long)value);
    return json_integer((json_int_t)value);
}

/* NULL: the value is absent. */
static json_t *field_json(const struct schema_field *f, const void *base)
{
    const void *at = (const char *)base + f->offset;
    uint64_t number = schema_get_number(f, base);

    switch (f->type) {
    case SCHEMA_STRING:
        return *(char *const *)at ? json_string(*(char *const *)at) : NULL;
    case SCHEMA_BOOL:
        return json_boolean(number);
    case SCHEMA_ENUM:
        return schema_choice_name(f, (int)number) ? json_string(schema_choice_name(f, (int)number))
                                                  : NULL;
    case SCHEMA_MAP:
        return *(const bool *)at ? object_json(f->object, at) : NULL;
    case SCHEMA_LIST:
    case SCHEMA_STRINGS:
        return list_json(f, at);
    default:
        return f->zero_is_absent && number == 0 ? NULL : number_json(number);
    }
}

static json_t *object_json(const struct schema_object *o, const void *base)
{
    json_t *object = json_object();

    for (const struct schema_field *f = o->fields; f < o->fields + o->count; f++) {
        json_t *value = field_json(f, base);

        if (value)
            json_object_set_new(object, f->key, value);
    }
    return object;
}

json_t *manifest_effective_json(const struct manifest *m)
{
    json_t *object = object_json(&schema_root, m), *effective = json_object();
    char uri[MANIFEST_PROXY_URI_SIZE];

    manifest_proxy_uri(m, uri);
    json_object_set_new(effective, "egress_enabled", json_boolean(manifest_egress_enabled(m)));
    json_object_set_new(effective, "proxy_uri", uri[0] ? json_string(uri) : json_null());
    json_object_set_new(effective, "aux_port",
                        manifest_aux_port(m) ? json_integer(manifest_aux_port(m)) : json_null());
    json_object_set_new(effective, "s3_active", json_boolean(manifest_s3_active(m)));
    json_object_set_new(effective, "kms_active", json_boolean(manifest_kms_active(m)));
    json_object_set_new(effective, "kms_registry_mode",
                        json_boolean(manifest_kms_registry_mode(m)));
    json_object_set_new(effective, "helios_active", json_boolean(manifest_helios_active(m)));
    json_object_set_new(object, "effective", effective);
    return object;
}
