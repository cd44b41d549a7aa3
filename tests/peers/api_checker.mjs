/* Asks a running Capsule API and checks what it answers with code that shares nothing with it: viem for Ethereum, noble for
 * P-384, HKDF and AES-GCM, all plain JavaScript.
 *
 *     node api_checker.mjs URL messages|transactions|boxes COUNT
 *
 * Prints "COUNT WHAT"; the first difference ends it with status 1, the seed of the run and the case.
 */
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { gcm } from '@noble/ciphers/aes';
import { p384 } from '@noble/curves/p384';
import { hkdf } from '@noble/hashes/hkdf';
import { sha256 } from '@noble/hashes/sha2';
import { keccak256, recoverAddress, recoverMessageAddress, serializeTransaction, toHex } from 'viem';
import { publicKeyToAddress } from 'viem/utils';

const [url, what, count] = process.argv.slice(2);

// ---- random input ----

const seed = crypto.randomBytes(16).toString('hex');
const stream = crypto.createCipheriv('aes-128-ctr', Buffer.from(seed, 'hex'), Buffer.alloc(16));
let ahead = Buffer.alloc(0);
function bytes(n) {
  if (n > ahead.length) ahead = stream.update(Buffer.alloc(n + 65536));
  const taken = ahead.subarray(0, n);
  ahead = ahead.subarray(n);
  return taken;
}
const below = (n) => bytes(4).readUInt32LE() % n;
const pick = (...choices) => choices[below(choices.length)];
/** An integer of 0 to `max` bytes: every length is as likely, and so are the edges. */
const integer = (max) => {
  const n = below(max + 1);
  return n === 0 ? 0n : BigInt('0x' + pick(bytes(n), Buffer.alloc(n, 0xff), Buffer.from([1, ...Buffer.alloc(n - 1)])).toString('hex'));
};
const size = () => below(pick(2, 40, 300, 300, 2000, 20000));

function text(length) {
  let out = '';
  while (out.length < length) {
    const c = pick(below(0x80), below(0x800), below(0x10000), below(0x110000));
    if (c < 0xd800 || c > 0xdfff) out += String.fromCodePoint(c);
  }
  return out;
}

// ---- the API ----

async function api(path, body) {
  const options = body && { method: 'POST', body: JSON.stringify(body) };
  const reply = await fetch(url + path, options);
  const answer = await reply.text();
  assert.equal(reply.status, 200, `${path} answered ${reply.status}: ${answer}`);
  return JSON.parse(answer);
}

// ---- Ethereum ----

async function messages(address) {
  const message = text(1 + size());
  const reply = await api('/v1/eth/sign', { message });
  assert.deepEqual(Object.keys(reply), ['signature', 'address', 'attestation']);
  assert.equal(reply.address, address);
  assert.equal((await recoverMessageAddress({ message, signature: reply.signature })).toLowerCase(), address);
  assert.match(reply.signature, /^0x[0-9a-f]{64}[0-7][0-9a-f]{63}0[01]$/); // s is low, or viem would still recover
  if (below(10) === 0) assert.deepEqual(await api('/v1/eth/sign', { message }), reply);
}

function transaction() {
  const fees = [integer(32), integer(32)].sort((a, b) => (a < b ? -1 : 1));
  const nonce = integer(8);
  return {
    type: 'eip1559',
    chainId: integer(32) || 1n,
    nonce: nonce > 2n ** 64n - 2n ? 2n ** 64n - 2n : nonce,
    maxPriorityFeePerGas: fees[0], // the API does not compare them, but viem does
    maxFeePerGas: fees[1],
    gas: integer(8),
    to: pick(toHex(bytes(20)), toHex(bytes(20)), null),
    value: integer(32),
    data: toHex(bytes(pick(0, 1, size()))),
    accessList: Array.from({ length: pick(0, 0, below(5), below(60)) }, () => ({
      address: toHex(bytes(20)),
      storageKeys: Array.from({ length: below(5) }, () => toHex(bytes(32))),
    })),
  };
}

/** An integer as a caller may spell it. */
const spelled = (n) => pick('0x', '') + pick('', '0', '000') + (pick(true, false) ? n.toString(16) : n.toString(16).toUpperCase());
const spelledData = (hex) => pick(hex, hex.slice(2), ` ${hex}\n`, hex.slice(2).toUpperCase());

