//! ClientHellos (RFC 8446, section 4.1.2): one that is written, and a naive reader of any.

/// A hello to the server of this name, in one record.
pub(super) fn write(name: &str) -> Vec<u8> {
    let groups = extension(10, &vector16(&[0, 29, 0, 23]));
    let schemes = extension(13, &vector16(&[4, 3, 8, 4, 8, 7]));
    let versions = extension(43, &[2, 3, 4]);
    let share = [&[0, 29][..], &vector16(&[9; 32])].concat();
    let shares = extension(51, &vector16(&share));
    let host = [&[0][..], &vector16(name.as_bytes())].concat();
    let names = extension(0, &vector16(&host));
    let extensions = [groups, schemes, versions, shares, names].concat();
    let body = [
        &[3, 3][..],
        &[7; 32],
        &[0],
        &vector16(&[0x13, 1, 0x13, 2, 0xc0, 0x2b]),
        &[1, 0],
        &vector16(&extensions),
    ]
    .concat();
    let message = [&[1, 0][..], &vector16(&body)].concat();
    [&[22, 3, 1][..], &vector16(&message)].concat()
}

fn vector16(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or_default();
    [&length.to_be_bytes()[..], bytes].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector16(content)].concat()
}

/// The name of the server that a hello asks for, in lower case.
pub(super) fn server_name(bytes: &[u8]) -> Option<String> {
    let message = records(bytes);
    let mut rest = message.get(4 + 2 + 32..)?;
    take(&mut rest, 1)?;
    take(&mut rest, 2)?;
    take(&mut rest, 1)?;
    let mut extensions = take(&mut rest, 2)?;
    while let Some((kind, after)) = extensions.split_at_checked(2) {
        extensions = after;
        let mut content = take(&mut extensions, 2)?;
        if kind == [0, 0] {
            let mut names = take(&mut content, 2)?;
            let (0, after) = names.split_first().map(|(kind, rest)| (*kind, rest))? else {
                return None;
            };
            names = after;
            let name = take(&mut names, 2)?;
            let name = str::from_utf8(name).ok()?.to_ascii_lowercase();
            return Some(name);
        }
    }
    None
}

/// The handshake messages of all records.
fn records(mut bytes: &[u8]) -> Vec<u8> {
    let mut messages = Vec::new();
    while let Some((header, after)) = bytes.split_at_checked(3) {
        bytes = after;
        let Some(content) = take(&mut bytes, 2).filter(|_| header[0] == 22) else { break };
        messages.extend_from_slice(content);
    }
    messages
}

/// What a length of so many bytes announces.
fn take<'a>(bytes: &mut &'a [u8], width: usize) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_at_checked(width)?;
    let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    let (content, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    Some(content)
}
