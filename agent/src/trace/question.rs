//! What is traced: as the query of the admin page `/trace` has it. Both ends are here.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::query::{self, Escaped};

/// The longest that a trace may wait.
const MAX_TIMEOUT: Duration = Duration::from_secs(300);

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// `namespace/pod`.
    pub(crate) pod: String,
    /// What it dials; empty for anything.
    pub(crate) to: String,
    /// A connection is made.
    pub(crate) send: bool,
    /// Method and path of a request on it.
    pub(crate) request: Option<(String, String)>,
    pub(crate) timeout: Duration,
}

impl Asked {
    pub(crate) fn query(&self) -> String {
        let mut query = format!("pod={}&timeout={}", Escaped(&self.pod), self.timeout.as_millis());
        if !self.to.is_empty() {
            query += &format!("&to={}", Escaped(&self.to));
        }
        if self.send {
            query += "&send=1";
        }
        if let Some((method, path)) = &self.request {
            query += &format!("&method={}&path={}", Escaped(method), Escaped(path));
        }
        query
    }

    /// # Errors
    /// A parameter is unknown, missing or unusable; the message names it.
    pub(crate) fn parse(query: &str) -> Result<Self> {
        let (mut pod, mut to, mut send) = (String::new(), String::new(), false);
        let (mut method, mut path, mut timeout) = (None, None, Duration::from_secs(30));
        for parameter in query::parameters(query) {
            let (name, value) = parameter?;
            let value = query::unescape(value);
            match name {
                "pod" => pod = value,
                "to" => to = value,
                "send" => send = value == "1",
                "method" => method = Some(value),
                "path" => path = Some(value),
                "timeout" => {
                    let millis = value.parse().ok();
                    timeout = millis
                        .map(Duration::from_millis)
                        .with_context(|| format!("timeout is in milliseconds, not {value:?}"))?;
                }
                _ => bail!(
                    "there is no parameter {name:?}; there are pod, to, send, method, path, timeout"
                ),
            }
        }
        ensure!(pod.contains('/'), "pod is NAMESPACE/NAME, not {pod:?}");
        let allowed = Duration::from_millis(1)..=MAX_TIMEOUT;
        ensure!(allowed.contains(&timeout), "a trace ends after {MAX_TIMEOUT:?} at most");
        ensure!(!send || !to.is_empty(), "say what to connect to: --to HOST:PORT");
        let request = match (method, path) {
            (None, None) => None,
            (Some(method), Some(path)) => {
                ensure!(send, "a request is only made with --send");
                let word = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
                ensure!(word(&method) && !method.is_empty(), "{method:?} is no method");
                ensure!(word(&path) && path.starts_with('/'), "{path:?} is no path");
                Some((method, path))
            }
            _ => bail!("a request has both a method and a path"),
        };
        Ok(Self { pod, to, send, request, timeout })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_survives_its_way_to_the_agent() {
        let asked = Asked {
            pod: "shop/client".to_owned(),
            to: "cart.shop:80".to_owned(),
            send: true,
            request: Some(("GET".to_owned(), "/a?b=c&d".to_owned())),
            timeout: Duration::from_millis(1500),
        };
        assert_eq!(Asked::parse(&asked.query()).unwrap(), asked);
        let waiting = Asked { to: String::new(), send: false, request: None, ..asked };
        assert_eq!(Asked::parse(&waiting.query()).unwrap(), waiting);
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for (query, part) in [
            ("pod=client", "pod is NAMESPACE/NAME"),
            ("pod=shop/client&send=1", "say what to connect to"),
            ("pod=shop/client&timeout=300001", "ends after 300s"),
            ("pod=shop/client&timeout=0", "ends after 300s"),
            ("pod=shop/client&method=GET&path=/", "only made with --send"),
            ("pod=shop/client&to=x:1&send=1&method=GET%0D%0A&path=/", "is no method"),
            ("pod=shop/client&to=x:1&send=1&method=GET&path=/%20HTTP", "is no path"),
            ("pod=shop/client&x=y", "no parameter \"x\""),
        ] {
            let error = Asked::parse(query).unwrap_err().to_string();
            assert!(error.contains(part), "{query}: {error}");
        }
    }
}
