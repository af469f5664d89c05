//! Rules for requests that no request gets to, as another of the same object takes them before.

use std::collections::HashMap;

use super::{
    findings::{Findings, Path},
    shapes::{HttpMatch, HttpRoute},
};

const REMEDY: &str = "move it up, or remove it";

/// Reports them. Compares matches as they are written: what overlaps in part is not looked for.
pub(super) fn report(findings: &mut Findings<'_>, routes: &[HttpRoute]) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut for_all = None;
    for (index, route) in routes.iter().enumerate() {
        let at = Path::root("http").item(index);
        if let Some(first) = for_all {
            let what = format!("no request gets here: http[{first}] takes them all");
            findings.warn(&at, "unreachable-rule", what, REMEDY);
            continue;
        }
        if route.matches.is_empty() {
            for_all = Some(index);
        }
        for (number, one) in route.matches.iter().enumerate() {
            let first = *seen.entry(text(one)).or_insert(index);
            if first != index {
                let what = format!("no request gets here: http[{first}] has the same match");
                let at = at.field("match").item(number);
                findings.warn(&at, "unreachable-rule", what, REMEDY);
            }
        }
    }
}

/// What a match says, without its name.
fn text(shape: &HttpMatch) -> String {
    format!("{:?}", HttpMatch { name: String::new(), ..shape.clone() })
}
