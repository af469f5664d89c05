//! Map types, by making the smallest map of each.

use aya::{maps::MapType, sys::is_map_supported};

use super::Availability;

/// Asks for a map type.
pub(super) fn probe(kind: MapType) -> Availability {
    match is_map_supported(kind) {
        Ok(true) => Availability::Available,
        Ok(false) => Availability::Missing("the kernel does not know this type of map".to_owned()),
        Err(error) if super::is_about_us(&error.io_error) => {
            Availability::Unknown(error.io_error.to_string())
        }
        Err(error) => Availability::Missing(error.io_error.to_string()),
    }
}
