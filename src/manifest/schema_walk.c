/* The small walks over the schema table. */
#include "manifest/schema.h"

/* Members that the table types describe; the walks rely on these shapes. */
_Static_assert(sizeof(enum manifest_user) == sizeof(int), "SCHEMA_ENUM is read as an int");
_Static_assert(sizeof(struct schema_list) == sizeof(struct manifest_strings) &&
                   sizeof(struct schema_list) == sizeof(struct manifest_mount_list) &&
                   offsetof(struct manifest_strings, count) == offsetof(struct schema_list, count),
               "lists are read as struct schema_list");

size_t schema_entry_size(const struct schema_field *f)
{
    return f->type == SCHEMA_STRINGS ? sizeof(char *) : f->object->size;
}

uint64_t schema_get_number(const struct schema_field *f, const void *base)
{
    const void *at = (const char *)base + f->offset;

    switch (f->type) {
    case SCHEMA_BOOL:
        return *(const bool *)at;
    case SCHEMA_U16:
        return *(const uint16_t *)at;
    case SCHEMA_I32:
    case SCHEMA_ENUM:
        return (uint64_t) * (const int32_t *)at;
    case SCHEMA_U32:
        return *(const uint32_t *)at;
    case SCHEMA_U64:
        return *(const uint64_t *)at;
    default:
        return 0;
    }
}

void schema_set_number(const struct schema_field *f, void *base, uint64_t value)
{
    void *at = (char *)base + f->offset;

    switch (f->type) {
    case SCHEMA_BOOL:
        *(bool *)at = value != 0;
        break;
    case SCHEMA_U16:
        *(uint16_t *)at = (uint16_t)value;
        break;
    case SCHEMA_I32:
    case SCHEMA_ENUM:
        *(int32_t *)at = (int32_t)value;
        break;
    case SCHEMA_U32:
        *(uint32_t *)at = (uint32_t)value;
        break;
    case SCHEMA_U64:
        *(uint64_t *)at = value;
        break;
    default:
        break;
    }
}

const char *schema_choice_name(const struct schema_field *f, int value)
{
    for (const struct schema_choice *c = f->choices; c->name; c++)
        if (c->value == value)
            return c->name;
    return NULL;
}

void schema_set_defaults(const struct schema_object *o, void *base)
{
    for (const struct schema_field *f = o->fields; f < o->fields + o->count; f++) {
        void *at = (char *)base + f->offset;

        if (f->type == SCHEMA_MAP)
            schema_set_defaults(f->object, at);
        else if (f->type == SCHEMA_STRING)
            *(char **)at = f->fallback_text ? xstrdup(f->fallback_text) : NULL;
        else
            schema_set_number(f, base, f->fallback);
    }
}

static void free_list(const struct schema_field *f, struct schema_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        if (f->type == SCHEMA_STRINGS)
            free(((char **)list->items)[i]);
        else
            schema_free(f->object, (char *)list->items + i * f->object->size);
    }
    free(list->items);
    *list = (struct schema_list){0};
}

void schema_free(const struct schema_object *o, void *base)
{
    for (const struct schema_field *f = o->fields; f < o->fields + o->count; f++) {
        void *at = (char *)base + f->offset;

        if (f->type == SCHEMA_MAP) {
            schema_free(f->object, at);
        } else if (f->type == SCHEMA_STRING) {
            free(*(char **)at);
            *(char **)at = NULL;
        } else if (f->type == SCHEMA_LIST || f->type == SCHEMA_STRINGS) {
            free_list(f, at);
        }
    }
}
