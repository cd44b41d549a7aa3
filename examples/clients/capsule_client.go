// Talks to an app in a Capsule enclave, and trusts nothing that it has not checked.
//
//	go build -o capsule_client capsule_client.go
//	capsule_client -root root.pem -pcr 2=HEX -attestation URL -app URL "message"
//
// What it does:
//   - attest: asks for a document over a nonce of our own and verifies it: certificate chain, signature, nonce, PCRs;
//   - encrypt: seals the message to the key that the document attests, and opens the reply;
//   - verify: checks that the reply was signed by the Ethereum key that the document attests.
//
// Exits 0 only when all three hold. URLs name the routes, as in http://HOST:9001/v1/attestation.
package main

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	k256 "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"golang.org/x/crypto/hkdf"
	"golang.org/x/crypto/sha3"
)

func post(url string, body, reply any) error {
	request, err := json.Marshal(body)
	if err != nil {
		return err
	}
	client := http.Client{Timeout: 15 * time.Second}
	r, err := client.Post(url, "application/json", bytes.NewReader(request))
	if err != nil {
		return err
	}
	defer r.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(r.Body, 16<<20))
	if err != nil {
		return fmt.Errorf("%s: %w", url, err)
	}
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: HTTP status %s", url, r.Status)
	}
	if into, ok := reply.(*[]byte); ok {
		*into = raw
		return nil
	}
	return json.Unmarshal(raw, reply)
}

// ---- CBOR, as far as attestation documents need it (RFC 8949) ----

var errNoDocument = errors.New("this is no attestation document")

// decodeCBOR reads one item of definite length. Maps become map[any]any, integers int, tags what they tag.
func decodeCBOR(data []byte) (any, error) {
	value, rest, err := decodeItem(data, 8)
	if err == nil && len(rest) > 0 {
		err = errNoDocument
	}
	return value, err
}

func decodeItem(data []byte, depth int) (any, []byte, error) {
	if len(data) == 0 || depth == 0 {
		return nil, nil, errNoDocument
	}
	kind, n, rest := data[0]>>5, uint64(data[0]&31), data[1:]
	if kind == 7 && n == 22 {
		return nil, rest, nil
	}
	if n >= 24 && n <= 27 && len(rest) >= 1<<(n-24) {
		size := 1 << (n - 24)
		n = new(big.Int).SetBytes(rest[:size]).Uint64()
		rest = rest[size:]
	} else if n >= 24 {
		return nil, nil, errNoDocument
	}
	if kind == 7 || kind >= 2 && kind <= 5 && n > uint64(len(rest)) {
		return nil, nil, errNoDocument
	}
	switch kind {
	case 0:
		return int(n), rest, nil
	case 1:
		return -1 - int(n), rest, nil
	case 2:
		return rest[:n:n], rest[n:], nil
	case 3:
		return string(rest[:n]), rest[n:], nil
	case 6:
		return decodeItem(rest, depth-1)
	}
	items := make([]any, 0, 8)
	for want := n * uint64(kind-3); uint64(len(items)) < want; { // a map is twice as many items
		item, left, err := decodeItem(rest, depth-1)
		if err != nil {
			return nil, nil, err
		}
		items, rest = append(items, item), left
	}
	if kind == 4 {
		return items, rest, nil
	}
	m := map[any]any{}
	for i := 0; i < len(items); i += 2 {
		switch items[i].(type) {
		case int, string:
			m[items[i]] = items[i+1]
		default:
			return nil, nil, errNoDocument
		}
	}
	return m, rest, nil
}

// encodeHead appends the head of an item of fewer than 65,536 bytes.
func encodeHead(out []byte, kind byte, n int) []byte {
	switch {
	case n < 24:
		return append(out, kind<<5|byte(n))
	case n < 256:
		return append(out, kind<<5|24, byte(n))
	default:
		return append(out, kind<<5|25, byte(n>>8), byte(n))
	}
}

func isBytes(value any, want []byte) bool {
	got, ok := value.([]byte)
	return ok && bytes.Equal(got, want)
}

// ---- 1. attest ----

// document is the part of an attestation document that is looked at here.
type document struct {
	pcrs        map[any]any
	certificate []byte
	cabundle    []any // root first
	publicKey   []byte
	userData    []byte
	nonce       []byte
}

// parseDocument takes a COSE_Sign1 of RFC 9052 apart, with or without its tag.
func parseDocument(raw []byte) (d *document, protected, payload, signature []byte, err error) {
	outer, err := decodeCBOR(raw)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	sign1, _ := outer.([]any)
	if len(sign1) != 4 {
		return nil, nil, nil, nil, errNoDocument
	}
	protected, _ = sign1[0].([]byte)
	payload, _ = sign1[2].([]byte)
	signature, _ = sign1[3].([]byte)
	inner, err := decodeCBOR(payload)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	m, _ := inner.(map[any]any)
	d = &document{}
	d.pcrs, _ = m["pcrs"].(map[any]any)
	d.certificate, _ = m["certificate"].([]byte)
	d.cabundle, _ = m["cabundle"].([]any)
	d.publicKey, _ = m["public_key"].([]byte)
	d.userData, _ = m["user_data"].([]byte)
	d.nonce, _ = m["nonce"].([]byte)
	return d, protected, payload, signature, nil
}

