//! How the demo speaks: numbered steps, commands as they would be typed, their output indented.

use std::io::{IsTerminal as _, stdout};

/// Prints a numbered heading.
#[derive(Default)]
pub(super) struct Steps {
    number: usize,
}

impl Steps {
    pub(super) fn next(&mut self, title: &str) {
        self.number += 1;
        let heading = format!("{}. {title}", self.number);
        if stdout().is_terminal() {
            println!("\n\x1b[1m{heading}\x1b[0m");
        } else {
            println!("\n{heading}");
        }
    }
}

/// Prints a sentence.
pub(super) fn say(text: &str) {
    println!("   {text}");
}

/// Prints a command.
pub(super) fn typed(who: &str, command: &str) {
    println!("   {who}$ {command}");
}

/// Prints output, indented, and no more of it than `lines`.
pub(super) fn quoted(text: &str, lines: usize) {
    for line in text.lines().take(lines) {
        println!("     {line}");
    }
}
