//! Fields that the shapes do not know. Serde passes over them; users should hear of them.

use crate::{
    node::{Node, Value},
    report::{Report, Subject},
};

/// The fields of an object below one of its fields; `[]` stands for the items of a list.
pub(crate) type Known = (&'static str, &'static [&'static str]);

/// Reports fields of the object that are not in `known`. A source that hands over typed objects
/// has dropped them already.
pub(crate) fn check(known: &[Known], subject: &Subject<'_>, report: &mut Report) {
    check_below("", known, subject, report);
}

/// The same for a shape that stands in several places of an object.
pub(crate) fn check_below(
    prefix: &str,
    known: &[Known],
    subject: &Subject<'_>,
    report: &mut Report,
) {
    let Some(document) = subject.document else { return };
    for (at, fields) in known {
        let at = [prefix, at].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>();
        let at = at.join(".");
        let steps: Vec<&str> = at.split('.').filter(|step| !step.is_empty()).collect();
        visit(document, &steps, &mut Vec::new(), &mut |path, name| {
            if !fields.contains(&name) {
                let at = if at.is_empty() { "the object" } else { at.as_str() };
                let message = format!("field {name:?} of {at} is not known");
                let mut path: Vec<&str> = path.iter().map(String::as_str).collect();
                path.push(name);
                report.warning(subject, &path, "unknown-field", message, "it has no effect");
            }
        });
    }
}

/// Calls `found` with every key of the maps that `steps` lead to, and the path to its map.
fn visit(
    node: &Node,
    steps: &[&str],
    path: &mut Vec<String>,
    found: &mut impl FnMut(&[String], &str),
) {
    match (steps, &node.value) {
        ([], Value::Map(entries)) => entries.iter().for_each(|(name, _)| found(path, name)),
        (["[]", rest @ ..], Value::List(items)) => {
            for (index, item) in items.iter().enumerate() {
                path.push(index.to_string());
                visit(item, rest, path, found);
                path.pop();
            }
        }
        ([name, rest @ ..], Value::Map(_)) => {
            if let Some(inner) = node.get(name) {
                path.push((*name).to_owned());
                visit(inner, rest, path, found);
                path.pop();
            }
        }
        _ => {}
    }
}
