#include "crypto/entropy.h"

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
