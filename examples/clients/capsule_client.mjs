#!/usr/bin/env node
/* Talks to an app in a Capsule enclave, and trusts nothing that it has not checked.
 *
 *     npm ci
 *     capsule_client.mjs --root root.pem --pcr 2=HEX --attestation URL --app URL "message"
 *
 * 1. attest   asks for a document over a nonce of our own and verifies it: certificate chain, signature, nonce, PCRs;
 * 2. encrypt  seals the message to the key that the document attests, and opens the reply;
 * 3. verify   checks that the reply was signed by the Ethereum key that the document attests.
 *
 * Exits 0 only when all three hold. URLs name the routes, as in http://HOST:9001/v1/attestation.
 */
import crypto from 'node:crypto';
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { recoverMessageAddress } from 'viem';

class Refused extends Error {}

async function post(url, body) {
  let reply;
  try {
    reply = await fetch(url, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(15000),
    });
  } catch (e) {
    throw new Refused(`${url}: ${e.cause?.message ?? e.message}`);
  }
  if (!reply.ok) throw new Refused(`${url}: HTTP status ${reply.status}`);
  return Buffer.from(await reply.arrayBuffer());
}

// ---- CBOR, as far as attestation documents need it (RFC 8949) ----

/** Reads one item of definite length; maps become Map. Throws at anything else. */
function cbor(bytes) {
  let at = 0;
  const take = (n) => {
    if (n > bytes.length - at) throw new Refused('this is no attestation document: it ends early');
    at += n;
    return bytes.subarray(at - n, at);
  };
  const item = (depth) => {
    const head = take(1)[0];
    const kind = head >> 5;
    const low = head & 31;
    if (depth > 8 || low > 27) throw new Refused('this is no attestation document: its CBOR is of another form');
    if (kind === 7) {
      if (low === 22) return null;
      throw new Refused('this is no attestation document: it holds a value of another type');
    }
    const wide = low < 24 ? null : take(1 << (low - 24));
    const n = wide ? Number(BigInt('0x' + wide.toString('hex'))) : low;
    if (kind === 0) return n;
    if (kind === 1) return -1 - n;
    if (kind === 2) return take(n);
    if (kind === 3) return take(n).toString();
    if (kind === 6) return item(depth + 1); // a tag says only what we know already
    if (n > bytes.length) throw new Refused('this is no attestation document: it ends early');
    const items = Array.from({ length: kind === 4 ? n : 2 * n }, () => item(depth + 1));
    if (kind === 4) return items;
    return new Map(Array.from({ length: n }, (_, i) => [items[2 * i], items[2 * i + 1]]));
  };
  const value = item(0);
  if (at !== bytes.length) throw new Refused('this is no attestation document: there is something behind it');
  return value;
}

/** A byte string, as the Sig_structure needs it. */
function cborBytes(bytes) {
  const head = Buffer.from([0x5a, 0, 0, 0, 0]);
  head.writeUInt32BE(bytes.length, 1);
  if (bytes.length < 24) return Buffer.concat([Buffer.from([0x40 + bytes.length]), bytes]);
  if (bytes.length < 256) return Buffer.concat([Buffer.from([0x58, bytes.length]), bytes]);
  if (bytes.length < 65536) return Buffer.concat([Buffer.from([0x59]), head.subarray(3), bytes]);
  return Buffer.concat([head, bytes]);
}

// ---- 1. attest ----

/** Root first, each certificate issued by the one before it, all valid now. Returns the last one's public key. */
function verifyChain(certificates, root) {
  if (!certificates[0].raw.equals(root.raw)) {
    throw new Refused("the attestation's certificates do not start at the given root");
  }
  for (let i = 1; i < certificates.length; i++) {
    const issuer = certificates[i - 1];
    if (!certificates[i].checkIssued(issuer) || !certificates[i].verify(issuer.publicKey)) {
      throw new Refused('a certificate of the attestation was not issued by the one before it');
    }
    if (!issuer.ca) throw new Refused('a certificate of the attestation was issued by one that is no authority');
  }
  for (const c of certificates) {
    if (Date.now() < Date.parse(c.validFrom) || Date.now() > Date.parse(c.validTo)) {
      throw new Refused("a certificate of the attestation is not valid now; is this machine's clock right?");
    }
  }
  return certificates.at(-1).publicKey;
}

/** The verified payload of an attestation document: COSE_Sign1 of RFC 9052, with or without its tag. */
function verifyDocument(raw, root, nonce, pcrs) {
  const [protectedHeader, , payload, signature] = cbor(raw);
  // {1: -35}: ECDSA on P-384 with SHA-384
  if (!protectedHeader.equals(Buffer.from('a1013822', 'hex')) || signature.length !== 96) {
    throw new Refused('the attestation is not signed with ES384');
  }
  const document = cbor(payload);
  const certificates = [...document.get('cabundle'), document.get('certificate')];
  const key = verifyChain(certificates.map((der) => new crypto.X509Certificate(der)), root);
  const signed = Buffer.concat([
    Buffer.from('\x84\x6aSignature1', 'latin1'), cborBytes(protectedHeader), cborBytes(Buffer.alloc(0)), cborBytes(payload),
  ]);
  if (!crypto.verify('sha384', signed, { key, dsaEncoding: 'ieee-p1363' }, signature)) {
    throw new Refused("the attestation's signature is wrong");
  }
  if (!nonce.equals(document.get('nonce') ?? Buffer.alloc(0))) {
    throw new Refused('the attestation answers another nonce: it may be an old one');
  }
  // Debug mode zeroes the PCRs: then the host can read the enclave's memory.
  if (document.get('pcrs').get(0).every((b) => b === 0)) {
    throw new Refused('the enclave runs in debug mode: its PCRs are zeros');
  }
  for (const [index, want] of pcrs) {
    const got = document.get('pcrs').get(index)?.toString('hex');
    if (got !== want) throw new Refused(`PCR${index} is ${got}, not ${want}: another image runs there`);
  }
  return document;
}

