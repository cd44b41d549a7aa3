#include "codec/dns.h"

#define CLASS_IN      1
#define FLAG_REPLY    0x8000
#define FLAG_CUT      0x0200
#define FLAG_RECURSE  0x0100 /* please look further yourself */
#define RCODE         0x000f
#define RCODE_NO_NAME 3
#define LABEL_MAX     63
#define NAME_MAX_LEN  253

static bool put16(struct buf *out, uint16_t v)
{
    uint8_t bytes[2];

    put_be16(bytes, v);
    return buf_append(out, bytes, sizeof(bytes)) == 0;
}

static bool put_name(struct buf *out, struct slice name)
{
    while (name.len) {
        const uint8_t *dot = memchr(name.ptr, '.', name.len);
        size_t len = dot ? (size_t)(dot - name.ptr) : name.len;

        if (len == 0 || len > LABEL_MAX || len + 1 == name.len ||
            buf_append_byte(out, (uint8_t)len) < 0 || buf_append(out, name.ptr, len) < 0)
            return false;
        if (!dot)
            break;
        name = slice_of(dot + 1, name.len - len - 1);
    }
    return buf_append_byte(out, 0) == 0;
}

int dns_query_write(uint16_t id, const char *name, enum dns_type type, struct buf *out,
                    struct error *err)
{
    const uint16_t head[] = {id, FLAG_RECURSE, 1, 0, 0, 0};
    struct slice text = slice_str(name);
    bool ok = true;

    if (text.len && text.ptr[text.len - 1] == '.')
        text.len--;
    for (size_t i = 0; i < ARRAY_LEN(head); i++)
        ok = ok && put16(out, head[i]);
    if (!ok || text.len == 0 || text.len > NAME_MAX_LEN || !put_name(out, text) ||
        !put16(out, (uint16_t)type) || !put16(out, CLASS_IN))
        return error_set(err, ERR_INVALID, "%s cannot be asked for", name);
    return 0;
}

/* To the end of a name, which may be the place of another one. */
static bool skip_name(struct reader *r)
{
    struct slice label;
    uint8_t n;

    while (reader_u8(r, &n)) {
        if (n == 0)
            return true;
        if ((n & 0xc0) == 0xc0)
            return reader_u8(r, &n);
        if (n > LABEL_MAX || !reader_take(r, n, &label))
            return false;
    }
    return false;
}

static bool skip_questions(struct reader *r, uint16_t count)
{
    uint32_t type_and_class;

    for (; count > 0; count--)
        if (!skip_name(r) || !reader_be32(r, &type_and_class))
            return false;
    return true;
}

/* One record of the answer; its address goes to *out, whose family is 0 when it is another kind. */
static bool take_record(struct reader *r, enum dns_type want, struct ip_addr *out)
{
    const size_t size = want == DNS_A ? 4 : 16;
    uint16_t type, class, len;
    struct slice data;
    uint32_t ttl;

    *out = (struct ip_addr){0};
    if (!skip_name(r) || !reader_be16(r, &type) || !reader_be16(r, &class) ||
        !reader_be32(r, &ttl) || !reader_be16(r, &len) || !reader_take(r, len, &data))
        return false;
    if (type != want || class != CLASS_IN)
        return true;
    if (len != size)
        return false;
    out->family = want == DNS_A ? 4 : 6;
    memcpy(out->bytes, data.ptr, size);
    return true;
}

int dns_reply_parse(struct slice message, uint16_t id, enum dns_type type, struct ip_addr *out,
                    size_t max, size_t *count, struct error *err)
{
    struct reader r = reader_of(message);
    uint16_t got_id, flags, questions, answers;
    uint32_t others;
    size_t n = 0;

    if (!reader_be16(&r, &got_id) || !reader_be16(&r, &flags) || !reader_be16(&r, &questions) ||
        !reader_be16(&r, &answers) || !reader_be32(&r, &others) || got_id != id ||
        !(flags & FLAG_REPLY))
        return error_set(err, ERR_INVALID, "the name server sends something else than an answer");
    if ((flags & RCODE) == RCODE_NO_NAME)
        return error_set(err, ERR_NOT_FOUND, "no such name");
    if (flags & RCODE)
        return error_set(err, ERR_NET, "the name server answers with code %d", flags & RCODE);
    if ((flags & FLAG_CUT) || !skip_questions(&r, questions))
        return error_set(err, ERR_INVALID, "the name server's answer is cut off");
    for (; answers > 0 && n < max; answers--) {
        if (!take_record(&r, type, &out[n]))
            return error_set(err, ERR_INVALID, "the name server's answer is damaged");
        if (out[n].family)
            n++;
    }
    *count = n;
    return 0;
}
