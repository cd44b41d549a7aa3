#include "launch/measure_cache.h"

#include "base/file.h"
#include "base/text.h"
#include "launch/file_id.h"
#include "launch/sandbox_run.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#define RECORDS_MAX 256
#define RECORD_LEN  (2 * 4 * EIF_PCR_LEN + 1) /* PCR0, 1, 2 and 8 in hex, then 0 or 1: signed */

static bool decode(struct slice text, struct eif_measurements *out)
{
    uint8_t *const pcrs[] = {out->pcr0, out->pcr1, out->pcr2, out->pcr8};

    if (text.len != RECORD_LEN)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(pcrs); i++)
        if (hex_decode(slice_of(text.ptr + i * 2 * EIF_PCR_LEN, 2 * (size_t)EIF_PCR_LEN), pcrs[i],
                       EIF_PCR_LEN) < 0)
            return false;
    out->has_signature = text.ptr[RECORD_LEN - 1] == '1';
    return true;
}

static void encode(const struct eif_measurements *m, char out[RECORD_LEN + 1])
{
    const uint8_t *const pcrs[] = {m->pcr0, m->pcr1, m->pcr2, m->pcr8};

    for (size_t i = 0; i < ARRAY_LEN(pcrs); i++)
        hex_encode(slice_of(pcrs[i], EIF_PCR_LEN), out + i * 2 * EIF_PCR_LEN);
    out[RECORD_LEN - 1] = m->has_signature ? '1' : '0';
    out[RECORD_LEN] = '\0';
}

/* Files come and go; when there are many records, most are of files that are gone. */
static void bound(const char *dir)
{
    DIR *d = opendir(dir);
    int n = 0;

    if (!d)
        return;
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    if (n > RECORDS_MAX)
        tree_remove(dir, NULL);
}

static void remember(const char *dir, const char *record, const struct eif_measurements *m)
{
    char text[RECORD_LEN + 1];

    encode(m, text);
    bound(dir);
    /* Without it, the next run reads the image again: nothing worth a word. */
    if (dir_make_all(dir, 0700, NULL) == 0)
        (void)file_write_atomic(record, slice_str(text), 0600, NULL);
}

int measure_eif_cached(int fd, const char *name, struct eif_measurements *out, struct error *err)
{
    AUTO_FREE char *cache = NULL, *dir = NULL, *record = NULL;
    AUTO_BUF struct buf text = BUF(RECORD_LEN);
    struct eif_measurements found = {0};
    struct stat before, after;
    char id[FILE_ID_SIZE];

    if (fstat(fd, &before) < 0 || sandbox_cache_dir(&cache, NULL) < 0)
        return eif_measure_sound(fd, name, out, err);
    file_id(&before, id);
    dir = xasprintf("%s/pcrs", cache);
    record = xasprintf("%s/%s", dir, id);
    if (file_read(record, &text, NULL) == 0 && decode(buf_slice(&text), &found)) {
        *out = found;
        return 0;
    }
    file_id_settle(&before);
    if (eif_measure_sound(fd, name, out, err) < 0)
        return -1;
    if (fstat(fd, &after) == 0 && file_id_same(&before, &after))
        remember(dir, record, out);
    return 0;
}
