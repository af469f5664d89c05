//! What is asked: as the command line has it, and as the query of the admin page `/explain`. Both ends are here, so that
//! they cannot drift apart.

use anyhow::{Context, Result, bail, ensure};
use hyper::{
    HeaderMap, Method, Uri,
    header::{HOST, HeaderName, HeaderValue},
};

use crate::query::{self, Escaped};

/// Headers that are looked at, at most.
const MAX_HEADERS: usize = 64;

/// One question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Question {
    /// Who dials.
    pub(crate) source: String,
    /// What.
    pub(crate) destination: String,
    /// What it asks for then.
    pub(crate) request: Option<RequestLine>,
}

/// A request as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestLine {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// `name: value`.
    pub(crate) headers: Vec<String>,
}

impl Question {
    /// As a query.
    pub(crate) fn query(&self) -> String {
        let mut query =
            format!("source={}&destination={}", Escaped(&self.source), Escaped(&self.destination));
        if let Some(request) = &self.request {
            let RequestLine { method, target, headers } = request;
            query += &format!("&method={}&path={}", Escaped(method), Escaped(target));
            for header in headers {
                query += &format!("&header={}", Escaped(header));
            }
        }
        query
    }

    /// # Errors
    /// A parameter is unknown, missing, or given twice; the message names it.
    pub(crate) fn parse(query: &str) -> Result<Self> {
        let mut asked = Self::default();
        let (mut method, mut target, mut headers) = (None, None, Vec::new());
        for parameter in query::parameters(query) {
            let (name, value) = parameter?;
            let value = query::unescape(value);
            match name {
                "source" => asked.source = value,
                "destination" => asked.destination = value,
                "method" => method = Some(value),
                "path" => target = Some(value),
                "header" => headers.push(value),
                _ => bail!(
                    "there is no parameter {name:?}; there are source, destination, method, path, header"
                ),
            }
        }
        ensure!(!asked.source.is_empty(), "the parameter source is missing: who dials?");
        ensure!(!asked.destination.is_empty(), "the parameter destination is missing: dials what?");
        asked.request = RequestLine::new(method, target, headers)?;
        Ok(asked)
    }
}

impl RequestLine {
    /// # Errors
    /// There is a path without a method, or headers without either.
    pub(crate) fn new(
        method: Option<String>,
        target: Option<String>,
        headers: Vec<String>,
    ) -> Result<Option<Self>> {
        match (method, target) {
            (None, None) => {
                ensure!(
                    headers.is_empty(),
                    "headers are of a request: say METHOD and PATH as well"
                );
                Ok(None)
            }
            (Some(method), Some(target)) => {
                ensure!(
                    target.starts_with('/') || target == "*",
                    "PATH begins with a slash, not {target:?}"
                );
                ensure!(headers.len() <= MAX_HEADERS, "more than {MAX_HEADERS} headers");
                Ok(Some(Self { method, target, headers }))
            }
            _ => bail!("a request has both METHOD and PATH"),
        }
    }

    /// Method, target and headers; `host` where it names none.
    ///
    /// # Errors
    /// One of them is none.
    pub(crate) fn parsed(&self, host: &str) -> Result<(Method, Uri, HeaderMap)> {
        let method = Method::from_bytes(self.method.as_bytes());
        let method = method.with_context(|| format!("{:?} is no method", self.method))?;
        let target: Uri = self.target.parse().with_context(|| {
            format!("{:?} is no path; write what a URL cannot hold as %20", self.target)
        })?;
        let mut headers = HeaderMap::new();
        for header in &self.headers {
            let (name, value) =
                header.split_once(':').with_context(|| format!("{header:?} is not NAME: VALUE"))?;
            let name = HeaderName::from_bytes(name.trim().as_bytes())
                .with_context(|| format!("{name:?} is no name of a header"))?;
            let value = HeaderValue::from_str(value.trim())
                .with_context(|| format!("{value:?} is no value of a header"))?;
            headers.append(name, value);
        }
        if !headers.contains_key(HOST) {
            headers.insert(HOST, HeaderValue::from_str(host).context("the host is no name")?);
        }
        Ok((method, target, headers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_survives_its_way_to_the_agent() {
        let asked = Question {
            source: "shop/client".to_owned(),
            destination: "[fd00::1]:80".to_owned(),
            request: Some(RequestLine {
                method: "GET".to_owned(),
                target: "/a b?c=d&e=%2f".to_owned(),
                headers: vec!["x-one: ü & =".to_owned(), "x-two: 2".to_owned()],
            }),
        };
        assert_eq!(Question::parse(&asked.query()).unwrap(), asked);
        let plain = Question { request: None, ..asked };
        assert_eq!(Question::parse(&plain.query()).unwrap(), plain);
    }

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        for (query, part) in [
            ("", "source is missing"),
            ("source=a", "destination is missing"),
            ("source=a&destination=b&method=GET", "both METHOD and PATH"),
            ("source=a&destination=b&header=x", "say METHOD and PATH"),
            ("source=a&destination=b&method=GET&path=x", "begins with a slash"),
            ("source=a&destination=b&colour=red", "no parameter \"colour\""),
        ] {
            let error = Question::parse(query).unwrap_err().to_string();
            assert!(error.contains(part), "{query}: {error}");
        }
    }

    #[test]
    fn the_host_that_was_dialled_stands_in_for_a_missing_one() {
        let request = RequestLine::new(Some("GET".into()), Some("/x".into()), Vec::new()).unwrap();
        let (_, _, headers) = request.unwrap().parsed("cart:80").unwrap();
        assert_eq!(headers[HOST], "cart:80");
    }
}
