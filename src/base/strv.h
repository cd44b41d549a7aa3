/* NULL-terminated lists of strings, as argv and environ are. */
#ifndef CAPSULE_BASE_STRV_H
#define CAPSULE_BASE_STRV_H

#include "base/mem.h"

/* Number of strings; 0 for NULL. */
size_t strv_len(char *const *v);
/* Appends a copy of `s` to a list on the heap (may be NULL). */
void strv_add(char ***v, const char *s);
/* Frees the strings and the list. */
void strv_free(char **v);
static inline void cleanup_strv(char ***v)
{
    strv_free(*v);
}
#define AUTO_STRV CLEANUP(cleanup_strv)

#endif
