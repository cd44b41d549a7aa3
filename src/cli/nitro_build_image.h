/* The amended image of `build --eif-builder nitro-cli`: what the engine builds from. */
#ifndef CAPSULE_CLI_NITRO_BUILD_IMAGE_H
#define CAPSULE_CLI_NITRO_BUILD_IMAGE_H

#include "cli/nitro_build.h"
#include "container/engine.h"

/*
 * Has the engine build `tag`, NAME:TAG, from the app image with the runtime, the manifest and the
 * launch description, labelled with `uuid` (spec section 3.2; the launch file of 8.2), and makes
 * sure that it starts the runtime and nothing else. `stopped` says that it should give up.
 */
int nitro_build_image(const struct nitro_build *in, const struct container_engine *e,
                      const char *tag, const char *uuid, bool (*stopped)(void), struct error *err);

/* For curl: ends the call under way once `stopped` says so. */
void nitro_build_watch(struct container_stream *s, bool (*stopped)(void));

#endif
