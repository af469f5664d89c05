//! Reading a package index, and choosing from it.

use super::*;

const STANZAS: &str = "\
Package: linux-image-6.12.115+deb13-cloud-amd64
Version: 6.12.115-1
Depends: kmod, linux-base (>= 4.12~), initramfs-tools (>= 0.120+deb8u2) | linux-initramfs-tool
Description: Linux 6.12 for x86-64 cloud (signed)

Package: linux-image-6.12.117+deb13-cloud-amd64
Version: 6.12.117-1
Depends: kmod, initramfs-tools | linux-initramfs-tool

Package: linux-image-6.12.117+deb13-cloud-amd64-unsigned
Version: 6.12.117-1
Depends: kmod, initramfs-tools | linux-initramfs-tool

Package: linux-image-6.12-cloud-amd64
Version: 6.12.117-1
Depends: linux-image-6.12.117+deb13-cloud-amd64 (= 6.12.117-1)

Package: linux-image-7.3.4+deb13-cloud-amd64
Version: 7.3.4-1~bpo13+1
Depends: dracut | linux-initramfs-tool, linux-binary-7.3.4+deb13-cloud-amd64 (= 7.3.4-1~bpo13+1), linux-modules-7.3.4+deb13-cloud-amd64 (= 7.3.4-1~bpo13+1)

Package: linux-image-7.4-cloud-amd64
Version: 7.4~rc2-1~exp1
Depends: dracut | linux-initramfs-tool, linux-binary-7.4-cloud-amd64 (= 7.4~rc2-1~exp1)
";

fn first(choice: &str) -> Package {
    let catalog = Catalog::read(STANZAS);
    catalog.candidates(Choice::parse(choice).unwrap())[0].clone()
}

#[test]
fn a_series_means_its_newest_release_and_of_that_the_unsigned_one() {
    assert_eq!(first("6.12").name, "linux-image-6.12.117+deb13-cloud-amd64-unsigned");
    let catalog = Catalog::read(STANZAS);
    let names: Vec<&str> = catalog
        .candidates(Choice::Series(Series(6, 12)))
        .iter()
        .map(|it| it.name.as_str())
        .collect();
    // What to take where the mirror lacks the first one.
    assert_eq!(
        names[1..],
        ["linux-image-6.12.117+deb13-cloud-amd64", "linux-image-6.12.115+deb13-cloud-amd64"]
    );
}

#[test]
fn a_release_candidate_is_neither_the_newest_nor_of_a_series() {
    assert_eq!(first("newest").series, Series(7, 3));
    assert_eq!(first("rc").series, Series(7, 4));
    let catalog = Catalog::read(STANZAS);
    assert!(catalog.candidates(Choice::Series(Series(7, 4))).is_empty());
    assert_eq!(catalog.series(), [Series(6, 12), Series(7, 3)]);
}

#[test]
fn a_split_kernel_is_fetched_by_its_parts_and_a_whole_one_by_itself() {
    assert_eq!(
        first("7.3").downloads(),
        [
            "linux-binary-7.3.4+deb13-cloud-amd64=7.3.4-1~bpo13+1",
            "linux-modules-7.3.4+deb13-cloud-amd64=7.3.4-1~bpo13+1"
        ]
    );
    assert_eq!(
        first("6.12").downloads(),
        ["linux-image-6.12.117+deb13-cloud-amd64-unsigned=6.12.117-1"]
    );
}

#[test]
fn a_name_that_only_leads_to_a_kernel_is_not_one() {
    let catalog = Catalog::read(STANZAS);
    assert!(catalog.0.iter().all(|it| it.name != "linux-image-6.12-cloud-amd64"));
}

#[test]
fn what_is_typed_is_added_to_the_matrix_once_and_nonsense_is_named() {
    let named = |names: &[&str], all| {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        choices(&names, all)
    };
    assert_eq!(named(&[], false).unwrap(), DEFAULT);
    assert_eq!(named(&["6.17", "6.17"], false).unwrap(), [Choice::Series(Series(6, 17))]);
    assert_eq!(named(&["6.1", "6.17"], true).unwrap().len(), MATRIX.len() + 1);
    for nonsense in ["6", "6.12.3", "latest", ""] {
        let error = named(&[nonsense], false).unwrap_err().to_string();
        assert!(error.contains(&format!("{nonsense:?}")), "{error}");
    }
}

#[test]
fn the_default_is_part_of_the_matrix() {
    assert!(DEFAULT.iter().all(|choice| MATRIX.contains(choice)));
}
