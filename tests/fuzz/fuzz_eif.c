/* The whole reading side over one input as a file: structure, measuring, metadata, signature. */
#include "base/file.h"
#include "eif/eif.h"
#include "eif/metadata.h"
#include "eif/sign.h"

#include <stdlib.h>
#include <sys/mman.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NOW INT64_C(1768478400)

static void read_signature(int fd, const struct eif_section *section,
                           const struct eif_measurements *m)
{
    CLEANUP(eif_signature_free) struct eif_signature s = EIF_SIGNATURE_NONE;
    CLEANUP(eif_certificate_free) struct eif_certificate c = EIF_CERTIFICATE_NONE;
    struct error err;

    if (eif_signature_read(fd, "input", section, &s, &err) == 0 &&
        eif_certificate_parse(buf_slice(&s.certificate_pem), &c, &err) == 0)
        eif_signature_verify(&s, &c, m->pcr0, NOW, &err);
}

static void read_metadata(int fd, const struct eif_section *section)
{
    AUTO_BUF struct buf bytes = BUF(EIF_METADATA_MAX);
    struct error err;

    if (eif_read_section(fd, "input", section, &bytes, &err) == 0)
        json_decref(eif_metadata_parse(buf_slice(&bytes), &err));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    const struct eif_section *section;
    struct eif_measurements m;
    struct eif_info info;
    enum eif_fault fault;
    struct error err;
    uint64_t sum = 548;
    uint32_t crc;

    if (fd < 0)
        fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (ftruncate(fd, 0) < 0 || lseek(fd, 0, SEEK_SET) < 0 ||
        fd_write_all(fd, data, size, "input", &err) < 0)
        abort();
    if (eif_read_info(fd, "input", &info, &fault, &err) < 0)
        return 0;
    /* An accepted table covers the file without a gap. */
    for (unsigned int i = 0; i < info.count; i++)
        sum += 12 + info.sections[i].size;
    if (fault != EIF_SOUND || sum != size || eif_measure_fd(fd, "input", &info, &m, &crc, &err) < 0)
        abort();
    section = eif_section_find(&info, EIF_SIGNATURE, 0);
    if (section)
        read_signature(fd, section, &m);
    section = eif_section_find(&info, EIF_METADATA, 0);
    if (section)
        read_metadata(fd, section);
    return 0;
}