/** What the enclave states about itself: its encryption key, and the address of its signing key. */
async function attest(url, root, pcrs) {
  const nonce = crypto.randomBytes(32);
  const raw = await post(url, { nonce: nonce.toString('base64') });
  const document = verifyDocument(raw, root, nonce, pcrs);
  // Of user_data only eth_addr and app_wallet are the enclave's words; anything else is whoever asked.
  return { enclaveKey: document.get('public_key'), address: JSON.parse(document.get('user_data').toString()).eth_addr };
}

// ---- 2. encrypt ----

// A P-384 public key on the wire is this and the point, 97 bytes.
const SPKI_PREFIX = Buffer.from('3076301006072a8648ce3d020106052b81040022036200', 'hex');

/** The AES-256-GCM key of one message: the nonce is in it, and both directions use the same derivation. */
function messageKey(own, peerSpki, nonce) {
  if (!peerSpki.subarray(0, SPKI_PREFIX.length).equals(SPKI_PREFIX)) throw new Refused('the attested key is not on P-384');
  const peer = peerSpki.subarray(SPKI_PREFIX.length);
  const points = [own.getPublicKey(), peer].sort(Buffer.compare);
  const salt = Buffer.concat([...points, nonce]);
  return Buffer.from(crypto.hkdfSync('sha256', own.computeSecret(peer), salt, 'capsule-ecdh-aes256gcm-v1', 32));
}

/** The request of an app that passes it to /v1/encryption/decrypt. */
function seal(own, peerSpki, plaintext) {
  const nonce = crypto.randomBytes(12);
  const gcm = crypto.createCipheriv('aes-256-gcm', messageKey(own, peerSpki, nonce), nonce);
  const sealed = Buffer.concat([gcm.update(plaintext), gcm.final(), gcm.getAuthTag()]);
  return {
    nonce: nonce.toString('hex'),
    client_public_key: Buffer.concat([SPKI_PREFIX, own.getPublicKey()]).toString('hex'),
    encrypted_data: sealed.toString('hex'),
  };
}

/** The plaintext of a reply of /v1/encryption/encrypt. */
function unseal(own, peerSpki, request, reply) {
  const nonce = Buffer.from(String(reply.nonce), 'hex');
  // One key seals both directions, so our own message would open as well.
  if (nonce.equals(Buffer.from(request.nonce, 'hex'))) throw new Refused('the reply is our own message, sent back');
  try {
    const sealed = Buffer.from(reply.encrypted_data, 'hex');
    const gcm = crypto.createDecipheriv('aes-256-gcm', messageKey(own, peerSpki, nonce), nonce, { authTagLength: 16 });
    gcm.setAuthTag(sealed.subarray(-16));
    return Buffer.concat([gcm.update(sealed.subarray(0, -16)), gcm.final()]);
  } catch {
    throw new Refused('the reply was not sealed by the attested key');
  }
}

// ---- the three in a row ----

async function main() {
  const { values: args, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      root: { type: 'string' },
      pcr: { type: 'string', multiple: true },
      attestation: { type: 'string' },
      app: { type: 'string' },
    },
  });
  if (!args.root || !args.pcr || !args.attestation || !args.app || positionals.length !== 1) {
    throw new Refused('usage: --root FILE --pcr N=HEX... --attestation URL --app URL MESSAGE');
  }
  const pcrs = new Map(args.pcr.map((p) => [Number(p.split('=')[0]), p.split('=')[1].toLowerCase()]));
  const root = new crypto.X509Certificate(readFileSync(args.root));
  const { enclaveKey, address } = await attest(args.attestation, root, pcrs);
  console.log('attested:', address);

  const own = crypto.createECDH('secp384r1');
  own.generateKeys();
  const request = seal(own, enclaveKey, positionals[0]);
  const sealed = JSON.parse((await post(args.app, request)).toString());
  const reply = JSON.parse(unseal(own, enclaveKey, request, sealed).toString());
  console.log('reply:', reply.message);

  // EIP-191; the signature is r || s || yParity.
  const signer = await recoverMessageAddress({ message: reply.message, signature: reply.signature });
  if (signer.toLowerCase() !== address) {
    throw new Refused('the reply was signed by another key than the attested one');
  }
  console.log('signed by:', address);
}

try {
  await main();
} catch (e) {
  console.error(`capsule_client: ${e.message}`);
  process.exitCode = 1;
}