function structured(tx) {
  const payload = {
    chain_id: spelled(tx.chainId),
    nonce: spelled(tx.nonce),
    max_priority_fee_per_gas: spelled(tx.maxPriorityFeePerGas),
    max_fee_per_gas: spelled(tx.maxFeePerGas),
    gas_limit: spelled(tx.gas),
    kind: 'structured',
    value: spelled(tx.value),
    data: spelledData(tx.data),
    access_list: tx.accessList.map((e) => ({ address: spelledData(e.address), storage_keys: e.storageKeys.map(spelledData) })),
  };
  if (tx.to) payload.to = spelledData(tx.to);
  else if (below(2)) payload.to = null;
  return payload;
}

async function transactions(address, i) {
  const tx = transaction();
  const payload = i % 2 ? structured(tx) : { kind: 'raw_rlp', raw_payload: spelledData(serializeTransaction(tx)) };
  const reply = await api('/v1/eth/sign-tx', { payload });
  assert.deepEqual(Object.keys(reply), ['raw_transaction', 'transaction_hash', 'signature', 'address', 'attestation']);
  assert.equal(reply.address, address);
  const signature = {
    r: '0x' + reply.signature.slice(2, 66),
    s: '0x' + reply.signature.slice(66, 130),
    yParity: parseInt(reply.signature.slice(130), 16),
  };
  const want = serializeTransaction(tx, signature);
  assert.equal(reply.raw_transaction, want);
  assert.equal(reply.transaction_hash, keccak256(want));
  const hash = keccak256(serializeTransaction(tx));
  assert.equal((await recoverAddress({ hash, signature })).toLowerCase(), address);
}

// ---- encryption ----

// A P-384 SubjectPublicKeyInfo without its point, uncompressed and compressed.
const PREFIX = '3076301006072a8648ce3d020106052b81040022036200';
const PREFIX_COMPRESSED = '3046301006072a8648ce3d020106052b81040022033200';

let client; // a key takes plain JavaScript longer than a message, so it serves four

async function boxes(peer, i) {
  if (i % 4 === 0) {
    const secret = p384.utils.randomPrivateKey();
    client = {
      point: Buffer.from(p384.getPublicKey(secret, false)),
      z: p384.getSharedSecret(secret, peer).slice(1), // without the form octet: the x coordinate
    };
  }
  const { point, z } = client;
  const cipher = (nonce) => {
    const salt = Buffer.concat([...[point, peer].sort(Buffer.compare), nonce]);
    return gcm(hkdf(sha256, z, salt, 'capsule-ecdh-aes256gcm-v1', 32), nonce);
  };
  const compressed = Buffer.concat([Buffer.from([2 + (point[96] & 1)]), point.subarray(1, 49)]);
  const spki = pick(PREFIX + point.toString('hex'), PREFIX_COMPRESSED + compressed.toString('hex'));
  const plaintext = Buffer.from(text(size()));

  const nonce = bytes(12);
  const sealed = Buffer.from(cipher(nonce).encrypt(plaintext));
  const binary = below(2);
  const opened = await api('/v1/encryption/decrypt', {
    nonce: pick('', '0x') + nonce.toString('hex') + pick('', bytes(20).toString('hex')),
    client_public_key: pick('', '0x') + spki,
    encrypted_data: pick('', '0x') + sealed.toString('hex'),
    ...(binary ? { plaintext_encoding: 'base64' } : {}),
  });
  assert.deepEqual(opened, binary ? { plaintext_base64: plaintext.toString('base64') } : { plaintext: plaintext.toString() });

  const reply = await api('/v1/encryption/encrypt', { plaintext: plaintext.toString(), client_public_key: spki });
  assert.deepEqual(Object.keys(reply), ['encrypted_data', 'enclave_public_key', 'nonce']);
  assert.equal(reply.enclave_public_key, PREFIX + peer.toString('hex'));
  const back = cipher(Buffer.from(reply.nonce, 'hex')).decrypt(Buffer.from(reply.encrypted_data, 'hex'));
  assert.ok(plaintext.equals(Buffer.from(back)));
}

// ---- all of it ----

const eth = await api('/v1/eth/address');
assert.equal(publicKeyToAddress(eth.public_key).toLowerCase(), eth.address);
const { public_key_der: der } = await api('/v1/encryption/public_key');
assert.ok(der.startsWith('0x' + PREFIX));
const enclavePoint = Buffer.from(der.slice(2 + PREFIX.length), 'hex');
p384.ProjectivePoint.fromHex(enclavePoint).assertValidity();

for (let i = 0; i < Number(count); i++) {
  try {
    if (what === 'messages') await messages(eth.address);
    else if (what === 'transactions') await transactions(eth.address, i);
    else if (what === 'boxes') await boxes(enclavePoint, i);
    else throw new Error(`there is no check named ${what}`);
  } catch (e) {
    console.error(`seed ${seed}, case ${i}: ${e.message}`);
    process.exit(1);
  }
}
console.log(`${count} ${what}`);
