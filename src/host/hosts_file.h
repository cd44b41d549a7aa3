/* Inside host/: the hosts file (hosts(5)), read once. The machine's own, so it is trusted. */
#ifndef CAPSULE_HOST_HOSTS_FILE_H
#define CAPSULE_HOST_HOSTS_FILE_H

#include "codec/ip.h"

struct hosts_file;

/* A file that cannot be read has no names. Lines without a numeric address are left out. */
struct hosts_file *hosts_file_load(const char *path);
void hosts_file_free(struct hosts_file *h);
/* The first `max` addresses of a name, whatever its case; returns how many. */
size_t hosts_file_find(const struct hosts_file *h, const char *name, struct ip_addr *out,
                       size_t max);

#endif
