//! The first message of a TLS client, as far as a proxy reads it that passes it through (RFC 8446, 4.1.2;
//! RFC 6066, 3).

/// A ClientHello that asks for the server `name`.
pub fn client_hello(name: &str) -> Vec<u8> {
    let entry = [&[0][..], &sized(name.as_bytes())].concat();
    let server_name = [&[0, 0][..], &sized(&sized(&entry))].concat();
    // TLS 1.3, of the extension supported_versions.
    let versions = [&[0, 43][..], &sized(&[2, 3, 4])].concat();
    // ecdsa_secp256r1_sha256.
    let signatures = [&[0, 13][..], &sized(&sized(&[4, 3]))].concat();
    let extensions = sized(&[server_name, versions, signatures].concat());
    let random = [7; 32];
    // No session; one cipher suite; no compression.
    let fixed = [&[3, 3][..], &random, &[0, 0, 2, 0x13, 1, 1, 0]].concat();
    let hello = [fixed, extensions].concat();
    let message = [&[1, 0][..], &sized(&hello)].concat();
    // A record of the handshake.
    [&[22, 3, 1][..], &sized(&message)].concat()
}

/// With its length in two bytes before it.
fn sized(bytes: &[u8]) -> Vec<u8> {
    // The names of a test are short.
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], bytes].concat()
}
