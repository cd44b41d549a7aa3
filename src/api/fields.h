/*
 * Members of a request's JSON object, by the rules of spec/capsule-api.md section 2.2: no coercion,
 * null only where it is allowed. Each function answers the request itself when a rule is broken,
 * naming the member, and then returns -1: the handler just returns.
 */
#ifndef CAPSULE_API_FIELDS_H
#define CAPSULE_API_FIELDS_H

#include "api/server.h"

#include <jansson.h>

/* Answers 400 with the code and a formatted message of at most 255 bytes. Returns -1. */
int refuse(struct api_request *req, const char *code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

enum field_need {
    FIELD_REQUIRED, /* absent: missing_field; null: invalid_type */
    FIELD_OPTIONAL, /* may be absent; null: invalid_type */
    FIELD_NULLABLE, /* may be absent; null equals absent */
};

/* Parses the body; *out is the caller's (AUTO_JSON). */
int read_object(struct api_request *req, struct slice body, json_t **out);

/* These return 1 with *out set, 0 (absent, *out untouched), or -1. Results are borrowed from
   `object`. */
int field_string(struct api_request *req, const json_t *object, const char *name,
                 enum field_need need, struct slice *out);
int field_bool(struct api_request *req, const json_t *object, const char *name,
               enum field_need need, bool *out);
int field_object(struct api_request *req, const json_t *object, const char *name,
                 enum field_need need, const json_t **out);
int field_array(struct api_request *req, const json_t *object, const char *name,
                enum field_need need, const json_t **out);

#endif
