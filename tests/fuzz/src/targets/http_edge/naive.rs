//! A second reader of requests, as lenient as some are: what strict readers let pass, it has to
//! understand in the same way.

/// A complete request.
pub(super) struct Request {
    pub(super) method: String,
    pub(super) body: Vec<u8>,
    /// Bytes before its end.
    pub(super) end: usize,
}

/// All complete requests. Where there are both, a length goes before a coding or the other way round.
pub(super) fn requests(text: &[u8], length_first: bool) -> Vec<Request> {
    let mut requests = Vec::new();
    let mut at = 0;
    while let Some(request) = request(text, at, length_first) {
        at = request.end;
        requests.push(request);
    }
    requests
}

fn request(text: &[u8], start: usize, length_first: bool) -> Option<Request> {
    let mut headers = [httparse::EMPTY_HEADER; 256];
    let mut head = httparse::Request::new(&mut headers);
    let Ok(httparse::Status::Complete(length)) = head.parse(&text[start..]) else { return None };
    let at = start + length;
    let method = head.method?.to_owned();
    let value = |name: &str| {
        let mut headers = head.headers.iter();
        headers.find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    };
    let coding = value("transfer-encoding").unwrap_or_default().to_ascii_lowercase();
    let chunked = coding.windows(7).any(|part| part == b"chunked");
    let length =
        value("content-length").and_then(|value| str::from_utf8(value).ok()?.trim().parse().ok());
    let (body, end) = match length {
        Some(length) if length_first || !chunked => sized(text, at, length)?,
        _ if chunked => chunks(text, at)?,
        _ => (Vec::new(), at),
    };
    Some(Request { method, body, end })
}

fn sized(text: &[u8], at: usize, length: usize) -> Option<(Vec<u8>, usize)> {
    let end = at.checked_add(length)?;
    Some((text.get(at..end)?.to_vec(), end))
}

fn chunks(text: &[u8], mut at: usize) -> Option<(Vec<u8>, usize)> {
    let mut body = Vec::new();
    loop {
        let size = line(text, &mut at)?;
        let size = str::from_utf8(size.split(|byte| *byte == b';').next()?).ok()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            while !line(text, &mut at)?.is_empty() {}
            return Some((body, at));
        }
        let end = at.checked_add(size)?;
        body.extend_from_slice(text.get(at..end)?);
        at = end;
        line(text, &mut at)?;
    }
}

/// The next line, without its end.
fn line<'a>(text: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let rest = &text[*at..];
    let length = rest.iter().position(|byte| *byte == b'\n')?;
    *at += length + 1;
    let line = &rest[..length];
    Some(line.strip_suffix(b"\r").unwrap_or(line))
}
