//! What can be read from the sources only: names that stand in the text of a program.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Words in capitals, as reasons are, that mean something else: kinds, values and fields of Kubernetes.
const OTHERS: [&str; 40] = [
    "ALL",
    "Apply",
    "Available",
    "CrashLoopBackOff",
    "ContainerCreating",
    "DaemonSet",
    "DaemonSet, Deployment",
    "Deployment",
    "DoesNotExist",
    "Equal",
    "Exists",
    "ExternalIP",
    "IPv4",
    "IPv6",
    "IfNotPresent",
    "In",
    "InternalIP",
    "LoadBalancer",
    "Local",
    "NoExecute",
    "NoSchedule",
    "None",
    "NotIn",
    "PascalCase",
    "Pod",
    "PodInitializing",
    "PodScheduled",
    "PreferNoSchedule",
    "Proxy",
    "Ready",
    "RollingUpdate",
    "RuntimeDefault",
    "ScheduleAnyway",
    "SyncLoadBalancer",
    "True",
    "False",
    "TCP",
    "ToBeDeletedByClusterAutoscaler",
    "VIP",
    "NET",
];

/// The programs' files below a folder, without what tests only.
fn programs(folder: &Path) -> Vec<String> {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    let mut found = Vec::new();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(programs(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && !["tests.rs", "fixtures.rs"].contains(&name.as_str())
        {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push(text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned());
        }
    }
    found
}

/// The strings of a program.
fn literals(program: &str) -> Vec<&str> {
    let code = program.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.split('"').skip(1).step_by(2)).collect()
}

/// The reasons of events and conditions: words like `PortConflict` in what decides and writes.
pub(super) fn reasons(source: &Path) -> BTreeSet<String> {
    let is_word = |text: &str| {
        text.len() > 2
            && text.starts_with(|first: char| first.is_ascii_uppercase())
            && text.chars().all(|character| character.is_ascii_alphabetic())
    };
    let programs: Vec<_> = ["decide", "apply"].iter().flat_map(|part| programs(&source.join(part))).collect();
    let words = programs.iter().flat_map(|program| literals(program)).filter(|text| is_word(text));
    words.filter(|word| !OTHERS.contains(word)).map(str::to_owned).collect()
}

/// The annotations with what their documentation says.
pub(super) fn annotations(program: &str) -> Vec<(String, String)> {
    let (mut rows, mut said) = (Vec::new(), String::new());
    for line in program.lines() {
        if let Some(text) = line.strip_prefix("///") {
            said.push_str(text);
        } else if line.starts_with("pub const") {
            let name = line.split('"').nth(1).unwrap_or_default().to_owned();
            rows.push((name, std::mem::take(&mut said).trim().trim_end_matches('.').to_owned()));
        }
    }
    rows
}

/// Name, type and help of the data plane's metrics, from where they are written.
pub(super) fn proxy_metrics(source: &Path) -> Vec<[String; 3]> {
    let mut rows = Vec::new();
    for program in programs(source) {
        for (at, _) in program.match_indices("\"akrobateo_lb_") {
            let rest = &program[at + 1..];
            let name = rest.split('"').next().unwrap_or_default();
            // Named by a function, or by a field that follows.
            let function = program[..at].trim_end().strip_suffix('(').unwrap_or_default();
            let named = ["counter", "gauge"].into_iter().find(|kind| function.ends_with(kind));
            let (kind, said) = named.map_or_else(
                || rest.split_once("Kind::").unwrap_or_default().1.split_at_checked(7).unwrap_or_default(),
                |kind| (kind, rest.split_once('"').unwrap_or_default().1),
            );
            let kind: String = kind.chars().take_while(char::is_ascii_alphabetic).collect();
            let help = said.split('"').nth(1);
            rows.push([name.to_owned(), kind.to_lowercase(), help.unwrap_or_default().to_owned()]);
        }
    }
    rows.sort();
    rows
}

#[test]
fn names_are_found_in_programs_and_not_in_comments() {
    assert_eq!(literals("// \"Comment\"\nlet a = \"One\"; let b = (\"Two\", 3);"), ["One", "Two"]);
    let one = annotations("/// What\n/// it is.\npub const A: &str = \"x/y\";");
    assert_eq!(one, [("x/y".to_owned(), "What it is".to_owned())]);
}
