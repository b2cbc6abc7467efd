//! Tests of the commands of the program.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use akrobateo_core::{Family, Protocol};
use netns_testkit::isolated;
use netns_testkit::laboratory::Options;

use crate::cluster::Cluster;

const CONFIG: &str = r#"{
  "node": { "number": 1, "name": "node1", "addresses": ["10.99.0.11", "fd99::11"], "uplink": "eth0" },
  "podRanges": ["10.244.0.0/16", "fd44::/16"],
  "services": [{
    "name": "default/web", "ipFamilies": ["IPv4"],
    "ports": [{ "protocol": "TCP", "port": 80, "endpoints": [{ "address": "10.244.1.10:8080", "node": 1 }] }]
  }]
}"#;

fn run(cluster: &Cluster, arguments: &[&str], input: &str) -> Output {
    cluster.laboratory.node(1).namespace.run(|| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_akrobateo-agent"));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    })
}

#[test]
fn commands_apply_show_and_remove_a_configuration() {
    isolated(|| {
        let cluster = Cluster::new(&Options::default(), None);
        let stdout_text = |output: Output| {
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        assert!(stdout_text(run(&cluster, &["show"], "")).contains("no data path"));
        stdout_text(run(&cluster, &["apply", "--config", "-"], CONFIG));
        let answer = cluster.request(&cluster.laboratory.client, Protocol::Tcp, Family::V4, 1).unwrap();
        assert_eq!(answer.backend, "n1p1");
        assert_eq!(
            stdout_text(run(&cluster, &["show"], "")),
            "default/web: tcp 10.99.0.11:80 -> 10.244.1.10:8080; 1 flows, 0 refused\n"
        );
        stdout_text(run(&cluster, &["cleanup"], ""));
        assert!(stdout_text(run(&cluster, &["show"], "")).contains("no data path"));
    });
}

#[test]
fn invalid_configuration_is_rejected_and_changes_nothing() {
    isolated(|| {
        let cluster = Cluster::new(&Options::default(), None);
        let invalid_config = CONFIG.replace("\"eth0\"", "\"\"");
        let output = run(&cluster, &["apply", "--config", "-"], &invalid_config);
        assert!(!output.status.success());
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.starts_with("error: -: node.uplink is \"\"; expected the name"), "{error}");
        assert!(String::from_utf8(run(&cluster, &["show"], "").stdout).unwrap().contains("no data path"));
        let output = run(&cluster, &["apply", "--config", "/missing"], "");
        assert!(String::from_utf8(output.stderr).unwrap().contains("cannot read the configuration /missing"));
    });
}
