//! `tracestate`: what other tracers have written about a trace (W3C Trace Context, section 3.3). It is passed on as
//! a whole or not at all; nothing in it is ours.

/// Members that a list may have.
const MAX_MEMBERS: usize = 32;
/// Longest list that is passed on; the recommendation asks for at least this.
const MAX_LENGTH: usize = 512;
/// Members longer than this go first where a list is too long.
const LONG_MEMBER: usize = 128;
/// Longest input that is looked at.
const MAX_INPUT: usize = 8192;
/// Longest key, and longest value.
const MAX_PART: usize = 256;

/// The list that these headers make together, shortened to what is passed on; `None` where they are malformed.
pub(crate) fn read<'a>(values: impl Iterator<Item = &'a [u8]>) -> Option<String> {
    let mut members: Vec<&str> = Vec::new();
    let mut length = 0;
    for value in values {
        length += value.len();
        if length > MAX_INPUT {
            return None;
        }
        for member in str::from_utf8(value).ok()?.split(',') {
            let member = member.trim_matches([' ', '\t']);
            if member.is_empty() {
                continue;
            }
            let key = key(member)?;
            if members.len() == MAX_MEMBERS || members.iter().any(|it| self::key(it) == Some(key)) {
                return None;
            }
            members.push(member);
        }
    }
    shorten(&mut members);
    Some(members.join(","))
}

/// The key of a member that is well formed.
fn key(member: &str) -> Option<&str> {
    let (key, value) = member.split_once('=')?;
    let is_first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_key = |byte: u8| is_first(byte) || b"_-*/@".contains(&byte);
    let is_value = |byte: u8| (0x20..0x7f).contains(&byte) && byte != b',' && byte != b'=';
    let key_ok = key.len() <= MAX_PART
        && key.bytes().next().is_some_and(is_first)
        && key.bytes().all(is_key);
    let value_ok = !value.is_empty() && value.len() <= MAX_PART && value.bytes().all(is_value);
    (key_ok && value_ok).then_some(key)
}

/// Removes members, long ones first and then the oldest, which stand last, until the rest may be passed on.
fn shorten(members: &mut Vec<&str>) {
    let length = |members: &[&str]| {
        members.iter().map(|member| member.len() + 1).sum::<usize>().saturating_sub(1)
    };
    while length(members) > MAX_LENGTH {
        let long = members.iter().rposition(|member| member.len() > LONG_MEMBER);
        members.remove(long.unwrap_or(members.len().saturating_sub(1)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(text: &str) -> Option<String> {
        read([text.as_bytes()].into_iter())
    }

    #[test]
    fn lists_are_joined_and_cleaned() {
        let joined = read([&b"a=1, ,b=2"[..], b"\t c@d=x y "].into_iter());
        assert_eq!(joined.as_deref(), Some("a=1,b=2,c@d=x y"));
        assert_eq!(one("").as_deref(), Some(""));
    }

    #[test]
    fn malformed_lists_are_not_passed_on() {
        let many: Vec<String> = (0..33).map(|number| format!("k{number}=v")).collect();
        for bad in [
            "a",
            "a=",
            "=1",
            "A=1",
            "a=1=2",
            "a =1",
            "a=\u{e9}",
            "a=1,a=2",
            "-a=1",
            &many.join(","),
            &format!("{}=1", "a".repeat(257)),
            &format!("a={}", "1".repeat(257)),
        ] {
            assert_eq!(one(bad), None, "{bad}");
        }
        assert!(one(&many[..32].join(",")).is_some());
        assert_eq!(read(std::iter::repeat_n(&b"           "[..], 1000)), None, "without a bound");
    }

    #[test]
    fn long_members_go_first_and_then_the_last() {
        let long = format!("long={}", "x".repeat(200));
        let filler = |key: &str| format!("{key}={}", "y".repeat(110));
        let list = [filler("a"), long.clone(), filler("b"), filler("c"), filler("d")].join(",");
        let kept = one(&list).unwrap();
        assert_eq!(kept, [filler("a"), filler("b"), filler("c"), filler("d")].join(","));
        let list = [filler("a"), filler("b"), filler("c"), filler("d"), filler("e")].join(",");
        assert_eq!(one(&list).unwrap(), kept);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived_and_what_is_passed_on_is_bounded_and_stable(
            values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..4),
        ) {
            if let Some(list) = read(values.iter().map(Vec::as_slice)) {
                prop_assert!(list.len() <= MAX_LENGTH);
                prop_assert_eq!(one(&list), Some(list));
            }
        }

        #[test]
        fn well_formed_lists_are_read(
            members in proptest::collection::btree_map("[a-z0-9][a-z0-9_*/@-]{0,20}", "[!-+.-<>-~]{1,20}", 0..10),
        ) {
            let text: Vec<String> = members.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let text = text.join(",");
            prop_assert_eq!(one(&text), Some(text.clone()));
        }
    }
}
