//! What `cargo xtask codegen` writes into files: `yaml` for the chart, `markdown` for the documentation. `undermesh crds`
//! says the same; this needs less of the workspace to be built.

fn main() -> Result<(), serde_yaml_ng::Error> {
    if std::env::args().nth(1).as_deref() == Some("markdown") {
        print!("{}", undermesh_control::definitions_page());
        return Ok(());
    }
    for definition in undermesh_control::definitions() {
        print!("---\n{}", serde_yaml_ng::to_string(&definition)?);
    }
    Ok(())
}
