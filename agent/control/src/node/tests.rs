//! Lines, limits and types of documents.

use std::collections::BTreeMap;

use super::*;

fn parse(text: &str) -> Node {
    Node::parse(text, 0).unwrap()
}

#[test]
fn every_value_knows_its_line_in_the_file() {
    let text =
        "a:\n  b:\n  - x\n  - c: 1\n    d: {e: 2,\n      f: 3}\nblock: |\n  text\n\nlast: *no\n";
    let text = text.replace("*no", "4");
    let node = Node::parse(&text, 10).unwrap();
    for (path, line) in [
        (&["a", "b", "0"][..], 13),
        (&["a", "b", "1", "c"], 14),
        (&["a", "b", "1", "d", "e"], 15),
        (&["a", "b", "1", "d", "f"], 16),
        (&["last"], 20),
        // The innermost part that exists.
        (&["a", "b", "1", "gone", "further"], 14),
        (&["a", "b", "7"], 13),
        (&[], 11),
    ] {
        assert_eq!(node.line_of(path), line, "{path:?}");
    }
}

#[test]
fn an_alias_stands_where_it_is_used() {
    let node = parse("a: &x 1\nb:\n  c: *x\n");
    assert_eq!(node.line_of(&["b", "c"]), 3);
    assert_eq!(node.get("b").and_then(|b| b.get("c")).unwrap().value, Value::Integer(1));
}

#[test]
fn scalars_have_the_types_that_yaml_gives_them() {
    for (text, value) in [
        ("~", Value::Null),
        ("true", Value::Bool(true)),
        ("-3", Value::Integer(-3)),
        ("18446744073709551615", Value::Unsigned(u64::MAX)),
        ("1.5", Value::Float(1.5)),
        ("10.0.0.1", Value::Text("10.0.0.1".to_owned())),
        ("'1'", Value::Text("1".to_owned())),
        ("2024-05-01T10:00:00Z", Value::Text("2024-05-01T10:00:00Z".to_owned())),
        ("\"\\ud83d\\ude00\\/\"", Value::Text("\u{1f600}/".to_owned())),
    ] {
        assert_eq!(parse(text).value, value, "{text}");
    }
}

#[test]
fn malformed_documents_say_where() {
    for (text, line) in [
        ("a: 1\nb: [1\n", 2),
        ("a: 1\na: 2\n", 2),
        ("a:\n  b: 1\n c: 2\n", 3),
        ("a: 1\nb: *gone\n", 2),
        ("a:\n\tb: 2\n", 2),
        // Where the scalar begins that the tab would continue.
        ("a: 1\n\tb: 2\n", 1),
    ] {
        let error = Node::parse(text, 100).unwrap_err();
        assert_eq!(error.line, Some(line + 100), "{text:?}: {error:?}");
        assert!(!error.reason.is_empty() && !error.reason.contains('\n'), "{error:?}");
    }
}

/// Ten levels of ten, and one level of a thousand times a thousand: few aliases, many nodes.
#[test]
fn aliases_are_bounded_by_what_they_expand_to() {
    let mut nested = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..12 {
        let below = format!("*a{}", level - 1);
        nested += &format!("a{level}: &a{level} [{}]\n", vec![below; 10].join(","));
    }
    let wide =
        format!("a: &a [{}]\nb: [{}]\n", vec!["x"; 1000].join(","), vec!["*a"; 1000].join(","));
    for text in [nested, wide] {
        let error = Node::parse(&text, 0).unwrap_err();
        assert!(error.reason.contains("alias"), "{error:?}");
    }
}

#[test]
fn nesting_is_bounded() {
    for text in ["[".repeat(100_000), "- ".repeat(100_000), "{a: ".repeat(100_000)] {
        assert!(Node::parse(&text, 0).is_err());
    }
    let deepest = format!("{}{}", "[".repeat(MAX_DEPTH - 1), "]".repeat(MAX_DEPTH - 1));
    assert!(Node::parse(&deepest, 0).is_ok());
}

#[test]
fn a_wrong_type_is_named_with_its_field_and_line() {
    type Typed = BTreeMap<String, Vec<BTreeMap<String, u8>>>;
    let text = "first:\n- {a: 1}\nsecond:\n- a: 1\n- a: 2\n  b: high\n";
    let error = parse(text).read::<Typed>().unwrap_err();
    assert_eq!(error.line, 6);
    let expected = "second[1].b: invalid type: string \"high\", expected u8";
    assert_eq!(error.to_string(), expected);
    let error = parse("a:\n- b: 300\n").read::<Typed>().unwrap_err();
    assert_eq!((error.line, error.to_string().split(':').next()), (2, Some("a[0].b")));
}

#[test]
fn objects_lists_and_maps_are_made_of_nothing_else() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Object {
        #[serde(default)]
        list: Vec<u8>,
        #[serde(default)]
        map: BTreeMap<String, u8>,
        option: Option<Vec<u8>>,
    }
    let read = |text: &str| parse(text).read::<Object>();
    let found = read("{list: [1], map: {a: 2}, option: null}").unwrap();
    assert_eq!(found, Object { list: vec![1], map: [("a".to_owned(), 2)].into(), option: None });
    for (text, line, said) in [
        ("list:\n  1\n", 2, "list: invalid type: integer `1`, expected a sequence"),
        ("\nlist: {a: 1}\n", 2, "list: invalid type: map, expected a sequence"),
        ("list: null\n", 1, "list: invalid type: unit value, expected a sequence"),
        ("map: [1]\n", 1, "map: invalid type: sequence, expected a map"),
        ("map: words\n", 1, "map: invalid type: string \"words\", expected a map"),
        ("option: true\n", 1, "option: invalid type: boolean `true`, expected a sequence"),
        ("map: 1.5\n", 1, "map: invalid type: floating point `1.5`, expected a map"),
        // Its fields have names, not places.
        ("[[1], {}, null]\n", 1, "invalid type: sequence, expected struct Object"),
        ("null\n", 1, "invalid type: unit value, expected struct Object"),
    ] {
        let error = read(text).unwrap_err();
        assert_eq!((error.line, error.to_string().as_str()), (line, said), "{text}");
    }
}

#[test]
fn words_are_enums() {
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "UPPERCASE")]
    enum Word {
        Allow,
        Deny,
    }
    let words = parse("[ALLOW, DENY]").read::<Vec<Word>>().unwrap();
    assert_eq!(words, [Word::Allow, Word::Deny]);
    let error = parse("- ALLOW\n- PERHAPS\n").read::<Vec<Word>>().unwrap_err();
    assert_eq!(error.line, 2);
    assert!(error.to_string().starts_with("[1]: unknown variant `PERHAPS`"), "{error}");
    assert!(parse("[1]").read::<Vec<Word>>().is_err());
}

#[test]
fn text_is_not_made_of_other_types() {
    for text in ["a: true", "a: 1", "a: 1.5", "a: [x]"] {
        assert!(parse(text).read::<BTreeMap<String, String>>().is_err(), "{text}");
    }
    assert!(parse("a: 'true'").read::<BTreeMap<String, String>>().is_ok());
}