// verifyChain returns the public key of the certificate that signed the document, when it chains to the root now.
func verifyChain(d *document, root *x509.Certificate) (*ecdsa.PublicKey, error) {
	if len(d.cabundle) == 0 || !isBytes(d.cabundle[0], root.Raw) {
		return nil, errors.New("the attestation's certificates do not start at the given root")
	}
	leaf, err := x509.ParseCertificate(d.certificate)
	if err != nil {
		return nil, err
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root)
	for _, item := range d.cabundle[1:] {
		der, _ := item.([]byte)
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		between.AddCert(c)
	}
	usage := []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: usage}); err != nil {
		return nil, fmt.Errorf("the attestation's certificates: %w", err)
	}
	key, ok := leaf.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P384() {
		return nil, errors.New("the attestation's certificate holds no P-384 key")
	}
	return key, nil
}

// verifyDocument returns an attestation document when everything about it is as it must be.
func verifyDocument(raw []byte, root *x509.Certificate, nonce []byte, pcrs map[int][]byte) (*document, error) {
	d, protected, payload, signature, err := parseDocument(raw)
	if err != nil {
		return nil, err
	}
	// {1: -35}: ECDSA on P-384 with SHA-384
	if hex.EncodeToString(protected) != "a1013822" || len(signature) != 96 {
		return nil, errors.New("the attestation is not signed with ES384")
	}
	key, err := verifyChain(d, root)
	if err != nil {
		return nil, err
	}
	signed := encodeHead([]byte("\x84\x6aSignature1"), 2, len(protected))
	signed = encodeHead(append(signed, protected...), 2, 0)
	signed = append(encodeHead(signed, 2, len(payload)), payload...)
	digest := sha512.Sum384(signed)
	if !ecdsa.Verify(key, digest[:], new(big.Int).SetBytes(signature[:48]), new(big.Int).SetBytes(signature[48:])) {
		return nil, errors.New("the attestation's signature is wrong")
	}
	if !bytes.Equal(d.nonce, nonce) {
		return nil, errors.New("the attestation answers another nonce: it may be an old one")
	}
	// Debug mode zeroes the PCRs: then the host can read the enclave's memory.
	if isBytes(d.pcrs[0], make([]byte, 48)) {
		return nil, errors.New("the enclave runs in debug mode: its PCRs are zeros")
	}
	for index, want := range pcrs {
		if !isBytes(d.pcrs[index], want) {
			return nil, fmt.Errorf("PCR%d is %x, not %x: another image runs there", index, d.pcrs[index], want)
		}
	}
	return d, nil
}

// attest returns what the enclave states about itself: its encryption key, and the address of its signing key.
func attest(url string, root *x509.Certificate, pcrs map[int][]byte) (*ecdsa.PublicKey, string, error) {
	var raw []byte
	var stated struct {
		// Of user_data only eth_addr and app_wallet are the enclave's words; anything else is whoever asked.
		EthAddr string `json:"eth_addr"`
	}
	nonce := make([]byte, 32)
	if _, err := rand.Read(nonce); err != nil {
		return nil, "", err
	}
	if err := post(url, map[string]any{"nonce": nonce}, &raw); err != nil {
		return nil, "", err
	}
	d, err := verifyDocument(raw, root, nonce, pcrs)
	if err != nil {
		return nil, "", err
	}
	if err := json.Unmarshal(d.userData, &stated); err != nil {
		return nil, "", err
	}
	key, err := x509.ParsePKIXPublicKey(d.publicKey)
	if err != nil {
		return nil, "", err
	}
	p384, ok := key.(*ecdsa.PublicKey)
	if !ok || p384.Curve != elliptic.P384() {
		return nil, "", errors.New("the attested key is not on P-384")
	}
	return p384, stated.EthAddr, nil
}

// ---- 2. encrypt ----

// Sealed is what /v1/encryption/decrypt takes and what /v1/encryption/encrypt gives.
type Sealed struct {
	Nonce           string `json:"nonce"`
	ClientPublicKey string `json:"client_public_key,omitempty"`
	EncryptedData   string `json:"encrypted_data"`
}

func point(key *ecdsa.PublicKey) []byte { return elliptic.Marshal(key.Curve, key.X, key.Y) }

