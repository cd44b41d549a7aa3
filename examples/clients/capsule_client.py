#!/usr/bin/env python3
"""Talks to an app in a Capsule enclave, and trusts nothing that it has not checked.

    pip install -r requirements.txt
    capsule_client.py --root root.pem --pcr 2=HEX --attestation URL --app URL "message"

1. attest   asks for a document over a nonce of our own and verifies it: certificate chain, signature, nonce, PCRs;
2. encrypt  seals the message to the key that the document attests, and opens the reply;
3. verify   checks that the reply was signed by the Ethereum key that the document attests.

Exits 0 only when all three hold. URLs name the routes, as in http://HOST:9001/v1/attestation.
"""
import argparse
import base64
import datetime
import hmac
import json
import os
import sys
import urllib.error
import urllib.request

import cbor2
from Crypto.Hash import keccak
from coincurve import PublicKey
from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

ES384 = -35  # COSE's number for ECDSA on P-384 with SHA-384


class Refused(Exception):
    """Something is not what it must be; the text says what."""


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=15) as reply:
            return reply.read()
    except (urllib.error.URLError, OSError, ValueError) as e:
        raise Refused(f"{url}: {e}") from None


# ---- 1. attest ----

def verify_chain(certificates, root):
    """Root first, each certificate issued by the one before it, all valid now. Returns the last one's public key."""
    now = datetime.datetime.now(datetime.timezone.utc)
    if certificates[0] != root:
        raise Refused("the attestation's certificates do not start at the given root")
    for issuer, certificate in zip(certificates, certificates[1:]):
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
        try:
            certificate.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature):
            raise Refused("a certificate of the attestation was not issued by the one before it") from None
        if not constraints.ca:
            raise Refused("a certificate of the attestation was issued by one that is no authority")
    for certificate in certificates:
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise Refused("a certificate of the attestation is not valid now; is this machine's clock right?")
    return certificates[-1].public_key()


def verify_document(raw, root, nonce, pcrs):
    """The verified payload of an attestation document: COSE_Sign1 of RFC 9052, with or without its tag."""
    try:
        sign1 = cbor2.loads(raw)
        protected, _, payload, signature = sign1.value if isinstance(sign1, cbor2.CBORTag) else sign1
        document = cbor2.loads(payload)
        certificates = [x509.load_der_x509_certificate(c) for c in [*document["cabundle"], document["certificate"]]]
        if cbor2.loads(protected) != {1: ES384} or len(signature) != 96:
            raise Refused("the attestation is not signed with ES384")
        key = verify_chain(certificates, root)
        signed = cbor2.dumps(["Signature1", protected, b"", payload])
        r, s = int.from_bytes(signature[:48], "big"), int.from_bytes(signature[48:], "big")
        key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        raise Refused("the attestation's signature is wrong") from None
    except (cbor2.CBORDecodeError, KeyError, TypeError, ValueError, x509.ExtensionNotFound) as e:
        raise Refused(f"this is no attestation document: {e}") from None
    if not hmac.compare_digest(document.get("nonce") or b"", nonce):
        raise Refused("the attestation answers another nonce: it may be an old one")
    # Debug mode zeroes the PCRs: then the host can read the enclave's memory.
    if not any(document["pcrs"][0]):
        raise Refused("the enclave runs in debug mode: its PCRs are zeros")
    for index, want in pcrs.items():
        got = document["pcrs"].get(index, b"")
        if got != want:
            raise Refused(f"PCR{index} is {got.hex()}, not {want.hex()}: another image runs there")
    return document


def attest(url, root, pcrs):
    """What the enclave states about itself: its encryption key, and the address of its signing key."""
    nonce = os.urandom(32)
    raw = post(url, {"nonce": base64.b64encode(nonce).decode()})
    document = verify_document(raw, root, nonce, pcrs)
    # Of user_data only eth_addr and app_wallet are the enclave's words; anything else is whoever asked.
    return serialization.load_der_public_key(document["public_key"]), json.loads(document["user_data"])["eth_addr"]


# ---- 2. encrypt ----

def spki(key):
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def message_key(own, peer, nonce):
    """AES-256-GCM for one message: the nonce is in the key, and both directions use the same derivation."""
    points = sorted(k.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
                    for k in (own.public_key(), peer))
    kdf = HKDF(hashes.SHA256(), 32, salt=b"".join(points) + nonce, info=b"capsule-ecdh-aes256gcm-v1")
    return AESGCM(kdf.derive(own.exchange(ec.ECDH(), peer)))


def seal(own, peer, plaintext):
    """The request of an app that passes it to /v1/encryption/decrypt."""
    nonce = os.urandom(12)
    return {"nonce": nonce.hex(), "client_public_key": spki(own.public_key()).hex(),
            "encrypted_data": message_key(own, peer, nonce).encrypt(nonce, plaintext, None).hex()}


def unseal(own, peer, request, reply):
    """The plaintext of a reply of /v1/encryption/encrypt."""
    try:
        nonce = bytes.fromhex(reply["nonce"])
        # One key seals both directions, so our own message would open as well.
        if nonce == bytes.fromhex(request["nonce"]):
            raise Refused("the reply is our own message, sent back")
        return message_key(own, peer, nonce).decrypt(nonce, bytes.fromhex(reply["encrypted_data"]), None)
    except (InvalidTag, KeyError, TypeError, ValueError):
        raise Refused("the reply was not sealed by the attested key") from None


# ---- 3. verify ----

def keccak256(data):
    return keccak.new(digest_bits=256, data=data).digest()


def signer(message, signature):
    """The address whose key signed a text: EIP-191, r || s || yParity."""
    text = message.encode()
    digest = keccak256(b"\x19Ethereum Signed Message:\n%d" % len(text) + text)
    point = PublicKey.from_signature_and_message(bytes.fromhex(signature[2:]), digest, hasher=None).format(False)
    return "0x" + keccak256(point[1:])[-20:].hex()


def pcr(text):
    index, _, value = text.partition("=")
    return int(index), bytes.fromhex(value)


def main():
    parser = argparse.ArgumentParser(description="Talks to an app in a Capsule enclave after verifying it.")
    parser.add_argument("--root", required=True, help="PEM file of the root certificate to trust")
    parser.add_argument("--pcr", type=pcr, action="append", required=True, metavar="N=HEX", help="what PCR N must be")
    parser.add_argument("--attestation", required=True, metavar="URL", help="where documents are handed out")
    parser.add_argument("--app", required=True, metavar="URL", help="the app's endpoint for sealed messages")
    parser.add_argument("message")
    args = parser.parse_args()
    try:
        with open(args.root, "rb") as f:
            root = x509.load_pem_x509_certificate(f.read())
        enclave_key, address = attest(args.attestation, root, dict(args.pcr))
        print("attested:", address)

        own = ec.generate_private_key(ec.SECP384R1())
        request = seal(own, enclave_key, args.message.encode())
        reply = json.loads(unseal(own, enclave_key, request, json.loads(post(args.app, request))))
        print("reply:", reply["message"])

        if signer(reply["message"], reply["signature"]) != address:
            raise Refused("the reply was signed by another key than the attested one")
        print("signed by:", address)
    except (Refused, OSError, ValueError) as e:
        sys.exit(f"capsule_client: {e}")


if __name__ == "__main__":
    main()
