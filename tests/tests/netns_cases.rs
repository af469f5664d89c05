//! Rules as users write them, through two real agents: the cases in `tests/cases`.

use anyhow::Result;
use undermesh_tests::cases;

#[test]
fn virtual_services_do_what_they_say() -> Result<()> {
    cases::run("virtual_service")
}

#[test]
fn routes_of_the_gateway_api_do_what_they_say() -> Result<()> {
    cases::run("gateway_api")
}

#[test]
fn authorization_policies_do_what_they_say() -> Result<()> {
    cases::run("authorization")
}

#[test]
fn request_authentications_do_what_they_say() -> Result<()> {
    cases::run("request_authentication")
}

#[test]
fn destination_rules_do_what_they_say() -> Result<()> {
    cases::run("destination_rule")
}

#[test]
fn service_entries_do_what_they_say() -> Result<()> {
    cases::run("service_entry")
}

#[test]
fn protocols_are_told_as_documented() -> Result<()> {
    cases::run("protocols")
}

#[test]
fn limits_hold_as_documented() -> Result<()> {
    cases::run("rate_limit")
}
