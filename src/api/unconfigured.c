/*
 * The routes whose back ends this enclave does not have: their paths always exist, and say what is
 * missing before they look at a body (spec/capsule-api.md sections 3, 5.4 and 10).
 */
#include "api/internal.h"

void handle_no_s3(struct api_request *req, void *arg)
{
    (void)arg;
    api_fail(req, 400, "s3_not_configured", "S3 storage not configured");
}

void handle_no_kms(struct api_request *req, void *arg)
{
    (void)arg;
    api_fail(req, 400, "kms_not_configured", "KMS integration not configured");
}

/* Without Retry-After: waiting does not configure anything (section 5.4, last rule). */
void handle_no_wallet(struct api_request *req, void *arg)
{
    (void)arg;
    api_fail(req, 503, "app_wallet_unavailable",
             "App wallet service unavailable: KMS integration not configured");
}
