#include "inject.h"

#include "api/reservoir.h"
#include "base/file.h"
#include "base/text.h"
#include "crypto/p384_box.h"
#include "crypto/secp256k1.h"

#define FILE_MAX (1 << 20)

static struct buf eth = BUF_SECRET(K256_SECRET_LEN), encryption = BUF_SECRET(P384_SECRET_LEN),
                  nonces = BUF(FILE_MAX);

static int take_line(struct slice line, struct error *err)
{
    static const struct {
        const char *name;
        struct buf *to;
        size_t len;
    } kinds[] = {{"eth ", &eth, K256_SECRET_LEN},
                 {"encryption ", &encryption, P384_SECRET_LEN},
                 {"nonce ", &nonces, P384_BOX_NONCE_LEN}};

    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        size_t skip = strlen(kinds[i].name);

        if (line.len == skip + 2 * kinds[i].len && memcmp(line.ptr, kinds[i].name, skip) == 0)
            return hex_decode_buf(slice_of(line.ptr + skip, line.len - skip), kinds[i].to);
    }
    return error_set(err, ERR_INVALID, "not a line of the injection file");
}

int inject_read(const char *path, struct error *err)
{
    AUTO_BUF struct buf text = BUF_SECRET(FILE_MAX);
    struct slice rest;

    if (file_read(path, &text, err) < 0)
        return -1;
    rest = buf_slice(&text);
    while (rest.len) {
        const uint8_t *end = memchr(rest.ptr, '\n', rest.len);
        size_t len = end ? (size_t)(end - rest.ptr) : rest.len, used = len + (end != NULL);

        if (take_line(slice_of(rest.ptr, len), err) < 0)
            return -1;
        rest = slice_of(rest.ptr + used, rest.len - used);
    }
    return 0;
}

void inject_wipe(void)
{
    buf_free(&eth);
    buf_free(&encryption);
    buf_free(&nonces);
}

/* ---- what the linker calls instead ---- */

struct k256_key *__real_k256_key_draw(const struct entropy *from, struct error *err);
struct k256_key *__wrap_k256_key_draw(const struct entropy *from, struct error *err);
struct p384_key *__real_p384_key_draw(const struct entropy *from, struct error *err);
struct p384_key *__wrap_p384_key_draw(const struct entropy *from, struct error *err);
void __real_reservoir_take(struct reservoir *r, uint8_t *out, size_t len);
void __wrap_reservoir_take(struct reservoir *r, uint8_t *out, size_t len);

/* Each is used once and then lies nowhere but in the key. */
struct k256_key *__wrap_k256_key_draw(const struct entropy *from, struct error *err)
{
    struct k256_key *key;

    if (eth.len == 0)
        return __real_k256_key_draw(from, err);
    key = k256_key_from_bytes(eth.ptr);
    buf_free(&eth);
    return key;
}

struct p384_key *__wrap_p384_key_draw(const struct entropy *from, struct error *err)
{
    struct p384_key *key;

    if (encryption.len == 0)
        return __real_p384_key_draw(from, err);
    key = p384_key_from_bytes(encryption.ptr);
    buf_free(&encryption);
    return key;
}

/* Of the API's draws only nonces have their length. */
void __wrap_reservoir_take(struct reservoir *r, uint8_t *out, size_t len)
{
    __real_reservoir_take(r, out, len);
    if (len != P384_BOX_NONCE_LEN || nonces.len == 0)
        return;
    memcpy(out, nonces.ptr, len);
    buf_consume(&nonces, len);
}
