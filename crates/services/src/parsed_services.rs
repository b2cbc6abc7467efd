//! The Services with their validated specs. A Service is validated again only if its settings have changed. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;

use crate::key::ServiceKey;
use crate::published::parse_published_addresses;
use crate::spec::{LoadBalancerSpec, ServiceDefaults, SpecError, is_eligible};

/// A Service and its validated spec.
#[derive(Clone, Debug)]
pub struct ParsedService {
    /// The namespace and name.
    pub key: ServiceKey,
    /// The Service. Its status may be absent.
    pub service: Arc<Service>,
    /// The addresses in the Service's status.
    pub published_addresses: Arc<[IpAddr]>,
    /// The spec, or the reason why it is invalid; `None` if Akrobateo does not serve the Service.
    pub spec: Option<Result<Arc<LoadBalancerSpec>, SpecError>>,
}

/// All Services with their specs, by key.
#[derive(Debug)]
pub struct ParsedServices {
    defaults: Arc<ServiceDefaults>,
    services: BTreeMap<ServiceKey, ParsedService>,
    /// The number of validations, for tests.
    #[cfg(any(test, feature = "fixtures"))]
    pub parse_count: usize,
}

/// The difference between two states of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServiceChange {
    /// The settings and the published addresses are the same.
    None,
    /// Only the published addresses differ.
    PublishedAddresses,
    /// The settings differ, or the Service is new, or it was deleted.
    Settings,
}

impl ParsedService {
    /// Validates a Service that has its status.
    #[must_use]
    pub fn from_service(service: &Arc<Service>, defaults: &ServiceDefaults) -> Self {
        Self::new(service.clone(), parse_published_addresses(service).collect(), defaults)
    }

    /// Validates a Service.
    #[must_use]
    pub fn new(
        service: Arc<Service>,
        published_addresses: Arc<[IpAddr]>,
        defaults: &ServiceDefaults,
    ) -> Self {
        let spec = is_eligible(&service, defaults.is_default_class)
            .then(|| LoadBalancerSpec::from_service(&service, defaults).map(Arc::new));
        Self { key: ServiceKey::from_service(&service), service, published_addresses, spec }
    }
}

impl ParsedServices {
    /// Returns an empty list.
    #[must_use]
    pub fn new(defaults: Arc<ServiceDefaults>) -> Self {
        Self {
            defaults,
            services: BTreeMap::new(),
            #[cfg(any(test, feature = "fixtures"))]
            parse_count: 0,
        }
    }

    /// Returns the defaults with which the Services were validated.
    #[must_use]
    pub const fn defaults(&self) -> &Arc<ServiceDefaults> {
        &self.defaults
    }

    /// Replaces the defaults, and validates all Services again.
    pub fn set_defaults(&mut self, defaults: Arc<ServiceDefaults>) {
        self.defaults = defaults;
        for parsed in std::mem::take(&mut self.services).into_values() {
            self.insert(parsed.key, parsed.service, parsed.published_addresses);
        }
    }

    /// Records the current state of a Service; `None` if the Service does not exist.
    pub fn update(&mut self, key: &ServiceKey, service: Option<&Arc<Service>>) -> ServiceChange {
        match (service, self.services.get(key)) {
            (Some(service), Some(previous)) if Arc::ptr_eq(service, &previous.service) => ServiceChange::None,
            (Some(service), _) => {
                let addresses = parse_published_addresses(service).collect();
                self.update_with_addresses(key, Some((service.clone(), addresses)))
            }
            (None, _) => self.update_with_addresses(key, None),
        }
    }

    /// Records the current state of a Service whose status is not in the object.
    pub fn update_with_addresses(
        &mut self,
        key: &ServiceKey,
        service: Option<(Arc<Service>, Arc<[IpAddr]>)>,
    ) -> ServiceChange {
        let Some((service, published_addresses)) = service else {
            let previous = self.services.remove(key);
            return if previous.is_some() { ServiceChange::Settings } else { ServiceChange::None };
        };
        match self.services.get_mut(key) {
            Some(previous) if has_same_settings(&previous.service, &service) => {
                // The previous object is dropped, because its status may need much memory.
                previous.service = service;
                if previous.published_addresses == published_addresses {
                    return ServiceChange::None;
                }
                previous.published_addresses = published_addresses;
                ServiceChange::PublishedAddresses
            }
            _ => {
                self.insert(key.clone(), service, published_addresses);
                ServiceChange::Settings
            }
        }
    }

