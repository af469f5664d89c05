//! The executable that `cargo xtask fuzz` builds: libFuzzer around the target that `FUZZ_TARGET` names.
//! With `FUZZ_PREPARE` it only writes that target's dictionary and seeds into this directory.

#![no_main]
#![expect(clippy::panic, reason = "whoever starts it wrongly is told so")]

use std::{env, fs, io, path::Path, sync::OnceLock};

use undermesh_fuzz::Target;

static CHOSEN: OnceLock<&'static Target> = OnceLock::new();

fn chosen() -> &'static Target {
    CHOSEN.get_or_init(|| {
        let name = env::var("FUZZ_TARGET").unwrap_or_default();
        Target::find(&name).unwrap_or_else(|| panic!("FUZZ_TARGET names no target: {name:?}"))
    })
}

fn initialize() {
    let target = chosen();
    let Some(directory) = env::var_os("FUZZ_PREPARE") else { return };
    match prepare(target, Path::new(&directory)) {
        Ok(()) => std::process::exit(0),
        Err(error) => panic!("cannot write to {}: {error}", Path::new(&directory).display()),
    }
}

fn prepare(target: &Target, directory: &Path) -> io::Result<()> {
    let corpus = directory.join("corpus");
    fs::create_dir_all(&corpus)?;
    for (number, seed) in (target.seeds)().iter().enumerate() {
        fs::write(corpus.join(format!("seed-{number:03}")), seed)?;
    }
    let mut dictionary = String::new();
    for word in target.dictionary {
        let escaped: String = word.iter().map(|byte| format!("\\x{byte:02x}")).collect();
        dictionary.push_str(&format!("\"{escaped}\"\n"));
    }
    fs::write(directory.join("dictionary"), dictionary)
}

libfuzzer_sys::fuzz_target!(init: initialize(), |bytes: &[u8]| {
    chosen().run(bytes);
});
