#include "launch/launcher.h"

#include "base/slice.h"
#include "launch/nitro.h"
#include "launch/nitro_cli.h"
#include "launch/qemu.h"
#include "launch/sandbox.h"

#include <string.h>

const struct launcher_ops *const launchers_all[] = {
    &nitro_launcher, &nitro_cli_launcher, &qemu_launcher, &sandbox_launcher, NULL,
};

const struct launcher_ops *launcher_find(const char *name, struct error *err)
{
    AUTO_BUF struct buf names = BUF(256);

    for (const struct launcher_ops *const *l = launchers_all; *l; l++) {
        if (strcmp((*l)->name, name) == 0)
            return *l;
        if (buf_printf(&names, ", %s", (*l)->name) < 0)
            break;
    }
    error_set(err, ERR_USAGE, "%s: no such launcher; there are auto%s", name, buf_cstr(&names));
    return NULL;
}

static const struct launcher_ops *chosen(const struct launcher_ops *l, struct buf *reasons)
{
    log_info("launcher", "chosen: the first that suits this machine", kv_str("launcher", l->name),
             kv_str("before", buf_cstr(reasons)));
    return l;
}

const struct launcher_ops *launcher_auto(struct error *err)
{
    const struct launcher_ops *at_least = NULL; /* it can, but others would be better */
    AUTO_BUF struct buf reasons = BUF(4096);
    struct error why = {0};

    for (size_t i = 0; launchers_all[i]; i++) {
        const struct launcher_ops *l = launchers_all[i];

        if (l->probe(&why) == 0) {
            if (!l->recommend || l->recommend(&why) == 0)
                return chosen(l, &reasons);
            at_least = at_least ? at_least : l;
        }
        (void)!buf_printf(&reasons, "%s%s: %s", reasons.len ? "; " : "", l->name, why.msg);
    }
    if (at_least)
        return chosen(at_least, &reasons);
    error_set(err, ERR_UNSUPPORTED, "no launcher works on this machine: %s", buf_cstr(&reasons));
    if (why.hint[0])
        error_hint(err, "%s", why.hint);
    return NULL;
}

const struct launcher_ops *launcher_choose(const char *name, struct error *err)
{
    const struct launcher_ops *l;

    if (!name || strcmp(name, "auto") == 0)
        return launcher_auto(err);
    l = launcher_find(name, err);
    if (!l || l->probe(err) == 0)
        return l;
    error_wrap(err, "launcher %s", name);
    return NULL;
}
