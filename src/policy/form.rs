//! The encoding of HTML forms, which queries have too.

/// Decodes form encoding: `+` is a space, `%41` is `A`. A percent sign before anything else stays.
pub fn decoded(text: &[u8]) -> impl Iterator<Item = u8> + use<'_> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (byte, after) = match rest {
            [b'%', high, low, after @ ..] => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, after),
                _ => (b'%', rest.get(1..)?),
            },
            [b'+', after @ ..] => (b' ', after),
            [byte, after @ ..] => (*byte, after),
            [] => return None,
        };
        rest = after;
        Some(byte)
    })
}

/// The decoded values of every parameter of a query with this name. `separators` stand between parameters.
pub fn parameters<'a>(
    name: &'a str,
    query: &'a [u8],
    separators: &'static [u8],
) -> impl Iterator<Item = impl Iterator<Item = u8> + use<'a>> {
    let pairs = query.split(|byte| separators.contains(byte));
    pairs.filter_map(move |pair| {
        let mut halves = pair.splitn(2, |byte| *byte == b'=');
        let key = halves.next().unwrap_or_default();
        let is_it = !pair.is_empty() && decoded(key).eq(name.bytes());
        is_it.then(|| decoded(halves.next().unwrap_or_default()))
    })
}

fn hex(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}
