//! The writes of the operator, from the audit log of the API server. Only [`read_writes`] does I/O.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::error::{Context, ScaleError};

/// The number of writes by verb and resource, for example `patch services/status`. Writes of Leases are not counted.
pub(crate) type Writes = BTreeMap<String, usize>;

/// Reads all writes of the operator since the start of the API server, except the writes of its Lease.
pub(crate) fn read_writes(audit_log: &Path) -> Result<Writes, ScaleError> {
    Ok(count_writes(&fs::read_to_string(audit_log).context("the audit log")?))
}

/// Returns the writes after an earlier count.
pub(crate) fn writes_since(writes: &Writes, earlier: &Writes) -> Writes {
    let difference = |(name, count): (&String, &usize)| {
        let count = count.saturating_sub(earlier.get(name).copied().unwrap_or_default());
        (count > 0).then(|| (name.clone(), count))
    };
    writes.iter().filter_map(difference).collect()
}

fn count_writes(log: &str) -> Writes {
    let mut writes = Writes::new();
    for event in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let reference = &event["objectRef"];
        let (resource, subresource) = (text(&reference["resource"]), text(&reference["subresource"]));
        if resource == "leases" {
            continue;
        }
        let separator = if subresource.is_empty() { "" } else { "/" };
        *writes.entry(format!("{} {resource}{separator}{subresource}", text(&event["verb"]))).or_default() +=
            1;
    }
    writes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_of_the_lease_are_not_counted() {
        let event = |verb: &str, resource: &str, subresource: &str| {
            format!(
                r#"{{"verb":"{verb}","objectRef":{{"resource":"{resource}","subresource":"{subresource}"}}}}"#
            )
        };
        let first = [event("update", "leases", ""), event("patch", "services", "status")].join("\n");
        let second =
            [&*first, &event("patch", "services", "status"), &event("create", "events", "")].join("\n");
        let writes = writes_since(&count_writes(&second), &count_writes(&first));
        let expected = [("create events".to_owned(), 1), ("patch services/status".to_owned(), 1)];
        assert_eq!(writes, Writes::from(expected));
    }
}
