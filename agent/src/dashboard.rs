//! The dashboard: a page in a browser that draws what the admin pages say. Served by agents and by the controller.
//!
//! ```text
//! page/      the page itself: HTML, style, modules; embedded as they are, nothing is built or fetched from elsewhere
//! assets     which path gives which of them
//! hosts      by which names it may be asked for, and what browsers are told about every answer
//! mesh       services, workloads and policies of a snapshot: what the page cannot know from counters
//! rules      what the rules of a policy look at, in words
//! reference  what codes and reasons mean, from the reference
//! open       `undermesh dashboard`: where it is, or a way there
//! ```
//!
//! **Invariant**: nothing here changes anything, and nothing that is secret is known to it: no key, no token, no value of
//! a header that a policy asks for.

mod assets;
mod hosts;
mod mesh;
mod open;
mod reference;
mod rules;

use hyper::{Method, StatusCode};

use crate::admin::Answer;
pub(crate) use hosts::{Hosts, guard};
pub(crate) use mesh::Mesh;
pub(crate) use open::{DashboardArgs, run};

/// Where it is.
pub(crate) const PATH: &str = "/dashboard/";

/// A part of the page; `None` for what is none.
pub(crate) fn page(method: &Method, path: &str) -> Option<Answer> {
    let name = path.strip_prefix("/dashboard")?;
    if method != Method::GET {
        let text = "the dashboard can be looked at, and no more\n";
        return Some(Answer::text(StatusCode::METHOD_NOT_ALLOWED, text));
    }
    match name {
        // Relative names of the page's parts need the slash.
        "" => Some(lead_there()),
        "/reference.json" => Some(Answer::json(reference::json().to_owned())),
        _ => assets::find(name.strip_prefix('/')?),
    }
}

/// Leads from beside it.
pub(crate) fn lead_there() -> Answer {
    Answer {
        status: StatusCode::OK,
        content_type: "text/html; charset=utf-8",
        body: "<!doctype html><meta http-equiv=\"refresh\" content=\"0; url=dashboard/\">\n"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests;
