//! A page is read as it was written, and shown whole.

use super::*;
use crate::policies::{Cause, PolicyState};

#[test]
fn the_table_shows_every_section_that_has_rows() {
    let status = Status {
        agent: AgentStatus {
            version: "0.1.0".into(),
            node: "a".into(),
            pid: 1,
            uptime_seconds: 5,
            generation: 3,
            ready: false,
            not_ready: vec!["pods have not been looked at yet".into()],
            connections: 0,
            tunnels: 0,
            overload: OverloadRow {
                step: "trim".into(),
                memory_percent: 83,
                ..OverloadRow::default()
            },
        },
        source: SourceStatus {
            kind: "kubernetes".into(),
            from: "https://10.0.0.1/".into(),
            complete: false,
            cached: None,
            problem: "cannot ask".into(),
            lists: vec![ListRow {
                name: "pod/here".into(),
                objects: 7,
                complete: true,
                silent_for_seconds: Some(61),
                restarts: 2,
                relists: 1,
                problem: String::new(),
            }],
        },
        pods: vec![],
        gate: GateStatus { state: GateState::Refuse, held_pods: 2, ..GateStatus::default() },
        destinations: vec![],
        certificates: vec![],
        policies: vec![PolicyRow {
            kind: "AuthorizationPolicy".into(),
            namespace: "shop".into(),
            name: "ask".into(),
            action: "CUSTOM".into(),
            pods: 2,
            state: PolicyState::FailsClosed,
            causes: [Cause::UnknownProvider].into(),
            detail: vec!["provider \"judge\" cannot be asked".into()],
        }],
        authorizers: vec![],
        token_keys: vec![],
        programs: vec![],
        maps: vec![MapRow {
            name: "PODS".into(),
            entries: 1,
            max_entries: 4,
            percent: 25,
            setting: "maxPods".into(),
        }],
        verdicts: [("local".to_owned(), 2)].into(),
        warnings: vec!["Pod shop/cart: something".into()],
    };
    let text = status.to_string();
    for part in [
        "ready        NO",
        "pods have not",
        "overload     trim (memory 83%, descriptors 0%, delay 0%)",
        "startup gate refuse (held pods: 2, unknown cgroups: 0)",
        "source       kubernetes https://10.0.0.1/, NOT COMPLETE: cannot ask",
        "pod/here  7        yes       1m 1s ago  2         1",
        "PODS  1",
        "25%",
        "local",
        "Pod shop/cart",
        "AuthorizationPolicy shop/ask  CUSTOM  2     FAILS CLOSED  provider \"judge\"",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    assert!(!text.contains("Certificates") && !text.contains("Authorizers"));
    let json = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<Status>(&json).unwrap().to_string(), text);
}