// messageCipher makes the cipher of one message: the nonce is in its key, and both directions use the same derivation.
// From Go 1.20 on, crypto/ecdh computes z as well.
func messageCipher(own *ecdsa.PrivateKey, peer *ecdsa.PublicKey, nonce []byte) (cipher.AEAD, error) {
	x, _ := peer.Curve.ScalarMult(peer.X, peer.Y, own.D.Bytes())
	z := x.FillBytes(make([]byte, 48))
	a, b := point(&own.PublicKey), point(peer)
	if bytes.Compare(a, b) > 0 {
		a, b = b, a
	}
	salt := append(append(append([]byte{}, a...), b...), nonce...)
	key := make([]byte, 32)
	if _, err := io.ReadFull(hkdf.New(sha256.New, z, salt, []byte("capsule-ecdh-aes256gcm-v1")), key); err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// seal makes the request of an app that passes it to /v1/encryption/decrypt.
func seal(own *ecdsa.PrivateKey, peer *ecdsa.PublicKey, plaintext []byte) (*Sealed, error) {
	nonce := make([]byte, 12)
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	gcm, err := messageCipher(own, peer, nonce)
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(&own.PublicKey)
	if err != nil {
		return nil, err
	}
	return &Sealed{hex.EncodeToString(nonce), hex.EncodeToString(spki), hex.EncodeToString(gcm.Seal(nil, nonce, plaintext, nil))}, nil
}

// unseal returns the plaintext of a reply of /v1/encryption/encrypt.
func unseal(own *ecdsa.PrivateKey, peer *ecdsa.PublicKey, request, reply *Sealed) ([]byte, error) {
	// One key seals both directions, so our own message would open as well.
	if strings.EqualFold(reply.Nonce, request.Nonce) {
		return nil, errors.New("the reply is our own message, sent back")
	}
	refused := errors.New("the reply was not sealed by the attested key")
	nonce, err := hex.DecodeString(reply.Nonce)
	if err != nil || len(nonce) != 12 {
		return nil, refused
	}
	data, err := hex.DecodeString(reply.EncryptedData)
	if err != nil {
		return nil, refused
	}
	gcm, err := messageCipher(own, peer, nonce)
	if err != nil {
		return nil, err
	}
	plaintext, err := gcm.Open(nil, nonce, data, nil)
	if err != nil {
		return nil, refused
	}
	return plaintext, nil
}

// ---- 3. verify ----

func keccak256(data []byte) []byte {
	h := sha3.NewLegacyKeccak256()
	h.Write(data)
	return h.Sum(nil)
}

// signer returns the address whose key signed a text: EIP-191; the signature is r || s || yParity.
func signer(message, signature string) (string, error) {
	raw, err := hex.DecodeString(strings.TrimPrefix(signature, "0x"))
	if err != nil || len(raw) != 65 {
		return "", errors.New("the reply has no signature of 65 bytes")
	}
	digest := keccak256([]byte(fmt.Sprintf("\x19Ethereum Signed Message:\n%d%s", len(message), message)))
	// The library has the parity in front, and Bitcoin's offset on it.
	key, _, err := k256.RecoverCompact(append([]byte{27 + raw[64]}, raw[:64]...), digest)
	if err != nil {
		return "", err
	}
	return "0x" + hex.EncodeToString(keccak256(key.SerializeUncompressed()[1:])[12:]), nil
}

// ---- the three in a row ----

type pcrFlag map[int][]byte

func (p pcrFlag) String() string { return "" }

func (p pcrFlag) Set(text string) error {
	index, value, _ := strings.Cut(text, "=")
	i, err := strconv.Atoi(index)
	if err != nil {
		return err
	}
	p[i], err = hex.DecodeString(value)
	return err
}

func run(rootFile, attestation, app, message string, pcrs map[int][]byte) error {
	text, err := os.ReadFile(rootFile)
	if err != nil {
		return err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return fmt.Errorf("%s holds no PEM certificate", rootFile)
	}
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return err
	}
	enclaveKey, address, err := attest(attestation, root, pcrs)
	if err != nil {
		return err
	}
	fmt.Println("attested:", address)

	own, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return err
	}
	request, err := seal(own, enclaveKey, []byte(message))
	if err != nil {
		return err
	}
	var sealed Sealed
	if err := post(app, request, &sealed); err != nil {
		return err
	}
	plaintext, err := unseal(own, enclaveKey, request, &sealed)
	if err != nil {
		return err
	}
	var reply struct{ Message, Signature string }
	if err := json.Unmarshal(plaintext, &reply); err != nil {
		return err
	}
	fmt.Println("reply:", reply.Message)

	by, err := signer(reply.Message, reply.Signature)
	if err != nil {
		return err
	}
	if by != address {
		return errors.New("the reply was signed by another key than the attested one")
	}
	fmt.Println("signed by:", address)
	return nil
}

func main() {
	pcrs := pcrFlag{}
	root := flag.String("root", "", "PEM `file` of the root certificate to trust")
	attestation := flag.String("attestation", "", "`URL` where documents are handed out")
	app := flag.String("app", "", "`URL` of the app's endpoint for sealed messages")
	flag.Var(pcrs, "pcr", "`N=HEX`: what PCR N must be; at least one")
	flag.Parse()
	if *root == "" || *attestation == "" || *app == "" || len(pcrs) == 0 || flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*root, *attestation, *app, flag.Arg(0), pcrs); err != nil {
		fmt.Fprintln(os.Stderr, "capsule_client:", err)
		os.Exit(1)
	}
}
