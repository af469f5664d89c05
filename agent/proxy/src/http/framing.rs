//! Where the requests of an HTTP/1 connection begin and end, read as strictly as can be.
//!
//! hyper is more lenient than is good for a proxy: it accepts a request that has both a length and a
//! transfer coding, and lines that end without CR. Nothing of that reaches an endpoint, because every
//! request is framed anew; but a client that is lenient in another way would mean something else by
//! the same bytes, so they are refused (RFC 9112, section 11.2). Pure and total: a client chooses the
//! bytes.

use crate::config::HeadLimits;

/// Longest line with the size of a chunk.
const MAX_CHUNK_LINE: usize = 1 << 10;
/// Headers that are read where as many may come as by default, and more than hyper takes then.
const USUAL_HEADERS: usize = 128;

/// What is to be done with bytes that were looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// So many of them are as they should be.
    Pass(usize),
    /// More have to come before there is anything to say.
    More,
    /// They are no HTTP.
    Refuse(&'static str),
}

/// What comes next on a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Next {
    #[default]
    Head,
    /// So many bytes of a body.
    Body(u64),
    ChunkSize,
    /// So many bytes of a chunk.
    Chunk(u64),
    ChunkEnd,
    /// So many bytes of trailers were seen.
    Trailers(usize),
    /// What the endpoint makes of the request decides: bytes of another protocol, or the next request.
    Undecided,
    /// Something else than HTTP.
    Raw,
}

/// Follows the bytes of one connection.
#[derive(Debug)]
pub(crate) struct Framing {
    /// The same as hyper's, which answers larger heads and those with more headers.
    limits: HeadLimits,
    next: Next,
    /// The request wants to be the last of its connection.
    upgrade: bool,
    /// How many bytes of a head or of a line were searched for its end. A client may send them one by one.
    searched: usize,
}

impl Framing {
    pub(crate) fn new(limits: HeadLimits) -> Self {
        Self { limits, next: Next::default(), upgrade: false, searched: 0 }
    }

    /// Largest head.
    pub(crate) fn max_head(&self) -> usize {
        self.limits.bytes
    }

    /// How many bytes may pass without a look at them; `None` for none.
    pub(crate) fn unseen(&self) -> Option<u64> {
        match self.next {
            Next::Body(left) | Next::Chunk(left) => Some(left),
            Next::Raw => Some(u64::MAX),
            _ => None,
        }
    }

    /// So many bytes have passed without a look at them; no more than [`Self::unseen`].
    pub(crate) fn passed(&mut self, count: u64) {
        self.next = match self.next {
            Next::Body(left) if left <= count => self.after_request(),
            Next::Body(left) => Next::Body(left - count),
            Next::Chunk(left) if left <= count => Next::ChunkEnd,
            Next::Chunk(left) => Next::Chunk(left - count),
            other => other,
        };
    }

    /// Whether the endpoint has to decide what comes next.
    pub(crate) fn is_undecided(&self) -> bool {
        self.next == Next::Undecided
    }

    /// The endpoint has decided.
    pub(crate) fn decide(&mut self, switched: bool) {
        self.upgrade = false;
        self.next = if switched { Next::Raw } else { Next::Head };
    }

    fn after_request(&self) -> Next {
        if self.upgrade { Next::Undecided } else { Next::Head }
    }

    /// Whether a request has begun that is not complete.
    pub(crate) fn is_between_requests(&self) -> bool {
        self.next == Next::Head
    }

    /// Looks at bytes.
    pub(crate) fn look(&mut self, bytes: &[u8]) -> Step {
        match self.next {
            Next::Head => self.head(bytes),
            Next::ChunkSize => self.chunk_size(bytes),
            Next::ChunkEnd => match bytes {
                [b'\r', b'\n', ..] => {
                    self.next = Next::ChunkSize;
                    Step::Pass(2)
                }
                [] | [b'\r'] => Step::More,
                _ => Step::Refuse("a chunk is longer than it says"),
            },
            Next::Trailers(seen) => self.trailer(bytes, seen),
            Next::Undecided => Step::More,
            Next::Body(_) | Next::Chunk(_) | Next::Raw => Step::Pass(0),
        }
    }

    fn head(&mut self, bytes: &[u8]) -> Step {
        // An empty line before a request is ignored (RFC 9112, section 2.2).
        if bytes.starts_with(b"\r\n") {
            return Step::Pass(2);
        }
        let most = self.limits.bytes;
        let length = head_length(bytes, self.searched).filter(|length| *length <= most);
        let Some(length) = length else {
            // An end may have begun already.
            self.searched = bytes.len().saturating_sub(2);
            return if bytes.len() > most {
                self.next = Next::Raw;
                Step::Pass(bytes.len())
            } else {
                Step::More
            };
        };
        match after_head(&bytes[..length], self.limits.headers) {
            Ok((next, upgrade)) => {
                self.upgrade = upgrade;
                self.next = next.unwrap_or_else(|| self.after_request());
                self.searched = 0;
                Step::Pass(length)
            }
            Err(why) => Step::Refuse(why),
        }
    }

    fn chunk_size(&mut self, bytes: &[u8]) -> Step {
        let line = match self.line(bytes, MAX_CHUNK_LINE) {
            Ok(Some(line)) => line,
            Ok(None) => return Step::More,
            Err(why) => return Step::Refuse(why),
        };
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (size, extension) = line.split_at(digits);
        let visible = |byte: &u8| *byte == b'\t' || (0x20..0x7f).contains(byte) || *byte >= 0x80;
        if !(1..=15).contains(&digits) || !extension.iter().all(visible) {
            return Step::Refuse("not the size of a chunk");
        }
        // Spaces may come before an extension, and nowhere else.
        if !extension.is_empty() && !extension.trim_ascii_start().starts_with(b";") {
            return Step::Refuse("not the size of a chunk");
        }
        let size = str::from_utf8(size).ok().and_then(|size| u64::from_str_radix(size, 16).ok());
        self.next = match size {
            Some(0) => Next::Trailers(0),
            Some(size) => Next::Chunk(size),
            None => return Step::Refuse("not the size of a chunk"),
        };
        Step::Pass(line.len() + 2)
    }

