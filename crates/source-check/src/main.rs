//! Checks all source files of the workspace. Circular imports and files that are too long are errors.

mod circles;
mod module_tree;
mod paths;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

/// The maximum length of a file in lines.
const MAX_LINES: usize = 400;

fn main() -> ExitCode {
    let crates_directory = std::env::args().nth(1).unwrap_or_else(|| "crates".to_owned());
    match check(Path::new(&crates_directory)) {
        Ok(problems) if problems.is_empty() => ExitCode::SUCCESS,
        Ok(problems) => {
            for problem in problems {
                eprintln!("source-check: {problem}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("source-check: cannot check {crates_directory}: {error}");
            ExitCode::from(2)
        }
    }
}

/// Returns one line for each problem in the crates below `crates_directory`.
fn check(crates_directory: &Path) -> io::Result<Vec<String>> {
    let files = list_rust_files(crates_directory)?;
    if files.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the directory contains no .rs file"));
    }
    let mut problems = Vec::new();
    for file in &files {
        let lines = fs::read_to_string(file)?.lines().count();
        if lines > MAX_LINES {
            problems
                .push(format!("{}: {lines} lines; the limit is {MAX_LINES}: split the file", file.display()));
        }
    }
    for root in files.iter().filter(|file| is_crate_root(file)) {
        problems.extend(circles::describe_circular_imports(&module_tree::find_references(root)?));
    }
    Ok(problems)
}

/// Returns all `.rs` files below the directory, in the order of their names.
fn list_rust_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::path);
    let mut files = Vec::new();
    for entry in entries {
        if entry.file_type()?.is_dir() {
            files.extend(list_rust_files(&entry.path())?);
        } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// Returns true if the file is the root of a library, a program, an integration test, a benchmark or an example.
///
/// An integration test of one file has the root `tests/NAME.rs`. An integration test of several files has the root
/// `tests/NAME/main.rs`.
fn is_crate_root(file: &Path) -> bool {
    let directory = file.parent().unwrap_or(file);
    let is_main = file.ends_with("main.rs");
    directory.ends_with("src") && (file.ends_with("lib.rs") || is_main)
        || contains_only_crate_roots(directory)
        || is_main && directory.parent().is_some_and(contains_only_crate_roots)
}

/// Returns true if each file in the directory is a crate root. A directory `tests` below `src` contains modules of
/// tests instead.
fn contains_only_crate_roots(directory: &Path) -> bool {
    let is_in_src = directory.ancestors().any(|ancestor| ancestor.ends_with("src"));
    let has_target_name = ["tests", "benches", "examples"].iter().any(|name| directory.ends_with(name));
    directory.ends_with("src/bin") || has_target_name && !is_in_src
}