    /// Removes the Services that do not exist.
    pub fn retain_existing(&mut self, exists: impl Fn(&ServiceKey) -> bool) {
        self.services.retain(|key, _| exists(key));
    }

    /// Returns the Service with this key.
    #[must_use]
    pub fn get(&self, key: &ServiceKey) -> Option<&ParsedService> {
        self.services.get(key)
    }

    /// Returns all Services, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = &ParsedService> + Clone {
        self.services.values()
    }

    fn insert(&mut self, key: ServiceKey, service: Arc<Service>, published_addresses: Arc<[IpAddr]>) {
        #[cfg(any(test, feature = "fixtures"))]
        {
            self.parse_count += 1;
        }
        let parsed = ParsedService::new(service, published_addresses, &self.defaults);
        self.services.insert(key, parsed);
    }
}

/// Returns true if all fields are equal that the validation and the port allocation read. They do not read the status,
/// so the operator's own status writes do not change these fields.
fn has_same_settings(service: &Service, other: &Service) -> bool {
    let (metadata, other_metadata) = (&service.metadata, &other.metadata);
    metadata.uid == other_metadata.uid
        && metadata.creation_timestamp == other_metadata.creation_timestamp
        && metadata.deletion_timestamp.is_some() == other_metadata.deletion_timestamp.is_some()
        && metadata.annotations == other_metadata.annotations
        && service.spec == other.spec
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{ServiceBuilder, defaults, key, service};

    fn update(services: &mut ParsedServices, service: ServiceBuilder) -> ServiceChange {
        services.update(&key("web"), Some(&Arc::new(service.build())))
    }

    fn port_count(services: &ParsedServices) -> usize {
        services.get(&key("web")).unwrap().spec.clone().unwrap().unwrap().frontends().len()
    }

    #[test]
    fn service_is_validated_only_after_a_change_of_its_settings() {
        let mut services = ParsedServices::new(Arc::new(defaults()));
        let web = || service("web").tcp(80);
        assert_eq!(update(&mut services, web()), ServiceChange::Settings);
        assert_eq!(update(&mut services, web()), ServiceChange::None);
        let published = || web().published("192.0.2.1", "VIP", "akrobateo");
        assert_eq!(update(&mut services, published()), ServiceChange::PublishedAddresses);
        assert_eq!(services.parse_count, 1);
        for (count, changed) in [
            (2, published().tcp(81)),
            (3, published().tcp(81).annotation("akrobateo.io/node-selector", "pool=edge")),
            (4, published().tcp(81).uid("new")),
            (5, published().tcp(81).uid("new").terminating()),
        ] {
            assert_eq!(update(&mut services, changed), ServiceChange::Settings);
            assert_eq!(services.parse_count, count);
        }
        assert!(services.get(&key("web")).unwrap().spec.is_none(), "it is being deleted");
        assert_eq!(services.update(&key("web"), None), ServiceChange::Settings);
        assert_eq!(services.update(&key("web"), None), ServiceChange::None);
        assert_eq!(services.iter().count(), 0);
    }

    #[test]
    fn new_defaults_apply_to_all_services() {
        let mut services = ParsedServices::new(Arc::new(defaults()));
        update(&mut services, service("web").tcp(80));
        assert_eq!(port_count(&services), 1);
        let reserved_ports = "80".parse().unwrap();
        services.set_defaults(Arc::new(ServiceDefaults { reserved_ports, ..defaults() }));
        assert!(matches!(services.get(&key("web")).unwrap().spec, Some(Err(SpecError::PortReserved(_)))));
    }

    #[test]
    fn newest_object_replaces_the_object_with_the_same_settings() {
        let mut services = ParsedServices::new(Arc::new(defaults()));
        let newest = Arc::new(service("web").tcp(80).published("192.0.2.1", "VIP", "akrobateo").build());
        update(&mut services, service("web").tcp(80));
        services.update(&key("web"), Some(&newest));
        let parsed = services.get(&key("web")).unwrap();
        assert!(Arc::ptr_eq(&parsed.service, &newest));
        assert_eq!(*parsed.published_addresses, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
    }
}
