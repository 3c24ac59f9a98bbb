//! Decodes what Weir has compressed.

use std::io::Read;

/// Decodes as far as the bytes go. The flag says whether they are the whole of a body.
pub fn decode(coding: &str, bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut decoder: Box<dyn Read> = match coding {
        "zstd" => Box::new(zstd::Decoder::new(bytes).expect("a decoder")),
        "br" => Box::new(brotli::Decompressor::new(bytes, 4096)),
        "gzip" => Box::new(flate2::read::GzDecoder::new(bytes)),
        other => panic!("unknown coding {other}"),
    };
    let (mut whole, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match decoder.read(&mut buffer) {
            Ok(0) => return (whole, true),
            Ok(read) => whole.extend_from_slice(&buffer[..read]),
            Err(_) => return (whole, false),
        }
    }
}
