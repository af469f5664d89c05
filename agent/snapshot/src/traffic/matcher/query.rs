//! Parameters of a query, read as Envoy's router does: the first one of a name counts, nothing is
//! decoded, and a parameter without `=` is empty.

/// The value of the first parameter that has this name.
pub(super) fn first<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query
        .split('&')
        .map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
        .find_map(|(found, value)| (found == name).then_some(value))
}
