//! PEM files of certificates.

use std::path::Path;

use rustls::pki_types::{CertificateDer, pem::PemObject};

use crate::AuthorityError;

/// Certificates that one file may hold.
const MAX_CERTIFICATES: usize = 64;

/// Reads every certificate of a PEM text that came from `path`.
pub(crate) fn certificates(
    text: &str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
    let found = CertificateDer::pem_slice_iter(text.as_bytes())
        .take(MAX_CERTIFICATES + 1)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| AuthorityError::content(path, error.to_string()))?;
    match found.len() {
        0 => Err(AuthorityError::content(path, "it holds no certificate")),
        n if n > MAX_CERTIFICATES => {
            Err(AuthorityError::content(path, format!("more than {MAX_CERTIFICATES} certificates")))
        }
        _ => Ok(found),
    }
}

/// The text of each certificate of a bundle, up to its end marker.
pub(crate) fn blocks(text: &str) -> impl Iterator<Item = &str> {
    const END: &str = "-----END CERTIFICATE-----";
    text.split_inclusive(END).filter(|block| block.ends_with(END)).map(str::trim_start)
}
