//! The messages of `grpc.health.v1.Health/Check`, encoded by hand: a string in the request, a number in the answer.
//!
//! service Health { rpc Check(HealthCheckRequest) returns (HealthCheckResponse); }
//! HealthCheckRequest { string service = 1; } HealthCheckResponse { ServingStatus status = 1; }

/// The path of the method.
pub(super) const PATH: &str = "/grpc.health.v1.Health/Check";

/// The bytes before a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// A request about a service; empty for the server as a whole.
pub(super) fn request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        // Field 1, with a length before it.
        message.push(0x0a);
        put_number(&mut message, service.len() as u64);
        message.extend_from_slice(service.as_bytes());
    }
    let mut out = vec![0];
    out.extend_from_slice(&(message.len() as u32).to_be_bytes());
    out.extend_from_slice(&message);
    out
}

/// Reads the body of an answer.
///
/// # Errors
/// The service does not serve, or the body is no answer.
pub(super) fn verdict(body: &[u8]) -> Result<(), String> {
    match status(body) {
        Some(1) => Ok(()),
        Some(0) => Err("gRPC status UNKNOWN".to_owned()),
        Some(2) => Err("gRPC status NOT_SERVING".to_owned()),
        Some(3) => Err("gRPC status SERVICE_UNKNOWN".to_owned()),
        Some(other) => Err(format!("gRPC status {other}")),
        None => Err("its answer is no HealthCheckResponse".to_owned()),
    }
}

/// An explanation of the `grpc-status` of a call that failed.
pub(super) fn failure(code: &str) -> String {
    let name = match code {
        "5" => " (NOT_FOUND: it does not know the service)",
        "12" => " (UNIMPLEMENTED: it has no health service)",
        "14" => " (UNAVAILABLE)",
        "16" => " (UNAUTHENTICATED)",
        _ => "",
    };
    format!("grpc-status {code}{name}")
}

/// The number of field 1. Without the field it is 0, as always in protobuf.
fn status(body: &[u8]) -> Option<u64> {
    let (prefix, message) = body.split_at_checked(PREFIX_BYTES)?;
    let (&compressed, length) = prefix.split_first()?;
    let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
    let mut rest = message.get(..length).filter(|_| compressed == 0)?;
    let mut status = 0;
    while !rest.is_empty() {
        let key = take_number(&mut rest)?;
        match key & 7 {
            0 => {
                let value = take_number(&mut rest)?;
                if key >> 3 == 1 {
                    status = value;
                }
            }
            1 => rest = rest.get(8..)?,
            2 => {
                let length = take_number(&mut rest)?;
                rest = rest.get(usize::try_from(length).ok()?..)?;
            }
            5 => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

/// Writes a number as protobuf does: seven bits a byte, the lowest first.
fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_name_the_service() {
        assert_eq!(request(""), [0, 0, 0, 0, 0]);
        assert_eq!(request("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = request(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 2]);
    }

    #[test]
    fn answers_say_whether_the_service_serves() {
        assert_eq!(verdict(&[0, 0, 0, 0, 2, 8, 1]), Ok(()));
        // An unknown field of each kind before it.
        let odd = [
            0, 0, 0, 0, 21, 0x12, 1, 9, 0x18, 0x80, 1, 0x25, 1, 2, 3, 4, 0x29, 1, 2, 3, 4, 5, 6, 7,
            8, 8, 1,
        ];
        let mut odd = odd.to_vec();
        odd[4] = (odd.len() - 5) as u8;
        assert_eq!(verdict(&odd), Ok(()));
        let not = verdict(&[0, 0, 0, 0, 2, 8, 2]);
        assert_eq!(not, Err("gRPC status NOT_SERVING".to_owned()));
        let unknown = verdict(&[0, 0, 0, 0, 0]);
        assert_eq!(unknown, Err("gRPC status UNKNOWN".to_owned()));
        for bad in [
            &[][..],
            &[0, 0, 0, 0],
            &[1, 0, 0, 0, 2, 8, 1],
            &[0, 0, 0, 0, 9, 8, 1],
            &[0, 0, 0, 0, 1, 8],
            &[0, 0, 0, 0, 2, 0x0b, 1],
        ] {
            assert!(verdict(bad).is_err(), "{bad:?}");
        }
    }

    /// Whatever bytes come, reading ends without a panic.
    #[test]
    fn random_bytes_do_no_harm() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let length = random.usize(0..24);
            let mut body = vec![0, 0, 0, 0, length as u8];
            body.extend((0..length).map(|_| random.u8(..)));
            let _ = verdict(&body);
        }
    }
}
