//! What a scrape sees: names, labels, and a text that follows OpenMetrics' grammar.

use undermesh_tests::Reference;

use super::*;

/// A telemetry in which every metric has a series.
fn with_everything() -> Arc<Telemetry> {
    let (telemetry, _) = telemetry(10);
    telemetry.open(info("web")).close(CloseReason::new("connect_failed", "UF"));
    let reason = CloseReason::new("no_endpoint", "UH");
    telemetry.denied(&Denial { info: info("web"), reason });
    requests::grpc(&telemetry);
    let late = crate::RequestInfo { reason: "timeout", ..requests::get("/") };
    requests::requests(&telemetry, "web").record(&late);
    telemetry
}

#[test]
fn names_labels_and_their_order_are_istios() {
    let text = with_everything().encode();
    let labels = |flags: &str| {
        format!(
            "reporter=\"source\",source_workload=\"web\",source_canonical_service=\"unknown\",\
             source_canonical_revision=\"unknown\",source_workload_namespace=\"shop\",\
             source_principal=\"spiffe://cluster.local/ns/shop/sa/web\",source_app=\"unknown\",\
             source_version=\"unknown\",source_cluster=\"unknown\",\
             destination_service=\"cart.shop.svc.cluster.local\",\
             destination_service_namespace=\"shop\",destination_service_name=\"cart\",\
             destination_workload=\"cart\",destination_canonical_service=\"unknown\",\
             destination_canonical_revision=\"unknown\",destination_workload_namespace=\"shop\",\
             destination_principal=\"unknown\",destination_app=\"unknown\",\
             destination_version=\"unknown\",destination_cluster=\"unknown\",\
             request_protocol=\"tcp\",response_flags=\"{flags}\",\
             connection_security_policy=\"mutual_tls\""
        )
    };
    for (name, flags, value) in [
        ("istio_tcp_connections_opened_total", "-", 1),
        ("istio_tcp_connections_closed_total", "UF", 1),
        ("istio_tcp_sent_bytes_total", "-", 0),
        ("istio_tcp_received_bytes_total", "-", 0),
    ] {
        let line = format!("{name}{{{}}} {value}", labels(flags));
        assert!(text.lines().any(|found| found == line), "no {line} in {text}");
    }
}

#[test]
fn a_scrape_is_well_formed() {
    let telemetry = with_everything();
    // What OpenMetrics has to escape.
    telemetry.open(info("a\"b\\c\nd")).close(CloseReason::closed());
    let text = telemetry.encode();
    let samples = text.strip_suffix("# EOF\n").unwrap();
    let mut described = Vec::new();
    for line in samples.lines() {
        if let Some(metadata) = line.strip_prefix("# ") {
            let mut words = metadata.splitn(3, ' ');
            let (keyword, name) = (words.next().unwrap(), words.next().unwrap());
            assert!(["HELP", "TYPE", "UNIT"].contains(&keyword), "{line}");
            described.push(name.to_owned());
        } else {
            let name = sample_name(line).unwrap_or_else(|| panic!("malformed: {line}"));
            let family = described.last().unwrap();
            assert!(name.starts_with(family.as_str()), "{line} stands under {family}");
        }
    }
}

/// The name of a sample's metric, if the line is `name{label="value",..} number`.
fn sample_name(line: &str) -> Option<&str> {
    let is_name = |text: &str| {
        let mut chars = text.chars();
        chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let (name, mut rest) = line.split_at(line.find(['{', ' '])?);
    if let Some(labels) = rest.strip_prefix('{') {
        rest = labels;
        loop {
            let (label, value) = rest.split_once("=\"")?;
            let end = end_of_value(value)?;
            rest = &value[end + 1..];
            if !is_name(label) {
                return None;
            }
            match rest.split_at_checked(1)? {
                (",", more) => rest = more,
                ("}", more) => break rest = more,
                _ => return None,
            }
        }
    }
    rest.strip_prefix(' ')?.parse::<f64>().ok()?;
    is_name(name).then_some(name)
}

/// Where the quotation mark is that is not escaped.
fn end_of_value(value: &str) -> Option<usize> {
    let mut escaped = false;
    value.char_indices().find_map(|(index, c)| {
        let end = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        end.then_some(index)
    })
}

#[test]
fn the_version_is_told() {
    let text = with_everything().encode();
    let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
    assert_eq!(value(&text, "undermesh_build_info", &[&version]), Some(1.0));
}

#[test]
fn every_metric_is_documented_as_it_is_exposed() {
    let text = with_everything().encode();
    let seen = Reference::read().unwrap().check(&text).unwrap();
    let families = text.lines().filter(|line| line.starts_with("# TYPE ")).count();
    // A declaration without a series would hide what its labels are.
    assert_eq!((families, seen.len()), (21, 21), "of {text}");
}
