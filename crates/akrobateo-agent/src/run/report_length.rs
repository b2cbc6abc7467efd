//! Limits the length of the agent's report, because an annotation of a Lease has a maximum length. Pure.

use akrobateo_services::agent_report::{AgentReport, PortProblem};

/// The maximum length of a report, in bytes of JSON. The annotations of an object have at most 256 KiB
/// (`TotalAnnotationSizeLimitB` in k8s.io/apimachinery, `pkg/api/validation`).
const MAX_REPORT_LENGTH: usize = 240 * 1024;

/// The length of the JSON syntax around an element of a list: two quotes and a comma.
const SYNTAX_LENGTH: usize = 3;

/// Returns the report with at most [`MAX_REPORT_LENGTH`] bytes.
///
/// A report that is too long has the ports of only some refused Services, and the names of the others. If there is no
/// space for all names, the report contains an error: the operator would publish the node for a Service without a name.
pub(super) fn limit_length(mut report: AgentReport) -> AgentReport {
    if json_length(&report) <= MAX_REPORT_LENGTH {
        return report;
    }
    let problems = std::mem::take(&mut report.refused_ports);
    let mut free_length = MAX_REPORT_LENGTH.saturating_sub(json_length(&report));
    let max_length_of_names = free_length / 2;
    let problems_by_service: Vec<_> =
        problems.chunk_by(|problem, next| problem.service == next.service).collect();
    for (index, service_problems) in problems_by_service.iter().enumerate() {
        let length = service_problems.iter().map(problem_length).sum();
        let is_short_enough = free_length.saturating_sub(length) >= max_length_of_names;
        if is_short_enough && report.refused_services.is_empty() {
            free_length -= length;
            report.refused_ports.extend_from_slice(service_problems);
            continue;
        }
        let name = &service_problems[0].service;
        let length = name.len() + SYNTAX_LENGTH;
        if free_length < length {
            report.error = Some(format!(
                "the node refuses {} Services because of their ports, but the report has space for only {index}; use other \
                 ports or other nodes, or delete Services",
                problems_by_service.len()
            ));
            break;
        }
        free_length -= length;
        report.refused_services.push(name.clone());
    }
    report
}

fn json_length(report: &AgentReport) -> usize {
    // The conversion of these types to JSON cannot fail.
    report.to_json().map_or(0, |json| json.len())
}

fn problem_length(problem: &PortProblem) -> usize {
    serde_json::to_string(problem).map_or(0, |json| json.len()) + SYNTAX_LENGTH
}

#[cfg(test)]
mod tests {
    use akrobateo_services::agent_report::PortOwner;

    use super::*;

    /// Returns the report of a node that refuses three ports of each Service.
    fn report(service_count: usize, name_length: usize) -> AgentReport {
        let problem = |service: usize, port: usize| PortProblem {
            service: format!("default/web-{service:0>name_length$}"),
            port: format!("{}/TCP", 80 + port),
            owner: PortOwner::Service("shop/web".to_owned()),
        };
        let refused_ports =
            (0..service_count).flat_map(|service| (0..3).map(move |port| problem(service, port)));
        AgentReport { refused_ports: refused_ports.collect(), ..AgentReport::default() }
    }

    #[test]
    fn short_report_stays_the_same() {
        assert_eq!(limit_length(report(100, 4)), report(100, 4));
    }

    #[test]
    fn long_report_names_all_refused_services() {
        let long_report = report(3_000, 4);
        let limited_report = limit_length(long_report.clone());
        assert!(json_length(&limited_report) <= MAX_REPORT_LENGTH);
        assert_eq!(limited_report.all_refused_services(), long_report.all_refused_services());
        assert!(limited_report.refused_ports.len() > 900, "{}", limited_report.refused_ports.len());
        assert_eq!(limited_report.error, None);
    }

    #[test]
    fn report_without_space_for_all_names_contains_an_error() {
        let limited_report = limit_length(report(3_000, 60));
        assert!(json_length(&limited_report) <= MAX_REPORT_LENGTH + 200);
        let error = limited_report.error.unwrap();
        assert!(error.contains("refuses 3000 Services") && error.contains("for only"), "{error}");
    }
}