    fn trailer(&mut self, bytes: &[u8], seen: usize) -> Step {
        let line = match self.line(bytes, self.limits.bytes.saturating_sub(seen)) {
            Ok(Some(line)) => line,
            Ok(None) => return Step::More,
            Err(why) => return Step::Refuse(why),
        };
        let more = Next::Trailers(seen + line.len() + 2);
        self.next = if line.is_empty() { self.after_request() } else { more };
        match line.first() {
            Some(b' ' | b'\t') => Step::Refuse("a trailer that begins with a space"),
            _ => Step::Pass(line.len() + 2),
        }
    }

    /// A line without its end, if it is there.
    fn line<'a>(
        &mut self,
        bytes: &'a [u8],
        longest: usize,
    ) -> Result<Option<&'a [u8]>, &'static str> {
        let from = std::mem::take(&mut self.searched);
        let mut rest = bytes.iter().enumerate().take(longest + 2).skip(from);
        match rest.find(|(_, byte)| **byte == b'\n').map(|(at, _)| at) {
            Some(at) if at > 0 && bytes[at - 1] == b'\r' => Ok(Some(&bytes[..at - 1])),
            Some(_) => Err("a line that ends without CR"),
            None if bytes.len() > longest + 1 => Err("a line that is too long"),
            None => {
                self.searched = bytes.len();
                Ok(None)
            }
        }
    }
}

/// Length of a head with the empty line that ends it. Lines that end without CR end one as well; they
/// are looked for later.
fn head_length(bytes: &[u8], mut from: usize) -> Option<usize> {
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == b'\n') {
        let end = from + at + 1;
        let rest = &bytes[end..];
        if rest.starts_with(b"\r\n") {
            return Some(end + 2);
        }
        if rest.starts_with(b"\n") {
            return Some(end + 1);
        }
        from = end;
    }
    None
}

/// What follows this head, if anything does; and whether the request wants to be the last.
fn after_head(head: &[u8], most: usize) -> Result<(Option<Next>, bool), &'static str> {
    // Always more than hyper takes: what it reads has been read here.
    if most < USUAL_HEADERS {
        return after_fields(head, &mut [httparse::EMPTY_HEADER; USUAL_HEADERS]);
    }
    after_fields(head, &mut vec![httparse::EMPTY_HEADER; most + 1])
}

fn after_fields<'a>(
    head: &'a [u8],
    headers: &mut [httparse::Header<'a>],
) -> Result<(Option<Next>, bool), &'static str> {
    let bare = head.windows(2).any(|pair| pair[1] == b'\n' && pair[0] != b'\r');
    if bare || head.starts_with(b"\n") {
        return Err("a line that ends without CR");
    }
    if head.windows(2).any(|pair| pair[0] == b'\n' && matches!(pair[1], b' ' | b'\t')) {
        return Err("a header that is folded");
    }
    let mut request = httparse::Request::new(headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        // Whoever reads it would go on reading.
        Ok(_) => return Err("a head that does not end where it should"),
        // hyper reads it in the same way, and answers.
        Err(_) => return Ok((Some(Next::Raw), false)),
    }
    let connect = request.method == Some("CONNECT");
    if !is_target(request.path.unwrap_or_default(), connect) {
        return Err("a target that is no path and no URI");
    }
    let old = request.version == Some(0);
    let fields = Fields::of(request.headers)?;
    if connect && (fields.chunked || fields.length.is_some_and(|length| length > 0)) {
        return Err("CONNECT with a body");
    }
    let next = match (fields.chunked, fields.length) {
        (true, Some(_)) => return Err("both Transfer-Encoding and Content-Length"),
        (true, None) if old => return Err("Transfer-Encoding in HTTP/1.0"),
        (true, None) => Some(Next::ChunkSize),
        (false, length) => length.filter(|length| *length > 0).map(Next::Body),
    };
    Ok((next, connect || fields.upgrade))
}

/// Whether a target has one of the four forms (RFC 9112, section 3.2), as far as readers of URIs might see
/// another one in it, or drop what they do not expect.
fn is_target(target: &str, connect: bool) -> bool {
    let scheme = |scheme: &str| {
        target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    let form = connect || target == "*" || target.starts_with('/');
    !target.contains('#') && (form || scheme("http://") || scheme("https://"))
}

/// What the headers of a request say about its framing.
#[derive(Default)]
struct Fields {
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

impl Fields {
    fn of(headers: &[httparse::Header<'_>]) -> Result<Self, &'static str> {
        let mut fields = Self::default();
        for header in headers {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            if is("content-length") {
                let length = length(header.value).ok_or("Content-Length is no number")?;
                if fields.length.replace(length).is_some() {
                    return Err("more than one Content-Length");
                }
            } else if is("transfer-encoding") {
                if fields.chunked || !header.value.eq_ignore_ascii_case(b"chunked") {
                    return Err("a Transfer-Encoding other than chunked");
                }
                fields.chunked = true;
            } else if is("upgrade") {
                fields.upgrade = true;
            }
        }
        Ok(fields)
    }
}

fn length(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    digits.then(|| str::from_utf8(value).ok()?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests;
