//! Restarts the agents, and checks that the restart does not change the nftables table of the node. Does I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use e2e::{Failure, Faults, consistently, ensure, eventually, eventually_within, is_ready};
use futures::future::try_join_all;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, from_str};
use tokio::time::{Instant, sleep};

/// The time for which the table must stay the same after the restart.
const OBSERVATION_TIME: Duration = Duration::from_secs(10);
/// The time without changes after which the table is stable. After the last use of the tunnel, an agent keeps the
/// tunnel for one minute.
const STABLE_TIME: Duration = Duration::from_secs(75);
/// The listing of a large table takes much processor time.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// The maximum time until the table is stable. An agent uses the direct path to a node again only after a waiting time,
/// which each loss of the path doubles. The maximum of this time is 5 minutes.
const STABLE_DEADLINE: Duration = Duration::from_mins(8);
/// The maximum number of differences in a message.
const MAX_DIFFERENCES_IN_MESSAGE: usize = 10;

/// The sets with elements of former endpoints. An agent deletes these elements only after a later change of its rules.
/// A new agent deletes these elements at its start.
const SETS_WITH_FORMER_ENDPOINTS: [&str; 2] = ["own_destinations", "tunnel_marks"];

/// The objects of a node's table, and the elements of its sets.
type TableContent = BTreeSet<String>;

/// Waits until the tables of all nodes are stable. After an agent has crashed or a node was cut, the other agents need
/// some time until they use the direct path to this node again.
pub(crate) async fn wait_tables_stable(faults: &Faults, nodes: &[String]) -> Result<(), Failure> {
    let mut last_tables: (Vec<TableContent>, Instant) = (Vec::new(), Instant::now());
    eventually_within(STABLE_DEADLINE, "the tables of all nodes are stable", async || {
        sleep(POLL_INTERVAL).await;
        let tables = try_join_all(nodes.iter().map(|node| read_table(faults, node))).await?;
        if tables != last_tables.0 {
            last_tables = (tables, Instant::now());
        }
        let unchanged_time = last_tables.1.elapsed();
        ensure(unchanged_time > STABLE_TIME, || format!("the last change was {unchanged_time:?} ago"))
    })
    .await
}

/// Restarts the agent of a node. Checks that the new agent leaves the same table as the previous agent.
pub(crate) async fn ensure_restart_changes_no_rule(faults: &Faults, node: &str) -> Result<(), Failure> {
    let table_before = read_table(faults, node).await?;
    let previous_pod = faults.agents.get_pod_on_node(node).await?;
    faults.agents.delete_pod(&previous_pod).await?;
    let deleted_at = Timestamp::now();
    eventually("a new agent is ready, and has reported", async || {
        let pod = faults.agents.get_pod_on_node(node).await?;
        let is_new = pod.name_any() != previous_pod.name_any();
        let renewed_at = faults.agents.get_renew_time(node).await?;
        ensure(is_new && is_ready(&pod) && renewed_at > deleted_at, || {
            format!("the pod is {}, and its last report was at {renewed_at}", pod.name_any())
        })
    })
    .await?;
    let ensure_same_table = async || {
        let differences = describe_differences(&table_before, &read_table(faults, node).await?);
        ensure(differences.is_empty(), || {
            format!("the restart changed the table of node {node}: {}", differences.join("; "))
        })
    };
    eventually("the new agent has the same table", ensure_same_table).await?;
    consistently(OBSERVATION_TIME, "the table stays the same", ensure_same_table).await?;
    println!(
        "the restart of the agent of {node} changed none of {} objects and elements",
        table_before.len()
    );
    Ok(())
}

/// Reads the objects of the table, and the elements of its sets.
async fn read_table(faults: &Faults, node: &str) -> Result<TableContent, Failure> {
    let text = faults.read_agent_table(node).await?;
    parse_table(&text).ok_or_else(|| {
        Failure::UnexpectedState(format!("expected the JSON output of nft on node {node}, got {text}"))
    })
}

/// Returns a line for each object of the table, and for each element of its sets. The lines do not depend on the order
/// of the elements. Omits the elements that expire, because packets add these elements. Omits handles, because a rule
/// that is loaded again has another handle.
fn parse_table(text: &str) -> Option<TableContent> {
    let output: Value = from_str(text).ok()?;
    let mut lines = BTreeSet::new();
    let mut rule_count_by_chain = BTreeMap::<String, u32>::new();
    for object in output.get("nftables")?.as_array()? {
        for (kind, properties) in object.as_object()? {
            let mut properties = properties.clone();
            let Some(fields) = properties.as_object_mut().filter(|_| kind != "metainfo") else { continue };
            fields.remove("handle");
            let elements = fields.remove("elem");
            let is_dynamic = fields.get("timeout").is_some()
                || fields.get("flags").is_some_and(|flags| flags.to_string().contains("dynamic"));
            let name = fields.get("name").map(ToString::to_string).unwrap_or_default();
            // The order of the rules of a chain matters.
            let number = fields.get("chain").filter(|_| kind == "rule").map(|chain| {
                let rule_count = rule_count_by_chain.entry(chain.to_string()).or_default();
                *rule_count += 1;
                format!(" {rule_count}")
            });
            lines.insert(format!("{kind}{} {properties}", number.unwrap_or_default()));
            let elements = elements.as_ref().and_then(Value::as_array).filter(|_| !is_dynamic);
            lines.extend(
                elements.into_iter().flatten().map(|element| format!("element of {name}: {element}")),
            );
        }
    }
    (!lines.is_empty()).then_some(lines)
}

/// Returns true if the line is an element of a former endpoint, or may be one. The requests to all Services fail if
/// an element of a current endpoint is missing.
fn may_be_former_endpoint(line: &str) -> bool {
    SETS_WITH_FORMER_ENDPOINTS.iter().any(|set| line.starts_with(&format!("element of \"{set}")))
}

fn describe_differences(before: &TableContent, after: &TableContent) -> Vec<String> {
    let removed_lines = before.difference(after).filter(|line| !may_be_former_endpoint(line));
    let removed_lines = removed_lines.map(|line| format!("removed {line}"));
    let added_lines = after.difference(before).map(|line| format!("added {line}"));
    let mut differences: Vec<_> = removed_lines.chain(added_lines).collect();
    differences.truncate(MAX_DIFFERENCES_IN_MESSAGE);
    differences
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table(elements: &Value, handle: u32) -> TableContent {
        let set = json!({ "set": { "name": "services4", "handle": handle, "elem": elements } });
        let affinity =
            json!({ "map": { "name": "affinity", "flags": ["timeout", "dynamic"], "elem": elements } });
        let text = json!({ "nftables": [{ "metainfo": { "version": "1" } }, set, affinity] }).to_string();
        parse_table(&text).unwrap()
    }

    #[test]
    fn order_of_elements_and_handles_are_ignored() {
        assert_eq!(table(&json!([1, 2]), 1), table(&json!([2, 1]), 2));
    }

    #[test]
    fn missing_element_is_a_difference() {
        let differences = describe_differences(&table(&json!([1, 2]), 1), &table(&json!([1]), 1));
        assert_eq!(differences, [r#"removed element of "services4": 2"#]);
    }
}
