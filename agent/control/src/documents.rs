//! Splits a file into YAML documents, each of which knows the line it starts at.

/// One document of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Document<'a> {
    /// Its text, without the `---` above it.
    pub(crate) text: &'a str,
    /// Lines of the file before `text`.
    pub(crate) lines_before: usize,
}

/// Cuts at every line that begins with `---` as a word of its own. YAML keeps such lines for
/// this (YAML 1.2.2, section 9.1.2): no scalar can hold one. What follows on the line is content.
pub(crate) fn split(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut lines_before, mut offset) = (0, 0, 0);
    // A byte order mark would hide the first separator.
    if text.starts_with(BYTE_ORDER_MARK) {
        (start, offset) = (BYTE_ORDER_MARK.len_utf8(), BYTE_ORDER_MARK.len_utf8());
    }
    for (number, line) in text[start..].split_inclusive('\n').enumerate() {
        if is_separator(line) {
            documents.push(Document { text: &text[start..offset], lines_before });
            (start, lines_before) = (offset + MARKER.len(), number);
        }
        offset += line.len();
    }
    documents.push(Document { text: &text[start..], lines_before });
    documents.retain(|document| !is_blank(document.text));
    documents
}

const MARKER: &str = "---";
const BYTE_ORDER_MARK: char = '\u{feff}';

fn is_separator(line: &str) -> bool {
    line.strip_prefix(MARKER)
        .is_some_and(|rest| rest.chars().next().is_none_or(char::is_whitespace))
}

/// Comments, directives and end marks are no document.
fn is_blank(text: &str) -> bool {
    text.lines().all(|line| {
        line.starts_with('%') || {
            let line = line.trim();
            line.is_empty() || line.starts_with('#') || line == "..."
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_know_where_they_start() {
        let text = "# head\n---\na: 1\n--- # second\nb: 2\n\n---\n# nothing\n---\nc: |\n  ---\n";
        let expected = [
            Document { text: "\na: 1\n", lines_before: 1 },
            Document { text: " # second\nb: 2\n\n", lines_before: 3 },
            Document { text: "\nc: |\n  ---\n", lines_before: 8 },
        ];
        assert_eq!(split(text), expected);
        assert_eq!(split(""), []);
    }

    #[test]
    fn separators_are_found_as_yaml_writes_them() {
        for (text, expected) in [
            ("--- {a: 1}\n--- {a: 2}\n", vec![" {a: 1}\n", " {a: 2}\n"]),
            ("\u{feff}---\na: 1\n", vec!["\na: 1\n"]),
            ("\u{feff}a: 1\n", vec!["a: 1\n"]),
            ("a: 1\r\n---\r\nb: 2\r\n", vec!["a: 1\r\n", "\r\nb: 2\r\n"]),
            ("%YAML 1.2\n---\na: 1\n...\n---\n", vec!["\na: 1\n...\n"]),
            ("a: 1\n---b\n", vec!["a: 1\n---b\n"]),
            ("a: 1\n---", vec!["a: 1\n"]),
        ] {
            let found: Vec<_> = split(text).iter().map(|document| document.text).collect();
            assert_eq!(found, expected, "{text:?}");
        }
    }
}
