//! Which content coding a client wants.

use super::Coding;

/// Chooses the coding of an answer from Accept-Encoding. `elements` are the elements of the field; `offered` are the
/// codings that Weir offers, the preferred ones first. `None`: the client gets the answer as it is.
///
/// A client that refuses the answer as it is (`identity;q=0`) and all codings on offer still gets it as it is: an answer
/// that the client may not like is better than none (RFC 9110, section 12.5.3).
//= rfc9110#12.5.3
// The coding with the highest weight that is not 0. `*` stands for every coding that the field does not name. The
// answer as it is needs no mention to be acceptable.
pub fn choose<'f>(
    elements: impl Iterator<Item = &'f [u8]>,
    offered: impl Iterator<Item = Coding>,
) -> Option<Coding> {
    let mut weights = Weights::default();
    for element in elements {
        let Some((name, weight)) = parse(element) else {
            continue;
        };
        let slot = match () {
            () if name.eq_ignore_ascii_case(b"zstd") => &mut weights.zstd,
            () if name.eq_ignore_ascii_case(b"br") => &mut weights.brotli,
            //= rfc9110#8.4.1.3
            // `x-gzip` is another name of `gzip`.
            () if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") => {
                &mut weights.gzip
            }
            () if name.eq_ignore_ascii_case(b"identity") => &mut weights.identity,
            () if name == b"*" => &mut weights.others,
            () => continue,
        };
        // The first mention counts.
        slot.get_or_insert(weight);
    }
    let mut best = (weights.identity.unwrap_or(0), None);
    for coding in offered {
        let weight = weights.of(coding);
        if weight > best.0 || weight > 0 && weight == best.0 && best.1.is_none() {
            best = (weight, Some(coding));
        }
    }
    best.1
}

/// The weights that a client gives, in thousandths.
#[derive(Default)]
struct Weights {
    zstd: Option<u16>,
    brotli: Option<u16>,
    gzip: Option<u16>,
    identity: Option<u16>,
    others: Option<u16>,
}

impl Weights {
    fn of(&self, coding: Coding) -> u16 {
        let own = match coding {
            Coding::Zstd => self.zstd,
            Coding::Brotli => self.brotli,
            Coding::Gzip => self.gzip,
        };
        own.or(self.others).unwrap_or(0)
    }
}

/// Splits an element into name and weight. `None`: the weight is malformed.
fn parse(element: &[u8]) -> Option<(&[u8], u16)> {
    let Some(at) = element.iter().position(|&byte| byte == b';') else {
        return Some((element, 1_000));
    };
    let (name, parameter) = element.split_at_checked(at)?;
    let parameter = parameter.get(1..)?.trim_ascii();
    let [b'q' | b'Q', b'=', digits @ ..] = parameter else {
        return None;
    };
    Some((name.trim_ascii_end(), weight(digits)?))
}

/// Reads a weight between 0 and 1 with up to three decimals, in thousandths.
fn weight(digits: &[u8]) -> Option<u16> {
    let (whole, decimals) = match digits {
        [whole] | [whole, b'.'] => (whole, &[][..]),
        [whole, b'.', decimals @ ..] if decimals.len() <= 3 => (whole, decimals),
        _ => return None,
    };
    let mut thousandths = 0;
    for at in 0..3 {
        let digit = decimals.get(at).unwrap_or(&b'0').wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        thousandths = thousandths * 10 + u16::from(digit);
    }
    match whole {
        b'0' => Some(thousandths),
        b'1' if thousandths == 0 => Some(1_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(field: &str, chosen: Option<Coding>) {
        let elements = field.split(',').map(|element| element.trim().as_bytes());
        let offered = [Coding::Zstd, Coding::Brotli, Coding::Gzip];
        assert_eq!(choose(elements, offered.into_iter()), chosen, "{field}");
    }

    #[test]
    fn the_highest_weight_wins_and_the_order_on_offer_breaks_ties() {
        check("gzip, deflate, br, zstd", Some(Coding::Zstd));
        check("gzip, deflate, br", Some(Coding::Brotli));
        check("gzip", Some(Coding::Gzip));
        check("GZip;Q=0.5", Some(Coding::Gzip));
        check("x-gzip", Some(Coding::Gzip));
        check("gzip;q=1.0, br;q=0.9, zstd;q=0.1", Some(Coding::Gzip));
        check("br;q=0.001", Some(Coding::Brotli));
        check("zstd;q=0, br ; q=0.3 , gzip;q=0.3", Some(Coding::Brotli));
        check("*", Some(Coding::Zstd));
        check("*;q=0.5, zstd;q=0.4", Some(Coding::Brotli));
        check("zstd;q=0, *", Some(Coding::Brotli));
        check("identity, gzip", Some(Coding::Gzip));
        check("identity;q=0.4, gzip;q=0.5", Some(Coding::Gzip));
        check("identity;q=0, gzip", Some(Coding::Gzip));
    }

    #[test]
    fn the_answer_stays_as_it_is_unless_the_client_accepts_a_coding() {
        check("", None);
        check("identity", None);
        check("deflate, compress", None);
        check("gzip;q=0", None);
        check("*;q=0", None);
        check("identity;q=0", None);
        check("identity;q=0, *;q=0", None);
        check("identity;q=1, gzip;q=0.5", None);
        check("gzipped", None);
    }

    #[test]
    fn a_malformed_weight_takes_its_coding_away() {
        for weight in [
            "q=2", "q=1.5", "q=1.001", "q=0.0001", "q=", "q=-1", "q=a", "p=1", "q=.5",
        ] {
            check(&format!("gzip;{weight}"), None);
        }
        for weight in ["q=1", "q=1.", "q=1.000", "q=0.999", "q=0.1"] {
            check(&format!("gzip;{weight}"), Some(Coding::Gzip));
        }
    }
}
