//! RE2's syntax, for a library that has a slightly different one.
//!
//! Both run in linear time and share most of their syntax. What differs is rewritten here: `\d`, `\w`
//! and `\s` know only ASCII in RE2, a brace that is no repetition is a brace, and character classes
//! have neither classes of their own inside nor set operations.
//!
//! Source: RE2, `doc/syntax.txt`, `re2/parse.cc`; `regex`, section "Syntax".

use std::{iter::Peekable, str::CharIndices};

use regex::bytes::{Regex, RegexBuilder};

use super::text::PatternError;

/// Bytes that a compiled expression may take.
const MAX_PROGRAM: usize = 1 << 20;

/// Bytes that its cache may take, for each thread that uses it.
const MAX_CACHE: usize = 1 << 18;

/// An expression that has to match the whole of a text, and what every text begins with that it
/// matches.
pub(super) fn whole(pattern: &str) -> Result<(Regex, &str), PatternError> {
    let Translated { text, alternatives } =
        translate(pattern).map_err(|why| error(pattern, why))?;
    let regex = build(&format!(r"\A(?:{text})\z")).map_err(|why| error(pattern, &why))?;
    Ok((regex, if alternatives { "" } else { literal_start(pattern) }))
}

/// The plain text that an expression without alternatives begins with, as far as that is easy to see.
fn literal_start(pattern: &str) -> &str {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_~%,:;=@!#&'".contains(c);
    let end = pattern.find(|c| !plain(c)).unwrap_or(pattern.len());
    // What follows may say how often the last character stands there.
    let end = if end < pattern.len() { end.saturating_sub(1) } else { end };
    &pattern[..end]
}

/// An expression of RE2, as one of `regex`.
pub(super) struct Translated {
    text: String,
    /// It has several at its top level.
    alternatives: bool,
}

/// An expression that may match any part of a text.
pub(super) fn part(pattern: &str) -> Result<Regex, PatternError> {
    let translated = translate(pattern).map_err(|why| error(pattern, why))?;
    build(&translated.text).map_err(|why| error(pattern, &why))
}

fn build(translated: &str) -> Result<Regex, String> {
    RegexBuilder::new(translated)
        .size_limit(MAX_PROGRAM)
        .dfa_size_limit(MAX_CACHE)
        .nest_limit(100)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(limit) => format!("it takes more than {limit} bytes"),
            // The library draws a picture over several lines; the last one says what is wrong.
            other => {
                let text = other.to_string();
                let last = text.lines().last().unwrap_or_default().trim();
                last.strip_prefix("error: ").unwrap_or(last).to_owned()
            }
        })
}

fn error(pattern: &str, why: &str) -> PatternError {
    PatternError::Regex { pattern: pattern.to_owned(), why: why.to_owned() }
}

/// Writes an expression of RE2 as one of `regex`.
pub(super) fn translate(pattern: &str) -> Result<Translated, &'static str> {
    let mut translation =
        Translation { pattern, rest: pattern.char_indices().peekable(), out: String::new() };
    let (mut depth, mut alternatives) = (0_usize, false);
    while let Some((at, next)) = translation.rest.next() {
        match next {
            '\\' => translation.escape()?,
            '[' => translation.class()?,
            '{' if !is_repetition(&pattern[at..]) => translation.out.push_str(r"\{"),
            '(' => {
                depth += 1;
                translation.out.push('(');
            }
            ')' => {
                // Must not close the group that the whole is put into.
                depth = depth.checked_sub(1).ok_or("a parenthesis is closed that is not open")?;
                translation.out.push(')');
            }
            other => {
                alternatives |= other == '|' && depth == 0;
                translation.out.push(other);
            }
        }
    }
    if depth > 0 {
        return Err("a parenthesis is not closed");
    }
    Ok(Translated { text: translation.out, alternatives })
}

