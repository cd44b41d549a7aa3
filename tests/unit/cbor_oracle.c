#include "cbor_oracle.h"

#include <cbor.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- random items ---- */

static uint64_t random_value(uint64_t *seed)
{
    static const unsigned int bits[] = {4, 5, 8, 16, 32, 63};
    unsigned int width = bits[oracle_next(seed) % 6];

    return oracle_next(seed) & ((UINT64_C(1) << width) - 1);
}

/* In the shortest width or a wider one. */
static cbor_item_t *random_int(uint64_t *seed, uint64_t value)
{
    unsigned int width = (unsigned int)(oracle_next(seed) % 4);
    cbor_item_t *item;

    if (value <= UINT8_MAX && width == 0)
        item = cbor_build_uint8((uint8_t)value);
    else if (value <= UINT16_MAX && width <= 1)
        item = cbor_build_uint16((uint16_t)value);
    else if (value <= UINT32_MAX && width <= 2)
        item = cbor_build_uint32((uint32_t)value);
    else
        item = cbor_build_uint64(value);
    if (oracle_next(seed) % 2)
        cbor_mark_negint(item);
    return item;
}

static cbor_item_t *random_string(uint64_t *seed, bool text, char prefix)
{
    char bytes[301];
    size_t len = (size_t)(oracle_next(seed) % (oracle_next(seed) % 8 ? 12 : 300)) + 1;

    for (size_t i = 0; i < len; i++)
        bytes[i] = text ? (char)('a' + oracle_next(seed) % 26) : (char)oracle_next(seed);
    bytes[0] = prefix;
    return text ? cbor_build_stringn(bytes, len) : cbor_build_bytestring((cbor_data)bytes, len);
}

static cbor_item_t *random_item(uint64_t *seed, int depth);

static cbor_item_t *random_container(uint64_t *seed, int depth, bool map)
{
    size_t count = (size_t)(oracle_next(seed) % 6);
    bool open = oracle_next(seed) % 2;
    cbor_item_t *item = map    ? open ? cbor_new_indefinite_map() : cbor_new_definite_map(count)
                           : open ? cbor_new_indefinite_array()
                               : cbor_new_definite_array(count);

    for (size_t i = 0; i < count; i++) {
        if (!map) {
            (void)!cbor_array_push(item, cbor_move(random_item(seed, depth + 1)));
        } else {
            /* the first character makes the keys differ */
            cbor_item_t *key = i == 0 ? random_int(seed, random_value(seed))
                                      : random_string(seed, i % 2, (char)('A' + i));

            (void)!cbor_map_add(
                item, (struct cbor_pair){cbor_move(key), cbor_move(random_item(seed, depth + 1))});
        }
    }
    return item;
}

static cbor_item_t *random_item(uint64_t *seed, int depth)
{
    switch (oracle_next(seed) % (depth < 6 ? 8 : 5)) {
    case 0:
    case 1:
        return random_int(seed, random_value(seed));
    case 2:
        return random_string(seed, false, 'x');
    case 3:
        return random_string(seed, true, 'x');
    case 4:
        return oracle_next(seed) % 3 ? cbor_build_bool(oracle_next(seed) % 2) : cbor_new_null();
    case 5:
        return random_container(seed, depth, false);
    case 6:
        return random_container(seed, depth, true);
    default:
        return cbor_build_tag(random_value(seed) + ORACLE_TAG_MIN,
                              cbor_move(random_item(seed, depth + 1)));
    }
}

size_t oracle_write(uint64_t *seed, uint8_t *out, size_t size)
{
    cbor_item_t *item;
    size_t len;

    do {
        item = random_item(seed, 0);
        len = cbor_serialize(item, out, size);
        cbor_decref(&item);
    } while (len == 0); /* too large for `out`: another one */
    return len;
}

/* ---- rendering ---- */

static void render(FILE *out, cbor_item_t *item);

static void render_bytes(FILE *out, char kind, const uint8_t *bytes, size_t len)
{
    fprintf(out, "%c'", kind);
    for (size_t i = 0; i < len; i++)
        fprintf(out, "%02x", bytes[i]);
    fputc('\'', out);
}

static void render_array(FILE *out, cbor_item_t *item)
{
    fputs(cbor_array_is_definite(item) ? "[" : "[_", out);
    for (size_t i = 0; i < cbor_array_size(item); i++) {
        if (i)
            fputc(',', out);
        render(out, cbor_array_handle(item)[i]);
    }
    fputc(']', out);
}

static void render_map(FILE *out, cbor_item_t *item)
{
    fputs(cbor_map_is_definite(item) ? "{" : "{_", out);
    for (size_t i = 0; i < cbor_map_size(item); i++) {
        if (i)
            fputc(',', out);
        render(out, cbor_map_handle(item)[i].key);
        fputc(':', out);
        render(out, cbor_map_handle(item)[i].value);
    }
    fputc('}', out);
}

static void render(FILE *out, cbor_item_t *item)
{
    cbor_item_t *inner;

    switch (cbor_typeof(item)) {
    case CBOR_TYPE_UINT:
        fprintf(out, "%llu", (unsigned long long)cbor_get_int(item));
        break;
    case CBOR_TYPE_NEGINT:
        fprintf(out, "~%llu", (unsigned long long)cbor_get_int(item));
        break;
    case CBOR_TYPE_BYTESTRING:
        render_bytes(out, 'h', cbor_bytestring_handle(item), cbor_bytestring_length(item));
        break;
    case CBOR_TYPE_STRING:
        render_bytes(out, 't', cbor_string_handle(item), cbor_string_length(item));
        break;
    case CBOR_TYPE_ARRAY:
        render_array(out, item);
        break;
    case CBOR_TYPE_MAP:
        render_map(out, item);
        break;
    case CBOR_TYPE_TAG:
        inner = cbor_tag_item(item);
        fprintf(out, "%llu(", (unsigned long long)cbor_tag_value(item));
        render(out, inner);
        fputc(')', out);
        cbor_decref(&inner);
        break;
    case CBOR_TYPE_FLOAT_CTRL:
        fputs(cbor_is_null(item)    ? "null"
              : !cbor_is_bool(item) ? "?"
              : cbor_get_bool(item) ? "true"
                                    : "false",
              out);
        break;
    }
}

char *oracle_render(const uint8_t *bytes, size_t len)
{
    struct cbor_load_result result;
    cbor_item_t *item = cbor_load(bytes, len, &result);
    char *text = NULL;
    size_t size = 0;
    FILE *out;

    if (!item || result.read != len) {
        if (item)
            cbor_decref(&item);
        return NULL;
    }
    out = open_memstream(&text, &size);
    render(out, item);
    fclose(out);
    cbor_decref(&item);
    return text;
}
