//! Manifests as text: finds the objects of a file, names them, and has each converted. Objects of other
//! sources take the last step of the same way.

use std::path::Path;

use undermesh_model::{Diagnostic, ResourceRef, Severity, SourcePosition};

use crate::{
    documents::{Document, split},
    kinds::Kind,
    names,
    node::{Malformed, Node, Value},
    objects::{Objects, Room},
    report::{Report, Subject},
};

/// A kind that has no effect on the mesh.
pub(crate) const UNREAD_KIND: &str = "unread-kind";
/// A document that is none of Kubernetes' at all.
pub(crate) const NO_OBJECT: &str = "no-object";
const MALFORMED: &str = "malformed-manifest";
const REMEDY: &str = "correct the manifest; the last good state stays in force until then";

/// Reads the manifests in `text`, which came from `file`.
pub(crate) fn read(text: &str, file: &Path, objects: &mut Objects, report: &mut Report) {
    let mut reader = Reader { file: Some(file), objects, report };
    for document in split(text) {
        match Node::parse(document.text, document.lines_before) {
            Ok(node) => reader.document(&node),
            Err(malformed) => reader.malformed(&document, malformed),
        }
    }
}

/// Reads one object that came from no file.
pub(crate) fn read_object(object: &Node, objects: &mut Objects, report: &mut Report) {
    Reader { file: None, objects, report }.object(object, None);
}

struct Reader<'a> {
    /// `None` where objects come from elsewhere; findings have no position then.
    file: Option<&'a Path>,
    objects: &'a mut Objects,
    report: &'a mut Report,
}

/// What identifies an object.
struct Head<'a> {
    kind: &'a str,
    api_version: &'a str,
    name: &'a str,
    namespace: &'a str,
}

impl Reader<'_> {
    fn position(&self, line: usize) -> Option<SourcePosition> {
        Some(SourcePosition { file: self.file?.to_owned(), line })
    }

    /// A finding about something that cannot be named.
    fn unnamed(
        &mut self,
        severity: Severity,
        line: usize,
        (code, message): (&'static str, String),
        remedy: &str,
    ) {
        let position = self.position(line);
        let remedy = remedy.to_owned();
        self.report.add(Diagnostic { severity, code, object: None, position, message, remedy });
    }

    fn malformed(&mut self, document: &Document<'_>, malformed: Malformed) {
        let line = malformed.line.unwrap_or(document.lines_before + 1);
        self.report.add(Diagnostic {
            severity: Severity::Error,
            code: MALFORMED,
            object: name_above(document.text, line.saturating_sub(document.lines_before + 1)),
            position: self.position(line),
            message: malformed.reason,
            remedy: REMEDY.to_owned(),
        });
    }

    /// A document is an object, or a list of objects.
    fn document(&mut self, node: &Node) {
        let Some(kind) = text(node, "kind") else { return self.object(node, None) };
        if kind == "List" && text(node, "apiVersion") == Some("v1") {
            return self.list(node, None);
        }
        match kind.strip_suffix("List").and_then(Kind::find) {
            Some(kind) => self.list(node, Some(kind)),
            None => self.object(node, None),
        }
    }

    /// Objects of a typed list (`PodList`) may leave out what the list has said.
    fn list(&mut self, node: &Node, kind: Option<&'static Kind>) {
        match node.get("items").map(|items| (items.line, &items.value)) {
            None | Some((_, Value::Null)) => {}
            Some((_, Value::List(items))) => items.iter().for_each(|item| self.object(item, kind)),
            Some((line, _)) => {
                let message = "items is no list".to_owned();
                self.unnamed(Severity::Error, line, (MALFORMED, message), REMEDY);
            }
        }
    }

    fn object(&mut self, node: &Node, inherited: Option<&'static Kind>) {
        match self.objects.count() {
            Room::Left => {}
            Room::JustExhausted => {
                let finding = ("too-many-objects", Room::complaint());
                return self.unnamed(Severity::Error, node.line, finding, "remove some");
            }
            Room::Exhausted => return,
        }
        let mut head = match head(node) {
            Ok(head) => head,
            Err((line, message)) if !matches!(node.value, Value::Map(_)) => {
                return self.unnamed(Severity::Error, line, (NO_OBJECT, message), REMEDY);
            }
            Err((line, message)) => {
                return self.unnamed(Severity::Error, line, (MALFORMED, message), REMEDY);
            }
        };
        if let (true, Some(kind)) = (head.kind.is_empty(), inherited) {
            head.kind = kind.description.kind;
            head.api_version = kind.api_version();
        }
        match Kind::find(head.kind).filter(|kind| !kind.is_foreign(head.api_version)) {
            Some(kind) => self.known(node, kind, &head),
            None if head.kind.is_empty() => {
                let finding = (NO_OBJECT, "this document has no kind".to_owned());
                self.unnamed(Severity::Error, node.line, finding, "write a Kubernetes object");
            }
            None => self.unread(node.line, &head),
        }
    }

    fn unread(&mut self, line: usize, head: &Head<'_>) {
        let Head { kind, api_version, name, .. } = head;
        let message = format!("kind {kind} ({api_version}) is not read by this version: {name:?}");
        self.unnamed(Severity::Warning, line, (UNREAD_KIND, message), "it has no effect");
    }

    fn known(&mut self, node: &Node, kind: &'static Kind, head: &Head<'_>) {
        if head.name.is_empty() {
            let message = format!("this {} has no metadata.name", head.kind);
            let remedy = "write one; generateName has no effect here";
            return self.unnamed(Severity::Error, node.line, (MALFORMED, message), remedy);
        }
        let subject = Subject {
            origin: origin(kind, head),
            position: self.position(node.line),
            document: Some(node),
        };
        if !kind.description.api_versions.contains(&head.api_version) {
            let expected = kind.api_version();
            let message = format!("apiVersion is {:?} instead of {expected}", head.api_version);
            let code = "unknown-api-version";
            let remedy = "correct apiVersion";
            return self.report.error(&subject, &["apiVersion"], code, message, remedy);
        }
        if !self.is_named_well(kind, &subject) || !self.objects.claim(&subject, self.report) {
            return;
        }
        if let Err(error) = (kind.read)(node, &subject, self.objects, self.report) {
            let position = self.position(error.line);
            self.report.add(Diagnostic {
                severity: Severity::Error,
                code: MALFORMED,
                object: Some(subject.origin),
                position,
                message: error.to_string(),
                remedy: REMEDY.to_owned(),
            });
        }
    }

    fn is_named_well(&mut self, kind: &Kind, subject: &Subject<'_>) -> bool {
        let ResourceRef { name, namespace, .. } = &subject.origin;
        let mut good = true;
        let namespace_is_good = !kind.description.namespaced || names::is_label(namespace);
        for (field, value, ok) in
            [("name", name, (kind.names)(name)), ("namespace", namespace, namespace_is_good)]
        {
            if !ok {
                let message = format!("metadata.{field} {value:?} is no valid name");
                let remedy = "use lower-case letters, digits and '-', as Kubernetes demands";
                let path = ["metadata", field];
                self.report.error(subject, &path, "invalid-name", message, remedy);
                good = false;
            }
        }
        good
    }
}

