#include "api/keys.h"

#include "base/log.h"
#include "base/text.h"
#include "crypto/library.h"

int api_keys_draw(struct api_keys *keys, struct nsm *nsm, struct error *err)
{
    struct entropy_mix mix = {.a = {nsm_fill, nsm}, .b = entropy_kernel};
    const struct entropy source = {entropy_mix_fill, &mix};
    char point[2 * P384_POINT_LEN + 1];

    if (!crypto_guard_keys())
        log_warn("api",
                 "the kernel does not lock the keys' memory: raise the limit of locked memory");
    keys->eth = k256_key_draw(&source, err);
    if (!keys->eth)
        return error_wrap(err, "drawing the Ethereum key");
    keys->encryption = p384_key_draw(&source, err);
    if (!keys->encryption) {
        api_keys_free(keys);
        return error_wrap(err, "drawing the encryption key");
    }
    k256_key_point(keys->eth, keys->eth_point);
    p384_key_point(keys->encryption, keys->encryption_point);
    eth_address_text(keys->eth_point, keys->address);
    hex_encode(slice_of(keys->encryption_point, P384_POINT_LEN), point);
    log_info("api", "keys drawn", kv_str("origin", "nsm and kernel"),
             kv_str("address", keys->address), kv_str("encryption_point", point));
    return 0;
}

void api_keys_free(struct api_keys *keys)
{
    k256_key_free(keys->eth);
    p384_key_free(keys->encryption);
    memset(keys, 0, sizeof(*keys));
}
