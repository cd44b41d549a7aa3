/* First byte: 0 a reference, 1 a WWW-Authenticate field, 2 a registries.conf. */
#include "base/strv.h"
#include "oci/challenge.h"
#include "oci/reference.h"
#include "oci/registry_hosts.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is accepted goes into URLs. */
static void must_be_plain(const char *text)
{
    for (; text && *text; text++)
        if (*text <= 0x20 || *text >= 0x7f || strchr("?#%&\"\\", *text))
            abort();
}

static void reference(struct slice text)
{
    AUTO_REFERENCE struct reference r = {0};

    if (reference_parse(text, &r, NULL) < 0)
        return;
    if (!r.name || !r.name[0] || r.name[0] == '/' || strstr(r.name, "..") || (!r.tag && !r.pinned))
        abort();
    must_be_plain(r.host);
    must_be_plain(r.name);
    must_be_plain(r.tag);
    if (r.host)
        (void)reference_host_is_loopback(r.host);
}

static void challenge(struct slice text)
{
    AUTO_CHALLENGE struct challenge c = {0};

    if (challenge_parse(text, &c, NULL) == 0 && c.scheme == CHALLENGE_BEARER && !c.realm)
        abort();
}

static void conf(struct slice text)
{
    AUTO_STRV char **hosts = NULL;

    (void)registries_conf_parse(text, &hosts, NULL);
    for (char **h = hosts; h && *h; h++)
        must_be_plain(*h);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const parsers[])(struct slice) = {reference, challenge, conf};

    if (size > 0)
        parsers[data[0] % ARRAY_LEN(parsers)](slice_of(data + 1, size - 1));
    return 0;
}
