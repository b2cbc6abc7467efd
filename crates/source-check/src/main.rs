//! Reads all source files of the workspace, prints import circles and files that are too long, and fails on either.

mod circles;
mod module_tree;
mod paths;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

/// The longest file that is allowed, in lines.
const MAX_LINES: usize = 400;

fn main() -> ExitCode {
    let crates = std::env::args().nth(1).unwrap_or_else(|| "crates".to_owned());
    match check(Path::new(&crates)) {
        Ok(problems) if problems.is_empty() => ExitCode::SUCCESS,
        Ok(problems) => {
            for problem in problems {
                eprintln!("source-check: {problem}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("source-check: cannot check {crates}: {error}");
            ExitCode::from(2)
        }
    }
}

/// Returns one line for each problem in the crates below the directory.
fn check(crates: &Path) -> io::Result<Vec<String>> {
    let files = rust_files(crates)?;
    if files.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "it contains no .rs file"));
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
        problems.extend(circles::describe(&module_tree::references(root)?));
    }
    Ok(problems)
}

/// Returns all `.rs` files below the directory, in the order of their names.
fn rust_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::path);
    let mut files = Vec::new();
    for entry in entries {
        if entry.file_type()?.is_dir() {
            files.extend(rust_files(&entry.path())?);
        } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// Returns whether the file is the root of a library or program: `src/lib.rs`, `src/main.rs`, or one in `src/bin`.
fn is_crate_root(file: &Path) -> bool {
    let directory = file.parent().unwrap_or(file);
    directory.ends_with("src/bin")
        || directory.ends_with("src") && (file.ends_with("lib.rs") || file.ends_with("main.rs"))
}
