//! Error numbers by name, as tests and people know them.

use std::io;

use rustix::io::Errno;

const NAMES: &[(Errno, &str)] = &[
    (Errno::CONNREFUSED, "ECONNREFUSED"),
    (Errno::CONNRESET, "ECONNRESET"),
    (Errno::CONNABORTED, "ECONNABORTED"),
    (Errno::PIPE, "EPIPE"),
    (Errno::TIMEDOUT, "ETIMEDOUT"),
    (Errno::AGAIN, "EAGAIN"),
    (Errno::HOSTUNREACH, "EHOSTUNREACH"),
    (Errno::NETUNREACH, "ENETUNREACH"),
    (Errno::ADDRNOTAVAIL, "EADDRNOTAVAIL"),
    (Errno::ADDRINUSE, "EADDRINUSE"),
    (Errno::NOTCONN, "ENOTCONN"),
    (Errno::PERM, "EPERM"),
    (Errno::ACCESS, "EACCES"),
    (Errno::INVAL, "EINVAL"),
    (Errno::NODEV, "ENODEV"),
    (Errno::MFILE, "EMFILE"),
];

/// The name of an error: `ECONNREFUSED`, or `EOF` for a stream that ended too early. A time-out of
/// the caller's own is `EAGAIN` (reading, writing) or `ETIMEDOUT` (connecting).
pub fn errno_name(error: &io::Error) -> String {
    let code = error.raw_os_error();
    let known = NAMES.iter().find(|(errno, _)| Some(errno.raw_os_error()) == code);
    match (known, code, error.kind()) {
        (Some((_, name)), _, _) => (*name).to_owned(),
        (None, Some(code), _) => format!("errno {code}"),
        (None, None, io::ErrorKind::UnexpectedEof) => "EOF".to_owned(),
        (None, None, io::ErrorKind::TimedOut) => "ETIMEDOUT".to_owned(),
        (None, None, kind) => kind.to_string(),
    }
}
