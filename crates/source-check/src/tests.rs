//! Each test writes a small crate to a temporary directory, and checks this crate.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// A temporary directory with a crate. The directory is removed at the end of the test.
struct TemporaryWorkspace(PathBuf);

impl TemporaryWorkspace {
    fn new(test: &str, files: &[(&str, &str)]) -> Self {
        let directory = env::temp_dir().join(format!("source-check-{}-{test}", std::process::id()));
        for (name, content) in files {
            let file = directory.join("crate/src").join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        }
        Self(directory)
    }

    fn problems(&self) -> Vec<String> {
        let prefix = format!("{}/crate/src/", self.0.display());
        crate::check(&self.0).unwrap().iter().map(|problem| problem.replace(&prefix, "")).collect()
    }
}

impl Drop for TemporaryWorkspace {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

#[test]
fn circular_import_between_two_files_is_reported_with_its_lines() {
    let workspace = TemporaryWorkspace::new(
        "two",
        &[
            ("lib.rs", "mod a;\nmod b;"),
            ("a.rs", "use crate::b::B;\npub struct A(B);"),
            ("b.rs", "pub struct B;\nfn f() { println!(\"{}\", super::a::NAME); }"),
        ],
    );
    assert_eq!(
        workspace.problems(),
        [
            "a.rs:1: `crate::b::B` is part of a circular import with b.rs",
            "b.rs:2: `super::a::NAME` is part of a circular import with a.rs",
        ]
    );
}

#[test]
fn circular_import_of_three_files_is_reported() {
    let workspace = TemporaryWorkspace::new(
        "three",
        &[
            ("main.rs", "mod a; mod b; mod c;"),
            ("a.rs", "use crate::{b::{self, B}, c as d};"),
            ("b.rs", "type T = crate::c::C;"),
            ("c/mod.rs", "use super::a;"),
        ],
    );
    let problems = workspace.problems();
    assert!(problems.iter().any(|problem| problem.starts_with("b.rs:1")), "{problems:?}");
    assert!(problems.iter().any(|problem| problem.starts_with("c/mod.rs:1")), "{problems:?}");
}

#[test]
fn import_from_a_parent_that_reexports_its_child_is_reported() {
    let files = [
        ("lib.rs", "mod a;"),
        ("a/mod.rs", "mod child;\npub use child::Child;\npub struct Shared;"),
        ("a/child.rs", "use super::Shared;"),
    ];
    assert_eq!(TemporaryWorkspace::new("child", &files).problems().len(), 2);
    let files_without_reexport = [files[0], ("a/mod.rs", "mod child;\npub struct Shared;"), files[2]];
    assert_eq!(TemporaryWorkspace::new("no-reexport", &files_without_reexport).problems(), [""; 0]);
}

#[test]
fn test_code_and_one_way_imports_are_not_reported() {
    let workspace = TemporaryWorkspace::new(
        "one-way",
        &[
            ("lib.rs", "mod a; mod b; #[cfg(test)] mod fixtures; pub use a::A;"),
            ("a.rs", "use crate::{b as c, b::B};\n#[cfg(test)]\nmod tests { use super::*; }"),
            (
                "b.rs",
                "#[cfg(test)]\nuse crate::a::A;\nimpl B { #[cfg(test)] fn f() { crate::a::g() } }\n// crate::a",
            ),
            ("fixtures.rs", "use crate::a::A;"),
        ],
    );
    assert_eq!(workspace.problems(), [""; 0]);
}

#[test]
fn circular_import_through_globs_is_reported() {
    let files = [
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "use super::*;\nfn f() { b::g() }"),
        ("b.rs", "use crate::*;\nfn g() { a::f() }"),
    ];
    assert_eq!(TemporaryWorkspace::new("glob", &files).problems().len(), 2);
}

#[test]
fn circular_import_in_a_program_or_an_integration_test_is_reported() {
    for target in ["bin/tool", "../tests/suite"] {
        let files = ["main.rs", "a.rs", "b.rs"].map(|file| format!("{target}/{file}"));
        let sources = ["mod a; mod b; fn main() {}", "use crate::b;", "use crate::a;"];
        let files: Vec<_> = files.iter().map(String::as_str).zip(sources).collect();
        assert_eq!(TemporaryWorkspace::new("target", &files).problems().len(), 2, "{target}");
    }
}

#[test]
fn circular_import_of_a_file_with_a_path_attribute_is_reported() {
    let files = [
        ("lib.rs", "#[path = \"other.rs\"] mod a; mod b;"),
        ("other.rs", "use crate::b;"),
        ("b.rs", "use crate::a;"),
    ];
    assert_eq!(TemporaryWorkspace::new("path", &files).problems().len(), 2);
}

#[test]
fn long_file_is_reported() {
    let workspace = TemporaryWorkspace::new("long", &[("lib.rs", &"//\n".repeat(401))]);
    assert_eq!(workspace.problems(), ["lib.rs: 401 lines; the limit is 400: split the file"]);
    assert_eq!(TemporaryWorkspace::new("short", &[("lib.rs", &"//\n".repeat(400))]).problems(), [""; 0]);
}

#[test]
fn directory_without_source_files_is_an_error() {
    let directory = env::temp_dir().join(format!("source-check-{}-empty", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    assert!(crate::check(Path::new(&directory)).is_err());
    fs::remove_dir(directory).unwrap();
}
