//! What of a directory is read, and what is refused.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, os::unix::fs::symlink, process::Command};

use super::*;
use crate::fixtures::{ACCOUNT, Dir};

fn names(dir: &Dir) -> Vec<String> {
    let reading = read(&dir.0);
    assert_eq!(reading.report.diagnostics(), []);
    let relative = |path: &Path| path.strip_prefix(&dir.0).unwrap().display().to_string();
    reading.texts.iter().map(|(path, _)| relative(path)).collect()
}

fn problems(dir: &Dir) -> Vec<String> {
    let found = dir.findings();
    assert!(dir.source().load().cluster.is_none(), "was accepted: {found:?}");
    found
}

#[test]
fn manifests_are_read_in_order_and_nothing_else() {
    let dir = Dir::new(&[
        ("b.yml", ""),
        ("a.yaml", ""),
        ("c.json", ""),
        ("notes.txt", "not: [yaml"),
        (".hidden.yaml", "not: [yaml"),
        ("a.yaml~", "not: [yaml"),
        ("#a.yaml#", "not: [yaml"),
        (".a.yaml.swp", "not: [yaml"),
    ]);
    fs::create_dir_all(dir.0.join("sub/deep")).unwrap();
    fs::create_dir_all(dir.0.join(".git")).unwrap();
    dir.write("sub/deep/d.yaml", "");
    dir.write(".git/e.yaml", "not: [yaml");
    assert_eq!(names(&dir), ["a.yaml", "b.yml", "c.json", "sub/deep/d.yaml"]);
}

#[test]
fn a_mounted_config_map_is_read_once() {
    let dir = Dir::new(&[]);
    fs::create_dir(dir.0.join("..2024")).unwrap();
    dir.write("..2024/a.yaml", ACCOUNT);
    symlink("..2024", dir.0.join("..data")).unwrap();
    symlink("..data/a.yaml", dir.0.join("a.yaml")).unwrap();
    assert_eq!(names(&dir), ["a.yaml"]);
    assert_eq!(dir.findings(), Vec::<String>::new());
}

#[test]
fn loops_of_links_end() {
    let dir = Dir::new(&[("a.yaml", ACCOUNT)]);
    for name in ["x", "y", "z"] {
        symlink(".", dir.0.join(name)).unwrap();
    }
    assert_eq!(names(&dir), ["a.yaml"]);
}

#[test]
fn what_cannot_be_read_rejects_the_state() {
    let dir = Dir::new(&[("good.yaml", ACCOUNT)]);
    symlink("/nowhere/at/all", dir.0.join("link.yaml")).unwrap();
    fs::write(dir.0.join("binary.yaml"), b"a: \xff\xfe").unwrap();
    let status = Command::new("mkfifo").arg(dir.0.join("pipe.yaml")).status().unwrap();
    assert!(status.success());
    let large = File::create(dir.0.join("large.yaml")).unwrap();
    large.set_len(MAX_FILE + 1).unwrap();
    File::create(dir.0.join(OsStr::from_bytes(b"\xff.yaml"))).unwrap();
    let found = problems(&dir);
    for (file, reason) in [
        ("link.yaml:1: ", "No such file"),
        ("binary.yaml:1: ", "UTF-8"),
        ("pipe.yaml:1: ", "no regular file"),
        ("large.yaml:1: ", "more than 8 MiB"),
        ("\u{fffd}.yaml:1: ", "its name is not UTF-8"),
    ] {
        let named = |found: &String| found.starts_with(file) && found.contains(reason);
        assert!(found.iter().any(named), "{file}{reason} is not among {found:#?}");
    }
    assert_eq!(found.len(), 5, "{found:#?}");
}

#[test]
fn a_file_of_exactly_the_limit_is_read() {
    let dir = Dir::new(&[]);
    let limit = usize::try_from(MAX_FILE).unwrap();
    dir.write("full.yaml", &format!("{ACCOUNT}{}", "#".repeat(limit - ACCOUNT.len())));
    assert_eq!(dir.findings(), Vec::<String>::new());
}

#[test]
fn directories_nested_too_deep_are_refused() {
    let dir = Dir::new(&[]);
    let deepest = ["d"; MAX_DEPTH].join("/");
    fs::create_dir_all(dir.0.join(&deepest)).unwrap();
    dir.write(&format!("{deepest}/a.yaml"), ACCOUNT);
    assert_eq!(names(&dir).len(), 1);
    fs::create_dir(dir.0.join(&deepest).join("d")).unwrap();
    assert!(problems(&dir)[0].contains("nested deeper than 8 directories"));
}

#[test]
fn too_many_files_are_refused() {
    let dir = Dir::new(&[]);
    for number in 0..=MAX_ENTRIES {
        File::create(dir.0.join(format!("{number}.txt"))).unwrap();
    }
    assert!(problems(&dir)[0].contains("it holds more than 10000 files"));
}

#[test]
fn a_missing_directory_is_an_error() {
    let dir = Dir::new(&[]);
    let loaded = crate::ManifestSource::new(dir.0.join("gone")).load();
    assert!(loaded.cluster.is_none());
    let found = loaded.diagnostics[0].to_string();
    assert!(found.contains("gone:1: cannot be read: No such file"), "{found}");
}
