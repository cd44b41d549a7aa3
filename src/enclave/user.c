#include "enclave/user.h"

#include "base/file.h"
#include "base/text.h"

#include <stdio.h>

#define FILE_MAX (1 << 20)
#define ID_MAX   4294967294u /* (uid_t)-1 means "unchanged" to the kernel */

/* Cuts the next part up to `sep`, or all that is left. */
static bool cut(struct slice *rest, char sep, struct slice *part)
{
    const uint8_t *end;

    if (!rest->ptr)
        return false;
    end = rest->len ? memchr(rest->ptr, sep, rest->len) : NULL;
    if (!end) {
        *part = *rest;
        *rest = slice_of(NULL, 0);
        return true;
    }
    *part = slice_of(rest->ptr, (size_t)(end - rest->ptr));
    *rest = slice_of(end + 1, rest->len - part->len - 1);
    return true;
}

static bool parse_id(struct slice text, uint32_t *out)
{
    uint64_t id;

    if (parse_u64(text, ID_MAX, &id) < 0)
        return false;
    *out = (uint32_t)id;
    return true;
}

struct entry {
    struct slice name, members; /* members: of a group */
    uint32_t id, gid;           /* gid: of a user */
};

/* Both files are name:password:id:... lines; what does not parse is skipped, as libc does. */
static bool parse_entry(struct slice line, bool is_user, struct entry *e)
{
    struct slice password, id, last;

    return cut(&line, ':', &e->name) && e->name.len > 0 && cut(&line, ':', &password) &&
           cut(&line, ':', &id) && parse_id(id, &e->id) && cut(&line, ':', &last) &&
           (is_user ? parse_id(last, &e->gid) : (e->members = last, true));
}

static bool find(struct slice file, bool is_user, struct slice name, const uint32_t *id,
                 struct entry *out)
{
    struct slice line;

    while (cut(&file, '\n', &line))
        if (parse_entry(line, is_user, out) &&
            (slice_equal(out->name, name) || (id && out->id == *id)))
            return true;
    return false;
}

static bool is_member(struct slice members, struct slice name)
{
    struct slice one;

    while (cut(&members, ',', &one))
        if (slice_equal(one, name))
            return true;
    return false;
}

static void add_memberships(struct slice group, struct slice name, struct user *u)
{
    struct slice line;
    struct entry e;

    while (cut(&group, '\n', &line) && u->group_count < USER_GROUPS_MAX)
        if (parse_entry(line, false, &e) && is_member(e.members, name))
            u->groups[u->group_count++] = e.id;
}

int user_resolve(const char *spec, struct slice passwd, struct slice group, struct user *out,
                 struct error *err)
{
    struct slice rest = slice_str(spec), name, group_name = {NULL, 0};
    struct user u = {0};
    struct entry e;
    uint32_t id = 0;
    bool numeric, has_group;

    cut(&rest, ':', &name);
    has_group = rest.ptr != NULL && rest.len > 0;
    if (has_group)
        group_name = rest;
    if (name.len > 0) {
        numeric = parse_id(name, &id);
        if (find(passwd, true, name, numeric ? &id : NULL, &e)) {
            u.uid = e.id;
            u.gid = e.gid;
            if (!has_group)
                add_memberships(group, e.name, &u);
        } else if (numeric) {
            u.uid = id;
        } else {
            return error_set(err, ERR_NOT_FOUND,
                             "the image's user \"%.*s\" is not in its /etc/passwd", (int)name.len,
                             (const char *)name.ptr);
        }
    }
    if (has_group) {
        numeric = parse_id(group_name, &id);
        if (find(group, false, group_name, numeric ? &id : NULL, &e))
            u.gid = e.id;
        else if (numeric)
            u.gid = id;
        else
            return error_set(err, ERR_NOT_FOUND,
                             "the image's group \"%.*s\" is not in its /etc/group",
                             (int)group_name.len, (const char *)group_name.ptr);
    }
    *out = u;
    return 0;
}

static int read_optional(const char *root, const char *name, struct buf *out, struct error *err)
{
    AUTO_FREE char *path = xasprintf("%s%s", root, name);
    struct error why;

    if (file_read(path, out, &why) == 0 || why.kind == ERR_NOT_FOUND)
        return 0;
    *err = why;
    return -1;
}

int user_resolve_files(const char *spec, const char *root, struct user *out, struct error *err)
{
    AUTO_BUF struct buf passwd = BUF(FILE_MAX);
    AUTO_BUF struct buf group = BUF(FILE_MAX);

    if (read_optional(root, "/etc/passwd", &passwd, err) < 0 ||
        read_optional(root, "/etc/group", &group, err) < 0)
        return -1;
    return user_resolve(spec, buf_slice(&passwd), buf_slice(&group), out, err);
}
