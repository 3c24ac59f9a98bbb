use super::*;

#[test]
fn listen_addresses() {
    for (text, shown) in [
        ("0.0.0.0:8080", "0.0.0.0:8080"),
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("[::]:80", "[::]:80"),
        ("[0:0::1]:80", "[::1]:80"),
        ("unix:/run/weir.sock", "unix:/run/weir.sock"),
    ] {
        let address: Address = text.parse().expect(text);
        assert_eq!(address.to_string(), shown);
    }
    let longest = format!("unix:/{}", "x".repeat(106));
    assert!(longest.parse::<Address>().is_ok());
    assert!(format!("{longest}x").parse::<Address>().is_err());
    let error = "8080".parse::<Address>().expect_err("no address");
    assert_eq!(
        error.to_string(),
        "`8080` is not an address to listen on (for port 8080 of all addresses write \"0.0.0.0:8080\")"
    );
}
