#include "man/manifest_page.h"

#include "man/page.h"
#include "manifest/schema.h"

#include <inttypes.h>
#include <stdlib.h>

#define TEXT_MAX 4096

static void append(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void append(struct buf *b, const char *fmt, ...)
{
    AUTO_FREE char *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0 || buf_append_str(b, text) < 0)
        abort(); /* rows of the table are short */
    va_end(ap);
}

static void describe_number(const struct schema_field *f, struct buf *b)
{
    append(b, "a number from %" PRIu64, f->min);
    if (f->max != UINT64_MAX)
        append(b, " to %" PRIu64, f->max);
    if (f->fallback || (!f->required && !f->zero_is_absent))
        append(b, "; default %" PRIu64, f->fallback);
}

static void describe_choices(const struct schema_field *f, struct buf *b)
{
    const char *fallback = schema_choice_name(f, (int)f->fallback);

    append(b, f->choices[1].name ? "one of" : "only");
    for (const struct schema_choice *c = f->choices; c->name; c++)
        append(b, "%s `%s`", c == f->choices ? "" : ",", c->name);
    if (!f->required && fallback)
        append(b, "; default `%s`", fallback);
}

/* The value as a reader sees it: type, limits, default. */
static void describe(const struct schema_field *f, struct buf *b)
{
    append(b, f->required ? "Required: " : "Optional: ");
    switch (f->type) {
    case SCHEMA_STRING:
        append(b, "text");
        if (f->fallback_text)
            append(b, "; default `%s`", f->fallback_text);
        break;
    case SCHEMA_BOOL:
        append(b, "true or false; default %s", f->fallback ? "true" : "false");
        break;
    case SCHEMA_ENUM:
        describe_choices(f, b);
        break;
    case SCHEMA_MAP:
        append(b, "a mapping%s of",
               f->implied ? ", in effect with its defaults without being named," : "");
        break;
    case SCHEMA_LIST:
        append(b, "a list");
        if (f->max)
            append(b, " of at most %" PRIu64 " entries", f->max);
        append(b, ", each a mapping of");
        break;
    case SCHEMA_STRINGS:
        append(b, "a list of texts");
        if (f->max)
            append(b, ", at most %" PRIu64, f->max);
        break;
    default:
        describe_number(f, b);
    }
}

static void write_object(struct page *p, const struct schema_object *o)
{
    for (const struct schema_field *f = o->fields; f < o->fields + o->count; f++) {
        AUTO_BUF struct buf b = BUF(TEXT_MAX);
        bool nested = f->type == SCHEMA_MAP || f->type == SCHEMA_LIST;

        append(&b, "%s.\n", f->about);
        describe(f, &b);
        append(&b, nested ? ":" : ".");
        page_item(p, slice_str(f->key));
        page_text(p, buf_slice(&b));
        if (nested) {
            page_indent(p);
            write_object(p, f->object);
            page_outdent(p);
        }
    }
}

void manifest_page_write(const char *dir)
{
    struct page p = page_open(dir, "capsule.yaml", 5, "manifest of a Capsule enclave");

    page_heading(&p, "DESCRIPTION");
    page_text(&p,
              slice_str("The manifest says what goes into an enclave and what it may do there.\n"
                        "`capsule-cli build` reads it and copies it byte for byte into the image.\n"
                        "It is YAML; keys that are not listed here are errors, and\n"
                        "`capsule-cli validate` reports all problems with their places."));
    page_heading(&p, "KEYS");
    write_object(&p, &schema_root);
    page_heading(&p, "EXAMPLE");
    page_example(&p, slice_str("version: v1\n"
                               "name: hello\n"
                               "target: hello:latest\n"
                               "sources: {app: dir:rootfs}\n"
                               "ingress: [{listen_port: 8080}]"));
    page_heading(&p, "\"SEE ALSO\"");
    page_text(&p, slice_str("`capsule-cli-validate`(1), `capsule-cli-explain`(1), "
                            "`capsule-cli-schema`(1), `capsule-cli-build`(1)"));
    page_close(&p);
}
