//! The files of the page.

use hyper::StatusCode;

use crate::admin::Answer;

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! files {
    ($($name:literal $kind:expr,)*) => {
        /// Name, kind, text.
        pub(super) static FILES: &[(&str, &str, &str)] =
            &[$(($name, $kind, include_str!(concat!("page/", $name))),)*];
    };
}

files! {
    "index.html" HTML,
    "style.css" "text/css; charset=utf-8",
    "icon.svg" "image/svg+xml",
    "main.js" SCRIPT,
    "dom.js" SCRIPT,
    "flows.js" SCRIPT,
    "graph.js" SCRIPT,
    "mesh.js" SCRIPT,
    "overview.js" SCRIPT,
    "policies.js" SCRIPT,
    "rates.js" SCRIPT,
    "security.js" SCRIPT,
    "source.js" SCRIPT,
    "table.js" SCRIPT,
    "words.js" SCRIPT,
}

/// A file by its name; nothing stands for the page itself.
pub(super) fn find(name: &str) -> Option<Answer> {
    let name = if name.is_empty() { "index.html" } else { name };
    let (_, content_type, text) = FILES.iter().find(|(file, ..)| *file == name)?;
    Some(Answer { status: StatusCode::OK, content_type, body: (*text).to_owned() })
}
