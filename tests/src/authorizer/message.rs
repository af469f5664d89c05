//! Answers of `envoy.service.auth.v3.CheckResponse`, field by field (Protocol Buffers, "Encoding").

/// A number in a field.
pub fn number(field: u8, value: u64) -> Vec<u8> {
    [vec![field << 3], varint(value)].concat()
}

/// A text or a message in a field.
pub fn bytes(field: u8, value: &[u8]) -> Vec<u8> {
    [vec![field << 3 | 2], varint(value.len() as u64), value.to_vec()].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// `HeaderValueOption`, to be appended or, without, to be set.
pub fn header(name: &str, value: &str, append: bool) -> Vec<u8> {
    let header = [bytes(1, name.as_bytes()), bytes(2, value.as_bytes())].concat();
    let append = if append { bytes(2, &number(1, 1)) } else { Vec::new() };
    [bytes(1, &header), append].concat()
}

/// An answer that lets pass; `fields` are those of `OkHttpResponse`.
pub fn allowed(fields: &[Vec<u8>]) -> Vec<u8> {
    [bytes(1, &[]), bytes(3, &fields.concat())].concat()
}

/// An answer that refuses: status, headers, content.
pub fn denied(status: u16, headers: &[Vec<u8>], body: &[u8]) -> Vec<u8> {
    let headers: Vec<Vec<u8>> = headers.iter().map(|header| bytes(2, header)).collect();
    let status = bytes(1, &number(1, status.into()));
    let denied = [status, headers.concat(), bytes(3, body)].concat();
    [bytes(1, &number(1, 7)), bytes(2, &denied)].concat()
}
