//! Finds the references that are part of a circular import. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A path in the source code of one file that refers to another file.
pub(crate) struct Reference {
    pub(crate) from: PathBuf,
    pub(crate) line: usize,
    /// The path as written in the source code, for example `super::spec::Error`.
    pub(crate) path: String,
    pub(crate) to: PathBuf,
}

/// Returns one line for each reference that is part of a circular import.
pub(crate) fn describe_circular_imports(references: &[Reference]) -> Vec<String> {
    let mut targets_by_file: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
    for reference in references {
        targets_by_file.entry(&reference.from).or_default().insert(&reference.to);
    }
    references
        .iter()
        .filter(|reference| is_reachable(&targets_by_file, &reference.to, &reference.from))
        .map(|Reference { from, line, path, to }| {
            format!("{}:{line}: `{path}` is part of a circular import with {}", from.display(), to.display())
        })
        .collect()
}

fn is_reachable(targets_by_file: &BTreeMap<&Path, BTreeSet<&Path>>, start: &Path, target: &Path) -> bool {
    let mut visited_files = BTreeSet::new();
    let mut files_to_visit = vec![start];
    while let Some(file) = files_to_visit.pop() {
        if file == target {
            return true;
        }
        if visited_files.insert(file) {
            files_to_visit.extend(targets_by_file.get(file).into_iter().flatten());
        }
    }
    false
}