/// The object that the first `lines` lines of a malformed document name. Where they do not parse
/// either, as below a bracket that is left open, fewer of them may.
fn name_above(text: &str, lines: usize) -> Option<ResourceRef> {
    let steps = std::iter::successors(Some(0_usize), |step| Some((step * 2).max(1)));
    steps.take_while(|step| *step < lines).find_map(|step| {
        let above: String = text.split_inclusive('\n').take(lines - step).collect();
        let node = Node::parse(&above, 0).ok()?;
        let head = head(&node).ok()?;
        let kind = Kind::find(head.kind).filter(|kind| !kind.is_foreign(head.api_version))?;
        (!head.name.is_empty()).then(|| origin(kind, &head))
    })
}

fn text<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    match &node.get(key)?.value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

/// Reads what identifies an object, or says which line has a wrong type.
fn head(node: &Node) -> Result<Head<'_>, (usize, String)> {
    if !matches!(node.value, Value::Map(_)) {
        return Err((node.line, "this document is no object".to_owned()));
    }
    let metadata = node.get("metadata").filter(|metadata| metadata.value != Value::Null);
    if let Some(metadata) = metadata
        && !matches!(metadata.value, Value::Map(_))
    {
        return Err((metadata.line, "metadata is no map".to_owned()));
    }
    Ok(Head {
        kind: text_or_nothing(node.get("kind"), "kind")?,
        api_version: text_or_nothing(node.get("apiVersion"), "apiVersion")?,
        name: text_or_nothing(metadata.and_then(|own| own.get("name")), "metadata.name")?,
        namespace: text_or_nothing(
            metadata.and_then(|own| own.get("namespace")),
            "metadata.namespace",
        )?,
    })
}

fn text_or_nothing<'a>(node: Option<&'a Node>, what: &str) -> Result<&'a str, (usize, String)> {
    match node.map(|node| (node.line, &node.value)) {
        None | Some((_, Value::Null)) => Ok(""),
        Some((_, Value::Text(text))) => Ok(text),
        Some((line, _)) => Err((line, format!("{what} is no text"))),
    }
}

fn origin(kind: &Kind, head: &Head<'_>) -> ResourceRef {
    let name = kind.description.kind;
    if !kind.description.namespaced {
        return ResourceRef::cluster_scoped(name, head.name);
    }
    let namespace = if head.namespace.is_empty() { "default" } else { head.namespace };
    ResourceRef::namespaced(name, namespace, head.name)
}

#[cfg(test)]
mod tests;
