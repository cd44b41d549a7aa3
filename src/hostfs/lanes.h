/*
 * The lanes of a mount (vsock/mountproto.h) and the threads that serve them. Each lane has a fixed
 * number of threads, started at once; one of them reads a message, then answers it while another
 * reads the next, if the answer may take long. A peer that reads no answers thus stops being read.
 */
#ifndef CAPSULE_HOSTFS_LANES_H
#define CAPSULE_HOSTFS_LANES_H

#include "base/error.h"
#include "hostfs/session.h"

#define LANES_MAX    4  /* of a mount */
#define LANE_THREADS 16 /* requests of one lane at work */

struct lanes;

/*
 * Starts the threads, which wait for lanes. When the first lane ends, one byte goes to `end_fd`.
 * There is no stop: the process ends.
 */
int lanes_start(struct hostfs *fs, int end_fd, struct lanes **out, struct error *err);
/* Whether a lane was opened already. */
bool lanes_has(const struct lanes *lanes, uint32_t index);
/*
 * Hands a connected descriptor over, from here on blocking; `splices` when contents may be spliced
 * from it. Once for each index.
 */
void lanes_open(struct lanes *lanes, uint32_t index, int fd, bool splices);

#endif
