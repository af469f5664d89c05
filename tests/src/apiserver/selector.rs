//! Label and field selectors, as the API server reads them.

use serde_json::Value;

use super::resource::Resource;

/// What a list or a watch is restricted to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selector {
    labels: Vec<(String, Wanted)>,
    fields: Vec<(String, Wanted)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
}

impl Wanted {
    fn admits(&self, value: Option<&str>) -> bool {
        let is_one = |values: &[String]| value.is_some_and(|own| values.iter().any(|it| it == own));
        match self {
            Self::In(values) => is_one(values),
            Self::NotIn(values) => !is_one(values),
            Self::Exists => value.is_some(),
            Self::Absent => value.is_none(),
        }
    }
}

impl Selector {
    /// Reads both; what a real server refuses is refused with its words.
    pub(super) fn parse(labels: &str, fields: &str, resource: &Resource) -> Result<Self, String> {
        let labels = requirements(labels)
            .into_iter()
            .map(|text| requirement(&text))
            .collect::<Option<_>>()
            .ok_or_else(|| format!("unable to parse requirement: {labels}"))?;
        let mut found = Vec::new();
        for text in fields.split(',').filter(|text| !text.is_empty()) {
            let (name, wanted) = requirement(text)
                .filter(|(_, wanted)| matches!(wanted, Wanted::In(_) | Wanted::NotIn(_)))
                .ok_or_else(|| format!("invalid field selector: {text:?}"))?;
            let known = ["metadata.name", "metadata.namespace"].contains(&name.as_str())
                || resource.fields.contains(&name);
            if !known {
                return Err(format!("field label not supported: {name}"));
            }
            found.push((name, wanted));
        }
        Ok(Self { labels, fields: found })
    }

    pub(super) fn admits(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.labels.iter().all(|(name, wanted)| wanted.admits(labels[name].as_str()))
            && self.fields.iter().all(|(path, wanted)| wanted.admits(Some(&field(object, path))))
    }
}

/// A field that is not there is empty, as the server's field sets have it.
fn field(object: &Value, path: &str) -> String {
    let found = path.split('.').fold(object, |value, step| &value[step]);
    match found {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Cuts at commas that are not in parentheses.
fn requirements(text: &str) -> Vec<String> {
    let (mut found, mut depth) = (vec![String::new()], 0);
    for character in text.chars() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                found.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = found.last_mut() {
            last.push(character);
        }
    }
    found.retain(|part| !part.trim().is_empty());
    found
}

fn requirement(text: &str) -> Option<(String, Wanted)> {
    let text = text.trim();
    let one = |value: &str| vec![value.trim().to_owned()];
    for (operator, negated) in [("!=", true), ("==", false), ("=", false)] {
        if let Some((name, value)) = text.split_once(operator) {
            let wanted = if negated { Wanted::NotIn(one(value)) } else { Wanted::In(one(value)) };
            return Some((name.trim().to_owned(), wanted));
        }
    }
    for (operator, negated) in [(" notin ", true), (" in ", false)] {
        if let Some((name, list)) = text.split_once(operator) {
            let list = list.trim().strip_prefix('(')?.strip_suffix(')')?;
            let values = list.split(',').map(|value| value.trim().to_owned()).collect();
            let wanted = if negated { Wanted::NotIn(values) } else { Wanted::In(values) };
            return Some((name.trim().to_owned(), wanted));
        }
    }
    match text.strip_prefix('!') {
        Some(name) => Some((name.trim().to_owned(), Wanted::Absent)),
        None => (!text.contains(char::is_whitespace)).then(|| (text.to_owned(), Wanted::Exists)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_admit_what_a_real_server_does() {
        let pod = json!({
            "metadata": {"name": "a", "namespace": "shop", "labels": {"app": "cart", "v": "1"}},
            "spec": {"nodeName": "n1"},
        });
        let pods = Resource::core().into_iter().find(|one| one.kind == "Pod").unwrap();
        for (labels, fields, admitted) in [
            ("", "", true),
            ("app=cart", "spec.nodeName=n1", true),
            ("app==cart,v!=2", "spec.nodeName!=n2", true),
            ("app in (cart, web),v", "metadata.name=a", true),
            ("app notin (cart)", "", false),
            ("!app", "", false),
            ("!other", "spec.nodeName!=n1", false),
            ("", "spec.nodeName=", false),
        ] {
            let selector = Selector::parse(labels, fields, &pods).unwrap();
            assert_eq!(selector.admits(&pod), admitted, "{labels:?} {fields:?}");
        }
        assert_eq!(
            Selector::parse("", "spec.nodename=n", &pods),
            Err("field label not supported: spec.nodename".to_owned())
        );
    }
}
