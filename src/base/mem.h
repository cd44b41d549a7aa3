/* Allocation that cannot fail, cleanup attributes, and wiping. */
#ifndef CAPSULE_BASE_MEM_H
#define CAPSULE_BASE_MEM_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define CLEANUP(f)                      __attribute__((cleanup(f)))
#define ARRAY_LEN(a)                    (sizeof(a) / sizeof((a)[0]))
#define MUST_USE                        __attribute__((warn_unused_result))
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/*
 * As malloc, calloc, realloc, strdup, strndup and asprintf, but running out of memory, or a
 * count * size that overflows, ends the process with a message: there is nothing better to do.
 * The caller frees with free(). A size of 0 gives a valid pointer.
 */
void *xmalloc(size_t size) MUST_USE;
void *xcalloc(size_t count, size_t size) MUST_USE;
void *xreallocarray(void *ptr, size_t count, size_t size) MUST_USE;
char *xstrdup(const char *s) MUST_USE;
char *xstrndup(const char *s, size_t max) MUST_USE;
void *xmemdup(const void *ptr, size_t size) MUST_USE;
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2))) MUST_USE;

/* Overwrites a secret; the compiler cannot drop it. `ptr` may be NULL when `size` is 0. */
void mem_wipe(void *ptr, size_t size);

/* Constant-time comparison of two byte strings of equal length: true when equal. */
_Bool mem_equal_ct(const void *a, const void *b, size_t size);

/* For CLEANUP: frees a heap pointer of any type. */
static inline void cleanup_free(void *p)
{
    free(*(void **)p);
}
#define AUTO_FREE CLEANUP(cleanup_free)

#endif
