/* Images described as JSON, with the key names of nitro-cli's describe-eif where it has them. */
#ifndef CAPSULE_EIF_REPORT_H
#define CAPSULE_EIF_REPORT_H

#include "eif/eif.h"

#include <jansson.h>

/*
 * {"HashAlgorithm": "Sha384 { ... }", "PCR0": hex, "PCR1": hex, "PCR2": hex}, and "PCR8" for a
 * signed image: spec/eif.md section 5. The caller drops the reference.
 */
json_t *eif_measurements_json(const struct eif_measurements *m);

/*
 * Everything about the image in a regular file: header, sections, "CheckCRC", "Measurements",
 * metadata, "IsSigned" and, for a signed one, "SigningCertificate" and "SignatureCheck" (with
 * "SignatureError" when that is false). A structural fault is an error; a wrong checksum, metadata
 * that is no JSON object (then null, and a warning in the log) and a bad signature are reported in
 * the result. Reads the whole file once. NULL with *err on failure.
 */
json_t *eif_describe(int fd, const char *name, struct error *err);

#endif
