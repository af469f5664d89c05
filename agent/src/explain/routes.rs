//! What the proxy of the client's node does with a connection or request: its plan, the rules about it, and where they lead.

use undermesh_proxy::explain::{self as proxy, Asked, Led, Refused};
use undermesh_snapshot::traffic::PortTraffic;

use super::{
    report::{Rule, Verdict, Way},
    trail::{Ending, Trail},
    walk::{MAX_ENDPOINTS, Walk},
};

impl Walk<'_> {
    pub(super) fn by_proxy(&self, mut trail: Trail) -> Vec<Way> {
        let Some(client) = &self.client else { return Vec::new() };
        let planned = proxy::outgoing(&self.snapshot, client, self.dialled.address);
        let mut step = self.by_agent("plan");
        if let Some(service) = &planned.service {
            step.won.push(Rule::new(&service.origin, service.port_name.clone(), "was dialled"));
        }
        if let Some(traffic) = &planned.traffic {
            step.outcome = format!("rules are about it; {}", speaks(traffic));
            trail.step(step);
            return self.by_rules(trail, traffic);
        }
        if let Some(refused) = planned.refused {
            step.outcome = refused.reason.to_owned();
            trail.step(step);
            return vec![trail.refused(None, refused)];
        }
        let whole: usize = planned.endpoints.iter().map(|(_, cases)| cases).sum();
        step.outcome = match planned.endpoints.len() {
            1 => "one endpoint".to_owned(),
            more => format!("one of {more} endpoints, by chance and weight"),
        };
        trail.step(step);
        let each = planned.endpoints.into_iter().take(MAX_ENDPOINTS);
        each.flat_map(|(to, cases)| self.reach(trail.part(cases, whole), to, false)).collect()
    }

    fn by_rules(&self, trail: Trail, traffic: &PortTraffic) -> Vec<Way> {
        match &self.request {
            Some(asked) if proxy::carries_requests(traffic) => self.by_route(trail, traffic, asked),
            None if proxy::carries_requests(traffic) && !traffic.http.is_empty() => {
                self.without_request(trail, traffic)
            }
            _ => self.by_connection(trail, traffic),
        }
    }

    /// Nobody has said what is asked for, and that decides.
    fn without_request(&self, mut trail: Trail, traffic: &PortTraffic) -> Vec<Way> {
        let mut step = self.by_agent("route");
        step.outcome = "depends on the request".to_owned();
        for (_, route) in traffic.http.entries() {
            let rule = Rule::new(&route.origin, &*route.name, "may be about the request");
            if !step.lost.contains(&rule) {
                step.lost.push(rule);
            }
        }
        trail.step(step);
        let detail = "its requests decide; say METHOD and PATH".to_owned();
        let verdict = Verdict::Depends;
        vec![trail.ends(None, Ending { verdict, reason: "at_requests", detail, status: None })]
    }

    fn by_route(&self, mut trail: Trail, traffic: &PortTraffic, asked: &Asked) -> Vec<Way> {
        let Some(client) = &self.client else { return Vec::new() };
        let found = proxy::route_request(traffic, client, asked);
        let mut step = self.by_agent("route");
        step.lost = found
            .losers
            .iter()
            .map(|(route, why)| Rule::new(&route.origin, &*route.name, why.clone()))
            .collect();
        if let Some(refused) = found.refused {
            step.outcome = "no rule is about it".to_owned();
            trail.step(step);
            return vec![trail.refused(None, refused)];
        }
        let Some(route) = found.winner else {
            step.outcome = "there is no rule about requests".to_owned();
            trail.step(step);
            return self.to_destination(trail, &traffic.default, Some(asked));
        };
        step.outcome = "a rule is about it".to_owned();
        let why = if step.lost.is_empty() { "it matches" } else { "the first that matches" };
        step.won.push(Rule::new(&route.origin, &*route.name, why));
        trail.step(step);
        let mut ways = Vec::new();
        for fault in proxy::faults(&route) {
            let mut step = self.by_agent("fault");
            step.outcome = format!("{}, in {}% of cases", fault.what, fault.percent);
            step.won.push(Rule::new(&route.origin, &*route.name, "injects it"));
            if let Some(status) = fault.status.filter(|_| fault.percent > 0.0) {
                let mut aborted = trail.clone();
                aborted.percent = trail.percent * fault.percent / 100.0;
                aborted.step(step.clone());
                let (reason, detail) = ("fault_injected", fault.what.clone());
                let refused = Refused { reason, detail, status: Some(status), policy: None };
                ways.push(aborted.refused(None, refused));
                trail.percent -= trail.percent * fault.percent / 100.0;
            }
            trail.step(step);
        }
        if trail.percent <= 0.0 {
            return ways;
        }
        let led = proxy::led(&route, found.path_len, asked, self.dialled.address);
        let whole: u32 = led.iter().map(|(_, weight)| weight).sum();
        for (led, weight) in led {
            let mut part = trail.part(weight as usize, whole as usize);
            match led {
                Led::Forwarded(spec) => ways.extend(self.to_destination(part, &spec, Some(asked))),
                Led::Answered(answer) => {
                    let mut step = self.by_agent("answer");
                    step.outcome = format!("answered here with status {}", answer.status);
                    part.step(step);
                    let verdict = if answer.refuses { Verdict::Refused } else { Verdict::Carried };
                    let (reason, status) = (answer.reason, Some(answer.status));
                    let end = Ending { verdict, reason, detail: String::new(), status };
                    ways.push(part.ends(None, end));
                }
            }
        }
        ways
    }

    /// Bytes that nobody looks into, or requests of a port whose name says that it has none.
    fn by_connection(&self, mut trail: Trail, traffic: &PortTraffic) -> Vec<Way> {
        let Some(client) = &self.client else { return Vec::new() };
        let found = proxy::route_connection(traffic, client, self.dialled.address, None);
        let mut step = self.by_agent("route");
        step.lost = found.losers.iter().map(|(origin, why)| Rule::new(origin, "", *why)).collect();
        step.outcome = match &found.winner {
            Some(origin) => {
                step.won.push(Rule::new(origin, "", "the first that matches"));
                "a rule is about it".to_owned()
            }
            None => "no rule is about connections like it".to_owned(),
        };
        trail.step(step);
        let whole: u32 = found.targets.iter().map(|(_, weight)| weight).sum();
        let mut ways = Vec::new();
        for (spec, weight) in found.targets {
            let part = trail.part(weight as usize, whole as usize);
            match spec {
                Some(spec) => ways.extend(self.to_destination(part, &spec, None)),
                None => {
                    let detail = "the rule leads to a destination that cannot be used".to_owned();
                    let reason = "no_endpoints";
                    let refused = Refused { reason, detail, status: None, policy: None };
                    ways.push(part.refused(None, refused));
                }
            }
        }
        ways
    }
}

fn speaks(traffic: &PortTraffic) -> String {
    format!("the port speaks {:?}", traffic.protocol).to_lowercase()
}
