//! The settings of the operator in the cluster, for answers as it would give them. Pure.

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, Parser};
use k8s_openapi::api::core::v1::Container;

use crate::settings::OperatorConfig;

/// The settings of the operator in this container, but for those that were given `here`, by flag or environment.
pub(super) fn adopt(here: &ArgMatches, container: &Container) -> Result<OperatorConfig, clap::Error> {
    let definition = OperatorConfig::command();
    let own = std::iter::once("akrobateo").chain(container.args.iter().flatten().map(String::as_str));
    let theirs = definition.clone().try_get_matches_from(own)?;
    let variable = |name: &str| {
        let variable = container.env.iter().flatten().find(|variable| variable.name == name)?;
        variable.value.clone()
    };
    let mut line = vec!["akrobateo".to_owned()];
    for argument in definition.get_arguments() {
        let id = argument.get_id().as_str();
        // What has no variable says which cluster, not how to serve it.
        let (Some(long), Some(env)) = (argument.get_long(), argument.get_env()) else { continue };
        let value = said(here, id, &[ValueSource::CommandLine, ValueSource::EnvVariable])
            .or_else(|| said(&theirs, id, &[ValueSource::CommandLine]))
            .or_else(|| variable(&env.to_string_lossy()));
        line.extend(value.map(|value| format!("--{long}={value}")));
    }
    OperatorConfig::try_parse_from(line)
}

fn said(matches: &ArgMatches, id: &str, sources: &[ValueSource]) -> Option<String> {
    matches.value_source(id).filter(|source| sources.contains(source))?;
    let values = matches.get_raw(id)?.map(|value| value.to_string_lossy().into_owned());
    Some(values.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::EnvVar;

    use super::*;

    fn adopted(here: &[&str], args: &[&str], env: &[(&str, &str)]) -> Result<OperatorConfig, clap::Error> {
        let here =
            OperatorConfig::command().try_get_matches_from(std::iter::once(&"akrobateo").chain(here))?;
        let variable = |&(name, value): &(&str, &str)| EnvVar {
            name: name.to_owned(),
            value: Some(value.to_owned()),
            value_from: None,
        };
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        adopt(
            &here,
            &Container {
                args: Some(args),
                env: Some(env.iter().map(variable).collect()),
                ..Container::default()
            },
        )
    }

    #[test]
    fn what_is_said_here_goes_before_the_operators_flags_and_those_before_its_variables() {
        let settings = adopted(
            &["--lb-image=here"],
            &["--watch-namespace=flag"],
            &[
                ("LB_IMAGE", "variable"),
                ("WATCH_NAMESPACE", "variable"),
                ("ADDRESS_TYPES", "InternalIP,ExternalIP"),
                ("RUST_LOG", "debug"),
            ],
        );
        let settings = settings.unwrap();
        assert_eq!((settings.lb_image.as_str(), settings.watched()), ("here", Some("flag")));
        let types = settings.defaults(crate::spec::IpMode::Vip).address_types;
        assert_eq!(types.first().map(|kind| kind.as_str()), Some("InternalIP"));
    }

    #[test]
    fn an_operator_with_settings_unknown_here_is_an_error_and_no_guess() {
        assert!(adopted(&[], &["--of-tomorrow"], &[]).is_err());
        assert!(adopted(&[], &[], &[("IP_MODE", "tomorrow")]).is_err());
    }
}
