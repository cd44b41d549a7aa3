module capsule_client

go 1.19

require (
	github.com/decred/dcrd/dcrec/secp256k1/v4 v4.2.0
	golang.org/x/crypto v0.21.0
)

require golang.org/x/sys v0.18.0 // indirect
