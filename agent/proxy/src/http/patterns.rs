//! Regular expressions that rewrite, compiled once for all requests that need them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use undermesh_snapshot::traffic::Substitution;

/// Expressions that are remembered; configuration rarely has more.
const MAX_REMEMBERED: usize = 1024;

type Remembered = HashMap<(String, String), Option<Arc<Substitution>>>;

static REMEMBERED: Mutex<Option<Remembered>> = Mutex::new(None);

/// `text` with every match of `pattern` replaced; as it was where the pattern is none, which whoever
/// wrote it has been told.
pub(crate) fn substitute(pattern: &str, replacement: &str, text: &str) -> String {
    let compiled = compiled(pattern, replacement);
    compiled.map_or_else(|| text.to_owned(), |substitution| substitution.apply(text))
}

/// Whether all of `text` matches.
pub(crate) fn matches_whole(pattern: &str, text: &str) -> bool {
    // Replaced by nothing, all of it is gone; nothing else could be.
    let whole = format!("^(?:{pattern})$");
    compiled(&whole, "").is_some_and(|substitution| substitution.matches(text))
}

fn compiled(pattern: &str, replacement: &str) -> Option<Arc<Substitution>> {
    let mut remembered = REMEMBERED.lock().unwrap_or_else(PoisonError::into_inner);
    let remembered = remembered.get_or_insert_with(HashMap::new);
    let key = (pattern.to_owned(), replacement.to_owned());
    if let Some(known) = remembered.get(&key) {
        return known.clone();
    }
    if remembered.len() >= MAX_REMEMBERED {
        remembered.clear();
    }
    let compiled = Substitution::new(pattern, replacement).ok().map(Arc::new);
    remembered.insert(key, compiled.clone());
    compiled
}
