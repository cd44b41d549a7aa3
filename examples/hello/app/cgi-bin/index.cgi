#!/bin/sh
# What an app sees: its environment, the Capsule API on loopback, and the egress policy.
api=http://127.0.0.1:9000
port=${QUERY_STRING#greeting-port=}

printf 'Content-Type: text/plain\r\n\r\n'
echo "$GREETING"
echo "random bytes from the NSM: $(wget -q -Y off -O - $api/v1/random)"
echo "this enclave's Ethereum key: $(wget -q -Y off -O - $api/v1/eth/address)"
echo "egress to http://host:$port/: $(wget -q -O - "http://host:$port/greeting.txt" 2>&1)"
echo "egress to http://elsewhere.example/: $(wget -q -S -O - http://elsewhere.example/ 2>&1 | sed -n '/HTTP\/1.1 /p; /X-Capsule-Egress/p' | tr -s '\r\n' ' ')"
