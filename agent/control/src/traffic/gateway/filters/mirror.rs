//! RequestMirror.

use serde::Deserialize;
use undermesh_model::traffic::{BackendRef, Millionths, Mirror};

use super::{Cursor, ObjectRef};

const REMEDY: &str = "correct the share";

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MirrorFilter {
    backend_ref: ObjectRef,
    percent: Option<u32>,
    fraction: Option<Fraction>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Fraction {
    numerator: u32,
    denominator: Option<u32>,
}

impl MirrorFilter {
    /// `None` where nobody can get the copies: such a mirror is left out.
    pub(super) fn read(&self, cursor: &mut Cursor<'_, '_>) -> Option<Mirror> {
        let share = self.share(cursor);
        match cursor.within("backendRef", |at| self.backend_ref.read(at)) {
            BackendRef::Invalid(_) => None,
            to @ BackendRef::Host { .. } => Some(Mirror { to, share }),
        }
    }

    fn share(&self, cursor: &mut Cursor<'_, '_>) -> Millionths {
        if self.percent.is_some() && self.fraction.is_some() {
            let message = "percent and fraction exclude one another";
            cursor.error(&["fraction"], message, "write one of the two");
        }
        if let Some(percent) = self.percent {
            if percent > 100 {
                cursor.error(&["percent"], &format!("{percent} is more than 100"), REMEDY);
            }
            return Millionths::from_percent(f64::from(percent));
        }
        let Some(Fraction { numerator, denominator }) = self.fraction else {
            return Millionths::ALL;
        };
        let denominator = denominator.unwrap_or(100);
        if denominator == 0 || numerator > denominator {
            let message = format!("{numerator} / {denominator} is no share");
            cursor.error(&["fraction"], &message, REMEDY);
            return Millionths::ALL;
        }
        Millionths::from_percent(f64::from(numerator) * 100.0 / f64::from(denominator))
    }
}
