//! Traffic rules as users write them, through two real agents: the cases in `tests/cases`.

use anyhow::Result;
use undermesh_tests::cases;

#[test]
fn virtual_services_do_what_they_say() -> Result<()> {
    cases::run("virtual_service")
}
