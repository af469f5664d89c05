//! Pages of `docs/guide` that show commands and what they print: read as they stand, run on a rig, and compared.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};

use crate::{poll::wait_for, rig::Rig};

/// How long what is shown may take to come true.
const WITHIN: Duration = Duration::from_secs(30);
/// Most commands that a section may need.
const MOST_COMMANDS: usize = 2;

/// A section with its commands.
#[derive(Debug)]
pub struct Section {
    title: String,
    commands: Vec<Shown>,
}

/// A command, and what is shown of its output.
#[derive(Debug)]
struct Shown {
    args: Vec<String>,
    lines: Vec<String>,
}

impl Section {
    /// The section with this title of a page below `docs/guide`.
    ///
    /// # Errors
    /// Where there is none, it shows no command, or more than a newcomer should need.
    pub fn read(page: &str, title: &str) -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide").join(page);
        let text = fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?;
        let mut sections = text.split("\n## ").skip(1);
        let body = sections
            .find_map(|section| section.strip_prefix(title)?.strip_prefix('\n'))
            .with_context(|| format!("{page} has no section {title:?}"))?;
        let mut commands: Vec<Shown> = Vec::new();
        for block in body.split("```console\n").skip(1) {
            let block = block.split("\n```").next().unwrap_or_default();
            for line in block.lines() {
                if let Some(command) = line.strip_prefix("$ undermesh ") {
                    let args = command.split_whitespace().map(str::to_owned).collect();
                    commands.push(Shown { args, lines: Vec::new() });
                } else if let Some(shown) = commands.last_mut() {
                    shown.lines.push(line.to_owned());
                }
            }
        }
        ensure!(!commands.is_empty(), "{title:?} shows no command");
        ensure!(commands.len() <= MOST_COMMANDS, "{title:?} needs {} commands", commands.len());
        Ok(Self { title: title.to_owned(), commands })
    }

    /// That the commands, run on a node of a rig, print what is shown, and that `cause` is in it: words that name what is
    /// wrong.
    ///
    /// # Errors
    /// Where they do not; the error has what they print.
    pub fn holds(&self, rig: &Rig, node: &str, cause: &str) -> Result<()> {
        for shown in &self.commands {
            let mut last = String::new();
            let came = wait_for("what the guide shows", WITHIN, || {
                last = shown.run(rig, node)?;
                Ok(shown.is_in(&last).then_some(()))
            });
            came.with_context(|| {
                format!("{:?}: `undermesh {}` prints\n{last}", self.title, shown.args.join(" "))
            })?;
        }
        let shown = self.commands.iter().flat_map(|it| &it.lines);
        ensure!(
            shown.clone().any(|line| line.contains(cause)),
            "{:?} does not show {cause:?}",
            self.title
        );
        Ok(())
    }
}

impl Shown {
    /// Everything that it prints; its settings are those of the node's agent.
    fn run(&self, rig: &Rig, node: &str) -> Result<String> {
        let settings = rig.node(node)?.dir.join("agent.yaml");
        let mut command = rig.undermesh_on(node)?;
        let output = command.args(&self.args).env("UNDERMESH_CONFIG", settings).output()?;
        let text = [output.stdout, output.stderr].concat();
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Whether every line that is shown is printed, in this order; `...` stands for any.
    fn is_in(&self, printed: &str) -> bool {
        let mut printed = printed.lines().map(essence);
        let mut shown = self.lines.iter().map(|line| essence(line));
        shown.all(|line| line.is_empty() || line == "..." || printed.any(|it| it == line))
    }
}

/// A line without what is different each time: numbers, identifiers, directories, and the width of columns.
fn essence(line: &str) -> String {
    let words = line.split_whitespace().map(|word| {
        // Rigs have directories of their own.
        let word = match word.rsplit_once('/').filter(|_| word.starts_with('/')) {
            Some((_, file)) => file,
            None => word,
        };
        let hex = |piece: &str| piece.len() >= 8 && piece.bytes().all(|it| it.is_ascii_hexdigit());
        let mut out = String::new();
        for piece in word.split_inclusive(|letter: char| !letter.is_ascii_alphanumeric()) {
            let end =
                piece.len() - usize::from(piece.ends_with(|it: char| !it.is_ascii_alphanumeric()));
            let (inner, rest) = piece.split_at(end);
            if hex(inner) {
                out.push('0');
            } else {
                let mut last_digit = false;
                for letter in inner.chars() {
                    let digit = letter.is_ascii_digit();
                    if !(digit && last_digit) {
                        out.push(if digit { '0' } else { letter });
                    }
                    last_digit = digit;
                }
            }
            out.push_str(rest);
        }
        out
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_widths_do_not_count_and_words_do() {
        assert_eq!(essence("10.1.0.10:80   flows 00ab34cdef99"), "0.0.0.0:0 flows 0");
        assert_eq!(essence("at /etc/x/a.yaml:3 b/c"), "at a.yaml:0 b/c");
        let shown = Shown {
            args: Vec::new(),
            lines: vec!["a 1".to_owned(), "...".to_owned(), "b x".to_owned()],
        };
        assert!(shown.is_in("head\na   22\nmore\nb x\n"));
        assert!(!shown.is_in("b x\na 22\n"), "in another order");
        assert!(!shown.is_in("a 1\nb y\n"));
    }
}
