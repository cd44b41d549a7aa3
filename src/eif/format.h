/* The layout of enclave image files: spec/eif.md section 2. Shared by reader and writer. */
#ifndef CAPSULE_EIF_FORMAT_H
#define CAPSULE_EIF_FORMAT_H

#define EIF_HEADER_LEN         548
#define EIF_SECTION_HEADER_LEN 12

#define EIF_AT_VERSION  0x004
#define EIF_AT_FLAGS    0x006
#define EIF_AT_MEM      0x008
#define EIF_AT_CPUS     0x010
#define EIF_AT_RESERVED 0x018
#define EIF_AT_COUNT    0x01a
#define EIF_AT_OFFSETS  0x01c
#define EIF_AT_SIZES    0x11c
#define EIF_AT_UNUSED   0x21c
#define EIF_AT_CRC      0x220

#define EIF_FLAG_AARCH64 0x0001

#endif
