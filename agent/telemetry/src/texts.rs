//! Texts that stand one after the other in one text, and are known by their lengths.

/// Length of a text, in bytes.
pub(crate) type Length = u16;

/// Appends texts.
pub(crate) struct Pack<'a>(pub(crate) &'a mut String);

impl Pack<'_> {
    /// A text that is as long as it may be, or the part of it whose length can be said.
    pub(crate) fn text(&mut self, text: &str) -> Length {
        let text = match Length::try_from(text.len()) {
            Ok(_) => text,
            Err(_) => &text[..text.floor_char_boundary(Length::MAX.into())],
        };
        self.0.push_str(text);
        text.len() as Length
    }

    /// A text of several parts.
    pub(crate) fn joined(&mut self, parts: &[&str]) -> Length {
        let begin = self.0.len();
        parts.iter().for_each(|part| self.0.push_str(part));
        let most = begin + usize::from(Length::MAX);
        self.0.truncate(self.0.floor_char_boundary(most));
        (self.0.len() - begin) as Length
    }
}

/// Takes texts off the front, in the order in which they were appended.
pub(crate) struct Unpack<'a>(pub(crate) &'a str);

impl<'a> Unpack<'a> {
    pub(crate) fn text(&mut self, length: Length) -> &'a str {
        let (text, rest) = self.0.split_at_checked(length.into()).unwrap_or_default();
        self.0 = rest;
        text
    }

    pub(crate) fn known(&mut self, length: Option<Length>) -> Option<&'a str> {
        length.map(|length| self.text(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_is_longer_than_its_length_can_say() {
        let most = usize::from(Length::MAX);
        for (text, kept) in [("x".repeat(most + 1), most), ("é".repeat(most), most - 1)] {
            let mut texts = "before".to_owned();
            let mut pack = Pack(&mut texts);
            let lengths = [pack.text(&text), pack.joined(&["", &text]), pack.text("after")];
            let mut unpack = Unpack(&texts[6..]);
            for length in &lengths[..2] {
                assert_eq!(unpack.text(*length), &text[..kept]);
            }
            assert_eq!(unpack.text(lengths[2]), "after");
        }
    }
}
