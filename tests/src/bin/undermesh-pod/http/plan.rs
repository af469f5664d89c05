//! What a request asks its server to do.

use std::time::Duration;

use undermesh_tests::pod::http::PLAN;

use super::header;

/// How to answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) status: u16,
    pub(super) wait: Duration,
    pub(super) headers: Vec<(String, String)>,
    /// A status of gRPC in the head, without a body.
    pub(super) grpc: Option<u16>,
    /// A status of gRPC after the body.
    pub(super) trailer: u16,
    pub(super) reset: bool,
    pub(super) refuse: bool,
    /// Waits to be let go of.
    pub(super) hold: bool,
}

impl Plan {
    /// Reads a head: its path, and of its plan the part that is about this attempt and this server.
    pub(super) fn of(head: &str, server: &str) -> Self {
        let path = head.split(' ').nth(1).unwrap_or_default();
        let of = |prefix: &str| path.strip_prefix(prefix)?.split(['?', '/']).next()?.parse().ok();
        let mut plan = Self {
            status: of("/status/").map_or(200, |status: u64| status.try_into().unwrap_or(500)),
            wait: Duration::from_millis(of("/delay/").unwrap_or(0)),
            headers: Vec::new(),
            grpc: None,
            trailer: 0,
            reset: false,
            refuse: false,
            hold: false,
        };
        let attempt = header(head, "x-envoy-attempt-count").and_then(|text| text.parse().ok());
        let number: usize = attempt.unwrap_or(1);
        let parts = header(head, PLAN).unwrap_or_default().split(';');
        let own = parts.take(number.max(1)).last().unwrap_or_default();
        own.split_whitespace()
            .filter_map(|word| addressed(word, server))
            .for_each(|word| plan.obey(word));
        plan
    }

    fn obey(&mut self, word: &str) {
        match word.split_once('=') {
            Some(("wait", millis)) => {
                self.wait = Duration::from_millis(millis.parse().unwrap_or(0));
            }
            Some(("grpc", status)) => self.grpc = status.parse().ok(),
            Some(("trailer", status)) => self.trailer = status.parse().unwrap_or(0),
            Some((name, value)) => self.headers.push((name.to_owned(), value.to_owned())),
            None if word == "reset" => self.reset = true,
            None if word == "refuse" => self.refuse = true,
            None if word == "hold" => self.hold = true,
            None => self.status = word.parse().unwrap_or(500),
        }
    }
}

/// A word that is for this server, without its address.
fn addressed<'a>(word: &'a str, server: &str) -> Option<&'a str> {
    match word.split_once(':') {
        // A colon may stand in the value of a header.
        Some((name, word)) if !name.contains('=') => (name == server).then_some(word),
        _ => Some(word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(attempt: u32, text: &str) -> Plan {
        let head =
            format!("GET / HTTP/1.1\r\nx-envoy-attempt-count: {attempt}\r\nx-plan: {text}\r\n");
        Plan::of(&head, "one")
    }

    #[test]
    fn each_attempt_has_its_part_and_the_last_is_for_all_that_follow() {
        let text = "503; reset; 200 x-a=b";
        assert_eq!(plan(1, text).status, 503);
        assert!(plan(2, text).reset);
        for attempt in [3, 4, 9] {
            let plan = plan(attempt, text);
            assert_eq!(plan.headers, [("x-a".to_owned(), "b".to_owned())]);
            assert_eq!((plan.status, plan.reset), (200, false));
        }
    }

    #[test]
    fn without_a_plan_the_path_says_what_to_do() {
        let plan = Plan::of("GET /delay/20?x HTTP/1.1\r\n", "one");
        assert_eq!((plan.wait, plan.status), (Duration::from_millis(20), 200));
        assert_eq!(Plan::of("GET /status/404 HTTP/1.1\r\n", "one").status, 404);
    }

    #[test]
    fn a_word_may_be_for_one_server_alone() {
        let plan = plan(1, "one:503 two:reset x-at=a:b hold");
        assert_eq!((plan.status, plan.reset, plan.hold), (503, false, true));
        assert_eq!(plan.headers, [("x-at".to_owned(), "a:b".to_owned())]);
    }
}
