/* The schema table as JSON Schema, for editors and other tools. */
#include "manifest/manifest_json.h"
#include "manifest/schema.h"

static json_t *object_schema(const struct schema_object *o);

/* A type, or several of them; an optional value may be null, which means absent. */
static json_t *types(const char *const *names, size_t count, bool nullable)
{
    json_t *array;

    if (count == 1 && !nullable)
        return json_string(names[0]);
    array = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(array, json_string(names[i]));
    if (nullable)
        json_array_append_new(array, json_string("null"));
    return array;
}

static void set_type(json_t *s, const char *name, bool nullable)
{
    json_object_set_new(s, "type", types(&name, 1, nullable));
}

/* YAML numbers and booleans are taken literally where text is wanted: `version: 1` is "1". */
static void string_schema(json_t *s, const struct schema_field *f, bool nullable, bool may_be_empty)
{
    static const char *const scalar[] = {"string", "number", "boolean"};

    json_object_set_new(s, "type", types(scalar, ARRAY_LEN(scalar), nullable));
    if (!may_be_empty)
        json_object_set_new(s, "minLength", json_integer(1));
    if (f->pattern)
        json_object_set_new(s, "pattern", json_string(f->pattern));
}

static void number_schema(json_t *s, const struct schema_field *f, bool nullable)
{
    set_type(s, "integer", nullable);
    json_object_set_new(s, "minimum", json_integer((json_int_t)f->min));
    /* 2^64 - 1 is no bound that a JSON tool could read exactly. */
    if (f->max != UINT64_MAX)
        json_object_set_new(s, "maximum", json_integer((json_int_t)f->max));
    if (f->fallback || (!f->required && !f->zero_is_absent))
        json_object_set_new(s, "default", json_integer((json_int_t)f->fallback));
}

static void enum_schema(json_t *s, const struct schema_field *f, bool nullable)
{
    json_t *names = json_array();
    const char *fallback = schema_choice_name(f, (int)f->fallback);

    for (const struct schema_choice *c = f->choices; c->name; c++)
        json_array_append_new(names, json_string(c->name));
    if (nullable)
        json_array_append_new(names, json_null());
    json_object_set_new(s, "enum", names);
    if (nullable && fallback)
        json_object_set_new(s, "default", json_string(fallback));
}

static void list_schema(json_t *s, const struct schema_field *f, bool nullable)
{
    json_t *items = f->type == SCHEMA_LIST ? object_schema(f->object) : json_object();

    set_type(s, "array", nullable);
    if (f->type == SCHEMA_STRINGS)
        string_schema(items, f, false, false);
    json_object_set_new(s, "items", items);
    if (f->max)
        json_object_set_new(s, "maxItems", json_integer((json_int_t)f->max));
}

static json_t *field_schema(const struct schema_field *f)
{
    bool nullable = !f->required;
    json_t *s = json_object();

    switch (f->type) {
    case SCHEMA_STRING:
        string_schema(s, f, nullable, !f->required || f->empty_is_ok);
        if (f->fallback_text)
            json_object_set_new(s, "default", json_string(f->fallback_text));
        break;
    case SCHEMA_BOOL:
        set_type(s, "boolean", nullable);
        json_object_set_new(s, "default", json_boolean(f->fallback));
        break;
    case SCHEMA_ENUM:
        enum_schema(s, f, nullable);
        break;
    case SCHEMA_MAP:
        json_decref(s);
        s = object_schema(f->object);
        set_type(s, "object", nullable);
        break;
    case SCHEMA_LIST:
    case SCHEMA_STRINGS:
        list_schema(s, f, nullable);
        break;
    default:
        number_schema(s, f, nullable);
    }
    json_object_set_new(s, "description", json_string(f->about));
    return s;
}

static json_t *object_schema(const struct schema_object *o)
{
    json_t *s = json_object(), *properties = json_object(), *required = json_array();

    json_object_set_new(s, "type", json_string("object"));
    json_object_set_new(s, "additionalProperties", json_false());
    for (const struct schema_field *f = o->fields; f < o->fields + o->count; f++) {
        json_object_set_new(properties, f->key, field_schema(f));
        if (f->required)
            json_array_append_new(required, json_string(f->key));
    }
    json_object_set_new(s, "properties", properties);
    if (json_array_size(required))
        json_object_set(s, "required", required);
    json_decref(required);
    return s;
}

json_t *manifest_schema_json(void)
{
    json_t *whole = json_object(), *root = object_schema(&schema_root);

    json_object_set_new(whole, "$schema",
                        json_string("https://json-schema.org/draft/2020-12/schema"));
    json_object_set_new(whole, "title", json_string("Capsule manifest (capsule.yaml)"));
    json_object_update(whole, root);
    json_decref(root);
    return whole;
}
