//! Tokens: exchanges with a token that the core knows, beside the same on a route that asks for none, and verification
//! beside the cryptography alone.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, crypto};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use weir::io::sim::World;
use weir::policy::jwt::{Audience, KeyOrigin, KeySet, Token, TokenRules, Tried};

use crate::Case;
use crate::exchange::{ROUTES, exchange_in_turn, proxy_with};
use crate::routing::compile;

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "exchange-token-plain",
        run: |times| exchange(1, "", times),
        base: None,
    },
    Case {
        name: "exchange-token-cached",
        run: |times| exchange(1, JWT, times),
        base: Some("exchange-token-plain"),
    },
    Case {
        name: "exchange-token-forwarded",
        run: |times| exchange(1, FORWARD, times),
        base: Some("exchange-token-plain"),
    },
    Case {
        name: "exchange-tokens-plain",
        run: |times| exchange(1000, "", times),
        base: None,
    },
    Case {
        name: "exchange-tokens-cached",
        run: |times| exchange(1000, JWT, times),
        base: Some("exchange-tokens-plain"),
    },
    Case {
        name: "token-es256",
        run: |times| verify(&Signer::es256(), times),
        base: Some("signature-es256"),
    },
    Case {
        name: "signature-es256",
        run: |times| verify_signature(&Signer::es256(), times),
        base: None,
    },
    Case {
        name: "token-rs256",
        run: |times| verify(&Signer::rs256(), times),
        base: Some("signature-rs256"),
    },
    Case {
        name: "signature-rs256",
        run: |times| verify_signature(&Signer::rs256(), times),
        base: None,
    },
];

const JWT: &str = "jwt = { issuer = \"https://issuer.example/\", audience = \"api\", jwks_url = \"https://issuer.example/keys\" }\n";
const FORWARD: &str = "jwt = { issuer = \"https://issuer.example/\", audience = \"api\", jwks_url = \"https://issuer.example/keys\", forward = true }\n";

/// A key pair that signs tokens.
struct Signer {
    algorithm: Algorithm,
    name: &'static str,
    jwk: String,
    private: EncodingKey,
    public: DecodingKey,
}

impl Signer {
    fn es256() -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let point = pair.public_key_raw();
        let [x, y] = [&point[1..33], &point[33..]].map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
        Self {
            algorithm: Algorithm::ES256,
            name: "ES256",
            jwk: format!(
                "{{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"2026-a\",\"x\":\"{x}\",\"y\":\"{y}\"}}"
            ),
            private: EncodingKey::from_ec_der(&pair.serialize_der()),
            public: DecodingKey::from_ec_der(point),
        }
    }

    fn rs256() -> Self {
        let pair = KeyPair::generate_for(&PKCS_RSA_SHA256).expect("a key");
        let private = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).expect("a key");
        // Behind two headers of four bytes and a zero, the modulus; at the end, an exponent of three bytes.
        let der = pair.public_key_raw();
        let (n, e) = (&der[9..265], &der[der.len() - 3..]);
        let [modulus, exponent] = [n, e].map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
        Self {
            algorithm: Algorithm::RS256,
            name: "RS256",
            jwk: format!(
                "{{\"kty\":\"RSA\",\"kid\":\"2026-a\",\"n\":\"{modulus}\",\"e\":\"{exponent}\"}}"
            ),
            private,
            public: DecodingKey::from_rsa_raw_components(n, e),
        }
    }

    fn keys(&self) -> KeySet {
        let text = format!("{{\"keys\":[{}]}}", self.jwk);
        let read = KeySet::parse(text.as_bytes(), &[], KeyOrigin::Fetched);
        read.expect("a key set").keys
    }

    /// A token such as an OpenID provider writes.
    fn token(&self, number: usize) -> String {
        let header = format!(
            "{{\"alg\":\"{}\",\"typ\":\"JWT\",\"kid\":\"2026-a\"}}",
            self.name
        );
        let claims = format!(
            "{{\"iss\":\"https://issuer.example/\",\"aud\":[\"api\",\"https://issuer.example/userinfo\"],\
             \"sub\":\"auth|5f7c8ec7c33c6c004bbafe{number:05}\",\"iat\":1700000000,\"exp\":99999999999,\
             \"azp\":\"a6f1c2de9b8d4f0e\",\"scope\":\"openid profile email orders:read orders:write\",\
             \"email\":\"somebody{number}@mail.example\",\"email_verified\":true,\"name\":\"Some Body\",\
             \"roles\":[\"user\",\"editor\"],\"tenant\":\"00000000-0000-4000-8000-000000000000\"}}"
        );
        let text = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(claims)
        );
        let signature =
            crypto::sign(text.as_bytes(), &self.private, self.algorithm).expect("a signature");
        format!("{text}.{signature}")
    }
}

/// Sends requests with so many tokens in turn to a route with `key`.
fn exchange(tokens: usize, key: &str, times: u64) {
    let signer = Signer::es256();
    let request = |number| {
        let token = signer.token(number);
        format!(
            "GET /b/1024 HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: pace\r\nAccept: */*\r\n\
             Authorization: Bearer {token}\r\n\r\n"
        )
        .into_bytes()
    };
    let start = |world: &World| {
        let plan = compile(&format!("{ROUTES}{key}"));
        for board in plan.states.key_boards() {
            board.post(signer.keys());
        }
        proxy_with(world, plan);
    };
    exchange_in_turn((0..tokens).map(request).collect(), start, times);
}

fn verify(signer: &Signer, times: u64) {
    let (keys, token) = (signer.keys(), signer.token(1));
    let rules = TokenRules {
        issuer: Some("https://issuer.example/".into()),
        audience: Audience::OneOf(["api".into()].into()),
        leeway_s: 60.0,
        require: Box::default(),
    };
    for _ in 0..times {
        let parsed = Token::parse(token.as_bytes()).expect("a token");
        rules
            .check(&parsed, 1_700_000_000_000)
            .expect("a token for here and now");
        let tried = rules.verify(parsed, &keys, 0);
        assert!(matches!(tried, Tried::Valid(_)), "a valid token");
    }
}

fn verify_signature(signer: &Signer, times: u64) {
    let token = signer.token(1);
    let (text, signature) = token.rsplit_once('.').expect("three parts");
    for _ in 0..times {
        let verified = crypto::verify(signature, text.as_bytes(), &signer.public, signer.algorithm);
        assert!(verified.expect("a signature"), "a valid signature");
    }
}
