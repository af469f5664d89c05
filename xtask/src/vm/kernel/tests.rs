//! What is kept of an unpacked package.

use super::*;
use crate::vm::{
    catalog::Choice,
    version::{Series, Version},
};

fn kernel(directory: &Path) -> Kernel {
    let package = Package {
        name: "linux-image-6.12".to_owned(),
        version: Version::new("6.12.1-1"),
        series: Series(6, 12),
        parts: Vec::new(),
    };
    Kernel { choice: Choice::Series(Series(6, 12)), package, directory: directory.to_owned() }
}

/// A directory that goes with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("xtask-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.0.join("tree").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn image_and_modules_are_kept_in_order_and_built_in_ones_are_not_missed() {
    let scratch = Scratch::new("keep");
    scratch.write("boot/vmlinuz-6.12.1", "image");
    for module in &MODULES[1..] {
        scratch.write(&format!("lib/modules/6.12.1/kernel/net/{module}.ko"), module);
    }
    scratch.write("lib/modules/6.12.1/modules.builtin", "kernel/net/llc/llc.ko\n");
    let kernel = kernel(&scratch.0.join("kernel"));
    assert!(!kernel.is_cached());
    kernel.keep(&scratch.0.join("tree"), &kernel.directory).unwrap();
    assert!(kernel.is_cached());
    assert_eq!(fs::read_to_string(kernel.image()).unwrap(), "image");
    let modules = kernel.modules().unwrap();
    let names: Vec<&str> = modules.iter().map(|path| file_name(path)).collect();
    assert_eq!(
        names,
        ["stp.ko", "bridge.ko", "veth.ko", "dummy.ko", "inet_diag.ko", "tcp_diag.ko"]
    );
}

#[test]
fn a_kernel_that_lacks_a_module_is_not_kept() {
    let scratch = Scratch::new("lack");
    scratch.write("boot/vmlinuz-6.12.1", "image");
    let kernel = kernel(&scratch.0.join("kernel"));
    let error = kernel.keep(&scratch.0.join("tree"), &kernel.directory).unwrap_err().to_string();
    assert!(error.contains("linux-image-6.12 has no module llc"), "{error}");
    assert!(!kernel.is_cached());
}
