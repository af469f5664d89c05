//! Splits a file into YAML documents, each of which knows the line it starts at.

/// One document of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Document<'a> {
    /// Its text, without the `---` above it.
    pub(crate) text: &'a str,
    /// Lines of the file before `text`.
    pub(crate) lines_before: usize,
}

/// Cuts at every line that is `---`, with or without a comment or blanks behind it. Such a line
/// cannot be part of a block scalar, which is indented.
pub(crate) fn split(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut start_line) = (0, 0);
    let mut offset = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if is_separator(line) {
            documents.push(Document { text: &text[start..offset], lines_before: start_line });
            (start, start_line) = (offset + line.len(), number + 1);
        }
        offset += line.len();
    }
    documents.push(Document { text: &text[start..], lines_before: start_line });
    documents.retain(|document| !is_blank(document.text));
    documents
}

fn is_separator(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| {
        let rest = rest.trim();
        rest.is_empty() || rest.starts_with('#')
    })
}

fn is_blank(text: &str) -> bool {
    text.lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line == "..."
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_know_where_they_start() {
        let text = "# head\n---\na: 1\n--- # second\nb: 2\n\n---\n# nothing\n---\nc: |\n  ---\n";
        let found = split(text);
        assert_eq!(
            found,
            [
                Document { text: "a: 1\n", lines_before: 2 },
                Document { text: "b: 2\n\n", lines_before: 4 },
                Document { text: "c: |\n  ---\n", lines_before: 9 },
            ]
        );
        assert_eq!(split(""), []);
    }
}
