//! The time that the nft program needs to load the elements of the agent's table. Does I/O.
//!
//! nft 1.0.6 prints the type of conntrack zones as `0`, and rejects this type when it loads a text. The nft program
//! therefore cannot load its own listing of the table. The benchmark's text contains no rules, and no sets with zones.
//! The text lacks a few dozen rules and elements, but has tens of thousands of other elements. The measured time is
//! slightly lower than the time for the whole table.

use std::fs;
use std::process::Command;
use std::time::Instant;

use netfilter::nft::client::Nftables;
use netfilter::nft::{NftError, Table, Transaction};
use netns_testkit::Namespace;

use crate::error::{BenchError, Context};

/// The number of times that the program loads the table.
const LOAD_COUNT: usize = 7;
/// The file with the text for the nft program.
const SCRIPT_PATH: &str = "/run/agent-table.nft";
/// The last line of a set or chain in the listing.
const END_OF_BLOCK: &str = "\t}";

/// Returns the times in seconds.
pub(crate) fn measure(namespace: &Namespace, table: &Table) -> Result<Vec<f64>, BenchError> {
    execute(namespace, &Transaction::create(table))?;
    let listing = namespace.nft(&format!("list table {}", table.id));
    execute(namespace, &Transaction::delete(&table.id))?;
    fs::write(SCRIPT_PATH, without_unreadable_parts(&listing)).context(SCRIPT_PATH)?;
    let mut times = Vec::new();
    for _ in 0..LOAD_COUNT {
        let start = Instant::now();
        namespace.run_program(Command::new("nft").args(["-f", SCRIPT_PATH]), "");
        times.push(start.elapsed().as_secs_f64());
        execute(namespace, &Transaction::delete(&table.id))?;
    }
    Ok(times)
}

fn execute(namespace: &Namespace, transaction: &Transaction<'_>) -> Result<(), BenchError> {
    let result: Result<(), NftError> = namespace.run(|| Nftables::open()?.execute(transaction));
    result.map_err(|error| BenchError::UnexpectedState(format!("the agent's table: {error}")))
}

/// Removes the sets of conntrack zones, all base chains, and the rules of other chains.
fn without_unreadable_parts(listing: &str) -> String {
    let mut script = String::new();
    let mut block: Vec<&str> = Vec::new();
    for line in listing.lines() {
        let is_start = ["\tmap ", "\tset ", "\tchain "].iter().any(|start| line.starts_with(start));
        if block.is_empty() && !is_start {
            script += line;
            script.push('\n');
            continue;
        }
        block.push(line);
        if line == END_OF_BLOCK {
            script += &readable_block(&block);
            block.clear();
        }
    }
    script
}

fn readable_block(lines: &[&str]) -> String {
    let first_line = lines.first().copied().unwrap_or_default();
    let properties = lines.get(1).copied().unwrap_or_default().trim_start();
    let is_chain = first_line.starts_with("\tchain ");
    let has_unreadable_type = properties.split(' ').any(|word| word == "0");
    match (is_chain, properties.starts_with("type ")) {
        (true, true) => String::new(),
        (true, false) => format!("{first_line}\n{END_OF_BLOCK}\n"),
        (false, _) if has_unreadable_type => String::new(),
        (false, _) => lines.join("\n") + "\n",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_zones_and_rules_are_removed() {
        let listing = "table inet example {
\tmap peer_zones {
\t\ttype ether_addr : 0
\t}

\tset nodes4 {
\t\ttype ipv4_addr
\t\telements = { 10.99.0.11 }
\t}

\tchain keep1 {
\t\tmeta mark set 0x00000001
\t}

\tchain post {
\t\ttype filter hook postrouting priority -160; policy accept;
\t\tcounter packets 0 bytes 0
\t}
}
";
        let expected = "table inet example {

\tset nodes4 {
\t\ttype ipv4_addr
\t\telements = { 10.99.0.11 }
\t}

\tchain keep1 {
\t}

}
";
        assert_eq!(without_unreadable_parts(listing), expected);
    }
}
