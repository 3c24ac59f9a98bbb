"""Keys and tokens for the cases that verify them."""

import base64
import json
import subprocess
import time

ISSUER, AUDIENCE = "https://issuer.example", "bench"
TOKENS = 1000


def make(work):
    """Makes an RSA key, its public half as PEM and JWKS, and files with header lines: one token, and many."""
    if (work / "tokens").exists():
        return
    key, public = work / "jwt.key", work / "jwt.pem"
    run("openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", key)
    run("openssl", "pkey", "-in", key, "-pubout", "-out", public)
    modulus = run("openssl", "rsa", "-in", key, "-noout", "-modulus").decode().strip().split("=")[1]
    jwk = {"kty": "RSA", "kid": "1", "alg": "RS256", "use": "sig", "n": encode(bytes.fromhex(modulus)), "e": "AQAB"}
    (work / "jwks.json").write_text(json.dumps({"keys": [jwk]}))
    tokens = [sign(work, key, number) for number in range(TOKENS)]
    (work / "one").write_text(f"Authorization: Bearer {tokens[0]}\n")
    (work / "tokens").write_text("".join(f"Authorization: Bearer {token}\n" for token in tokens))


def sign(work, key, number):
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": f"user-{number}", "iat": now, "exp": now + 86_400}
    parts = [{"alg": "RS256", "typ": "JWT", "kid": "1"}, claims]
    text = ".".join(encode(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
    (work / "signed").write_text(text)
    signature = run("openssl", "dgst", "-sha256", "-sign", key, "-binary", work / "signed")
    return f"{text}.{encode(signature)}"


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def run(*command):
    return subprocess.run(command, check=True, capture_output=True).stdout
