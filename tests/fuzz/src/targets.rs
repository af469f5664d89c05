//! The targets. Their names are those of their files, which is where `cargo xtask fuzz --list` has
//! them from.

mod csr;
mod distribution;
mod ext_authz;
mod hbone;
mod http_edge;
mod jwt;
mod manifests;
mod native_frames;
mod path_normaliser;
mod route_match;
mod trace_context;

/// One target.
pub struct Target {
    /// Its name: that of its file in `src/targets/`.
    pub name: &'static str,
    pub(crate) run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Words that inputs are made of.
    pub dictionary: &'static [&'static [u8]],
}

macro_rules! targets {
    ($($name:ident),*) => {
        /// All targets.
        pub static TARGETS: &[Target] = &[$(Target {
            name: stringify!($name),
            run: $name::run,
            seeds: $name::seeds,
            dictionary: $name::DICTIONARY,
        }),*];

        /// The properties hold for inputs that are always the same.
        #[cfg(test)]
        mod tests {
            $(
                #[test]
                fn $name() {
                    super::check(stringify!($name));
                }
            )*
        }
    };
}

targets!(
    csr,
    distribution,
    ext_authz,
    hbone,
    http_edge,
    jwt,
    manifests,
    native_frames,
    path_normaliser,
    route_match,
    trace_context
);

/// Inputs of a test: some seconds for all targets together, without optimisation.
#[cfg(test)]
const INPUTS: usize = 1000;

#[cfg(test)]
fn check(name: &str) {
    let target = Target::find(name).expect("a target of this name");
    let seeds = (target.seeds)();
    let generated = crate::Generator::new(target).take(INPUTS);
    for bytes in seeds.into_iter().chain(generated) {
        let ran = std::panic::catch_unwind(|| target.run(&bytes));
        assert!(ran.is_ok(), "{name} with {:?}", String::from_utf8_lossy(&bytes));
    }
}

#[cfg(test)]
#[test]
fn every_file_is_a_target_of_its_name() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/targets");
    let mut files: Vec<String> = std::fs::read_dir(directory)
        .expect("a directory of targets")
        .filter_map(|entry| entry.expect("a file").file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".rs").map(str::to_owned))
        .collect();
    files.sort();
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(files, names);
}
