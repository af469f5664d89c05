//! What `cargo xtask codegen` writes into files, as an object of JSON: names below the repository, and texts.

mod made;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    print!("{}", serde_json::to_string(&made::files()?)?);
    Ok(())
}
