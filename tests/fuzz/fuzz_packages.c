/*
 * First byte: 0 a dpkg database, 1 apk's, and where it is cut in two; 2 a package header of rpm; 5
 * its own database. What comes out goes into a bill of materials, which has to be JSON.
 */
#include "oci/sbom.h"

#include <jansson.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void write_it(const struct package_list *l)
{
    AUTO_BUF struct buf text = BUF(SBOM_MAX);
    const struct image image = {0};
    const struct sbom_input in = {
        .name = "fuzz:1", .image = &image, .packages = l, .tool_version = "0"};
    json_t *doc;

    if (sbom_write(&in, &text, NULL) < 0)
        return;
    doc = json_loadb((const char *)text.ptr, text.len, JSON_REJECT_DUPLICATES, NULL);
    if (!doc || json_array_size(json_object_get(doc, "packages")) != l->count + 1)
        abort();
    json_decref(doc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO_PACKAGE_LIST struct package_list l = {0};
    struct package_reader *r;
    size_t cut;
    int rc;

    if (size == 0)
        return 0;
    if (data[0] % 3 == PACKAGE_RPM) {
        const struct slice rest = slice_of(data + 1, size - 1);

        if ((data[0] == 5 ? packages_read_ndb : packages_read_rpm_header)(rest, &l, NULL) == 0)
            write_it(&l);
        return 0;
    }
    r = package_reader_new(data[0] % 3, &l);
    cut = 1 + (data[0] / 3) % size;
    rc = package_reader_feed(r, slice_of(data + 1, cut - 1), NULL);
    if (rc == 0)
        rc = package_reader_feed(r, slice_of(data + cut, size - cut), NULL);
    if (package_reader_end(r, NULL) < 0 || rc < 0)
        return 0;
    packages_read_os(slice_of(data + 1, size - 1), &l);
    for (size_t i = 0; i < l.count; i++)
        if (!l.items[i].name || !l.items[i].version)
            abort();
    write_it(&l);
    return 0;
}
