//! The configuration of the operator that is deployed in the cluster. Pure.

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, Parser};
use k8s_openapi::api::core::v1::Container;

use crate::settings::OperatorConfig;

/// Returns the configuration of the operator in this container. The flags and environment variables of the local
/// command (`command_line_matches`) override this configuration.
pub(super) fn merge_operator_config(
    command_line_matches: &ArgMatches,
    container: &Container,
) -> Result<OperatorConfig, clap::Error> {
    let definition = OperatorConfig::command();
    let container_command_line =
        std::iter::once("akrobateo").chain(container.args.iter().flatten().map(String::as_str));
    let container_arg_matches = definition.clone().try_get_matches_from(container_command_line)?;
    let container_env_value = |name: &str| {
        let variable = container.env.iter().flatten().find(|variable| variable.name == name)?;
        variable.value.clone()
    };
    let mut merged_command_line = vec!["akrobateo".to_owned()];
    for argument in definition.get_arguments() {
        let id = argument.get_id().as_str();
        // A flag without an environment variable selects the cluster, and does not configure the operator.
        let (Some(flag), Some(env)) = (argument.get_long(), argument.get_env()) else { continue };
        let value =
            explicit_value(command_line_matches, id, &[ValueSource::CommandLine, ValueSource::EnvVariable])
                .or_else(|| explicit_value(&container_arg_matches, id, &[ValueSource::CommandLine]))
                .or_else(|| container_env_value(&env.to_string_lossy()));
        merged_command_line.extend(value.map(|value| format!("--{flag}={value}")));
    }
    OperatorConfig::try_parse_from(merged_command_line)
}

/// Returns the value of an argument if the value comes from one of these sources.
fn explicit_value(matches: &ArgMatches, id: &str, sources: &[ValueSource]) -> Option<String> {
    matches.value_source(id).filter(|source| sources.contains(source))?;
    let values = matches.get_raw(id)?.map(|value| value.to_string_lossy().into_owned());
    Some(values.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::EnvVar;

    use super::*;
    use crate::settings::ResolvedConfig;

    fn merge_configs(
        local_args: &[&str],
        operator_args: &[&str],
        operator_env: &[(&str, &str)],
    ) -> Result<OperatorConfig, clap::Error> {
        let command_line_matches = OperatorConfig::command()
            .try_get_matches_from(std::iter::once(&"akrobateo").chain(local_args))?;
        let variable = |&(name, value): &(&str, &str)| EnvVar {
            name: name.to_owned(),
            value: Some(value.to_owned()),
            value_from: None,
        };
        let container = Container {
            args: Some(operator_args.iter().map(|&arg| arg.to_owned()).collect()),
            env: Some(operator_env.iter().map(variable).collect()),
            ..Container::default()
        };
        merge_operator_config(&command_line_matches, &container)
    }

    #[test]
    fn local_flags_override_operator_flags_and_environment_variables() {
        let config = merge_configs(
            &["--lb-image=local"],
            &["--watch-namespace=flag"],
            &[
                ("LB_IMAGE", "variable"),
                ("WATCH_NAMESPACE", "variable"),
                ("ADDRESS_TYPES", "InternalIP,ExternalIP"),
                ("RUST_LOG", "debug"),
            ],
        );
        let config = config.unwrap();
        let ResolvedConfig { proxy_config, defaults } = config.resolve();
        assert_eq!((proxy_config.image.as_str(), config.watch_namespace()), ("local", Some("flag")));
        assert_eq!(
            defaults.address_types.first().map(|address_type| address_type.as_str()),
            Some("InternalIP")
        );
    }

    #[test]
    fn unknown_operator_flags_and_values_are_errors() {
        assert!(merge_configs(&[], &["--unknown-flag"], &[]).is_err());
        assert!(merge_configs(&[], &[], &[("IP_MODE", "unknown")]).is_err());
    }
}