/// Whether a text begins with `{n}`, `{n,}` or `{n,m}`.
fn is_repetition(text: &str) -> bool {
    let Some((inside, _)) = text[1..].split_once('}') else { return false };
    let (least, most) = inside.split_once(',').unwrap_or((inside, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    !least.is_empty() && digits(least) && digits(most)
}

struct Translation<'a> {
    pattern: &'a str,
    rest: Peekable<CharIndices<'a>>,
    out: String,
}

impl Translation<'_> {
    /// What follows a backslash outside of a class.
    fn escape(&mut self) -> Result<(), &'static str> {
        let (at, escaped) = self.rest.next().ok_or("it ends with a backslash")?;
        match escaped {
            'Q' => self.quoted(at + 1),
            'b' => self.out.push_str(r"(?-u:\b)"),
            'B' => self.out.push_str(r"(?-u:\B)"),
            'C' => self.out.push_str("(?s-u:.)"),
            'd' | 'w' | 's' => {
                self.out.push('[');
                self.out.push_str(perl(escaped));
                self.out.push(']');
            }
            'D' | 'W' | 'S' => {
                self.out.push_str("[^");
                self.out.push_str(perl(escaped));
                self.out.push(']');
            }
            other => self.plain_escape(other),
        }
        Ok(())
    }

    /// `\Q...\E`: literal text.
    fn quoted(&mut self, from: usize) {
        let text = &self.pattern[from..];
        let text = text.split_once(r"\E").map_or(text, |(quoted, _)| quoted);
        self.out.push_str(&regex::escape(text));
        let end = from + text.len() + r"\E".len();
        while self.rest.next_if(|(at, _)| *at < end).is_some() {}
    }

    fn plain_escape(&mut self, escaped: char) {
        // RE2 lets any punctuation be escaped; `\<` and `\>` mean something else here.
        if !matches!(escaped, '<' | '>') {
            self.out.push('\\');
        }
        self.out.push(escaped);
    }

    /// What follows an opening bracket.
    fn class(&mut self) -> Result<(), &'static str> {
        const OPEN: &str = "a bracket is not closed";
        self.out.push('[');
        if self.rest.next_if(|(_, next)| *next == '^').is_some() {
            self.out.push('^');
        }
        let mut first = true;
        loop {
            let (at, next) = self.rest.next().ok_or(OPEN)?;
            match next {
                ']' if !first => break,
                '[' if self.pattern[at..].starts_with("[:") => self.posix_class(at)?,
                '\\' => self.class_escape()?,
                // A range is written as it stands; anywhere else a hyphen is a hyphen.
                '-' if !first && self.is_range(at) => self.out.push('-'),
                other => self.literal(other),
            }
            first = false;
        }
        self.out.push(']');
        Ok(())
    }

    /// Whether the hyphen at `at` stands between two ends of a range: RE2 wants it to follow a
    /// single character, and something to follow that is not the end.
    fn is_range(&self, at: usize) -> bool {
        let after = &self.pattern[at + 1..];
        !after.starts_with(']') && !self.out.ends_with(['[', '^']) && !self.ends_with_class()
    }

    /// Whether what was written last cannot begin a range.
    fn ends_with_class(&self) -> bool {
        self.out.ends_with(']') && !self.out.ends_with(r"\]")
    }

    fn posix_class(&mut self, from: usize) -> Result<(), &'static str> {
        let text = &self.pattern[from..];
        let length = text.find(":]").ok_or("a class is not closed")? + ":]".len();
        self.out.push_str(&text[..length]);
        while self.rest.next_if(|(at, _)| *at < from + length).is_some() {}
        Ok(())
    }

    fn class_escape(&mut self) -> Result<(), &'static str> {
        let (_, escaped) = self.rest.next().ok_or("it ends with a backslash")?;
        match escaped {
            'd' | 'w' | 's' => {
                self.out.push('[');
                self.out.push_str(perl(escaped));
                self.out.push(']');
            }
            'D' | 'W' | 'S' => {
                self.out.push_str("[^");
                self.out.push_str(perl(escaped));
                self.out.push(']');
            }
            other => self.plain_escape(other),
        }
        Ok(())
    }

    /// A character of a class that means itself.
    fn literal(&mut self, next: char) {
        if matches!(next, '[' | ']' | '&' | '~' | '-' | '^') {
            self.out.push('\\');
        }
        self.out.push(next);
    }
}

/// The inside of the class that a letter stands for, or that its capital is the opposite of.
fn perl(letter: char) -> &'static str {
    match letter.to_ascii_lowercase() {
        'd' => "0-9",
        'w' => "0-9A-Za-z_",
        _ => r"\t\n\f\r ",
    }
}
