//! Cases: objects as users write them, requests, and what is to come of them, as YAML files.
//!
//! A file is a list of [`Case`]s. Each is put in force in one [`Shop`], which all of them share, and each
//! of its requests is made and judged. What fails is told with the file, the case, the request, what was
//! wanted, and what came instead.

mod case;
mod counters;
mod judge;
mod run;
mod shop;
mod tls;
mod token;

pub use case::{Case, Copies, Exchange, Expected, Protocol, Seen};
pub use run::run;
pub use shop::Shop;
pub use tls::client_hello;
pub use token::Token;
