#include "crypto/entropy.h"

#include "crypto/hash.h"

#include <errno.h>
#include <sys/random.h>

static int fill_from_kernel(void *arg, uint8_t *out, size_t len, struct error *err)
{
    (void)arg;
    while (len > 0) {
        ssize_t got = getrandom(out, len, 0);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_sys(err, errno, "getrandom");
        out += got;
        len -= (size_t)got;
    }
    return 0;
}

const struct entropy entropy_kernel = {.fill = fill_from_kernel};

int entropy_mix_fill(void *mix, uint8_t *out, size_t len, struct error *err)
{
    const struct entropy_mix *m = mix;
    uint8_t parts[2 * ENTROPY_MIX_MAX], digest[SHA512_LEN];
    int ret = -1;

    if (len > ENTROPY_MIX_MAX)
        return error_set(err, ERR_INTERNAL, "more than %d mixed random bytes at once",
                         ENTROPY_MIX_MAX);
    if (m->a.fill(m->a.arg, parts, len, err) == 0 &&
        m->b.fill(m->b.arg, parts + len, len, err) == 0) {
        hash_once(HASH_SHA512, slice_of(parts, 2 * len), digest);
        memcpy(out, digest, len);
        ret = 0;
    }
    mem_wipe(parts, sizeof(parts));
    mem_wipe(digest, sizeof(digest));
    return ret;
}
