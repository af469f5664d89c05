//! Whether an agent would take the settings.

use super::{catalogue::Kind, finding::Finding, situation::Situation};

pub(super) fn check(situation: &Situation) -> Vec<Finding> {
    let unreadable = situation.unreadable.iter().map(|(path, error)| {
        Finding::new(Kind::SettingsUnreadable, path.display().to_string(), error)
    });
    let invalid = situation
        .invalid
        .iter()
        .map(|error| Finding::new(Kind::SettingsInvalid, "settings", error));
    unreadable.chain(invalid).collect()
}
