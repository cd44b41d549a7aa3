"""Checks of ours that schemathesis runs after each request: see schemathesis.toml."""

import json

import schemathesis
from schemathesis.generation import GenerationMode

# What a request that fits the schema may still be refused for.
BEYOND_THE_SCHEMA = {
    "/v1/eth/sign": set(),
    "/v1/attestation": {"invalid_pem", "attestation_input_too_large"},
    "/v1/eth/sign-tx": {"invalid_rlp", "invalid_tx"},
    "/v1/encryption/decrypt": {"invalid_public_key", "decryption_failed"},
    "/v1/encryption/encrypt": {"invalid_public_key"},
}


# A member name must not hold NUL, which a schema could only say of the members it names.
def holds_nul_in_a_name(value):
    if isinstance(value, dict):
        return any("\0" in name or holds_nul_in_a_name(member) for name, member in value.items())
    return isinstance(value, list) and any(map(holds_nul_in_a_name, value))


@schemathesis.check
def refused_for_what_the_schema_cannot_say(ctx, response, case):
    if case.meta is None or case.meta.generation.mode != GenerationMode.POSITIVE or response.status_code != 400:
        return
    codes = BEYOND_THE_SCHEMA.get(case.operation.path)
    code = json.loads(response.content)["code"]
    if codes is None or code in codes or (code == "invalid_json" and holds_nul_in_a_name(case.body)):
        return
    raise AssertionError(f"a request that fits the schema was refused as {code}")
