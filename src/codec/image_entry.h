/*
 * The name under which the app ramdisk carries the app's root as one EROFS image instead of a tree
 * below rootfs/. Its directory is no entry of the archive: a kernel that unpacks the ramdisk passes
 * over a file whose directory is missing, and capsule-init mounts the image where it lies.
 */
#ifndef CAPSULE_CODEC_IMAGE_ENTRY_H
#define CAPSULE_CODEC_IMAGE_ENTRY_H

#define IMAGE_ENTRY "image/rootfs.erofs"

#endif
