#include "host/hosts_file.h"

#include "base/file.h"
#include "base/mem.h"

#include <string.h>
#include <strings.h>

#define FILE_MAX ((size_t)16 << 20)

struct entry {
    char *name;
    struct ip_addr addr;
};

struct hosts_file {
    struct entry *entries;
    size_t count, room;
};

static void add(struct hosts_file *h, const char *name, const struct ip_addr *addr)
{
    if (h->count == h->room) {
        h->room = h->room ? h->room * 2 : 16;
        h->entries = xreallocarray(h->entries, h->room, sizeof(*h->entries));
    }
    h->entries[h->count++] = (struct entry){xstrdup(name), *addr};
}

/* ADDRESS NAME..., up to a # */
static void take_line(struct hosts_file *h, char *line)
{
    char *save = NULL, *word;
    struct ip_addr addr;

    line[strcspn(line, "#")] = '\0';
    word = strtok_r(line, " \t\r", &save);
    if (!word || ip_parse(slice_str(word), &addr) < 0)
        return;
    while ((word = strtok_r(NULL, " \t\r", &save)) != NULL)
        add(h, word, &addr);
}

struct hosts_file *hosts_file_load(const char *path)
{
    struct hosts_file *h = xcalloc(1, sizeof(*h));
    AUTO_BUF struct buf text = BUF(FILE_MAX);
    char *save = NULL;

    if (file_read(path, &text, NULL) < 0 || buf_append_byte(&text, 0) < 0)
        return h;
    for (char *line = strtok_r((char *)text.ptr, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save))
        take_line(h, line);
    return h;
}

void hosts_file_free(struct hosts_file *h)
{
    for (size_t i = 0; i < h->count; i++)
        free(h->entries[i].name);
    free(h->entries);
    free(h);
}

size_t hosts_file_find(const struct hosts_file *h, const char *name, struct ip_addr *out,
                       size_t max)
{
    size_t count = 0;

    for (size_t i = 0; i < h->count && count < max; i++)
        if (strcasecmp(h->entries[i].name, name) == 0)
            out[count++] = h->entries[i].addr;
    return count;
}
